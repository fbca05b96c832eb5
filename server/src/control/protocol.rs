//! What goes over the control socket: one JSON line with a [`Request`], then the answer in JSON lines.
//!
//! ```text
//! ▶ {"command":"list","of":"queues","vhost":"/","columns":["name","messages"]}
//! ◀ {"node":"warren@host","columns":["name","messages"]}
//! ◀ ["orders",3]
//! ◀ {"rows":1}
//! ```
//!
//! The first line of an answer is a [`Head`]: a value, columns with rows to follow, or a refusal. A list ends with
//! a [`Tail`] that counts its rows, so that a list cut short is never taken for the whole. Client and broker are
//! usually the same binary; a field that only one of them knows is refused, not overlooked.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::exit;

/// Octets of a request, its line feed included.
pub(crate) const REQUEST_LEN_MAX: usize = 64 * 1024;

/// Octets of one line of an answer. The largest is a row with the arguments of a queue, which came in one frame.
pub(crate) const LINE_LEN_MAX: u64 = 16 * 1024 * 1024;

/// What can be asked. Those without arguments have braces, or serde would overlook fields that they do not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Whether anybody is there.
    Ping {},
    /// Whether the broker takes messages.
    Health {},
    /// The process and its resources.
    Status {},
    /// The settings in force; passwords masked.
    Environment {},
    /// Addresses that listen.
    Listeners {},
    /// Rows about objects of one kind.
    List {
        of: Kind,
        /// For kinds that belong to a virtual host.
        #[serde(default)]
        vhost: Option<String>,
        /// For [`Kind::UserPermissions`].
        #[serde(default)]
        user: Option<String>,
        /// Which columns, in this order; none asks for the usual ones.
        #[serde(default)]
        columns: Vec<String>,
    },
    PurgeQueue {
        vhost: String,
        queue: String,
    },
    DeleteQueue {
        vhost: String,
        queue: String,
        if_empty: bool,
        if_unused: bool,
    },
    /// By its name or by the column `pid` of a list.
    CloseConnection {
        connection: String,
        reason: String,
    },
    CloseConnections {
        of: Clients,
        /// At most so many; without it all.
        limit: Option<u64>,
        reason: String,
    },
    AddUser {
        user: String,
        password: Password,
    },
    DeleteUser {
        user: String,
    },
    ChangePassword {
        user: String,
        password: Password,
    },
    AuthenticateUser {
        user: String,
        password: Password,
    },
    SetUserTags {
        user: String,
        tags: Vec<String>,
    },
    AddVhost {
        vhost: String,
    },
    DeleteVhost {
        vhost: String,
    },
    SetPermissions {
        vhost: String,
        user: String,
        configure: String,
        write: String,
        read: String,
    },
    ClearPermissions {
        vhost: String,
        user: String,
    },
    /// Log by this level until the broker stops or reads its settings again.
    SetLogLevel {
        level: String,
    },
    /// Stop the broker, gracefully.
    Stop {},
}

impl Request {
    /// Whether it changes what the log keeps.
    pub(super) const fn changes_something(&self) -> bool {
        match self {
            Self::PurgeQueue { .. }
            | Self::DeleteQueue { .. }
            | Self::AddUser { .. }
            | Self::DeleteUser { .. }
            | Self::ChangePassword { .. }
            | Self::SetUserTags { .. }
            | Self::AddVhost { .. }
            | Self::DeleteVhost { .. }
            | Self::SetPermissions { .. }
            | Self::ClearPermissions { .. } => true,
            Self::Ping {}
            | Self::Health {}
            | Self::Status {}
            | Self::Environment {}
            | Self::Listeners {}
            | Self::List { .. }
            | Self::CloseConnection { .. }
            | Self::CloseConnections { .. }
            | Self::AuthenticateUser { .. }
            | Self::SetLogLevel { .. }
            | Self::Stop {} => false,
        }
    }
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Queues,
    Exchanges,
    Bindings,
    Connections,
    Channels,
    Consumers,
    Vhosts,
    Users,
    Permissions,
    UserPermissions,
}

