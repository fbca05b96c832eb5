//! The real binary as a process: signals, the exit code, who may open its socket, what systemd hears.

#![expect(clippy::unwrap_used, reason = "a test says with a panic that it has failed")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use proto_amqp::Version;
use rustls::version::TLS13;
use tempfile::TempDir;
use tokio::time::{Duration, sleep};
use warren_tests::amqp::{Options, Peer};
use warren_tests::certificates::{Authority, Client};
use warren_tests::process::{WarrenProcess, binary};
use warren_tests::{DEADLINE, eventually};

const GOODBYE: &str = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";

/// Nobody waits so long for a broker to end: one that takes all the time it may have is found out.
const LONG_DRAIN: &str = "drain_timeout=10m";

#[tokio::test]
async fn sigterm_says_goodbye_in_each_protocol_and_exits_with_0() {
    let mut broker = WarrenProcess::start(&[LONG_DRAIN]).await;
    let mut amqp = broker.amqp().await;
    amqp.declare(1, "q").await;
    amqp.consume(1, "q", "tag").await;
    let mut stomp = broker.stomp().await;
    broker.signal("TERM");
    amqp.expect_connection_error(320, GOODBYE, (0, 0)).await;
    let error = stomp.expect_error("connection_forced").await;
    assert_eq!(String::from_utf8_lossy(&error.body), GOODBYE);
    let status = broker.exit().await;
    assert_eq!(status.code(), Some(0), "{status}: {}", broker.log());
    for left in ["addresses.json", "warren.sock"] {
        assert!(!broker.data_dir().join(left).exists(), "{left} is left behind");
    }
}

#[tokio::test]
async fn clients_that_do_not_answer_do_not_hold_up_sigterm_or_sigint() {
    for signal in ["TERM", "INT"] {
        let mut broker = WarrenProcess::start(&[LONG_DRAIN]).await;
        let _mute = (broker.amqp().await, broker.stomp().await);
        let mut stranger = Peer::connect(broker.address("amqp"), Version::V0_9_1).await;
        stranger.start().await;
        broker.signal(signal);
        let status = broker.exit().await;
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
    }
}

/// A broker with AMQP over TLS, the authority that signed its certificate, and where the files are.
async fn secured() -> (WarrenProcess, Authority, TempDir) {
    let directory = TempDir::with_prefix("warren-tls-").unwrap();
    let authority = Authority::new();
    let files = authority.write_server(directory.path());
    let certificate = format!("tls.certificate={}", files.certificate.display());
    let key = format!("tls.key={}", files.key.display());
    let broker = WarrenProcess::start(&["amqp.tls.listen=127.0.0.1:0", &certificate, &key]).await;
    (broker, authority, directory)
}

/// Whether a client that trusts `authority` gets in.
async fn trusts(authority: &Authority, broker: &WarrenProcess) -> bool {
    let client = Client { authority, version: &TLS13, identity: None };
    client.connect(broker.address("amqps")).await.is_ok()
}

async fn log_in(authority: &Authority, broker: &WarrenProcess) -> Peer {
    let client = Client { authority, version: &TLS13, identity: None };
    let stream = client.connect(broker.address("amqps")).await.unwrap();
    let mut peer = Peer::over(stream, Version::V0_9_1);
    peer.log_in(&Options::default()).await;
    peer.open_channel(1).await;
    peer
}

#[tokio::test]
async fn sighup_reads_new_certificates_and_nobody_loses_his_connection() {
    let (broker, authority, directory) = secured().await;
    let mut before = log_in(&authority, &broker).await;
    let successor = Authority::new();
    assert!(successor.write_server(directory.path()).certificate.exists());
    assert!(!trusts(&successor, &broker).await, "not before it is told");
    broker.signal("HUP");
    eventually("the new certificate is shown", async || trusts(&successor, &broker).await).await;
    assert!(!trusts(&authority, &broker).await, "the old one is still shown");
    before.expect_nothing(1).await;
    log_in(&successor, &broker).await.close().await;
    before.close().await;
}

#[tokio::test]
async fn a_bad_certificate_is_one_line_in_the_log_and_the_old_one_stays() {
    let (broker, authority, directory) = secured().await;
    let certificate = directory.path().join("server.pem");
    fs::write(&certificate, "no certificate at all").unwrap();
    let before = broker.log().lines().count();
    broker.signal("HUP");
    let said = || broker.log().lines().skip(before).map(str::to_owned).collect::<Vec<_>>();
    let is_error = |line: &String| line.contains("ERROR");
    eventually("the log says so", async || said().iter().any(is_error)).await;
    log_in(&authority, &broker).await.close().await;
    let said: Vec<_> = said().into_iter().filter(|line| !line.contains(" INFO ")).collect();
    assert!(said.len() == 1 && is_error(&said[0]) && said[0].contains("server.pem"), "{said:#?}");
    // And a good one is taken afterwards.
    let successor = Authority::new();
    assert_eq!(successor.write_server(directory.path()).certificate, certificate);
    broker.signal("HUP");
    eventually("the new certificate is shown", async || trusts(&successor, &broker).await).await;
}

