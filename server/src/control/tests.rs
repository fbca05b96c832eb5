//! The socket's file, its bounds, and what a client makes of answers that are not whole.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};

use super::client::{AskError, Client, Content};
use super::protocol::Kind;
use super::*;
use crate::counters::Counters;
use crate::settings::Settings;

/// A socket that is served, in a directory of its own.
struct Served {
    directory: tempfile::TempDir,
    node: Arc<Node>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    fn begin() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = bind(&directory.path().join("warren.sock")).expect("a socket");
        let settings = Settings { data_dir: directory.path().into(), ..Settings::default() };
        let (recorder, _) = crate::metrics::recorder();
        let node = Arc::new(Node::in_memory(settings, Counters::new(&recorder)));
        node.broker.bootstrap("/", "guest", b"guest").expect("an empty broker");
        let (stop, stopping) = watch::channel(false);
        let addresses = BoundAddresses::default();
        let served = serve(Arc::clone(&node), listener, stopping, addresses, stop.clone());
        Self { directory, node, stop, task: tokio::spawn(served) }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("warren.sock")
    }

    async fn ask(&self, request: Request) -> Result<Content, Refused> {
        let client = Client::new(self.socket(), Some(Duration::from_secs(30)));
        let asked = tokio::task::spawn_blocking(move || client.ask(&request)).await;
        asked.expect("no panic").expect("an answer").content
    }

    /// Sends `octets` as they are and gives all that comes back.
    async fn say(&self, octets: Vec<u8>) -> String {
        let socket = self.socket();
        let said = tokio::task::spawn_blocking(move || {
            let mut stream = StdStream::connect(socket).expect("connected");
            // The broker may hang up before it has read all.
            stream.write_all(&octets).ok();
            let mut answer = Vec::new();
            // A reset is the end as well.
            stream.read_to_end(&mut answer).ok();
            String::from_utf8_lossy(&answer).into_owned()
        });
        said.await.expect("no panic")
    }
}

fn queues(columns: &[&str]) -> Request {
    Request::List {
        of: Kind::Queues,
        vhost: None,
        user: None,
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
    }
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_the_broker() {
    let served = Served::begin();
    let mode = std::fs::metadata(served.socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    served.stop.send_replace(true);
    served.task.await.expect("it ends");
    assert!(!served.directory.path().join("warren.sock").exists());
}

#[tokio::test]
async fn a_directory_that_is_missing_is_made_private() {
    let directory = tempfile::tempdir().expect("a directory");
    let inner = directory.path().join("run/warren");
    bind(&inner.join("warren.sock")).expect("a socket");
    let mode = std::fs::metadata(&inner).expect("a directory").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn the_socket_of_a_dead_broker_is_replaced_and_that_of_a_live_one_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("warren.sock");
    drop(StdListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "closing a socket leaves its file");
    let living = bind(&path).expect("the dead one is replaced");
    let error = bind(&path).expect_err("somebody lives there");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("warren ctl stop"), "{error}");
    drop(living);
}

#[tokio::test]
async fn what_is_not_a_socket_is_not_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("warren.sock");
    std::fs::write(&path, "precious").expect("a file");
    let error = bind(&path).expect_err("a file in the way");
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
}

#[tokio::test]
async fn a_directory_where_everybody_may_write_is_refused_unless_it_is_sticky() {
    let directory = tempfile::tempdir().expect("a directory");
    for (mode, fine) in [(0o777, false), (0o1777, true), (0o755, true)] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(directory.path(), permissions).expect("set");
        let bound = bind(&directory.path().join(format!("{mode:o}.sock")));
        assert_eq!(bound.is_ok(), fine, "{mode:o}: {bound:?}");
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_and_do_no_harm() {
    let served = Served::begin();
    let long = [vec![b'x'; REQUEST_LEN_MAX + 1], b"\n".to_vec()].concat();
    for (octets, expected) in [
        (b"{}\n".to_vec(), "does not know this request"),
        (b"\xff\xfe\n".to_vec(), "does not know this request"),
        (b"{\"command\":\"reboot\"}\n".to_vec(), "reboot"),
        (b"{\"command\":\"ping\",\"loud\":true}\n".to_vec(), "loud"),
    ] {
        let answer = served.say(octets).await;
        assert!(answer.contains("refused") && answer.contains(expected), "{answer}");
    }
    // It may be cut off before it has read the refusal; nothing was done either way.
    let answer = served.say(long).await;
    assert!(answer.is_empty() || answer.contains("at most 65536 octets"), "{answer}");
    assert_eq!(served.ask(Request::Ping {}).await, Ok(Content::Value(serde_json::Value::Null)));
}

#[tokio::test]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let served = Served::begin();
    let mut silent = UnixStream::connect(served.socket()).await.expect("connected");
    let mut answer = Vec::new();
    let read = timeout(REQUEST_TIMEOUT * 3, silent.read_to_end(&mut answer)).await;
    read.expect("the broker hangs up").expect("in order");
    assert!(answer.is_empty());
}

