//! Users, their passwords and permissions, and the one function that says whether somebody may do something.
//!
//! Every door (AMQP, STOMP, the control socket) asks [`Registry::check`]. A permission is a row for a user in a
//! virtual host with three patterns, matched anywhere in the resource's name; the default exchange is
//! checked as `amq.default`. Passwords are kept as argon2id hashes; since a hash costs tens of
//! milliseconds by design, a keyed digest of the last password that was right is remembered for a minute,
//! so that many connections of one user do not each pay for it.

mod password;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;
use regex::bytes::{Regex, RegexBuilder};

use crate::definitions::Changes;
use crate::error::{Refusal, Resource};
use crate::log::Log;
use crate::name::{ExchangeName, UserName, VhostName};
use crate::storage::StorageError;
use password::RecentPasswords;
pub use password::{PasswordHash, PasswordHashError};

/// The name under which patterns see the default exchange.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// The longest permission pattern in octets.
pub const PATTERN_LEN_MAX: usize = 1024;

/// The most memory that a compiled permission pattern may take, in octets.
const PATTERN_SIZE_MAX: usize = 1024 * 1024;

/// What somebody wants to do with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Create or delete it.
    Configure,
    /// Put messages into it.
    Write,
    /// Take messages out of it.
    Read,
}

/// A user.
#[derive(Debug, Clone)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// Words such as `administrator`, in the order in which they were given.
    pub tags: Vec<String>,
    /// How the password is checked.
    pub password: PasswordHash,
}

impl User {
    /// Whether the user has this tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|there| there == tag)
    }
}

/// The three patterns of a permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionSpec {
    /// What may be created and deleted.
    pub configure: String,
    /// What may be published to and bound to a source.
    pub write: String,
    /// What may be consumed from and bound from.
    pub read: String,
}

impl PermissionSpec {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self { configure: ".*".into(), write: ".*".into(), read: ".*".into() }
    }
}

/// A pattern that is no regular expression, or too large a one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{pattern}' cannot be used as a pattern: {reason}")]
pub struct InvalidPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A user's permission in a virtual host, compiled.
#[derive(Debug)]
pub struct Permission {
    /// The patterns as given.
    pub spec: PermissionSpec,
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

#[derive(Debug)]
enum Pattern {
    /// The empty pattern: nothing but the empty name.
    Nothing,
    /// `.*` and its like.
    Everything,
    Search(Regex),
}

impl Pattern {
    fn compile(pattern: &str) -> Result<Self, InvalidPattern> {
        let refuse = |reason: String| InvalidPattern { pattern: pattern.to_owned(), reason };
        match pattern {
            "" | "^$" => return Ok(Self::Nothing),
            ".*" | "^.*$" | "^.*" | ".*$" => return Ok(Self::Everything),
            _ => {}
        }
        if pattern.len() > PATTERN_LEN_MAX {
            return Err(refuse(format!("it has more than {PATTERN_LEN_MAX} octets")));
        }
        RegexBuilder::new(pattern)
            .size_limit(PATTERN_SIZE_MAX)
            .build()
            .map(Self::Search)
            .map_err(|error| refuse(error.to_string()))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Nothing => name.is_empty(),
            Self::Everything => true,
            Self::Search(regex) => regex.is_match(name.as_bytes()),
        }
    }
}

impl Permission {
    fn compile(spec: PermissionSpec) -> Result<Self, InvalidPattern> {
        Ok(Self {
            configure: Pattern::compile(&spec.configure)?,
            write: Pattern::compile(&spec.write)?,
            read: Pattern::compile(&spec.read)?,
            spec,
        })
    }

    fn allows(&self, access: Access, name: &str) -> bool {
        match access {
            Access::Configure => self.configure.matches(name),
            Access::Write => self.write.matches(name),
            Access::Read => self.read.matches(name),
        }
    }
}

/// Why a change to users or permissions is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// There is a user of that name.
    #[error("user '{0}' already exists")]
    Exists(UserName),
    /// There is none.
    #[error("user '{0}' does not exist")]
    NoUser(UserName),
    /// The virtual host does not exist.
    #[error("virtual host '{0}' does not exist")]
    NoVhost(VhostName),
    /// A blank password would let anybody in.
    #[error("a password cannot be blank")]
    BlankPassword,
    /// A permission's pattern does not compile.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// The log takes no definitions.
    #[error("cannot be kept: {0}")]
    NotKept(String),
}

