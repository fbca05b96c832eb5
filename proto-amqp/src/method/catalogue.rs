//! Every method of 0-9-1 and its extensions: numbers, name, who sends it, and its arguments' types.
//!
//! The other versions are described by how they differ: in 0-8 `connection.close` has other numbers,
//! two methods have fewer arguments and some do not exist; in 0-9 `basic.recover` has a second number.
//! The classes file, stream, dtx, tunnel and test, `connection.redirect` and `channel.alert` of the
//! older texts are absent, as nobody implements them.

use super::MethodId;
use crate::types::Version;

/// The type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    /// One octet; also a run of up to eight bits, and no method has more.
    Octet,
    Short,
    Long,
    LongLong,
    ShortStr,
    LongStr,
    Table,
}

use Argument::{Long, LongLong, LongStr, Octet, Short, ShortStr, Table};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
    Both,
}

use Sender::{Both, Client, Server};

/// A method as 0-9-1 has it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: MethodId,
    pub(crate) name: &'static str,
    sender: Sender,
    arguments: &'static [Argument],
}

impl Entry {
    pub(crate) fn sent_by_client(&self) -> bool {
        self.sender != Server
    }

    /// The arguments' types in `version`.
    pub(crate) fn arguments(&self, version: Version) -> &'static [Argument] {
        match (version, self.id) {
            (Version::V0_8, CHANNEL_OPEN_OK) => &[],
            (Version::V0_8, BASIC_CONSUME) => &[Short, ShortStr, ShortStr, Octet],
            _ => self.arguments,
        }
    }
}

pub(crate) const CHANNEL_OPEN_OK: MethodId = id(20, 11);
pub(crate) const BASIC_CONSUME: MethodId = id(60, 20);
pub(crate) const BASIC_RECOVER: MethodId = id(60, 110);
pub(crate) const BASIC_RECOVER_OK: MethodId = id(60, 111);
/// `basic.recover` and its answer in the 0-9 text. RabbitMQ: does not have them.
pub(crate) const BASIC_RECOVER_0_9: MethodId = id(60, 102);
pub(crate) const BASIC_RECOVER_OK_0_9: MethodId = id(60, 101);
const CONNECTION_CLOSE: MethodId = id(10, 50);
const CONNECTION_CLOSE_OK: MethodId = id(10, 51);
const CONNECTION_CLOSE_0_8: MethodId = id(10, 60);
const CONNECTION_CLOSE_OK_0_8: MethodId = id(10, 61);

const fn id(class: u16, method: u16) -> MethodId {
    MethodId { class, method }
}

const fn entry(
    class: u16,
    method: u16,
    name: &'static str,
    sender: Sender,
    arguments: &'static [Argument],
) -> Entry {
    Entry { id: id(class, method), name, sender, arguments }
}