/// Whose connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Clients {
    /// Everybody's.
    All,
    /// Those in a virtual host.
    Vhost(String),
    /// Those of a user.
    User(String),
}

/// A password on its way. Written out on the socket, masked everywhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Password(pub(crate) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::settings::units::MASK)
    }
}

/// The first line of an answer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Who answers.
    pub(crate) node: String,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

/// What the rest of a [`Head`] says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// All there is to say; null when it is only that it was done.
    Value(Value),
    /// Rows follow, each an array with as many values.
    Columns(Vec<String>),
    Refused(Refused),
}

/// The last line of a list.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tail {
    /// Rows before it.
    pub(crate) rows: u64,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    pub(crate) kind: Refusal,
    /// One sentence without a full stop: cause, and what to do where that is known.
    pub(crate) message: String,
}

/// Classes of refusals: the exit codes that rabbitmqctl has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// The request makes no sense.
    Usage,
    /// What was given is not right.
    Data,
    /// There is no such user.
    NoUser,
    /// The broker says no.
    Unavailable,
    /// It contradicts what is there.
    Conflict,
}

impl Refusal {
    /// The exit code of the client.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Usage => exit::USAGE,
            Self::Data => exit::DATA,
            Self::NoUser => exit::NO_USER,
            Self::Unavailable => exit::UNAVAILABLE,
            Self::Conflict => exit::SOFTWARE,
        }
    }

    /// A refusal of this class.
    pub(crate) fn because(self, message: impl Into<String>) -> Refused {
        Refused { kind: self, message: message.into() }
    }
}

/// The candidate that somebody may have meant by `word`, if one is near.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    const SIMILARITY_MIN: f64 = 0.8;
    let scored =
        candidates.into_iter().map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score >= SIMILARITY_MIN).map(|(_, candidate)| candidate)
}

/// `; did you mean '…'?`, or nothing.
pub(crate) fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> String {
    nearest(word, candidates).map_or_else(String::new, |near| format!("; did you mean '{near}'?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_and_comes_back_as_it_was() {
        let requests = [
            Request::Ping {},
            Request::List {
                of: Kind::UserPermissions,
                vhost: None,
                user: Some("a\nb".into()),
                columns: vec!["vhost".into()],
            },
            Request::CloseConnections {
                of: Clients::Vhost("/".into()),
                limit: None,
                reason: "bye".into(),
            },
            Request::AddUser { user: "u".into(), password: Password("p".into()) },
        ];
        for request in requests {
            let line = serde_json::to_string(&request).expect("it serialises");
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Request>(&line).expect("it reads back"), request);
        }
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let line = r#"{"command":"delete_user","user":"u","force":true}"#;
        let refused = serde_json::from_str::<Request>(line).expect_err("a field too many");
        assert!(refused.to_string().contains("force"), "{refused}");
    }

    #[test]
    fn a_head_keeps_its_three_forms_apart() {
        for answer in [
            Answer::Value(Value::Null),
            Answer::Columns(vec!["name".into()]),
            Answer::Refused(Refusal::NoUser.because("user 'x' does not exist")),
        ] {
            let head = Head { node: "warren@host".into(), answer };
            let line = serde_json::to_string(&head).expect("it serialises");
            assert_eq!(serde_json::from_str::<Head>(&line).expect("it reads back"), head);
        }
    }

    #[test]
    fn a_password_is_masked_when_it_is_printed() {
        let request =
            Request::ChangePassword { user: "u".into(), password: Password("hunter2".into()) };
        assert!(!format!("{request:?}").contains("hunter2"));
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let names = ["name", "messages", "memory"];
        assert_eq!(nearest("mesages", names), Some("messages"));
        assert_eq!(nearest("zzz", names), None);
    }
}