impl From<StorageError> for UserError {
    fn from(error: StorageError) -> Self {
        Self::NotKept(error.to_string())
    }
}

/// Why somebody does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// No such user, or not that password.
    #[error("invalid credentials")]
    Credentials,
    /// The user may connect only from this machine.
    #[error("this user can only connect via localhost")]
    LoopbackOnly,
}

/// Users and permissions of a broker.
#[derive(Debug)]
pub struct Registry {
    users: RwLock<HashMap<UserName, Arc<User>>>,
    permissions: RwLock<HashMap<(UserName, VhostName), Arc<Permission>>>,
    loopback_only: Vec<String>,
    recent: RecentPasswords,
    log: Arc<dyn Log>,
    /// Rises with every change, so that whoever remembers an answer knows when to ask again.
    revision: AtomicU64,
}

impl Registry {
    /// No users yet; those named in `loopback_only` may connect only from this machine.
    #[must_use]
    pub fn new(loopback_only: Vec<String>, log: Arc<dyn Log>) -> Self {
        Self {
            users: RwLock::default(),
            permissions: RwLock::default(),
            loopback_only,
            recent: RecentPasswords::new(),
            log,
            revision: AtomicU64::new(1),
        }
    }

    /// Rises with every change of users or permissions.
    #[must_use]
    pub fn revision(&self) -> u64 {
        // Acquire: pairs with the release in `changed`, so that the change is seen with its number.
        self.revision.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.revision.fetch_add(1, Ordering::Release);
    }

    /// Checks name, password and origin. Takes tens of milliseconds when the password has to be hashed: not to
    /// be called on a thread that serves others.
    ///
    /// # Errors
    /// [`LoginError`]; an unknown user costs as much time as a wrong password.
    pub fn log_in(
        &self,
        name: &str,
        password: &[u8],
        peer: IpAddr,
        now: u64,
    ) -> Result<Arc<User>, LoginError> {
        if password.is_empty() {
            // Before the user is looked up: the answer must not tell whether there is one.
            return Err(LoginError::Credentials);
        }
        let user = self.users.read().get(name).cloned();
        let Some(user) = user else {
            password::burn_time(password);
            return Err(LoginError::Credentials);
        };
        if !self.recent.verify(&user, password, now) {
            return Err(LoginError::Credentials);
        }
        if !peer.to_canonical().is_loopback() && self.loopback_only.iter().any(|only| only == name)
        {
            return Err(LoginError::LoopbackOnly);
        }
        Ok(user)
    }

    /// Whether [`log_in`](Self::log_in) will answer without hashing.
    #[must_use]
    pub fn remembers(&self, name: &str, password: &[u8], now: u64) -> bool {
        let user = self.users.read().get(name).cloned();
        user.is_some_and(|user| self.recent.remembers(&user, password, now))
    }

    /// Whether `user` may do `access` to `resource`: the only place where that is decided.
    ///
    /// # Errors
    /// [`Refusal::Access`].
    pub fn check(
        &self,
        user: &UserName,
        vhost: &VhostName,
        resource: &Resource,
        access: Access,
    ) -> Result<(), Refusal> {
        let name = match resource {
            Resource::Queue(name) => name.as_str(),
            Resource::Exchange(name) if name.is_default() => DEFAULT_EXCHANGE,
            Resource::Exchange(name) => name.as_str(),
        };
        if self.permission(user, vhost).is_some_and(|row| row.allows(access, name)) {
            return Ok(());
        }
        // RabbitMQ: refuses the default exchange under the name that it is checked as.
        let resource = match (resource, ExchangeName::new(name)) {
            (Resource::Exchange(_), Ok(checked)) => Resource::Exchange(checked),
            (other, _) => other.clone(),
        };
        Err(Refusal::Access { resource, vhost: vhost.clone(), user: user.clone() })
    }

    /// A user's permission in a virtual host; without one there is no way in.
    #[must_use]
    pub fn permission(&self, user: &UserName, vhost: &VhostName) -> Option<Arc<Permission>> {
        self.permissions.read().get(&(user.clone(), vhost.clone())).cloned()
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`UserError::Exists`], [`UserError::BlankPassword`].
    pub fn add_user(
        &self,
        name: UserName,
        password: &[u8],
        tags: Vec<String>,
    ) -> Result<(), UserError> {
        if password.is_empty() {
            return Err(UserError::BlankPassword);
        }
        if self.user(name.as_str()).is_some() {
            return Err(UserError::Exists(name));
        }
        // Hashed before the lock is taken: that takes a while.
        let user = User { name: name.clone(), tags, password: PasswordHash::argon2id(password) };
        let mut users = self.users.write();
        if users.contains_key(&name) {
            return Err(UserError::Exists(name));
        }
        self.keep(|changes| changes.put_user(&user))?;
        users.insert(name, Arc::new(user));
        drop(users);
        self.changed();
        Ok(())
    }

