//! Every method that is not hot, through `amq_protocol`.
//!
//! [`decode`] walks the arguments first, by their types in the catalogue: each length, the UTF-8 of
//! short strings, and field tables with [`table::check`]. Only then does
//! `amq_protocol` see the octets, with the older versions' differences already evened out. So its
//! unbounded recursion into tables, its errors without ids and its wish for more octets stay behind
//! us, and [`AMQPClass`] is one set of types for all versions.
//!
//! What `amq_protocol` drops on the way is read beside it: [`qos_prefetch_size`], and with
//! [`argument_table`] the octets of a field table, in its order and with its duplicates.

use std::borrow::Cow;

use amq_protocol::{
    frame::WriteContext,
    protocol::{AMQPClass, gen_class, parse_class},
};

use crate::{
    error::{EncodeError, MethodError, MethodErrorKind, Octets},
    frame::{self, FRAME_END, FrameKind},
    method::{
        MethodId,
        catalogue::{self, Argument, Entry},
    },
    read::Reader,
    table::{self, Limits},
    types::{ChannelId, Version},
};

pub use amq_protocol::{protocol, types};

/// Decodes the payload of a method frame into `amq_protocol`'s types, hot methods included.
///
/// # Errors
/// [`MethodError`], as [`method::decode`](crate::method::decode).
pub fn decode(payload: &[u8], version: Version) -> Result<AMQPClass, MethodError> {
    let (entry, arguments) = entry_of(payload, version)?;
    let error = |kind| MethodError {
        id: MethodId::of_payload(payload),
        kind,
        arguments: Octets::of(arguments),
    };
    walk(entry, arguments, version).map_err(error)?;
    parse_class(canonical(entry, payload, arguments, version).as_ref())
        .map(|(_, class)| class)
        // The walk has seen to everything else.
        .map_err(|_| error(MethodErrorKind::BadArguments("a field name is not UTF-8")))
}

/// The contents of the field table among the arguments, without its length, if the method has one.
///
/// In the sender's order and with the duplicates, which `amq_protocol`'s `FieldTable` has neither of;
/// of duplicates the first counts. Made for payloads that [`decode`] has accepted.
#[must_use]
pub fn argument_table(payload: &[u8], version: Version) -> Option<&[u8]> {
    let (entry, arguments) = entry_of(payload, version).ok()?;
    let mut reader = Reader::new(arguments);
    for argument in entry.arguments(version) {
        if *argument == Argument::Table {
            return reader.longstr();
        }
        take(*argument, &mut reader)?;
    }
    None
}

/// The `prefetch-size` of a `basic.qos`, in octets, which `amq_protocol` does not keep.
///
/// `None` when the payload is no `basic.qos`. A server that has no prefetch by size refuses all but 0.
#[must_use]
pub fn qos_prefetch_size(payload: &[u8]) -> Option<u32> {
    const BASIC_QOS: [u8; 4] = [0, 60, 0, 10];
    let mut reader = Reader::new(payload);
    if reader.array() != Some(BASIC_QOS) {
        return None;
    }
    reader.long()
}

/// Appends `method` as a whole frame, in the layout of `version`.
///
/// # Errors
/// [`EncodeError`]; `out` is then as it was.
pub fn encode(
    channel: ChannelId,
    method: &AMQPClass,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let id = MethodId { class: method.get_amqp_class_id(), method: method.get_amqp_method_id() };
    let wire =
        catalogue::on_the_wire(id, version).ok_or(EncodeError::NotInVersion { id, version })?;
    // Not straight into `out`: the generator takes the buffer by value and loses it on failure.
    let payload = gen_class(method)(WriteContext::from(Vec::new()))
        .map_err(|_| EncodeError::Arguments(id))?
        .write;
    let arguments = payload.get(4..).unwrap_or_default();
    // 0-8 has the same arguments, but of some methods without the last, which must then be empty.
    catalogue::find(id)
        .and_then(|entry| extent(entry.arguments(version), arguments))
        .filter(|kept| matches!(arguments.get(kept.len()..), Some([] | [0, 0, 0, 0])))
        .and_then(|kept| append(channel, wire, kept, out))
        .ok_or(EncodeError::Arguments(id))
}

