//! AMQP 0-9-1, 0-9 and 0-8: octets to values and back.
//!
//! The crate turns octets into frames, methods, content headers and property lists, and the same the
//! other way round. It holds no socket, no clock, no runtime and no log, keeps no state but that of a
//! half-received content, and cannot be made to panic by any input.
//!
//! Two ways lead through it:
//!
//! - **The hot way** is written by hand, borrows from its input and allocates nothing: cutting frames
//!   ([`frame`]), `basic.publish`, `ack`, `nack`, `reject`, `deliver`, `return`, `get-ok` ([`basic`]),
//!   content headers ([`content`]), the check of a property list ([`properties`]) and of the field
//!   table in it ([`table`]).
//! - **Every other method** goes through `amq_protocol` ([`control`]), after [`method`] has walked the
//!   arguments: lengths, UTF-8 and the nesting of tables are checked iteratively first, because
//!   `amq_protocol` recurses into tables without a bound.
//!
//! A message's property list is never decoded and encoded again on its way through a broker: it is
//! checked once and carried as octets.
//!
//! ```text
//!  octets ─▶ frame::parse ─▶ method::decode ─┬─▶ Publish, Ack, Nack, Reject   (borrowed)
//!                       │                    └─▶ Control(Box<AMQPClass>)      (owned, rare)
//!                       ├─▶ ContentHeader::parse ─▶ properties::summarise
//!                       └─▶ body octets as they are
//! ```
//!
//! Every error knows its reply code and the text that follows `NAME - ` in the close method
//! ([`error`]); what dies of it, channel or connection, is decided by the server.

#![deny(clippy::indexing_slicing)]

pub mod basic;
pub mod codec;
pub mod content;
pub mod control;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod method;
pub mod properties;
mod read;
pub mod reply;
pub mod table;
pub mod types;

pub use basic::{Ack, Deliver, GetOk, Nack, Publish, Reject};
pub use codec::{FrameCodec, OwnedFrame};
pub use content::{Content, ContentAssembler, ContentHeader, PublishOwned};
pub use error::{
    CodecError, ContentError, EncodeError, FrameError, MethodError, MethodErrorKind,
    PropertiesError, SaslError, TableError,
};
pub use frame::{FRAME_END, FRAME_HEADER_LEN, FRAME_MIN_SIZE, FRAME_OVERHEAD, Frame, FrameKind};
pub use method::{Method, MethodId};
pub use properties::Properties;
pub use reply::ReplyCode;
pub use types::{ChannelId, DeliveryTag, Version, reply_text};