    /// Writes definitions to the log; called under the lock that guards what they define, so that the order there is
    /// the order here.
    fn keep(&self, change: impl FnOnce(&mut Changes)) -> Result<(), StorageError> {
        let mut changes = Changes::default();
        change(&mut changes);
        changes.append(&*self.log).map(|_| ())
    }

    /// A user that a restart has found.
    pub(crate) fn restore_user(&self, user: User) {
        self.users.write().insert(user.name.clone(), Arc::new(user));
    }

    /// A permission that a restart has found.
    pub(crate) fn restore_permission(
        &self,
        user: UserName,
        vhost: VhostName,
        spec: PermissionSpec,
    ) -> Result<(), InvalidPattern> {
        let permission = Arc::new(Permission::compile(spec)?);
        self.permissions.write().insert((user, vhost), permission);
        Ok(())
    }

    /// The user of that name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.users.read().get(name).cloned()
    }

    /// All users, by name.
    #[must_use]
    pub fn users(&self) -> Vec<Arc<User>> {
        let mut users: Vec<_> = self.users.read().values().cloned().collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    fn change_user(
        &self,
        name: &UserName,
        change: impl FnOnce(&mut User),
    ) -> Result<(), UserError> {
        let mut users = self.users.write();
        let user = users.get_mut(name).ok_or_else(|| UserError::NoUser(name.clone()))?;
        let mut changed = User::clone(user);
        change(&mut changed);
        self.keep(|changes| changes.put_user(&changed))?;
        *user = Arc::new(changed);
        drop(users);
        self.changed();
        Ok(())
    }

    /// Sets a new password.
    ///
    /// # Errors
    /// [`UserError::NoUser`], [`UserError::BlankPassword`].
    pub fn change_password(&self, name: &UserName, password: &[u8]) -> Result<(), UserError> {
        if password.is_empty() {
            return Err(UserError::BlankPassword);
        }
        let hash = PasswordHash::argon2id(password);
        self.change_user(name, |user| user.password = hash)
    }

    /// Replaces a user's tags.
    ///
    /// # Errors
    /// [`UserError::NoUser`].
    pub fn set_tags(&self, name: &UserName, tags: Vec<String>) -> Result<(), UserError> {
        self.change_user(name, |user| user.tags = tags)
    }

    /// Removes a user and what it was permitted.
    ///
    /// # Errors
    /// [`UserError::NoUser`].
    pub fn delete_user(&self, name: &UserName) -> Result<(), UserError> {
        let mut users = self.users.write();
        if !users.contains_key(name) {
            return Err(UserError::NoUser(name.clone()));
        }
        let mut permissions = self.permissions.write();
        self.keep(|changes| {
            changes.delete_user(name);
            for (user, vhost) in permissions.keys().filter(|(user, _)| user == name) {
                changes.delete_permission(user, vhost);
            }
        })?;
        users.remove(name);
        permissions.retain(|(user, _), _| user != name);
        drop((users, permissions));
        self.changed();
        Ok(())
    }

    /// Sets a user's permission in a virtual host, which the caller has checked to exist.
    ///
    /// # Errors
    /// [`UserError::NoUser`], [`UserError::Pattern`].
    pub fn set_permission(
        &self,
        user: &UserName,
        vhost: &VhostName,
        spec: PermissionSpec,
    ) -> Result<(), UserError> {
        let permission = Arc::new(Permission::compile(spec)?);
        // Users before permissions is the order of the locks; nobody deletes the user in between.
        let users = self.users.read();
        if !users.contains_key(user) {
            return Err(UserError::NoUser(user.clone()));
        }
        let mut permissions = self.permissions.write();
        self.keep(|changes| changes.put_permission(user, vhost, &permission.spec))?;
        permissions.insert((user.clone(), vhost.clone()), permission);
        drop((users, permissions));
        self.changed();
        Ok(())
    }

    /// Takes a user's permission in a virtual host away.
    ///
    /// # Errors
    /// [`UserError::NoUser`].
    pub fn clear_permission(&self, user: &UserName, vhost: &VhostName) -> Result<(), UserError> {
        if self.user(user.as_str()).is_none() {
            return Err(UserError::NoUser(user.clone()));
        }
        let mut permissions = self.permissions.write();
        self.keep(|changes| changes.delete_permission(user, vhost))?;
        permissions.remove(&(user.clone(), vhost.clone()));
        drop(permissions);
        self.changed();
        Ok(())
    }

    /// Forgets the permissions of a virtual host that is deleted.
    pub(crate) fn forget_vhost(&self, vhost: &VhostName) -> Result<(), StorageError> {
        let mut permissions = self.permissions.write();
        self.keep(|changes| {
            for (user, there) in permissions.keys().filter(|(_, there)| there == vhost) {
                changes.delete_permission(user, there);
            }
        })?;
        permissions.retain(|(_, there), _| there != vhost);
        drop(permissions);
        self.changed();
        Ok(())
    }

    /// All permissions, by user and virtual host.
    #[must_use]
    pub fn permissions(&self) -> Vec<(UserName, VhostName, PermissionSpec)> {
        let rows = self.permissions.read();
        let mut rows: Vec<_> = rows
            .iter()
            .map(|((user, vhost), row)| (user.clone(), vhost.clone(), row.spec.clone()))
            .collect();
        rows.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::MemoryLog;
    use crate::name::{ExchangeName, QueueName};
    use std::net::Ipv4Addr;

    fn registry() -> (Registry, UserName, VhostName) {
        let registry = Registry::new(vec!["guest".into()], Arc::new(MemoryLog::default()));
        let (guest, root) = (UserName::new("guest").unwrap(), VhostName::new("/").unwrap());
        registry.add_user(guest.clone(), b"guest", vec![]).unwrap();
        (registry, guest, root)
    }

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_password_is_right_or_wrong_also_when_it_is_remembered() {
        let (registry, guest, _) = registry();
        for _ in 0..2 {
            assert!(registry.log_in("guest", b"guest", HERE, 0).is_ok());
            assert!(registry.log_in("guest", b"Guest", HERE, 0).is_err());
            assert!(registry.log_in("guest", b"", HERE, 0).is_err());
        }
        assert!(registry.remembers("guest", b"guest", 59_000));
        assert!(!registry.remembers("guest", b"guest", 61_000));
        registry.change_password(&guest, b"other").unwrap();
        assert!(registry.log_in("guest", b"guest", HERE, 0).is_err());
        assert!(registry.log_in("nobody", b"guest", HERE, 0).is_err());
    }

    #[test]
    fn a_loopback_user_gets_in_from_this_machine_only() {
        let (registry, ..) = registry();
        let elsewhere = "192.0.2.1".parse().unwrap();
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        let found = registry.log_in("guest", b"guest", elsewhere, 0).err();
        assert_eq!(found, Some(LoginError::LoopbackOnly));
        assert!(registry.log_in("guest", b"guest", mapped, 0).is_ok());
    }

    #[test]
    fn patterns_match_anywhere_and_the_empty_one_nothing() {
        let (registry, guest, root) = registry();
        let spec = PermissionSpec {
            configure: "^app\\.".into(),
            write: "amq.default".into(),
            read: String::new(),
        };
        let queue = Resource::Queue(QueueName::new("app.q").unwrap());
        let default = Resource::Exchange(ExchangeName::new("").unwrap());
        assert!(registry.check(&guest, &root, &queue, Access::Configure).is_err());
        registry.set_permission(&guest, &root, spec).unwrap();
        assert!(registry.check(&guest, &root, &queue, Access::Configure).is_ok());
        assert!(registry.check(&guest, &root, &queue, Access::Write).is_err());
        assert!(registry.check(&guest, &root, &default, Access::Write).is_ok());
        assert_eq!(
            registry.check(&guest, &root, &queue, Access::Read).unwrap_err().to_string(),
            "access to queue 'app.q' in vhost '/' refused for user 'guest'"
        );
    }

    #[test]
    fn a_pattern_that_explodes_is_refused() {
        let (registry, guest, root) = registry();
        let spec = PermissionSpec { configure: "(a{1000}){1000}".into(), ..PermissionSpec::all() };
        assert!(matches!(registry.set_permission(&guest, &root, spec), Err(UserError::Pattern(_))));
    }
}
