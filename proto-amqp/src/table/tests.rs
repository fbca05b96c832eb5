//! What the walk accepts and refuses, and that reader and writer are each other's inverse.

use super::*;

/// The contents of a table with one entry `a` of the given letter and value octets.
fn entry(letter: u8, value: &[u8]) -> Vec<u8> {
    [&[1, b'a', letter], value].concat()
}

/// `contents` wrapped `levels` times as the only entry `a` of a table, by iteration.
fn nested(letter: u8, levels: usize) -> Vec<u8> {
    // Built from the outside in, so that ten thousand levels cost linear time.
    let per_level = if letter == b'F' { 7 } else { 5 };
    let mut octets = Vec::new();
    for level in 0..levels {
        let named = letter == b'F' || level == 0;
        if named {
            octets.extend([1, b'a']);
        }
        octets.push(letter);
        let len = (levels - level - 1) * per_level;
        octets.extend(u32::try_from(len).unwrap().to_be_bytes());
    }
    octets
}

fn check_default(table: &[u8]) -> Result<(), TableError> {
    check(table, Limits::default())
}

/// Every letter with a value in its full width.
const EVERY_TYPE: [(u8, &[u8]); 19] = [
    (b't', &[1]),
    (b'b', &[0xFF]),
    (b'B', &[0xFF]),
    (b's', &[0xFF, 0xFE]),
    (b'U', &[0xFF, 0xFE]),
    (b'u', &[0xFF, 0xFE]),
    (b'I', &[0xFF, 0xFF, 0xFF, 0xFD]),
    (b'i', &[0xFF, 0xFF, 0xFF, 0xFD]),
    (b'l', &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFC]),
    (b'L', &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFC]),
    (b'f', &[0x3F, 0x80, 0, 0]),
    (b'd', &[0x3F, 0xF0, 0, 0, 0, 0, 0, 0]),
    (b'D', &[2, 0, 0, 1, 0]),
    (b'S', &[0, 0, 0, 2, b'h', b'i']),
    (b'A', &[0, 0, 0, 2, b't', 1]),
    (b'T', &[0, 0, 0, 0, 0, 0, 0, 9]),
    (b'F', &[0, 0, 0, 4, 1, b'k', b't', 0]),
    (b'V', &[]),
    (b'x', &[0, 0, 0, 1, 0]),
];

#[test]
fn every_type_is_accepted_whole_and_refused_one_octet_short() {
    for (letter, value) in EVERY_TYPE {
        let table = entry(letter, value);
        assert_eq!(check_default(&table), Ok(()), "{}", char::from(letter));
        for len in 1..table.len() {
            assert_eq!(
                check_default(&table[..len]),
                Err(TableError::Truncated),
                "{} cut to {len}",
                char::from(letter)
            );
        }
    }
}

#[test]
fn every_other_letter_is_refused() {
    for letter in 0..=255 {
        if EVERY_TYPE.iter().any(|(known, _)| *known == letter) {
            continue;
        }
        assert_eq!(check_default(&entry(letter, &[0; 8])), Err(TableError::UnknownType(letter)));
    }
}

#[test]
fn every_type_reads_as_the_value_that_deployed_peers_mean() {
    let expected = [
        Value::Boolean(true),
        Value::ShortShortInt(-1),
        Value::ShortShortUint(255),
        Value::ShortInt(-2),
        Value::ShortIntOfText(-2),
        Value::ShortUint(65_534),
        Value::LongInt(-3),
        Value::LongUint(u32::MAX - 2),
        Value::LongLongInt(-4),
        Value::LongLongIntOfText(-4),
        Value::Float(1.0),
        Value::Double(1.0),
        Value::Decimal { scale: 2, value: 256 },
        Value::LongString(b"hi"),
        Value::Array(ArrayReader::new(&[b't', 1])),
        Value::Timestamp(9),
        Value::Table(TableReader::new(&[1, b'k', b't', 0])),
        Value::Void,
        Value::ByteArray(&[0]),
    ];
    for ((letter, value), expected) in EVERY_TYPE.into_iter().zip(expected) {
        let table = entry(letter, value);
        let mut reader = TableReader::new(&table);
        assert_eq!(reader.next(), Some((&b"a"[..], expected)));
        assert_eq!(reader.next(), None);
        assert_eq!(expected.letter(), letter);
        let mut written = Vec::new();
        TableWriter::new(&mut written).write(b"a", expected).unwrap();
        assert_eq!(written, table);
    }
}

