//! Names of virtual hosts, exchanges, queues and users: checked once, cheap to share afterwards.
//!
//! AMQP gives a name at most 255 octets (`shortstr`). Everything else is legal in a name, spaces and
//! slashes included, except that CR and LF are dropped when something is declared, as RabbitMQ does. A
//! name is never used as a file name or inside a pattern.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest name in octets (AMQP 0-9-1 §4.2.5.3, `shortstr`).
pub const NAME_LEN_MAX: usize = 255;

/// A name longer than [`NAME_LEN_MAX`] octets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name has at most {NAME_LEN_MAX} octets, this one has {len}")]
pub struct NameTooLong {
    /// Octets of the refused name.
    pub len: usize,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the length and drops CR and LF.
            ///
            /// # Errors
            /// [`NameTooLong`] when more than [`NAME_LEN_MAX`] octets remain.
            pub fn new(name: &str) -> Result<Self, NameTooLong> {
                let name: Arc<str> = if name.bytes().any(|octet| octet == b'\r' || octet == b'\n') {
                    name.replace(['\r', '\n'], "").into()
                } else {
                    name.into()
                };
                if name.len() > NAME_LEN_MAX {
                    return Err(NameTooLong { len: name.len() });
                }
                Ok(Self(name))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name! {
    /// Name of a virtual host, such as `/`.
    VhostName
}
name! {
    /// Name of an exchange; the empty name is the default exchange.
    ExchangeName
}
name! {
    /// Name of a queue.
    QueueName
}
name! {
    /// Name of a user.
    UserName
}

impl ExchangeName {
    /// Whether this is the default exchange, whose name is empty.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriage_returns_and_line_feeds_are_dropped() {
        assert_eq!(QueueName::new("a\r\nb").map(|name| name.to_string()), Ok("ab".to_owned()));
    }

    #[test]
    fn names_longer_than_a_shortstr_are_refused() {
        assert_eq!(QueueName::new(&"x".repeat(256)), Err(NameTooLong { len: 256 }));
        assert!(QueueName::new(&"x".repeat(255)).is_ok());
    }
}
