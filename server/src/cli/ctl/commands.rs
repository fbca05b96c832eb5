//! The commands of `warren ctl` with their arguments; the comments here are the help that people read.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
EXAMPLES:
  warren ctl list_queues name messages_ready consumers
  warren ctl list_connections user peer_host state --formatter json
  warren ctl add_user alice            (asks for the password)
  warren ctl set_permissions -p / alice '^app\\.' '.*' '.*'
  warren ctl --data-dir /srv/warren status

Exit codes: 0 done, 64 wrong usage, 65 wrong data, 67 no such user, 69 no broker or refused, 70 it \
contradicts what is there, 75 too late, 78 wrong settings.";

/// Ask or tell a running broker something, in the manner of rabbitmqctl.
#[derive(Debug, Parser)]
#[command(
    name = "warren ctl",
    version,
    after_help = EXAMPLES,
    max_term_width = 100,
    disable_help_flag = true,
    arg_required_else_help = true
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Say only what was asked for
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// The same, and no header above tables
    #[arg(short, long, global = true)]
    pub(super) silent: bool,
    /// No header above tables
    #[arg(long, global = true)]
    no_table_headers: bool,
    /// Say what would be done and do nothing
    #[arg(long, global = true)]
    pub(super) dry_run: bool,
    /// How results look
    #[arg(long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    pub(super) formatter: Format,
    /// How long to wait for the answer, in seconds; 0 is no limit [default: 60; await_startup: 300]
    #[arg(short, long, global = true, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
    /// Taken for the sake of scripts and not used: the broker of this machine is asked, whatever
    /// its node is called
    #[arg(short, long, global = true, value_name = "NODE")]
    node: Option<String>,
    /// Taken for the sake of scripts and not used, like --node
    #[arg(short, long, global = true)]
    longnames: bool,
    /// The broker's control socket, in place of what its settings say
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// The broker's settings file, which says where the control socket is
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The broker's data directory, where its control socket is by default
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    /// Print help
    #[arg(short = '?', short_alias = 'h', long, global = true, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Common {
    /// Whether it says what it does.
    pub(super) const fn chatters(&self) -> bool {
        !self.quiet && !self.silent && !self.formatter.is_for_machines()
    }

    /// Whether tables have a header.
    pub(super) const fn shows_header(&self) -> bool {
        !self.silent && !self.no_table_headers
    }
}

/// How results look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Format {
    /// Columns parted by tabs
    Table,
    /// Columns in frames
    PrettyTable,
    /// One JSON document
    Json,
    /// One JSON object a line
    JsonStream,
    /// Comma-separated values, all quoted
    Csv,
}

impl Format {
    /// Whether programs read it, so that nothing else may be printed.
    const fn is_for_machines(self) -> bool {
        matches!(self, Self::Json | Self::JsonStream | Self::Csv)
    }
}

/// The virtual host that a command is about.
#[derive(Debug, Args)]
pub(super) struct Vhost {
    /// The virtual host
    #[arg(short = 'p', long = "vhost", value_name = "VHOST", default_value = "/")]
    pub(super) name: String,
}

/// The columns of a list.
#[derive(Debug, Args)]
pub(super) struct Columns {
    /// Columns, in this order; an unknown one is answered with those there are
    #[arg(value_name = "COLUMN", value_delimiter = ',')]
    pub(super) columns: Vec<String>,
}

/// A user and a password.
#[derive(Debug, Args)]
pub(super) struct Login {
    /// The user
    #[arg(value_name = "USERNAME")]
    pub(super) user: String,
    /// The password; better left out, since other users of the machine can see it here: then it is
    /// asked for, or read from standard input
    #[arg(value_name = "PASSWORD")]
    pub(super) password: Option<String>,
}

