//! The header `x-delivery-count` of messages that come back in a queue of type `quorum`.
//!
//! A consumer reads from it how often a message was given to somebody who did not settle it, to set it aside before the
//! queue's delivery limit does. It is made when the message is delivered: the message itself stays as it was published.

use proto_amqp::properties;
use proto_amqp::table::{self, Limits, Value, write_table};

use crate::queue::Queue;
use crate::queue::arguments::QueueType;

const NAME: &[u8] = b"x-delivery-count";

/// The property list of a message that has come back to `queue` `returns` times, with the count in its headers; `None`
/// where there is nothing to add: on the first delivery, and in queues of other types.
#[must_use]
#[inline]
pub fn with_delivery_count(queue: &Queue, returns: u16, properties: &[u8]) -> Option<Vec<u8>> {
    // Nearly all messages are delivered once.
    if returns == 0 || queue.spec.settings.queue_type != QueueType::Quorum {
        return None;
    }
    written(returns, properties)
}

#[cold]
fn written(returns: u16, properties: &[u8]) -> Option<Vec<u8>> {
    // It was checked when the message came in.
    let mut list = properties::summarise(properties).ok()?;
    let mut headers = Vec::new();
    write_table(&mut headers, |table| {
        for (name, value) in list.headers_reader() {
            if name != NAME {
                table.write(name, value)?;
            }
        }
        table.write(NAME, Value::LongLongInt(returns.into()))
    })
    .ok()?;
    let headers = headers.get(4..)?;
    // Headers at the limit of what a table may hold: the message is delivered without the count.
    table::check(headers, Limits::DEFAULT).ok()?;
    list.headers = Some(headers);
    let mut encoded = Vec::with_capacity(properties.len() + 32);
    properties::encode(&list, &mut encoded).ok()?;
    Some(encoded)
}