#[tokio::test]
async fn a_list_has_the_columns_asked_for_or_says_which_there_are() {
    let served = Served::begin();
    let Ok(Content::Rows(rows)) = served.ask(queues(&[])).await else { panic!("a list") };
    assert_eq!(rows.columns, ["name", "messages"]);
    let near = served.ask(queues(&["name", "mesages"])).await.expect_err("no such column");
    assert_eq!(near.kind, Refusal::Usage);
    assert!(near.message.contains("did you mean 'messages'?"), "{near}");
    let absent = served.ask(queues(&["memory"])).await.expect_err("no value for it");
    assert!(absent.message.contains("has no value for the column 'memory'"), "{absent}");
}

#[tokio::test]
async fn passwords_have_the_length_that_the_settings_ask_for() {
    let served = Served::begin();
    let add = |password: &str| Request::AddUser {
        user: "alice".into(),
        password: protocol::Password(password.into()),
    };
    let refused = served.ask(add("")).await.expect_err("too short");
    assert!(refused.message.contains("auth.min_password_length"), "{refused}");
    served.ask(add("secret")).await.expect("added");
    let again = served.ask(add("secret")).await.expect_err("there is one");
    assert_eq!(again.kind, Refusal::Conflict);
    assert!(served.node.broker.access.user("alice").is_some());
}

#[tokio::test]
async fn stop_is_answered_before_it_is_passed_on() {
    let served = Served::begin();
    let mut stopping = served.stop.subscribe();
    served.ask(Request::Stop {}).await.expect("an answer");
    stopping.wait_for(|stop| *stop).await.expect("passed on");
    served.task.await.expect("it ends");
}

/// A broker that answers `octets`, whatever it is asked.
fn liar(octets: &'static [u8]) -> (tempfile::TempDir, Client) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("warren.sock");
    let listener = StdListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(&stream), &mut request).expect("a request");
        stream.write_all(octets).expect("an answer");
    });
    (directory, Client::new(path, Some(Duration::from_secs(30))))
}

#[test]
fn a_list_that_is_cut_short_is_not_taken_for_the_whole() {
    for octets in [
        &b""[..],
        b"{\"node\":\"n\",\"colu",
        b"{\"node\":\"n\",\"columns\":[\"a\"]}\n[1]\n",
        b"{\"node\":\"n\",\"columns\":[\"a\"]}\n[1]\n{\"rows\":2}\n",
        b"{\"node\":\"n\",\"columns\":[\"a\"]}\n[1,2]\n{\"rows\":1}\n",
    ] {
        let (_directory, client) = liar(octets);
        let error = client.ask(&Request::Ping {}).expect_err("not whole");
        assert!(matches!(error, AskError::Cut { .. }), "{error}");
    }
    let (_directory, client) = liar(b"{\"node\":\"n\",\"columns\":[\"a\"]}\n[1]\n{\"rows\":1}\n");
    assert!(matches!(client.ask(&Request::Ping {}), Ok(received) if received.node == "n"));
}

#[test]
fn a_broker_that_does_not_answer_in_time_is_told_from_one_that_is_not_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("warren.sock");
    let nobody = Client::new(path.clone(), Some(Duration::from_secs(1)));
    assert!(matches!(nobody.ask(&Request::Ping {}), Err(AskError::Nobody { .. })));
    let _silent = StdListener::bind(&path).expect("a socket");
    let late = Client::new(path, Some(Duration::from_millis(20)));
    assert!(matches!(late.ask(&Request::Ping {}), Err(AskError::Late { .. })));
}