/// Appends the answer to a `basic.recover`, with the number that belongs to the request's.
///
/// A 0-9 client may speak the 0-9 text (60, 102 answered by 60, 101) or RabbitMQ's dialect (60, 110
/// answered by 60, 111), and only the request tells which.
pub fn encode_recover_ok(channel: ChannelId, request: MethodId, out: &mut Vec<u8>) {
    let id = if request == catalogue::BASIC_RECOVER_0_9 {
        catalogue::BASIC_RECOVER_OK_0_9
    } else {
        catalogue::BASIC_RECOVER_OK
    };
    let appended = append(channel, id, &[], out);
    debug_assert!(appended.is_some(), "four octets fit every frame");
}

fn append(channel: ChannelId, id: MethodId, arguments: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let size = u32::try_from(arguments.len()).ok()?.checked_add(4)?;
    out.extend_from_slice(&frame::header(FrameKind::Method, channel, size));
    out.extend_from_slice(&id.class.to_be_bytes());
    out.extend_from_slice(&id.method.to_be_bytes());
    out.extend_from_slice(arguments);
    out.push(FRAME_END);
    Some(())
}

/// The front of `octets` that arguments of these types take up.
fn extent<'a>(types: &[Argument], octets: &'a [u8]) -> Option<&'a [u8]> {
    let mut reader = Reader::new(octets);
    for argument in types {
        take(*argument, &mut reader)?;
    }
    octets.get(..octets.len() - reader.rest().len())
}

/// The method and its arguments' octets.
fn entry_of(payload: &[u8], version: Version) -> Result<(&'static Entry, &[u8]), MethodError> {
    let Some((id, arguments)) = MethodId::of_payload(payload).zip(payload.get(4..)) else {
        return Err(MethodError {
            id: None,
            kind: MethodErrorKind::Truncated,
            arguments: Octets::of(payload),
        });
    };
    let entry = catalogue::of_wire(id, version).ok_or_else(|| MethodError {
        id: Some(id),
        kind: MethodErrorKind::UnknownMethod,
        arguments: Octets::of(arguments),
    })?;
    Ok((entry, arguments))
}

/// Checks every argument, in order.
fn walk(entry: &Entry, arguments: &[u8], version: Version) -> Result<(), MethodErrorKind> {
    let mut reader = Reader::new(arguments);
    for argument in entry.arguments(version) {
        let octets = take(*argument, &mut reader).ok_or(MethodErrorKind::Truncated)?;
        match argument {
            Argument::ShortStr if std::str::from_utf8(octets).is_err() => {
                return Err(MethodErrorKind::MalformedUtf8);
            }
            Argument::Table => table::check(octets, Limits::DEFAULT)?,
            _ => {}
        }
    }
    Ok(())
}

/// The octets of an argument, of a string or table those of its contents.
fn take<'a>(argument: Argument, reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    match argument {
        Argument::Octet => reader.octets(1),
        Argument::Short => reader.octets(2),
        Argument::Long => reader.octets(4),
        Argument::LongLong => reader.octets(8),
        Argument::ShortStr => reader.shortstr(),
        Argument::LongStr | Argument::Table => reader.longstr(),
    }
}

/// The payload as 0-9-1 writes it: its own octets unless the version differs.
fn canonical<'a>(
    entry: &Entry,
    payload: &'a [u8],
    arguments: &[u8],
    version: Version,
) -> Cow<'a, [u8]> {
    let types = entry.arguments(version);
    let lacks_last = types != entry.arguments(Version::V0_9_1);
    if MethodId::of_payload(payload) == Some(entry.id) && !lacks_last {
        return Cow::Borrowed(payload);
    }
    let mut octets = Vec::with_capacity(payload.len() + NOTHING.len());
    octets.extend_from_slice(&entry.id.class.to_be_bytes());
    octets.extend_from_slice(&entry.id.method.to_be_bytes());
    // Octets that follow the arguments must not be taken for the last one that 0-8 lacks.
    octets.extend_from_slice(extent(types, arguments).unwrap_or(arguments));
    if lacks_last {
        octets.extend_from_slice(&NOTHING);
    }
    Cow::Owned(octets)
}

/// An empty table, and an empty long string: four octets of length.
const NOTHING: [u8; 4] = [0; 4];

#[cfg(test)]
mod tests;
