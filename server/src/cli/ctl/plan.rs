//! From a command to what is asked, what is said first, and how the answer is shown.

use super::Failure;
use super::commands::{Command, Login};
use crate::control::client::Client;
use crate::control::protocol::{Clients, Kind, Password, Request};

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// A table.
    Rows,
    /// A table without the rows.
    Header,
    /// That it was done goes without saying.
    Nothing,
    /// That it was done is worth a sentence.
    Done(&'static str),
    Pong,
    Success,
    Running,
    /// How many messages went with a queue.
    Deleted,
    /// How many connections were closed.
    Closed,
    Alarms,
    Status,
    Listeners,
    Environment,
    /// Nothing; the question is asked until it is answered.
    Startup,
}

/// What a command does.
pub(super) struct Plan {
    pub(super) request: Request,
    /// What to say first, given the name of the node; a line feed at the end.
    pub(super) banner: Box<dyn Fn(&str) -> String>,
    pub(super) show: Show,
}

impl Plan {
    fn new(
        request: Request,
        show: Show,
        banner: impl Fn(&str) -> String + 'static,
    ) -> Result<Self, Failure> {
        Ok(Self { request, banner: Box::new(banner), show })
    }

    /// What `command` does; a password that is missing is asked from `read_password`.
    pub(super) fn of(
        command: &Command,
        client: &Client,
        read_password: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<Self, Failure> {
        let own = str::to_owned;
        match command {
            Command::ListQueues { vhost, offline, online, local, columns } => {
                let timeout = client.timeout().map_or_else(
                    || "infinity".to_owned(),
                    |timeout| format!("{}.0 seconds", timeout.as_secs()),
                );
                let line = format!(
                    "Timeout: {timeout} ...\nListing queues for vhost {} ...\n",
                    vhost.name
                );
                let request = list(Kind::Queues, Some(&vhost.name), &columns.columns);
                // There is one node. It answers, so that none of its queues is down.
                let none = *offline && !*online && !*local;
                let show = if none { Show::Header } else { Show::Rows };
                Self::new(request, show, move |_| line.clone())
            }
            Command::ListExchanges { vhost, columns } => Self::list(
                list(Kind::Exchanges, Some(&vhost.name), &columns.columns),
                format!("Listing exchanges for vhost {} ...", vhost.name),
            ),
            Command::ListBindings { vhost, columns } => Self::list(
                list(Kind::Bindings, Some(&vhost.name), &columns.columns),
                // rabbitmqctl: without a space here.
                format!("Listing bindings for vhost {}...", vhost.name),
            ),
            Command::ListConnections { columns } => Self::list(
                list(Kind::Connections, None, &columns.columns),
                own("Listing connections ..."),
            ),
            Command::ListChannels { columns } => Self::list(
                list(Kind::Channels, None, &columns.columns),
                own("Listing channels ..."),
            ),
            Command::ListConsumers { vhost, columns } => Self::list(
                list(Kind::Consumers, Some(&vhost.name), &columns.columns),
                format!("Listing consumers in vhost {} ...", vhost.name),
            ),
            Command::ListVhosts { columns } => {
                Self::list(list(Kind::Vhosts, None, &columns.columns), own("Listing vhosts ..."))
            }
            Command::ListUsers => {
                Self::list(list(Kind::Users, None, &[]), own("Listing users ..."))
            }
            Command::ListPermissions { vhost } => Self::list(
                list(Kind::Permissions, Some(&vhost.name), &[]),
                format!("Listing permissions for vhost \"{}\" ...", vhost.name),
            ),
            Command::ListUserPermissions { user } => Self::list(
                Request::List {
                    of: Kind::UserPermissions,
                    vhost: None,
                    user: Some(user.clone()),
                    columns: Vec::new(),
                },
                format!("Listing permissions for user \"{user}\" ..."),
            ),
            Command::Status => Self::new(Request::Status {}, Show::Status, |node| {
                format!("Status of node {node} ...\n")
            }),
            Command::Ping => {
                let timeout = client.timeout().map_or_else(
                    || "infinity".to_owned(),
                    |timeout| format!("{} ms", timeout.as_millis()),
                );
                Self::new(Request::Ping {}, Show::Pong, move |node| {
                    format!(
                        "Will ping {node}. This only checks that the broker answers on its control socket. \
                         Timeout: {timeout}.\n"
                    )
                })
            }
            Command::CheckRunning => Self::new(Request::Ping {}, Show::Running, |node| {
                format!("Checking if Warren is running on node {node} ...\n")
            }),
            Command::CheckLocalAlarms => Self::new(Request::Status {}, Show::Alarms, |node| {
                format!("Asking node {node} to report any local resource alarms ...\n")
            }),
            Command::AwaitStartup => Self::new(Request::Ping {}, Show::Startup, |_| String::new()),
            Command::Listeners => Self::new(Request::Listeners {}, Show::Listeners, |node| {
                format!("Asking node {node} to report its protocol listeners ...\n")
            }),
            Command::Environment => Self::new(Request::Environment {}, Show::Environment, |node| {
                format!("Application environment of node {node} ...\n")
            }),
            Command::PurgeQueue { vhost, queue } => Self::change(
                Request::PurgeQueue { vhost: vhost.name.clone(), queue: queue.clone() },
                format!("Purging queue '{queue}' in vhost '{}' ...", vhost.name),
            ),
            Command::DeleteQueue { vhost, queue, if_empty, if_unused } => {
                let condition = match (if_empty, if_unused) {
                    (false, false) => "",
                    (true, false) => " if queue is empty",
                    (false, true) => " if queue is unused",
                    (true, true) => " if queue is empty and unused",
                };
                let vhost = &vhost.name;
                let line = format!("Deleting queue '{queue}' on vhost '{vhost}'{condition} ...\n");
                let request = Request::DeleteQueue {
                    vhost: vhost.clone(),
                    queue: queue.clone(),
                    if_empty: *if_empty,
                    if_unused: *if_unused,
                };
                Self::new(request, Show::Deleted, move |_| line.clone())
            }
            Command::CloseConnection { connection, reason } => Self::change(
                Request::CloseConnection { connection: connection.clone(), reason: reason.clone() },
                format!("Closing connection {connection}, reason: {reason}..."),
            ),
            Command::CloseAllConnections { vhost, global, limit, reason } => {
                let (of, line) = if *global {
                    (Clients::All, format!("Closing all connections, reason: {reason}...\n"))
                } else {
                    let vhost = vhost.name.clone();
                    let line =
                        format!("Closing all connections in vhost {vhost}, reason: {reason}...\n");
                    (Clients::Vhost(vhost), line)
                };
                let limit = (*limit > 0).then_some(*limit);
                let request = Request::CloseConnections { of, limit, reason: reason.clone() };
                Self::new(request, Show::Closed, move |_| line.clone())
            }
            Command::CloseAllUserConnections { user, reason } => {
                let of = Clients::User(user.clone());
                let request = Request::CloseConnections { of, limit: None, reason: reason.clone() };
                let line = format!("Closing connections of user {user}, reason: {reason}...\n");
                Self::new(request, Show::Closed, move |_| line.clone())
            }
            Command::AddUser(login) => {
                const DONE: &str = "Done. Don't forget to grant the user permissions to some virtual hosts! \
                                    See 'warren ctl help set_permissions' to learn more.";
                let (user, password) = credentials(login, read_password)?;
                let line = format!("Adding user \"{user}\" ...\n");
                let request = Request::AddUser { user, password };
                Self::new(request, Show::Done(DONE), move |_| line.clone())
            }
            Command::ChangePassword(login) => {
                let (user, password) = credentials(login, read_password)?;
                let line = format!("Changing password for user \"{user}\" ...");
                Self::change(Request::ChangePassword { user, password }, line)
            }
            Command::AuthenticateUser(login) => {
                let (user, password) = credentials(login, read_password)?;
                let line = format!("Authenticating user \"{user}\" ...\n");
                let request = Request::AuthenticateUser { user, password };
                Self::new(request, Show::Success, move |_| line.clone())
            }
            Command::DeleteUser { user } => Self::change(
                Request::DeleteUser { user: user.clone() },
                format!("Deleting user \"{user}\" ..."),
            ),
            Command::SetUserTags { user, tags } => Self::change(
                Request::SetUserTags { user: user.clone(), tags: tags.clone() },
                format!("Setting tags for user \"{user}\" to [{}] ...", tags.join(", ")),
            ),
            Command::AddVhost { vhost } => Self::change(
                Request::AddVhost { vhost: vhost.clone() },
                format!("Adding vhost \"{vhost}\" ..."),
            ),
            Command::DeleteVhost { vhost } => Self::change(
                Request::DeleteVhost { vhost: vhost.clone() },
                format!("Deleting vhost \"{vhost}\" ..."),
            ),
            Command::SetPermissions { vhost, user, configure, write, read } => Self::change(
                Request::SetPermissions {
                    vhost: vhost.name.clone(),
                    user: user.clone(),
                    configure: configure.clone(),
                    write: write.clone(),
                    read: read.clone(),
                },
                format!("Setting permissions for user \"{user}\" in vhost \"{}\" ...", vhost.name),
            ),
            Command::ClearPermissions { vhost, user } => Self::change(
                Request::ClearPermissions { vhost: vhost.name.clone(), user: user.clone() },
                format!("Clearing permissions for user \"{user}\" in vhost \"{}\" ...", vhost.name),
            ),
            Command::SetLogLevel { level } => Self::change(
                Request::SetLogLevel { level: level.clone() },
                format!("Setting log level to \"{level}\" ..."),
            ),
            Command::Stop => Self::new(Request::Stop {}, Show::Nothing, |node| {
                format!("Stopping and halting node {node} ...\n")
            }),
        }
    }

    fn list(request: Request, line: String) -> Result<Self, Failure> {
        Self::new(request, Show::Rows, move |_| format!("{line}\n"))
    }

    fn change(request: Request, line: String) -> Result<Self, Failure> {
        Self::new(request, Show::Nothing, move |_| format!("{line}\n"))
    }
}

fn list(of: Kind, vhost: Option<&String>, columns: &[String]) -> Request {
    Request::List { of, vhost: vhost.cloned(), user: None, columns: columns.to_vec() }
}

fn credentials(
    login: &Login,
    read: impl FnOnce() -> Result<String, Failure>,
) -> Result<(String, Password), Failure> {
    let password = login.password.clone().map_or_else(read, Ok)?;
    Ok((login.user.clone(), Password(password)))
}