/// What `warren ctl` can do.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub(super) enum Command {
    /// List queues: name, messages, …
    ListQueues {
        #[command(flatten)]
        vhost: Vhost,
        /// Those of nodes that are down: none, since there is one node
        #[arg(long)]
        offline: bool,
        /// Those of nodes that run: all of them
        #[arg(long)]
        online: bool,
        /// Those of this node: all of them
        #[arg(long)]
        local: bool,
        #[command(flatten)]
        columns: Columns,
    },
    /// List exchanges: name, type, …
    ListExchanges {
        #[command(flatten)]
        vhost: Vhost,
        #[command(flatten)]
        columns: Columns,
    },
    /// List bindings, those to the default exchange included
    ListBindings {
        #[command(flatten)]
        vhost: Vhost,
        #[command(flatten)]
        columns: Columns,
    },
    /// List connections of all protocols: user, peer_host, peer_port, state, …
    ListConnections {
        #[command(flatten)]
        columns: Columns,
    },
    /// List channels: pid, user, consumer_count, messages_unacknowledged, …
    ListChannels {
        #[command(flatten)]
        columns: Columns,
    },
    /// List consumers
    ListConsumers {
        #[command(flatten)]
        vhost: Vhost,
        #[command(flatten)]
        columns: Columns,
    },
    /// List virtual hosts
    ListVhosts {
        #[command(flatten)]
        columns: Columns,
    },
    /// List users and their tags
    ListUsers,
    /// List the permissions in a virtual host
    ListPermissions {
        #[command(flatten)]
        vhost: Vhost,
    },
    /// List the permissions of a user in all virtual hosts
    ListUserPermissions {
        /// The user
        #[arg(value_name = "USERNAME")]
        user: String,
    },
    /// Show process, resources, alarms, totals and listeners
    Status,
    /// Find out whether the broker answers
    Ping,
    /// Find out whether the broker has started
    CheckRunning,
    /// Fail if the memory or disk alarm is on
    CheckLocalAlarms,
    /// Wait until the broker has started
    AwaitStartup,
    /// Show the addresses that listen
    Listeners,
    /// Show the settings in force; passwords are masked
    Environment,
    /// Drop all messages in a queue that are ready
    PurgeQueue {
        #[command(flatten)]
        vhost: Vhost,
        /// The queue
        queue: String,
    },
    /// Delete a queue
    DeleteQueue {
        #[command(flatten)]
        vhost: Vhost,
        /// The queue
        queue: String,
        /// Only if no messages are ready in it
        #[arg(short = 'e', long = "if-empty")]
        if_empty: bool,
        /// Only if it has no consumers
        #[arg(short = 'u', long = "if-unused")]
        if_unused: bool,
    },
    /// Close one connection
    CloseConnection {
        /// Its name, or its pid in list_connections
        #[arg(value_name = "CONNECTION")]
        connection: String,
        /// What its client is told
        #[arg(value_name = "EXPLANATION")]
        reason: String,
    },
    /// Close the connections in a virtual host, or all
    CloseAllConnections {
        #[command(flatten)]
        vhost: Vhost,
        /// In all virtual hosts
        #[arg(long, conflicts_with = "name")]
        global: bool,
        /// At most so many; 0 is no limit
        #[arg(long, default_value_t = 0)]
        limit: u64,
        /// What their clients are told
        #[arg(value_name = "EXPLANATION")]
        reason: String,
    },
    /// Close the connections of a user
    CloseAllUserConnections {
        /// The user
        #[arg(value_name = "USERNAME")]
        user: String,
        /// What their clients are told
        #[arg(value_name = "EXPLANATION")]
        reason: String,
    },
    /// Add a user, who may do nothing until set_permissions
    AddUser(Login),
    /// Delete a user
    DeleteUser {
        /// The user
        #[arg(value_name = "USERNAME")]
        user: String,
    },
    /// Set the password of a user
    ChangePassword(Login),
    /// Find out whether a user has that password
    AuthenticateUser(Login),
    /// Replace the tags of a user, such as administrator
    SetUserTags {
        /// The user
        #[arg(value_name = "USERNAME")]
        user: String,
        /// Tags; none takes all away
        #[arg(value_name = "TAG")]
        tags: Vec<String>,
    },
    /// Add a virtual host
    AddVhost {
        /// Its name
        vhost: String,
    },
    /// Delete a virtual host with everything in it
    DeleteVhost {
        /// Its name
        vhost: String,
    },
    /// Set what a user may do in a virtual host: three regular expressions for names
    SetPermissions {
        #[command(flatten)]
        vhost: Vhost,
        /// The user
        #[arg(value_name = "USERNAME")]
        user: String,
        /// What may be declared and deleted; '' is nothing, '.*' everything
        #[arg(value_name = "CONF")]
        configure: String,
        /// What may be published and bound to
        write: String,
        /// What may be consumed and bound from
        read: String,
    },
    /// Take a user's permissions in a virtual host away
    ClearPermissions {
        #[command(flatten)]
        vhost: Vhost,
        /// The user
        #[arg(value_name = "USERNAME")]
        user: String,
    },
    /// Log more or less until the broker stops or gets SIGHUP
    SetLogLevel {
        /// off, error, warn, info, debug or trace; also by module: info,warren_server::amqp=debug.
        /// none, warning and critical are taken too
        #[arg(value_name = "LOG_LEVEL")]
        level: String,
    },
    /// Stop the broker: clients are told, then it ends
    Stop,
}

impl Command {
    /// How long it waits when --timeout does not say.
    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_secs(match self {
            Self::AwaitStartup => 300,
            _ => 60,
        })
    }
}
