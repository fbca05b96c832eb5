//! Field tables and property lists: what passes the check reads to its end, is written back octet by
//! octet, and means what `amq_protocol` takes it for.
//!
//! ```text
//!  input   the contents of a table, or flags and values of a property list: both are tried
//! ```

use broker_core::arguments::Arguments;
use proto_amqp::{
    ContentHeader, PropertiesError, TableError,
    control::types::{AMQPValue, FieldTable, parsing::parse_field_table},
    properties,
    table::{self, ArrayReader, Limits, TableReader, TableWriter, Value},
};

/// Fuzzes [`table`], [`properties`] and the core's [`Arguments`].
///
/// # Panics
/// When one of them breaks its promises.
pub fn run(octets: &[u8]) {
    check_table(octets);
    check_properties(octets);
    if let Ok(header) = ContentHeader::parse(octets) {
        check_properties(header.properties);
    }
}

fn check_table(contents: &[u8]) {
    let checked = table::check(contents, Limits::DEFAULT);
    // `amq_protocol` recurses: what is nested too deep for us would cost it the stack.
    if matches!(checked, Err(TableError::TooDeep { .. })) {
        return;
    }
    let mut counted =
        u32::try_from(contents.len()).expect("inputs are short").to_be_bytes().to_vec();
    counted.extend_from_slice(contents);
    let theirs = parse_field_table(&counted[..]);
    match (checked, theirs) {
        (Ok(()), theirs) => {
            let reader = TableReader::new(contents);
            let mut entries = 0;
            check_written_back(contents, &rewritten(reader, &mut entries));
            assert!(entries <= Limits::DEFAULT.entries);
            match theirs {
                Ok((rest, theirs)) => {
                    assert!(rest.is_empty());
                    assert!(same_table(reader, &theirs), "{reader:?} against {theirs:?}");
                }
                Err(_) => assert!(!names_are_text(reader), "only names may differ: {reader:?}"),
            }
            // Read once more into the core's own values: every name that is there is found.
            let arguments = Arguments::from_table(contents);
            for (name, _) in reader {
                assert!(arguments.get(&String::from_utf8_lossy(name)).is_some());
            }
        }
        (Err(TableError::TooManyEntries { .. } | TableError::TooLarge { .. }), _) => {}
        (Err(_), Err(_)) => {}
        (Err(error), Ok((_, theirs))) => panic!("{error} against {theirs:?}"),
    }
    // Tighter limits refuse more and never less.
    for limits in [
        Limits { depth: 1, ..Limits::DEFAULT },
        Limits { entries: 2, ..Limits::DEFAULT },
        Limits { len: 8, ..Limits::DEFAULT },
    ] {
        assert!(table::check(contents, limits).is_err() || checked.is_ok());
    }
}

fn check_properties(list: &[u8]) {
    match properties::summarise(list) {
        Ok(found) => {
            let mut written = Vec::new();
            properties::encode(&found, &mut written).expect("what was read can be written");
            // Flag 1 has no meaning and is not written.
            assert_eq!(written[0], list[0]);
            assert_eq!(written[1], list[1] & !2);
            assert_eq!(written[2..], list[2..]);
            if let Some(headers) = found.headers {
                assert_eq!(table::check(headers, Limits::DEFAULT), Ok(()));
            }
        }
        Err(error) => {
            assert!(error.detail().len() < 256, "{error}");
            if let PropertiesError::Trailing(len) = error {
                // The extent of the list is known before its headers are looked into.
                let shorter = properties::summarise(&list[..list.len() - len]);
                assert!(
                    matches!(shorter, Ok(_) | Err(PropertiesError::Headers(_))),
                    "only the tail was wrong: {shorter:?}"
                );
            }
        }
    }
}

/// The table written again from its values, at every level.
fn rewritten(reader: TableReader<'_>, entries: &mut usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in reader {
        *entries += 1;
        let inner = contents_of(value, entries);
        TableWriter::new(&mut out)
            .write(name, with_contents(value, &inner))
            .expect("what was read can be written");
    }
    out
}