#[test]
fn nesting_is_accepted_to_the_limit_and_refused_beyond_it() {
    for letter in [b'F', b'A'] {
        // The outermost table counts, so one level fewer fits inside it.
        assert_eq!(check_default(&nested(letter, DEPTH_MAX - 1)), Ok(()));
        assert_eq!(
            check_default(&nested(letter, DEPTH_MAX)),
            Err(TableError::TooDeep { max: DEPTH_MAX })
        );
    }
}

#[test]
fn ten_thousand_nested_tables_or_arrays_cost_a_refusal_and_no_stack() {
    let limits = Limits { depth: usize::MAX, entries: usize::MAX, len: usize::MAX };
    for letter in [b'F', b'A'] {
        assert_eq!(
            check(&nested(letter, 10_000), limits),
            Err(TableError::TooDeep { max: DEPTH_MAX })
        );
    }
}

#[test]
fn a_depth_of_one_allows_a_flat_table_and_a_depth_of_zero_none() {
    let flat = Limits { depth: 1, ..Limits::default() };
    assert_eq!(check(&entry(b't', &[1]), flat), Ok(()));
    assert_eq!(check(&entry(b'F', &[0; 4]), flat), Err(TableError::TooDeep { max: 1 }));
    let none = Limits { depth: 0, ..Limits::default() };
    assert_eq!(check(&[], none), Err(TableError::TooDeep { max: 0 }));
}

#[test]
fn levels_that_have_ended_do_not_count_towards_the_depth() {
    let table: Vec<u8> = (0..100).flat_map(|_| nested(b'F', 20)).collect();
    let limits = Limits { entries: usize::MAX, ..Limits::default() };
    assert_eq!(check(&table, limits), Ok(()));
}

#[test]
fn entries_are_counted_at_all_levels_together() {
    let flat: Vec<u8> = (0..ENTRIES_MAX).flat_map(|_| entry(b'V', &[])).collect();
    assert_eq!(check_default(&flat), Ok(()));
    let one_more = [flat, entry(b'V', &[])].concat();
    let refused = Err(TableError::TooManyEntries { max: ENTRIES_MAX });
    assert_eq!(check_default(&one_more), refused);
    let mut array = Vec::new();
    TableWriter::new(&mut array)
        .array(b"a", |array| (0..ENTRIES_MAX).try_for_each(|_| array.write(Value::Void)))
        .unwrap();
    assert_eq!(check_default(&array), refused);
}

#[test]
fn a_table_of_the_largest_length_is_accepted_and_one_octet_more_is_not() {
    let with_len = |len: usize| {
        let value = vec![0; len - 7];
        let mut table = Vec::new();
        TableWriter::new(&mut table).write(b"a", Value::ByteArray(&value)).unwrap();
        table
    };
    assert_eq!(check_default(&with_len(LEN_MAX)), Ok(()));
    assert_eq!(check_default(&with_len(LEN_MAX + 1)), Err(TableError::TooLarge { max: LEN_MAX }));
}

#[test]
fn a_value_may_not_run_out_of_its_table_into_the_enclosing_one() {
    // The inner table has three octets, its one entry five; the outer table has the octets.
    let table = [entry(b'F', &[0, 0, 0, 3, 1, b'k', b'B', 7]), entry(b't', &[1])].concat();
    assert_eq!(check_default(&table), Err(TableError::Truncated));
    // The same with a name, with a long string and with a nested table.
    for inner in [
        &[0, 0, 0, 2, 4, b'k', b'e', b'y', b's', b'V'][..],
        &[0, 0, 0, 7, 1, b'k', b'S', 0, 0, 0, 2, b'a', b'b'],
        &[0, 0, 0, 7, 1, b'k', b'F', 0, 0, 0, 3, 1, b'k', b'V'],
    ] {
        assert_eq!(check_default(&entry(b'F', inner)), Err(TableError::Truncated), "{inner:?}");
    }
}

