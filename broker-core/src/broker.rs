//! The broker: its virtual hosts and its users.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::access::{PermissionSpec, Registry, UserError};
use crate::consumer::ConnectionId;
use crate::dead_letter::DeadLetters;
use crate::log::Log;
use crate::name::{UserName, VhostName};
use crate::vhost::VirtualHost;

/// Everything that connections share.
#[derive(Debug)]
pub struct Broker {
    /// Users and permissions.
    pub access: Registry,
    /// What makes messages durable.
    pub log: Arc<dyn Log>,
    /// Messages sent on to dead-letter exchanges.
    pub dead_letters: Arc<DeadLetters>,
    vhosts: RwLock<HashMap<VhostName, Arc<VirtualHost>>>,
    queue_ids: Arc<AtomicU64>,
    connection_ids: AtomicU64,
}

/// Why a virtual host is not added or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VhostError {
    /// There is one of that name.
    #[error("virtual host '{0}' already exists")]
    Exists(VhostName),
    /// There is none.
    #[error("virtual host '{0}' does not exist")]
    NoVhost(VhostName),
}

impl Broker {
    /// A broker without virtual hosts and users.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, loopback_only_users: Vec<String>) -> Self {
        Self {
            access: Registry::new(loopback_only_users),
            log,
            dead_letters: Arc::default(),
            vhosts: RwLock::default(),
            queue_ids: Arc::default(),
            connection_ids: AtomicU64::new(1),
        }
    }

    /// What an empty broker begins with: a virtual host and an administrator who may do everything in it.
    ///
    /// # Errors
    /// When either is there already, or cannot be.
    pub fn bootstrap(
        &self,
        vhost: &str,
        user: &str,
        password: &[u8],
    ) -> Result<(), BootstrapError> {
        let vhost = self.add_vhost(vhost)?;
        let user = UserName::new(user).map_err(|_| BootstrapError::Name)?;
        self.access.add_user(user.clone(), password, vec!["administrator".to_owned()])?;
        self.access.set_permission(&user, &vhost.name, PermissionSpec::all())?;
        Ok(())
    }

    /// A number for a new connection.
    #[must_use]
    pub fn next_connection_id(&self) -> ConnectionId {
        // Relaxed: only uniqueness matters.
        ConnectionId(self.connection_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds a virtual host with its predeclared exchanges.
    ///
    /// # Errors
    /// [`VhostError::Exists`].
    pub fn add_vhost(&self, name: &str) -> Result<Arc<VirtualHost>, BootstrapError> {
        let name = VhostName::new(name).map_err(|_| BootstrapError::Name)?;
        let mut vhosts = self.vhosts.write();
        if vhosts.contains_key(&name) {
            return Err(VhostError::Exists(name).into());
        }
        let log = Arc::clone(&self.log);
        let vhost = Arc::new(VirtualHost::new(
            name.clone(),
            log,
            Arc::clone(&self.queue_ids),
            Arc::clone(&self.dead_letters),
        ));
        vhosts.insert(name, Arc::clone(&vhost));
        Ok(vhost)
    }

    /// Deletes a virtual host with everything in it. Its consumers are told; its connections find out with
    /// their next method.
    ///
    /// # Errors
    /// [`VhostError::NoVhost`].
    pub fn delete_vhost(&self, name: &VhostName) -> Result<(), VhostError> {
        let removed = self.vhosts.write().remove(name);
        let vhost = removed.ok_or_else(|| VhostError::NoVhost(name.clone()))?;
        vhost.delete_everything();
        self.access.forget_vhost(name);
        Ok(())
    }

    /// The virtual host of that name.
    #[must_use]
    pub fn vhost(&self, name: &str) -> Option<Arc<VirtualHost>> {
        self.vhosts.read().get(name).cloned()
    }

    /// All virtual hosts, by name.
    #[must_use]
    pub fn vhosts(&self) -> Vec<Arc<VirtualHost>> {
        let mut vhosts: Vec<_> = self.vhosts.read().values().cloned().collect();
        vhosts.sort_by(|a, b| a.name.cmp(&b.name));
        vhosts
    }
}

/// Why a broker cannot begin, or a virtual host not be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// The name is too long.
    #[error("a name has at most 255 octets")]
    Name,
    /// About a virtual host.
    #[error(transparent)]
    Vhost(#[from] VhostError),
    /// About a user.
    #[error(transparent)]
    User(#[from] UserError),
}
