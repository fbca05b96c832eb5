//! What each request does to the broker.
//!
//! Runs on a thread where it may wait: nothing here is async. Refusals carry the class that decides the exit
//! code of the client, the same as rabbitmqctl's.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use broker_core::VirtualHost;
use broker_core::access::{InvalidPattern, PermissionSpec, UserError};
use broker_core::broker::{BootstrapError, VhostError};
use broker_core::error::Refusal as CoreRefusal;
use broker_core::name::{QueueName, UserName};
use broker_core::queue::Queue;
use serde_json::{Value, json};
use tracing::info;

use super::protocol::{Clients, Kind, Password, Refusal, Refused, Request, did_you_mean};
use super::{Broker, lists, status};
use crate::node::{ConnectionRow, Node};
use crate::settings::LogFilter;
use crate::{health, logging};

/// What a request that was granted gives.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Null when there is nothing to say but that it was done.
    Value(Value),
    /// Columns and rows.
    Rows(Vec<String>, Vec<Vec<Value>>),
}

impl From<(Vec<String>, Vec<Vec<Value>>)> for Outcome {
    fn from((columns, rows): (Vec<String>, Vec<Vec<Value>>)) -> Self {
        Self::Rows(columns, rows)
    }
}

const DONE: Result<Outcome, Refused> = Ok(Outcome::Value(Value::Null));

/// Carries out a request. What changes something is logged, without passwords.
pub(super) fn execute(broker: &Broker, request: Request) -> Result<Outcome, Refused> {
    let node = &broker.node;
    match request {
        Request::Ping {} => DONE,
        Request::Health {} => Ok(Outcome::Value(json!({ "unwell": health::unwell(node) }))),
        Request::Status {} => Ok(Outcome::Value(status::status(broker))),
        Request::Environment {} => environment(node),
        Request::Listeners {} => Ok(Outcome::Value(status::listeners(broker).into())),
        Request::List { of, vhost, user, columns } => list(node, of, vhost, user, columns),
        Request::PurgeQueue { vhost, queue } => {
            let queue = find_queue(&*find_vhost(node, &vhost)?, &queue, Refusal::Unavailable)?;
            let count = queue.purge().count;
            info!(%vhost, queue = %queue.spec.name, count, "purged on request");
            DONE
        }
        Request::DeleteQueue { vhost, queue, if_empty, if_unused } => {
            delete_queue(node, &vhost, &queue, if_empty, if_unused)
        }
        Request::CloseConnection { connection, reason } => {
            close_connection(node, &connection, &reason)
        }
        Request::CloseConnections { of, limit, reason } => {
            close_connections(node, &of, limit, &reason)
        }
        Request::AddUser { user, password } => {
            check_password(node, &password)?;
            let name = user_name(&user)?;
            let added = node.broker.access.add_user(name, password.0.as_bytes(), Vec::new());
            done(added.map_err(refuse_user), || info!(%user, "user added"))
        }
        Request::DeleteUser { user } => {
            let deleted = node.broker.access.delete_user(&user_name(&user)?);
            done(deleted.map_err(refuse_user), || {
                let reason = format!("user '{user}' is deleted");
                let closed = close_all(node, usize::MAX, &reason, |row| row.user == user);
                info!(%user, closed, "user deleted");
            })
        }
        Request::ChangePassword { user, password } => {
            check_password(node, &password)?;
            let name = user_name(&user)?;
            let changed = node.broker.access.change_password(&name, password.0.as_bytes());
            done(changed.map_err(refuse_user), || info!(%user, "password changed"))
        }
        Request::AuthenticateUser { user, password } => {
            const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let now = node.clock.now();
            let checked = node.broker.access.log_in(&user, password.0.as_bytes(), HERE, now);
            let refuse = |error| {
                Refusal::Data.because(format!("failed to authenticate user '{user}': {error}"))
            };
            done(checked.map_err(refuse), || ())
        }
        Request::SetUserTags { user, tags } => {
            let set = node.broker.access.set_tags(&user_name(&user)?, tags);
            done(set.map_err(refuse_user), || info!(%user, "tags of a user set"))
        }
        Request::AddVhost { vhost } => add_vhost(node, &vhost),
        Request::DeleteVhost { vhost } => {
            let name = find_vhost(node, &vhost)?.name.clone();
            let deleted = node.broker.delete_vhost(&name);
            let refuse = |error: VhostError| Refusal::Data.because(error.to_string());
            done(deleted.map_err(refuse), || {
                let reason = format!("vhost '{vhost}' is deleted");
                let closed = close_all(node, usize::MAX, &reason, |row| row.vhost == vhost);
                info!(%vhost, closed, "virtual host deleted");
            })
        }
        Request::SetPermissions { vhost, user, configure, write, read } => {
            let name = find_vhost(node, &vhost)?.name.clone();
            let spec = PermissionSpec { configure, write, read };
            let set = node.broker.access.set_permission(&user_name(&user)?, &name, spec);
            done(set.map_err(refuse_user), || info!(%user, %vhost, "permissions set"))
        }
        Request::ClearPermissions { vhost, user } => {
            let name = find_vhost(node, &vhost)?.name.clone();
            let cleared = node.broker.access.clear_permission(&user_name(&user)?, &name);
            done(cleared.map_err(refuse_user), || {
                let reason = format!("permissions of user '{user}' in vhost '{vhost}' are cleared");
                let theirs = |row: &ConnectionRow| row.user == user && row.vhost == vhost;
                let closed = close_all(node, usize::MAX, &reason, theirs);
                info!(%user, %vhost, closed, "permissions cleared");
            })
        }
        Request::SetLogLevel { level } => set_log_level(&level),
        Request::Stop {} => {
            info!("asked to stop on the control socket");
            DONE
        }
    }
}

