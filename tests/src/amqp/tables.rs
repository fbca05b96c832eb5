//! Field tables for arguments and headers, and short names for their values.

use proto_amqp::TableError;
use proto_amqp::control::types::{AMQPValue, FieldTable};
use proto_amqp::table::{Value, write_table};

/// Arguments from names and values.
#[must_use]
pub fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

/// A 32-bit integer (`I`), as most clients send numbers.
#[must_use]
pub const fn int(value: i32) -> AMQPValue {
    AMQPValue::LongInt(value)
}

/// A 64-bit integer (`l`).
#[must_use]
pub const fn long(value: i64) -> AMQPValue {
    AMQPValue::LongLongInt(value)
}

/// A long string (`S`).
#[must_use]
pub fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// A boolean (`t`).
#[must_use]
pub const fn flag(value: bool) -> AMQPValue {
    AMQPValue::Boolean(value)
}

/// The contents of a `headers` table, in this order: what
/// [`Properties::headers`](proto_amqp::Properties) takes.
#[must_use]
pub fn headers<const N: usize>(entries: [(&str, Value<'_>); N]) -> Vec<u8> {
    written(|table| {
        entries.into_iter().try_for_each(|(name, value)| table.write(name.as_bytes(), value))
    })
}

/// The contents of a `headers` table with one array of long strings in it.
#[must_use]
pub fn texts_header(name: &str, texts: &[&str]) -> Vec<u8> {
    written(|table| {
        table.array(name.as_bytes(), |array| {
            texts.iter().try_for_each(|text| array.write(Value::LongString(text.as_bytes())))
        })
    })
}

/// The contents of a table that `write` writes.
#[must_use]
pub fn written(
    write: impl FnOnce(&mut proto_amqp::table::TableWriter<'_>) -> Result<(), TableError>,
) -> Vec<u8> {
    let mut octets = Vec::new();
    if let Err(error) = write_table(&mut octets, write) {
        panic!("a table of the test cannot be written: {error}");
    }
    // The length in front is the table's own, not its contents'.
    octets.drain(..4);
    octets
}
