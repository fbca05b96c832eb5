//! A broker for one test.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use warren_server::settings::{Settings, Size};
use warren_tests::TestBroker;

use super::peer::Peer;

pub(super) struct Broker(TestBroker);

impl Broker {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let changed = |settings: &mut Settings| {
            // A machine that is nearly full must not hold the publishers of a test.
            settings.limits.disk_free = Size::new(0);
            change(settings);
        };
        Self(TestBroker::with(changed).await)
    }

    /// A connection that has said nothing.
    pub(super) async fn connect(&self) -> Peer {
        Peer::connect(self.0.stomp_address()).await
    }

    /// A connection that has logged in as the default user.
    pub(super) async fn log_in(&self, version: &str) -> Peer {
        self.log_in_with(&format!("accept-version:{version}\n")).await
    }

    /// A connection that has logged in with these header lines.
    pub(super) async fn log_in_with(&self, headers: &str) -> Peer {
        let mut peer = self.connect().await;
        peer.send(&format!("CONNECT\n{headers}\n\0")).await;
        let connected = peer.next().await;
        assert!(connected.starts_with("CONNECTED\n"), "{connected}");
        peer
    }

    /// Sends a request to the control socket; gives the answer, which must not be a refusal.
    pub(super) async fn control(&self, request: &str) -> String {
        let socket = self.0.data_dir().join("warren.sock");
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(!answer.contains("\"refused\""), "{request}\n{answer}");
        answer
    }

    /// Adds a user `u` with password `p`, who may do this in virtual host `/`.
    pub(super) async fn add_user(&self, configure: &str, write: &str, read: &str) {
        self.control(r#"{"command":"add_user","user":"u","password":"p"}"#).await;
        self.permit(configure, write, read).await;
    }

    /// Changes what `u` may do.
    pub(super) async fn permit(&self, configure: &str, write: &str, read: &str) {
        self.control(&format!(
            r#"{{"command":"set_permissions","vhost":"/","user":"u","configure":"{configure}","write":"{write}","read":"{read}"}}"#
        ))
        .await;
    }

    pub(super) async fn delete_queue(&self, queue: &str) {
        self.control(&format!(
            r#"{{"command":"delete_queue","vhost":"/","queue":"{queue}","if_empty":false,"if_unused":false}}"#
        ))
        .await;
    }

    /// These columns of all rows, as JSON lines between the first and the last line of the answer.
    pub(super) async fn list(&self, kind: &str, columns: &str) -> Vec<String> {
        let vhost = if kind == "connections" { "" } else { r#","vhost":"/""# };
        let answer = self
            .control(&format!(r#"{{"command":"list","of":"{kind}"{vhost},"columns":[{columns}]}}"#))
            .await;
        let lines: Vec<_> = answer.lines().map(str::to_owned).collect();
        lines[1..lines.len() - 1].to_vec()
    }

    pub(super) async fn stop(self) {
        self.0.shutdown().await;
    }
}