/// Nothing to say, and `log` when it was done.
fn done<T>(result: Result<T, Refused>, log: impl FnOnce()) -> Result<Outcome, Refused> {
    result?;
    log();
    DONE
}

fn environment(node: &Node) -> Result<Outcome, Refused> {
    // Serialising masks secrets; they have no other way out.
    let settings = serde_json::to_value(&node.settings);
    let refuse =
        |error| Refusal::Conflict.because(format!("the settings cannot be shown: {error}"));
    settings.map(Outcome::Value).map_err(refuse)
}

fn list(
    node: &Arc<Node>,
    of: Kind,
    vhost: Option<String>,
    user: Option<String>,
    columns: Vec<String>,
) -> Result<Outcome, Refused> {
    let vhost = vhost.unwrap_or_else(|| "/".to_owned());
    let place = || find_vhost(node, &vhost);
    let listed = match of {
        Kind::Queues => lists::queues(node, &*place()?, columns)?,
        Kind::Exchanges => lists::exchanges(&*place()?, columns)?,
        Kind::Bindings => lists::bindings(&*place()?, columns)?,
        Kind::Connections => lists::connections(node, columns)?,
        Kind::Channels => lists::channels(node, columns)?,
        Kind::Consumers => lists::consumers(node, &*place()?, columns)?,
        Kind::Vhosts => lists::vhosts(node, columns)?,
        Kind::Users => lists::users(node),
        Kind::Permissions => {
            let there = place()?;
            let here =
                |user: &str, vhost: &str| (vhost == there.name.as_str()).then(|| user.into());
            lists::permissions(node, "user", here)
        }
        Kind::UserPermissions => {
            let name = user.unwrap_or_default();
            if node.broker.access.user(&name).is_none() {
                return Err(refuse_user(UserError::NoUser(user_name(&name)?)));
            }
            let own = |user: &str, vhost: &str| (user == name).then(|| vhost.into());
            lists::permissions(node, "vhost", own)
        }
    };
    Ok(listed.into())
}

// ---- finding what a name means ----

fn find_vhost(node: &Node, name: &str) -> Result<Arc<VirtualHost>, Refused> {
    node.broker.vhost(name).ok_or_else(|| {
        let vhosts = node.broker.vhosts();
        let near = did_you_mean(name, vhosts.iter().map(|vhost| vhost.name.as_str()));
        Refusal::Data.because(format!("virtual host '{name}' does not exist{near}"))
    })
}

fn find_queue(vhost: &VirtualHost, name: &str, otherwise: Refusal) -> Result<Arc<Queue>, Refused> {
    let found = QueueName::new(name).ok().and_then(|name| vhost.queue(&name).ok());
    found.ok_or_else(|| {
        let queues = vhost.queues();
        let near = did_you_mean(name, queues.iter().map(|queue| queue.spec.name.as_str()));
        let vhost = &vhost.name;
        otherwise.because(format!("queue '{name}' not found in vhost '{vhost}'{near}"))
    })
}

fn user_name(name: &str) -> Result<UserName, Refused> {
    if name.is_empty() {
        return Err(Refusal::Data.because("a user's name cannot be empty"));
    }
    UserName::new(name).map_err(|error| Refusal::Data.because(error.to_string()))
}