#[test]
fn lengths_near_the_largest_number_are_refused() {
    for letter in [b'S', b'x', b'A', b'F'] {
        for len in [u32::MAX, u32::MAX - 1, i32::MAX as u32, 1] {
            assert_eq!(
                check_default(&entry(letter, &len.to_be_bytes())),
                Err(TableError::Truncated)
            );
        }
    }
}

#[test]
fn an_empty_name_and_a_duplicate_name_are_accepted_and_the_first_counts() {
    let table = [&[0, b'V'][..], &entry(b'B', &[1]), &entry(b'B', &[2])].concat();
    assert_eq!(check_default(&table), Ok(()));
    let reader = TableReader::new(&table);
    assert_eq!(reader.count(), 3);
    assert_eq!(reader.get(b"a"), Some(Value::ShortShortUint(1)));
    assert_eq!(reader.get(b""), Some(Value::Void));
    assert_eq!(reader.get(b"b"), None);
}

#[test]
fn a_reader_of_unchecked_octets_stops_at_the_first_bad_entry() {
    let table = [entry(b't', &[1]), entry(b'?', &[1]), entry(b't', &[1])].concat();
    let mut reader = TableReader::new(&table);
    assert!(reader.next().is_some());
    assert_eq!(reader.next(), None);
    assert_eq!(reader.next(), None);
}

#[test]
fn a_boolean_other_than_zero_is_true() {
    assert_eq!(TableReader::new(&entry(b't', &[2])).get(b"a"), Some(Value::Boolean(true)));
}

#[test]
fn integers_of_every_width_have_one_value() {
    for (value, expected) in [
        (Value::ShortShortInt(-1), Some(-1)),
        (Value::ShortShortUint(255), Some(255)),
        (Value::ShortIntOfText(-2), Some(-2)),
        (Value::LongUint(u32::MAX), Some(i64::from(u32::MAX))),
        (Value::LongLongInt(i64::MIN), Some(i64::MIN)),
        (Value::Timestamp(1), None),
        (Value::Boolean(true), None),
        (Value::Double(1.0), None),
    ] {
        assert_eq!(value.as_integer(), expected);
    }
    assert_eq!(Value::LongString(b"x").as_longstr(), Some(&b"x"[..]));
    assert_eq!(Value::ByteArray(b"x").as_longstr(), None);
}

#[test]
fn a_nested_table_is_written_and_read_again() {
    let mut out = vec![0xAA];
    write_table(&mut out, |table| {
        table.write(b"reason", Value::LongString(b"expired"))?;
        table.array(b"x-death", |deaths| {
            deaths.table(|death| {
                death.write(b"count", Value::LongLongInt(3))?;
                death.array(b"routing-keys", |keys| keys.write(Value::LongString(b"k")))
            })?;
            deaths.array(|empty| empty.write(Value::Void))
        })?;
        table.table(b"empty", |_| Ok(()))
    })
    .unwrap();
    assert_eq!(out[0], 0xAA);
    let contents = Reader::new(&out[1..]).longstr().unwrap();
    assert_eq!(contents.len(), out.len() - 5);
    assert_eq!(check_default(contents), Ok(()));
    let table = TableReader::new(contents);
    let Some(Value::Array(mut deaths)) = table.get(b"x-death") else { panic!("{table:?}") };
    let Some(Value::Table(death)) = deaths.next() else { panic!("{deaths:?}") };
    assert_eq!(death.get(b"count").and_then(|count| count.as_integer()), Some(3));
    assert!(matches!(death.get(b"routing-keys"), Some(Value::Array(keys)) if keys.count() == 1));
    assert!(matches!(deaths.next(), Some(Value::Array(_))));
    assert_eq!(table.get(b"empty"), Some(Value::Table(TableReader::new(&[]))));
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let long = [b'n'; 256];
    let mut out = vec![1, 2, 3];
    assert_eq!(
        TableWriter::new(&mut out).write(&long, Value::Void),
        Err(TableError::NameTooLong(256))
    );
    assert_eq!(
        write_table(&mut out, |table| {
            table.write(b"kept", Value::Void)?;
            table.table(b"inner", |inner| inner.write(&long, Value::Void))
        }),
        Err(TableError::NameTooLong(256))
    );
    assert_eq!(out, [1, 2, 3]);
    TableWriter::new(&mut out).write(&long[..255], Value::Void).unwrap();
    assert_eq!(out.len(), 3 + 1 + 255 + 1);
}