/// The elements of an array written again. An array travels as a table's value does, without a name.
fn rewritten_array(array: ArrayReader<'_>, entries: &mut usize) -> Vec<u8> {
    let mut out = Vec::new();
    for value in array {
        *entries += 1;
        let inner = contents_of(value, entries);
        let mut entry = Vec::new();
        TableWriter::new(&mut entry)
            .write(b"", with_contents(value, &inner))
            .expect("what was read can be written");
        // Less the length of the empty name.
        out.extend_from_slice(&entry[1..]);
    }
    out
}

fn contents_of(value: Value<'_>, entries: &mut usize) -> Vec<u8> {
    match value {
        Value::Table(table) => rewritten(table, entries),
        Value::Array(array) => rewritten_array(array, entries),
        _ => Vec::new(),
    }
}

fn with_contents<'a>(value: Value<'a>, contents: &'a [u8]) -> Value<'a> {
    match value {
        Value::Table(_) => Value::Table(TableReader::new(contents)),
        Value::Array(_) => Value::Array(ArrayReader::new(contents)),
        other => other,
    }
}

/// Equal, but that every true is written as 1.
fn check_written_back(read: &[u8], written: &[u8]) {
    assert_eq!(read.len(), written.len());
    for (at, (read, written)) in read.iter().zip(written).enumerate() {
        assert!(
            read == written || (*written == 1 && *read > 1),
            "octet {at}: {read} became {written}"
        );
    }
}

fn names_are_text(mut table: TableReader<'_>) -> bool {
    fn in_value(value: Value<'_>) -> bool {
        match value {
            Value::Table(table) => names_are_text(table),
            Value::Array(mut array) => array.all(in_value),
            _ => true,
        }
    }
    table.all(|(name, value)| std::str::from_utf8(name).is_ok() && in_value(value))
}

/// Theirs is a map: it keeps the last of duplicate names.
fn same_table(ours: TableReader<'_>, theirs: &FieldTable) -> bool {
    theirs.inner().iter().all(|(name, value)| {
        let found = ours.filter(|(found, _)| *found == name.as_str().as_bytes());
        found.last().is_some_and(|(_, ours)| same_value(ours, value))
    }) && ours
        .into_iter()
        .all(|(name, _)| std::str::from_utf8(name).is_ok_and(|name| theirs.contains_key(name)))
}

fn same_value(ours: Value<'_>, theirs: &AMQPValue) -> bool {
    match (ours, theirs) {
        (Value::Boolean(ours), AMQPValue::Boolean(theirs)) => ours == *theirs,
        (Value::Float(ours), AMQPValue::Float(theirs)) => ours.to_bits() == theirs.to_bits(),
        (Value::Double(ours), AMQPValue::Double(theirs)) => ours.to_bits() == theirs.to_bits(),
        (Value::Decimal { scale, value }, AMQPValue::DecimalValue(theirs)) => {
            scale == theirs.scale && value == theirs.value
        }
        (Value::LongString(ours), AMQPValue::LongString(theirs)) => ours == theirs.as_bytes(),
        (Value::ByteArray(ours), AMQPValue::ByteArray(theirs)) => ours == theirs.as_slice(),
        (Value::Timestamp(ours), AMQPValue::Timestamp(theirs)) => ours == *theirs,
        (Value::Void, AMQPValue::Void) => true,
        (Value::Array(ours), AMQPValue::FieldArray(theirs)) => {
            ours.count() == theirs.as_slice().len()
                && ours.zip(theirs.as_slice()).all(|(ours, theirs)| same_value(ours, theirs))
        }
        (Value::Table(ours), AMQPValue::FieldTable(theirs)) => same_table(ours, theirs),
        (ours, theirs) => same_integer(ours, theirs),
    }
}

fn same_integer(ours: Value<'_>, theirs: &AMQPValue) -> bool {
    let theirs = match theirs {
        AMQPValue::ShortShortInt(value) => i64::from(*value),
        AMQPValue::ShortShortUInt(value) => i64::from(*value),
        AMQPValue::ShortInt(value) => i64::from(*value),
        AMQPValue::ShortUInt(value) => i64::from(*value),
        AMQPValue::LongInt(value) => i64::from(*value),
        AMQPValue::LongUInt(value) => i64::from(*value),
        AMQPValue::LongLongInt(value) => *value,
        _ => return false,
    };
    ours.as_integer() == Some(theirs)
}