fn refuse_user(error: UserError) -> Refused {
    let kind = match &error {
        UserError::Exists(_) => Refusal::Conflict,
        UserError::NoUser(_) => Refusal::NoUser,
        UserError::BlankPassword | UserError::NoVhost(_) => Refusal::Data,
        UserError::NotKept(_) => Refusal::Unavailable,
        UserError::Pattern(InvalidPattern { pattern, reason }) => {
            // The reason draws a picture of the place; its last line says what is wrong.
            let what = reason.lines().last().unwrap_or_default();
            let what = what.strip_prefix("error: ").unwrap_or(what);
            let why = format!("'{pattern}' is not a regular expression: {what}");
            return Refusal::Data.because(why);
        }
    };
    kind.because(error.to_string())
}

fn check_password(node: &Node, password: &Password) -> Result<(), Refused> {
    let least = node.settings.auth.min_password_length;
    if (password.0.chars().count() as u64) < u64::from(least) {
        return Err(Refusal::Data.because(format!(
            "the password has fewer than {least} characters, which auth.min_password_length asks for"
        )));
    }
    Ok(())
}

// ---- changes ----

fn delete_queue(
    node: &Node,
    vhost: &str,
    queue: &str,
    if_empty: bool,
    if_unused: bool,
) -> Result<Outcome, Refused> {
    let place = find_vhost(node, vhost)?;
    let queue = find_queue(&place, queue, Refusal::Usage)?;
    let name = &queue.spec.name;
    let deleted = place.delete_queue(name, None, if_unused, if_empty).map_err(|error| {
        let help = match error {
            CoreRefusal::InUse { .. } => "; it has consumers",
            CoreRefusal::NotEmpty { .. } => "; 'purge_queue' empties it",
            _ => "",
        };
        Refusal::Usage.because(format!("{error}{help}"))
    })?;
    let count = deleted.count;
    info!(%vhost, queue = %name, count, "queue deleted on request");
    Ok(Outcome::Value(json!({ "messages": count })))
}

fn close_connection(node: &Node, word: &str, reason: &str) -> Result<Outcome, Refused> {
    let named =
        |row: &ConnectionRow| row.name == word || lists::connection_pid(&node.name, row.id) == word;
    let mut open = node.connections.all().into_iter();
    let found = open.find(|connection| named(&connection.describe()));
    let Some(connection) = found else {
        return Err(Refusal::Unavailable.because(format!(
            "there is no connection '{word}'; 'list_connections pid name' shows which there are"
        )));
    };
    info!(connection = word, reason, "connection closed on request");
    connection.close(reason);
    DONE
}

fn close_connections(
    node: &Node,
    of: &Clients,
    limit: Option<u64>,
    reason: &str,
) -> Result<Outcome, Refused> {
    if let Clients::Vhost(vhost) = of {
        find_vhost(node, vhost)?;
    }
    let meant = |row: &ConnectionRow| match of {
        Clients::All => true,
        Clients::Vhost(vhost) => row.vhost == *vhost,
        Clients::User(user) => row.user == *user,
    };
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let closed = close_all(node, limit, reason, meant);
    info!(closed, ?of, reason, "connections closed on request");
    Ok(Outcome::Value(json!({ "closed": closed })))
}

/// Closes the oldest of the connections that are meant, `limit` at most; gives how many.
fn close_all(
    node: &Node,
    limit: usize,
    reason: &str,
    meant: impl Fn(&ConnectionRow) -> bool,
) -> usize {
    let open = node.connections.all().into_iter();
    open.filter(|connection| meant(&connection.describe()))
        .take(limit)
        .inspect(|connection| connection.close(reason))
        .count()
}

/// Adding one that is there changes nothing, as with rabbitmqctl.
fn add_vhost(node: &Node, name: &str) -> Result<Outcome, Refused> {
    if name.is_empty() {
        return Err(Refusal::Data.because("a virtual host's name cannot be empty"));
    }
    match node.broker.add_vhost(name) {
        Ok(_) => {
            info!(vhost = name, "virtual host added");
            DONE
        }
        Err(BootstrapError::Vhost(VhostError::Exists(_))) => DONE,
        Err(error) => Err(Refusal::Data.because(error.to_string())),
    }
}

/// Takes rabbitmqctl's words too where ours are others.
fn set_log_level(level: &str) -> Result<Outcome, Refused> {
    let ours = match level {
        "none" => "off",
        "warning" => "warn",
        "critical" => "error",
        other => other,
    };
    let filter: LogFilter = ours.parse().map_err(|why: String| Refusal::Usage.because(why))?;
    let Some(logging) = logging::of_process() else {
        return Err(Refusal::Unavailable
            .because("the broker runs inside another program, which has a log of its own"));
    };
    // Before it is set: who makes the log quieter leaves a trace.
    info!(level = %filter, "log level set on request");
    logging.set_level(&filter);
    DONE
}
