//! Logging in without holding anybody up: password hashes are computed on threads of their own, two at a time, and
//! who comes from where many logins have failed waits before his is.

mod backoff;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_core::access::{LoginError, User};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::sleep;
use tracing::warn;

use crate::node::Node;
use crate::settings::Settings;
use backoff::Backoff;

/// Password hashes that are computed at the same time: each takes 19 MiB and a core.
const HASHES_MAX: usize = 2;

/// Bounds the password checks in flight, and how fast passwords can be guessed.
#[derive(Debug)]
pub(crate) struct Logins {
    permits: Arc<Semaphore>,
    backoff: Backoff,
}

/// The answer to a login, now or later.
pub(crate) enum Login {
    /// Known at once.
    Now(Result<Arc<User>, LoginError>),
    /// It has to be computed, or to wait.
    Later(oneshot::Receiver<Result<Arc<User>, LoginError>>),
}

impl Logins {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(HASHES_MAX)),
            backoff: Backoff::new(delay_max(settings)),
        }
    }
}

/// How long a login waits at most: `auth.login_backoff`, unless the broker would have lost patience by then.
fn delay_max(settings: &Settings) -> Duration {
    let patience =
        settings.amqp.handshake_timeout.duration().min(settings.stomp.login_timeout.duration());
    settings.auth.login_backoff.duration().min(patience * 4 / 5)
}

/// Checks a name and a password. Nothing is computed for somebody who has gone away in the meantime.
pub(crate) fn log_in(node: &Arc<Node>, name: &[u8], password: &[u8], peer: IpAddr) -> Login {
    // A name that is not UTF-8 belongs to nobody.
    let name = String::from_utf8_lossy(name).into_owned();
    let now = node.clock.now();
    let waits = node.logins.backoff.lanes(peer, now).is_some();
    if !waits && node.broker.access.remembers(&name, password, now) {
        return Login::Now(check(node, &name, password, peer));
    }
    let (sender, receiver) = oneshot::channel();
    let password = password.to_vec();
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let Some(permit) = turn(&node, &sender, peer).await else { return };
        let checked =
            tokio::task::spawn_blocking(move || check(&node, &name, &password, peer)).await;
        if let Ok(result) = checked {
            // The connection may be gone: then nobody wants to know.
            sender.send(result).ok();
        }
        drop(permit);
    });
    Login::Later(receiver)
}

/// Waits until a password may be checked; `None` if nobody wants to know any more.
async fn turn(
    node: &Node,
    sender: &oneshot::Sender<Result<Arc<User>, LoginError>>,
    peer: IpAddr,
) -> Option<OwnedSemaphorePermit> {
    let Logins { permits, backoff } = &node.logins;
    let mut has_waited = false;
    loop {
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        if sender.is_closed() {
            return None;
        }
        // Only now: what has failed while this one queued for its turn counts too.
        let lanes = backoff.lanes(peer, node.clock.now()).filter(|_| !has_waited);
        let Some(lanes) = lanes else { return Some(permit) };
        drop(permit);
        node.counters.logins_delayed.increment(1);
        let _lane = lanes.acquire().await.ok()?;
        if sender.is_closed() {
            return None;
        }
        sleep(backoff.delay(peer, node.clock.now())).await;
        has_waited = true;
    }
}

/// Checks a password and remembers a failure. May take tens of milliseconds.
fn check(node: &Node, name: &str, password: &[u8], peer: IpAddr) -> Result<Arc<User>, LoginError> {
    let now = node.clock.now();
    let checked = node.broker.access.log_in(name, password, peer, now);
    if checked.is_err() && node.logins.backoff.failed(peer, now) {
        warn!(%peer, "many logins from this address have failed: the next ones have to wait");
    }
    checked
}
