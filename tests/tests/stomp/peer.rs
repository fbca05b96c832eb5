//! A scripted peer that can be rude.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// How long anything may take. Long, because a test that waits for it has failed.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct Peer {
    stream: TcpStream,
    /// Octets that have arrived and are no frame yet.
    buffer: Vec<u8>,
    /// What CONNECTED called the session.
    pub(super) session: String,
    /// What was sent and received, for whoever reads why a test failed.
    transcript: String,
}

impl Peer {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new(), session: String::new(), transcript: String::new() }
    }

    fn note(&mut self, who: &str, octets: &[u8]) {
        writeln!(self.transcript, "{who} {}", octets.escape_ascii()).unwrap();
    }

    pub(super) async fn send(&mut self, text: &str) {
        self.send_octets(text.as_bytes()).await;
    }

    pub(super) async fn send_octets(&mut self, octets: &[u8]) {
        self.note(">", octets);
        self.stream.write_all(octets).await.unwrap();
    }

    /// Sends nothing more, and goes on reading.
    pub(super) async fn finish_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Sends as much of `octets` as the broker takes before the end of the connection.
    pub(super) async fn try_send_octets(&mut self, octets: &[u8]) {
        self.note(">", octets.get(..100).unwrap_or(octets));
        self.stream.write_all(octets).await.ok();
    }

    /// Reads what has arrived; `false` at the end of the connection.
    async fn read(&mut self) -> bool {
        let mut octets = [0; 4096];
        let read = timeout(DEADLINE, self.stream.read(&mut octets)).await;
        let count = match read {
            Ok(Ok(count)) => count,
            // A reset is an end too.
            Ok(Err(_)) => 0,
            Err(_) => panic!("nothing has come for {DEADLINE:?}\n{}", self.transcript),
        };
        self.note("<", &octets[..count]);
        self.buffer.extend_from_slice(&octets[..count]);
        count > 0
    }

    /// The next octet, whatever it is.
    pub(super) async fn octet(&mut self) -> u8 {
        while self.buffer.is_empty() {
            assert!(self.read().await, "the connection has ended\n{}", self.transcript);
        }
        self.buffer.remove(0)
    }

    /// The next frame's octets, without its end.
    pub(super) async fn frame(&mut self) -> Vec<u8> {
        loop {
            if let Some((frame, len)) = whole_frame(&self.buffer) {
                let frame = frame.to_vec();
                self.buffer.drain(..len);
                return frame;
            }
            assert!(self.read().await, "the connection has ended\n{}", self.transcript);
        }
    }

    /// The next frame as text, the session's identifier replaced by `S`.
    pub(super) async fn next(&mut self) -> String {
        let frame = String::from_utf8(self.frame().await).unwrap();
        if frame.starts_with("CONNECTED\n") {
            let session = frame.lines().find_map(|line| line.strip_prefix("session:"));
            session.unwrap_or_default().clone_into(&mut self.session);
        }
        if self.session.is_empty() { frame } else { frame.replace(&self.session, "S") }
    }

    /// Expects a frame, word for word.
    #[track_caller]
    pub(super) fn expect(&mut self, expected: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.next().await;
            assert_eq!(frame, expected, "at {caller}\n{}", self.transcript);
        }
    }

    #[track_caller]
    pub(super) fn expect_receipt(&mut self, receipt: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.next().await;
            let expected = format!("RECEIPT\nreceipt-id:{receipt}\n\n");
            assert_eq!(frame, expected, "at {caller}\n{}", self.transcript);
        }
    }

    /// Expects an ERROR with this `message` and this body.
    #[track_caller]
    pub(super) fn expect_error(&mut self, message: &str, body: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.next().await;
            let expected = format!(
                "ERROR\nmessage:{message}\ncontent-type:text/plain\nversion:1.0,1.1,1.2\n\
                 content-length:{}\n\n{body}",
                body.replace("@@S@@", &format!("@@{}@@", self.session)).len()
            );
            assert_eq!(frame, expected, "at {caller}\n{}", self.transcript);
        }
    }

    /// Expects an ERROR with this `message` and this body, and then the end.
    #[track_caller]
    pub(super) fn expect_last_error(
        &mut self,
        message: &str,
        body: &str,
    ) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.next().await;
            assert!(
                frame.starts_with(&format!("ERROR\nmessage:{message}\n"))
                    && frame.ends_with(&format!("\n\n{body}")),
                "{message:?} {body:?} expected at {caller}, not\n{frame}\n{}",
                self.transcript
            );
            self.expect_end().await;
        }
    }

    /// Expects that nothing comes before the end of the connection but line feeds.
    #[track_caller]
    pub(super) fn expect_end(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            while self.read().await {}
            let rest = self.buffer.iter().find(|octet| **octet != b'\n');
            assert_eq!(rest, None, "at {caller}\n{}", self.transcript);
        }
    }

    /// Makes sure that everything that was sent has been worked through, and that nothing has come of it.
    pub(super) async fn expect_nothing(&mut self) {
        self.send("BEGIN\ntransaction:probe\n\n\0ABORT\ntransaction:probe\nreceipt:probe\n\n\0")
            .await;
        self.expect_receipt("probe").await;
    }

    /// Whether nothing but line feeds arrives for a while: for things that must not happen.
    pub(super) async fn is_silent_for(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while self.buffer.iter().all(|octet| *octet == b'\n') {
            match timeout_at(until, self.read()).await {
                Err(_) => return true,
                Ok(false) => return false,
                Ok(true) => {}
            }
        }
        false
    }

    /// Sends a frame with a receipt, which comes first.
    pub(super) async fn ask(&mut self, frame: &str) {
        let (command, rest) = frame.split_once('\n').unwrap();
        self.send(&format!("{command}\nreceipt:ask\n{rest}\0")).await;
        self.expect_receipt("ask").await;
    }
}

/// Finds a frame at the front, after line feeds; gives it without its NUL, and its length in all.
fn whole_frame(buffer: &[u8]) -> Option<(&[u8], usize)> {
    let noise = buffer.iter().take_while(|octet| **octet == b'\n').count();
    let octets = &buffer[noise..];
    let head_len = octets.windows(2).position(|pair| pair == b"\n\n")? + 2;
    let head = std::str::from_utf8(&octets[..head_len]).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let body_len = match length {
        Some(length) => length.parse().unwrap(),
        None => octets[head_len..].iter().position(|octet| *octet == 0)?,
    };
    let end = head_len + body_len;
    assert_eq!(*octets.get(end)?, 0, "a frame ends with NUL");
    Some((&octets[..end], noise + end + 1))
}
