//! Strategies that the property tests of this crate share: names and field tables.

use amq_protocol::types::{AMQPValue, DecimalValue, FieldTable, ShortString};
use proptest::prelude::*;

/// Names of any characters that fit a short string.
pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z.#*]{0,20}",
        "\\PC{0,60}".prop_filter("at most 255 octets", |name| name.len() <= 255),
        Just("n".repeat(255)),
    ]
}

pub(crate) fn short_string() -> impl Strategy<Value = ShortString> {
    name().prop_map(ShortString::from)
}

fn float() -> impl Strategy<Value = f32> {
    any::<f32>().prop_filter("equal to itself", |float| !float.is_nan())
}

fn scalar() -> impl Strategy<Value = AMQPValue> {
    prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        float().prop_map(AMQPValue::Float),
        float().prop_map(|float| AMQPValue::Double(f64::from(float))),
        (any::<u8>(), any::<u32>())
            .prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|octets| AMQPValue::LongString(octets.into())),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|octets| AMQPValue::ByteArray(octets.into())),
        Just(AMQPValue::Void),
    ]
}

fn table_of(entries: Vec<(ShortString, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name, value);
    }
    table
}

pub(crate) fn field_table() -> impl Strategy<Value = FieldTable> {
    let value = scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|elements| AMQPValue::FieldArray(elements.into())),
            prop::collection::vec((short_string(), inner), 0..4)
                .prop_map(|entries| AMQPValue::FieldTable(table_of(entries))),
        ]
    });
    prop::collection::vec((short_string(), value), 0..5).prop_map(table_of)
}
