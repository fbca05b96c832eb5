//! Methods: from the payload of a method frame to a value, whichever way it takes.
//!
//! ```text
//!  payload   class u16 | method u16 | arguments
//! ```
//!
//! [`decode`] reads the ids and then goes the hot way ([`basic`]) or the thorough one
//! ([`control`]). Which methods exist in which version, who sends them and what their
//! arguments are is written down once, in the catalogue; the thorough way walks the arguments by it
//! before `amq_protocol` sees them.
//!
//! A method that only servers send decodes like any other. Refusing it is the server's business, with
//! [`is_client_method`].

use std::fmt;

use amq_protocol::protocol::AMQPClass;

use crate::{
    basic::{self, Ack, Hot, Nack, Publish, Reject},
    control,
    types::Version,
};

pub use crate::error::{MethodError, MethodErrorKind};

pub(crate) mod catalogue;

/// Class and method number, as close methods name a method.
///
/// The numbers are those on the wire: `connection.close` is 10, 50, but 10, 60 in 0-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodId {
    /// The class number.
    pub class: u16,
    /// The method's number within its class.
    pub method: u16,
}

impl MethodId {
    /// 0, 0: no method, in a close method for an error that no method caused.
    pub const NONE: Self = Self { class: 0, method: 0 };
    /// `basic.publish`.
    pub const BASIC_PUBLISH: Self = Self { class: 60, method: 40 };

    /// The ids at the front of a method frame's payload; `None` when it is shorter than that.
    #[must_use]
    pub fn of_payload(payload: &[u8]) -> Option<Self> {
        let (&[c0, c1, m0, m1], _) = payload.split_first_chunk::<4>()?;
        Some(Self { class: u16::from_be_bytes([c0, c1]), method: u16::from_be_bytes([m0, m1]) })
    }

    /// The name, such as `queue.declare`, that 0-9-1 has for these numbers.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        catalogue::find(self).map(|entry| entry.name)
    }
}

/// The method's 0-9-1 name, or its numbers when it has none.
impl fmt::Display for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{},{}", self.class, self.method),
        }
    }
}

/// A decoded method.
#[derive(Clone, Debug, PartialEq)]
pub enum Method<'a> {
    /// `basic.publish`; its content follows.
    Publish(Publish<'a>),
    /// `basic.ack`.
    Ack(Ack),
    /// `basic.nack`.
    Nack(Nack),
    /// `basic.reject`.
    Reject(Reject),
    /// Every other method. Boxed: these are rare and large.
    Control(Box<AMQPClass>),
}

/// Decodes the payload of a method frame.
///
/// Octets after the last argument are accepted and ignored: the arguments say where they end, and
/// later revisions of the protocol have appended some. Too few octets are an error, never a wish for
/// more, because the frame was whole.
///
/// # Errors
/// [`MethodError`], which names the method if the payload did.
#[inline]
pub fn decode(payload: &[u8], version: Version) -> Result<Method<'_>, MethodError> {
    match basic::decode_hot(payload)? {
        // 0-8 has no basic.nack.
        Some(Hot::Nack(_)) if version == Version::V0_8 => {
            control::decode(payload, version).map(|class| Method::Control(Box::new(class)))
        }
        Some(Hot::Publish(publish)) => Ok(Method::Publish(publish)),
        Some(Hot::Ack(ack)) => Ok(Method::Ack(ack)),
        Some(Hot::Nack(nack)) => Ok(Method::Nack(nack)),
        Some(Hot::Reject(reject)) => Ok(Method::Reject(reject)),
        None => control::decode(payload, version).map(|class| Method::Control(Box::new(class))),
    }
}

/// The numbers of a control method on the wire of `version`.
///
/// For a method that the version does not have, its 0-9-1 numbers.
#[must_use]
pub fn id_of(class: &AMQPClass, version: Version) -> MethodId {
    let id = MethodId { class: class.get_amqp_class_id(), method: class.get_amqp_method_id() };
    catalogue::on_the_wire(id, version).unwrap_or(id)
}

/// Whether `version` has a method of these numbers, whoever sends it.
#[must_use]
pub fn is_known(id: MethodId, version: Version) -> bool {
    catalogue::of_wire(id, version).is_some()
}

/// Whether clients send the method that these numbers mean in `version`.
///
/// The version matters: 10, 60 is the client's `connection.close` in 0-8 and the server's
/// `connection.blocked` in 0-9-1.
#[must_use]
pub fn is_client_method(id: MethodId, version: Version) -> bool {
    catalogue::of_wire(id, version).is_some_and(|entry| entry.sent_by_client())
}

#[cfg(test)]
mod tests;
