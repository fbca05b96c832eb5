//! Logging in without holding anybody up: password hashes are computed on threads of their own, two at a time.

use std::net::IpAddr;
use std::sync::Arc;

use broker_core::access::{LoginError, User};
use tokio::sync::{Semaphore, oneshot};

use crate::node::Node;

/// Password hashes that are computed at the same time: each takes 19 MiB and a core.
const HASHES_MAX: usize = 2;

/// Bounds the password checks in flight.
#[derive(Debug)]
pub(crate) struct Logins {
    permits: Arc<Semaphore>,
}

/// The answer to a login, now or later.
pub(crate) enum Login {
    /// Known at once.
    Now(Result<Arc<User>, LoginError>),
    /// It has to be computed.
    Later(oneshot::Receiver<Result<Arc<User>, LoginError>>),
}

impl Logins {
    pub(crate) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(HASHES_MAX)) }
    }
}

/// Checks a name and a password. Nothing is computed for somebody who has gone away in the meantime.
pub(crate) fn log_in(node: &Arc<Node>, name: &[u8], password: &[u8], peer: IpAddr) -> Login {
    // A name that is not UTF-8 belongs to nobody.
    let name = String::from_utf8_lossy(name).into_owned();
    let now = node.clock.now();
    if node.broker.access.remembers(&name, password, now) {
        return Login::Now(node.broker.access.log_in(&name, password, peer, now));
    }
    let (sender, receiver) = oneshot::channel();
    let password = password.to_vec();
    let permits = Arc::clone(&node.logins.permits);
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let Ok(permit) = permits.acquire_owned().await else { return };
        if sender.is_closed() {
            return;
        }
        let checked = tokio::task::spawn_blocking(move || {
            node.broker.access.log_in(&name, &password, peer, now)
        });
        if let Ok(result) = checked.await {
            // The connection may be gone: then nobody wants to know.
            sender.send(result).ok();
        }
        drop(permit);
    });
    Login::Later(receiver)
}