#[rustfmt::skip]
pub(crate) const METHODS: &[Entry] = &[
    entry(10, 10, "connection.start", Server, &[Octet, Octet, Table, LongStr, LongStr]),
    entry(10, 11, "connection.start-ok", Client, &[Table, ShortStr, LongStr, ShortStr]),
    entry(10, 20, "connection.secure", Server, &[LongStr]),
    entry(10, 21, "connection.secure-ok", Client, &[LongStr]),
    entry(10, 30, "connection.tune", Server, &[Short, Long, Short]),
    entry(10, 31, "connection.tune-ok", Client, &[Short, Long, Short]),
    entry(10, 40, "connection.open", Client, &[ShortStr, ShortStr, Octet]),
    entry(10, 41, "connection.open-ok", Server, &[ShortStr]),
    entry(10, 50, "connection.close", Both, &[Short, ShortStr, Short, Short]),
    entry(10, 51, "connection.close-ok", Both, &[]),
    entry(10, 60, "connection.blocked", Server, &[ShortStr]),
    entry(10, 61, "connection.unblocked", Server, &[]),
    entry(10, 70, "connection.update-secret", Client, &[LongStr, ShortStr]),
    entry(10, 71, "connection.update-secret-ok", Server, &[]),
    entry(20, 10, "channel.open", Client, &[ShortStr]),
    entry(20, 11, "channel.open-ok", Server, &[LongStr]),
    entry(20, 20, "channel.flow", Both, &[Octet]),
    entry(20, 21, "channel.flow-ok", Both, &[Octet]),
    entry(20, 40, "channel.close", Both, &[Short, ShortStr, Short, Short]),
    entry(20, 41, "channel.close-ok", Both, &[]),
    entry(30, 10, "access.request", Client, &[ShortStr, Octet]),
    entry(30, 11, "access.request-ok", Server, &[Short]),
    entry(40, 10, "exchange.declare", Client, &[Short, ShortStr, ShortStr, Octet, Table]),
    entry(40, 11, "exchange.declare-ok", Server, &[]),
    entry(40, 20, "exchange.delete", Client, &[Short, ShortStr, Octet]),
    entry(40, 21, "exchange.delete-ok", Server, &[]),
    entry(40, 30, "exchange.bind", Client, &[Short, ShortStr, ShortStr, ShortStr, Octet, Table]),
    entry(40, 31, "exchange.bind-ok", Server, &[]),
    entry(40, 40, "exchange.unbind", Client, &[Short, ShortStr, ShortStr, ShortStr, Octet, Table]),
    entry(40, 51, "exchange.unbind-ok", Server, &[]),
    entry(50, 10, "queue.declare", Client, &[Short, ShortStr, Octet, Table]),
    entry(50, 11, "queue.declare-ok", Server, &[ShortStr, Long, Long]),
    entry(50, 20, "queue.bind", Client, &[Short, ShortStr, ShortStr, ShortStr, Octet, Table]),
    entry(50, 21, "queue.bind-ok", Server, &[]),
    entry(50, 30, "queue.purge", Client, &[Short, ShortStr, Octet]),
    entry(50, 31, "queue.purge-ok", Server, &[Long]),
    entry(50, 40, "queue.delete", Client, &[Short, ShortStr, Octet]),
    entry(50, 41, "queue.delete-ok", Server, &[Long]),
    entry(50, 50, "queue.unbind", Client, &[Short, ShortStr, ShortStr, ShortStr, Table]),
    entry(50, 51, "queue.unbind-ok", Server, &[]),
    entry(60, 10, "basic.qos", Client, &[Long, Short, Octet]),
    entry(60, 11, "basic.qos-ok", Server, &[]),
    entry(60, 20, "basic.consume", Client, &[Short, ShortStr, ShortStr, Octet, Table]),
    entry(60, 21, "basic.consume-ok", Server, &[ShortStr]),
    entry(60, 30, "basic.cancel", Both, &[ShortStr, Octet]),
    entry(60, 31, "basic.cancel-ok", Both, &[ShortStr]),
    entry(60, 40, "basic.publish", Client, &[Short, ShortStr, ShortStr, Octet]),
    entry(60, 50, "basic.return", Server, &[Short, ShortStr, ShortStr, ShortStr]),
    entry(60, 60, "basic.deliver", Server, &[ShortStr, LongLong, Octet, ShortStr, ShortStr]),
    entry(60, 70, "basic.get", Client, &[Short, ShortStr, Octet]),
    entry(60, 71, "basic.get-ok", Server, &[LongLong, Octet, ShortStr, ShortStr, Long]),
    entry(60, 72, "basic.get-empty", Server, &[ShortStr]),
    entry(60, 80, "basic.ack", Both, &[LongLong, Octet]),
    entry(60, 90, "basic.reject", Client, &[LongLong, Octet]),
    entry(60, 100, "basic.recover-async", Client, &[Octet]),
    entry(60, 110, "basic.recover", Client, &[Octet]),
    entry(60, 111, "basic.recover-ok", Server, &[]),
    entry(60, 120, "basic.nack", Both, &[LongLong, Octet]),
    entry(85, 10, "confirm.select", Client, &[Octet]),
    entry(85, 11, "confirm.select-ok", Server, &[]),
    entry(90, 10, "tx.select", Client, &[]),
    entry(90, 11, "tx.select-ok", Server, &[]),
    entry(90, 20, "tx.commit", Client, &[]),
    entry(90, 21, "tx.commit-ok", Server, &[]),
    entry(90, 30, "tx.rollback", Client, &[]),
    entry(90, 31, "tx.rollback-ok", Server, &[]),
];

/// The method of these 0-9-1 numbers.
pub(crate) fn find(id: MethodId) -> Option<&'static Entry> {
    METHODS.iter().find(|entry| entry.id == id)
}

/// The method that these numbers mean on the wire of `version`.
pub(crate) fn of_wire(wire: MethodId, version: Version) -> Option<&'static Entry> {
    let id = match (version, wire) {
        (Version::V0_8, CONNECTION_CLOSE_0_8) => CONNECTION_CLOSE,
        (Version::V0_8, CONNECTION_CLOSE_OK_0_8) => CONNECTION_CLOSE_OK,
        // These numbers are connection.redirect in 0-8.
        (Version::V0_8, CONNECTION_CLOSE | CONNECTION_CLOSE_OK) => return None,
        (Version::V0_8, id) if is_newer_than_0_8(id) => return None,
        (Version::V0_9, BASIC_RECOVER_0_9) => BASIC_RECOVER,
        (Version::V0_9, BASIC_RECOVER_OK_0_9) => BASIC_RECOVER_OK,
        (_, id) => id,
    };
    find(id)
}

/// The numbers on the wire of `version` for a method's 0-9-1 numbers, if the version has it.
pub(crate) fn on_the_wire(id: MethodId, version: Version) -> Option<MethodId> {
    match (version, id) {
        (Version::V0_8, CONNECTION_CLOSE) => Some(CONNECTION_CLOSE_0_8),
        (Version::V0_8, CONNECTION_CLOSE_OK) => Some(CONNECTION_CLOSE_OK_0_8),
        (Version::V0_8, id) if is_newer_than_0_8(id) => None,
        (Version::V0_9, BASIC_RECOVER) => Some(BASIC_RECOVER_0_9),
        (Version::V0_9, BASIC_RECOVER_OK) => Some(BASIC_RECOVER_OK_0_9),
        (_, id) => find(id).map(|entry| entry.id),
    }
}

/// Whether 0-8 does not have the method: blocked, unblocked, update-secret and its answer, binding of
/// exchanges, nack, and class confirm.
fn is_newer_than_0_8(id: MethodId) -> bool {
    matches!((id.class, id.method), (10, 60..=71) | (40, 30..=51) | (60, 120) | (85, _))
}