/// Runs `warren ctl ping` from `binary` as `nobody`; `None`, with the reason printed, when this process may not.
fn ping_as_nobody(binary: &Path, socket: &Path) -> Option<Output> {
    const NOBODY: u32 = 65534;
    let own = fs::metadata("/proc/self").unwrap().uid();
    if own != 0 {
        eprintln!("not tried: only root can become somebody else, and this is uid {own}");
        return None;
    }
    let mut command = Command::new(binary);
    command.args(["ctl", "ping", "--socket"]).arg(socket).current_dir("/").stdin(Stdio::null());
    match command.uid(NOBODY).gid(NOBODY).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("not tried: cannot run a program as uid {NOBODY}: {error}");
            None
        }
    }
}

#[tokio::test]
async fn the_control_socket_answers_nobody_but_root_and_its_own_user() {
    let broker = WarrenProcess::start(&[]).await;
    assert!(broker.ctl(&["ping"]).status.success());
    // Where everybody can execute it.
    let directory = TempDir::with_prefix("warren-binary-").unwrap();
    let copy = directory.path().join("warren");
    fs::copy(binary(), &copy).unwrap();
    for path in [directory.path(), &copy] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let socket = broker.socket();
    let Some(closed) = ping_as_nobody(&copy, &socket) else { return };
    let said = String::from_utf8_lossy(&closed.stderr);
    assert_eq!(closed.status.code(), Some(69), "{said}");
    assert!(said.contains("may not open"), "{said}");
    // Even if somebody has opened directory and socket to all.
    fs::set_permissions(broker.data_dir(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let refused = ping_as_nobody(&copy, &socket).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(69), "{said}");
    assert!(said.contains("only root and the user that the broker runs as"), "{said}");
    assert!(broker.log().contains("refused a client of the control socket"), "{}", broker.log());
    assert!(broker.ctl(&["ping"]).status.success());
}

#[tokio::test]
async fn the_log_level_changes_on_request_and_sighup_brings_it_back() {
    let broker = WarrenProcess::start(&["log.level=warn"]).await;
    let debug_lines = || broker.log().matches("DEBUG").count();
    broker.stomp().await;
    assert_eq!(debug_lines(), 0, "{}", broker.log());
    let set = broker.ctl(&["set_log_level", "debug"]);
    assert_eq!(String::from_utf8_lossy(&set.stdout), "Setting log level to \"debug\" ...\n");
    assert!(set.status.success(), "{set:?}");
    broker.stomp().await;
    eventually("the login is logged", async || debug_lines() > 0).await;
    let refused = broker.ctl(&["set_log_level", "loud"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(said.contains("\"loud\" is not a log level"), "{said}");
    broker.signal("HUP");
    eventually("the level is back", async || {
        // Silence alone would say nothing: the line may be late.
        let before = debug_lines();
        broker.stomp().await;
        sleep(Duration::from_millis(50)).await;
        debug_lines() == before
    })
    .await;
}

#[tokio::test]
async fn systemd_hears_how_the_broker_is_from_start_to_stop() {
    let directory = TempDir::with_prefix("warren-notify-").unwrap();
    let path = directory.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut broker = WarrenProcess::with(&[], |command| {
        command.env("NOTIFY_SOCKET", &path);
    })
    .await;
    let hear = || {
        let mut octets = [0; 256];
        let len = systemd.recv(&mut octets).unwrap();
        String::from_utf8_lossy(&octets[..len]).into_owned()
    };
    assert_eq!(hear(), "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=starting");
    // On a busy machine it may take long, and then says how far it is.
    let mut then = hear();
    while let Some(status) = then.strip_prefix("EXTEND_TIMEOUT_USEC=30000000\nSTATUS=") {
        assert!(status.contains("store"), "{status}");
        then = hear();
    }
    assert_eq!(then, "READY=1\nSTATUS=ready");
    broker.signal("HUP");
    assert_eq!(hear(), "RELOADING=1");
    assert_eq!(hear(), "READY=1\nSTATUS=ready");
    broker.signal("TERM");
    assert_eq!(hear(), "STOPPING=1\nSTATUS=saying goodbye to clients");
    assert!(broker.exit().await.success());
}
