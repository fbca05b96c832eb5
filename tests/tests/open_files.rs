//! The real binary with few open files: whom it lets in, and what still works when all that it turns away hold on.

#![expect(clippy::unwrap_used, reason = "a test says with a panic that it has failed")]

use std::fs;

use proto_stomp::{Command, OwnedFrame};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep, timeout};
use warren_tests::process::{Place, WarrenProcess};
use warren_tests::{DEADLINE, stomp};

/// Connections of a broker with 96 open files: the others are its own, or of those who are told.
const ROOM: usize = 30;

/// Far more than the broker could hold on to.
const REFUSED: usize = 150;

/// Those who have a seat and do not log in keep it for as long as a test may take.
const SETTINGS: [&str; 2] = ["metrics.listen=127.0.0.1:0", "stomp.login_timeout=600s"];

/// Clients that take all seats, the first of them logged in.
async fn fill(broker: &WarrenProcess) -> Vec<stomp::Peer> {
    let mut inside = vec![broker.stomp().await];
    while inside.len() < ROOM {
        inside.push(stomp::Peer::connect(broker.address("stomp")).await);
    }
    inside
}

/// A place where brokers may have so many open files.
fn with_open_files(count: u32) -> (TempDir, Place) {
    let directory = TempDir::with_prefix("warren-files-").unwrap();
    let mut place = Place::new(&directory.path().join("data"));
    let script = format!("ulimit -n {count} && exec \"$0\" \"$@\"");
    place.wrapper = ["sh", "-c", &script].map(Into::into).into();
    (directory, place)
}

fn open_files(broker: &WarrenProcess) -> usize {
    let pid = broker.status().pointer("/pid").unwrap().as_u64().unwrap();
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Lines of the log with these words.
fn lines(broker: &WarrenProcess, words: &str) -> usize {
    broker.log().lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn those_who_are_turned_away_take_nothing_from_the_broker() {
    let (_directory, place) = with_open_files(96);
    let broker = WarrenProcess::start_at(&place, &SETTINGS).await;
    let mut inside = fill(&broker).await;
    let since = Instant::now();
    let mut outside = Vec::new();
    for _ in 0..REFUSED {
        let mut stream = TcpStream::connect(broker.address("stomp")).await.unwrap();
        // Fails where it is closed already.
        stream.write_all(b"CONNECT\naccept-version:1.2\n\n\0").await.ok();
        outside.push(stream);
    }
    // Within the second in which some of them are still being told.
    assert!(open_files(&broker) <= 92, "{} are open", open_files(&broker));
    assert!(broker.ctl(&["list_vhosts"]).status.success());
    let mut metrics = TcpStream::connect(broker.address("metrics")).await.unwrap();
    metrics.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut page = String::new();
    timeout(DEADLINE, metrics.read_to_string(&mut page)).await.unwrap().unwrap();
    assert!(page.starts_with("HTTP/1.0 200"), "{page}");
    let send = OwnedFrame::new(Command::Send).header("destination", "/queue/q");
    let peer = inside.first_mut().unwrap();
    peer.send(&send.header("persistent", "true").header("receipt", "kept").body("x")).await;
    peer.expect_receipt("kept").await;

    let mut told = 0;
    for mut stream in outside {
        let mut words = Vec::new();
        // An end, in order or not, and before it the words where there was time for them.
        timeout(DEADLINE, stream.read_to_end(&mut words)).await.unwrap().ok();
        let words = String::from_utf8_lossy(&words);
        told += usize::from(words.contains("node connection limit (30) is reached"));
        assert!(words.is_empty() || words.starts_with("ERROR\n"), "{words}");
    }
    assert!(told > REFUSED / 2, "{told} were told why");
    let seconds = usize::try_from(since.elapsed().as_secs()).unwrap();
    let refusals = lines(&broker, "this one is turned away");
    assert!((1..=seconds + 1).contains(&refusals), "{refusals} in {seconds} s: {}", broker.log());
    assert_eq!(lines(&broker, "cannot"), 0, "{}", broker.log());

    // Room again is room at once.
    inside.clear();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut peer = stomp::Peer::connect(broker.address("stomp")).await;
        peer.send(&OwnedFrame::new(Command::Connect).header("accept-version", "1.2")).await;
        if peer.next().await.command == Command::Connected {
            break;
        }
        assert!(Instant::now() < deadline, "nobody comes in: {}", broker.log());
        sleep(Duration::from_millis(10)).await;
    }
    // The line of the next second, whatever it is, says how many had none.
    let others = async {
        while lines(&broker, "left_out=") == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, others).await.unwrap();
}

#[tokio::test]
async fn a_number_of_connections_without_room_is_warned_about_and_not_let_in() {
    let (_directory, place) = with_open_files(96);
    let broker = WarrenProcess::start_at(&place, &["limits.connections=500", SETTINGS[1]]).await;
    assert_eq!(lines(&broker, "limits.connections is 500"), 1, "{}", broker.log());
    let _inside = fill(&broker).await;
    let mut peer = stomp::Peer::connect(broker.address("stomp")).await;
    peer.expect_error("not_allowed").await;
}

#[tokio::test]
async fn too_few_open_files_are_refused_in_words() {
    let (_directory, place) = with_open_files(64);
    let refused = WarrenProcess::try_start_at(&place, &[]).await.unwrap_err();
    assert_eq!(refused.status.code(), Some(78));
    for words in ["may have 64 open files", "needs 96", "LimitNOFILE"] {
        assert!(refused.log.contains(words), "{words} in {}", refused.log);
    }
}
