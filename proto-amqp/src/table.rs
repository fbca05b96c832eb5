//! Field tables: a checked walk, a borrowing reader and a writer.
//!
//! ```text
//!  table   u32 length in octets | entry*            entry   u8 name length | name | type | value
//!  array   u32 length in octets | (type | value)*   type    one octet, a letter
//! ```
//!
//! Every function here takes or gives a table's *contents*, without the four octets of length, unless
//! it says otherwise. The letters are those of deployed peers, which differ from the 0-9-1 text: `s`
//! is a signed 16-bit integer, `l` a signed 64-bit one, and `x` a byte array.
//!
//! [`check`] is the one gate for octets of a peer: it walks iteratively, so that a table nested ten
//! thousand times costs a refusal and not a stack. After it, [`TableReader`] reads without errors.
//! Names are octets, values keep their letters, and nothing is decoded that is not asked for.

use std::cmp::Ordering;

use crate::read::Reader;

pub use crate::error::TableError;

mod writer;

pub use writer::{ArrayWriter, TableWriter, write_table};

/// How many tables and arrays may lie in one another, the outermost included.
pub const DEPTH_MAX: usize = 32;
/// How many entries a table may have, those of nested tables and arrays included.
pub const ENTRIES_MAX: usize = 1024;
/// How many octets a table's contents may have.
pub const LEN_MAX: usize = 128 * 1024;

/// What [`check`] accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Levels of nesting, the outermost included; more than [`DEPTH_MAX`] counts as that.
    pub depth: usize,
    /// Entries, nested ones included.
    pub entries: usize,
    /// Octets of contents.
    pub len: usize,
}

impl Limits {
    /// [`DEPTH_MAX`], [`ENTRIES_MAX`] and [`LEN_MAX`].
    pub const DEFAULT: Self = Self { depth: DEPTH_MAX, entries: ENTRIES_MAX, len: LEN_MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A table or array under the walk. The walk only ever shortens what is left, so a level's end is
/// known by how much is left after it.
#[derive(Clone, Copy)]
struct Level {
    left_after: usize,
    named: bool,
}

/// Walks the contents of a table: every length, type letter and limit, at every level.
///
/// Iterative; neither recurses nor allocates.
///
/// # Errors
/// The first [`TableError`] met.
pub fn check(table: &[u8], limits: Limits) -> Result<(), TableError> {
    if table.len() > limits.len {
        return Err(TableError::TooLarge { max: limits.len });
    }
    let depth_max = limits.depth.min(DEPTH_MAX);
    if depth_max == 0 {
        return Err(TableError::TooDeep { max: 0 });
    }
    let mut level = Level { left_after: 0, named: true };
    let mut outer = [level; DEPTH_MAX];
    let mut depth = 1;
    let mut entries = 0;
    let mut reader = Reader::new(table);
    loop {
        match reader.rest().len().cmp(&level.left_after) {
            // The last entry lay inside the octets, but not inside its own table.
            Ordering::Less => return Err(TableError::Truncated),
            Ordering::Equal => {
                depth -= 1;
                match outer.get(depth) {
                    Some(enclosing) if depth > 0 => level = *enclosing,
                    _ => return Ok(()),
                }
                continue;
            }
            Ordering::Greater => {}
        }
        entries += 1;
        if entries > limits.entries {
            return Err(TableError::TooManyEntries { max: limits.entries });
        }
        if level.named {
            reader.shortstr().ok_or(TableError::Truncated)?;
        }
        let letter = reader.octet().ok_or(TableError::Truncated)?;
        match Width::of(letter).ok_or(TableError::UnknownType(letter))? {
            Width::Fixed(len) => {
                reader.octets(len).ok_or(TableError::Truncated)?;
            }
            Width::Counted => {
                reader.longstr().ok_or(TableError::Truncated)?;
            }
            Width::Nested => {
                let len = reader.long().and_then(|len| usize::try_from(len).ok());
                let left_after = len.and_then(|len| reader.rest().len().checked_sub(len));
                let inner = Level {
                    left_after: left_after.ok_or(TableError::Truncated)?,
                    named: letter == b'F',
                };
                match outer.get_mut(depth) {
                    Some(enclosing) if depth < depth_max => *enclosing = level,
                    _ => return Err(TableError::TooDeep { max: depth_max }),
                }
                depth += 1;
                level = inner;
            }
        }
    }
}

/// How many octets a value of a type has.
enum Width {
    Fixed(usize),
    /// Four octets of length and as many octets.
    Counted,
    /// Four octets of length and entries.
    Nested,
}

impl Width {
    const fn of(letter: u8) -> Option<Self> {
        Some(match letter {
            b'V' => Self::Fixed(0),
            b't' | b'b' | b'B' => Self::Fixed(1),
            b's' | b'u' | b'U' => Self::Fixed(2),
            b'I' | b'i' | b'f' => Self::Fixed(4),
            b'D' => Self::Fixed(5),
            b'l' | b'L' | b'd' | b'T' => Self::Fixed(8),
            b'S' | b'x' => Self::Counted,
            b'A' | b'F' => Self::Nested,
            _ => return None,
        })
    }
}

/// A value of a field table, with the letter it travels under.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `t`: anything but 0 is true.
    Boolean(bool),
    /// `b`.
    ShortShortInt(i8),
    /// `B`.
    ShortShortUint(u8),
    /// `s`. The 0-9-1 text has a short string here; no peer does.
    ShortInt(i16),
    /// `U`, the text's letter for a signed 16-bit integer. RabbitMQ: refuses it.
    ShortIntOfText(i16),
    /// `u`.
    ShortUint(u16),
    /// `I`.
    LongInt(i32),
    /// `i`.
    LongUint(u32),
    /// `l`. The text has an unsigned integer here; peers have a signed one.
    LongLongInt(i64),
    /// `L`, the text's letter for a signed 64-bit integer.
    LongLongIntOfText(i64),
    /// `f`.
    Float(f32),
    /// `d`.
    Double(f64),
    /// `D`: `value` divided by ten to the power of `scale`.
    Decimal {
        /// Digits after the decimal point.
        scale: u8,
        /// The digits. Peers disagree on its sign; here it is what stands on the wire.
        value: u32,
    },
    /// `S`: octets, by custom UTF-8.
    LongString(&'a [u8]),
    /// `A`.
    Array(ArrayReader<'a>),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `F`.
    Table(TableReader<'a>),
    /// `V`.
    Void,
    /// `x`.
    ByteArray(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The letter the value travels under.
    #[must_use]
    pub const fn letter(&self) -> u8 {
        match self {
            Self::Boolean(_) => b't',
            Self::ShortShortInt(_) => b'b',
            Self::ShortShortUint(_) => b'B',
            Self::ShortInt(_) => b's',
            Self::ShortIntOfText(_) => b'U',
            Self::ShortUint(_) => b'u',
            Self::LongInt(_) => b'I',
            Self::LongUint(_) => b'i',
            Self::LongLongInt(_) => b'l',
            Self::LongLongIntOfText(_) => b'L',
            Self::Float(_) => b'f',
            Self::Double(_) => b'd',
            Self::Decimal { .. } => b'D',
            Self::LongString(_) => b'S',
            Self::Array(_) => b'A',
            Self::Timestamp(_) => b'T',
            Self::Table(_) => b'F',
            Self::Void => b'V',
            Self::ByteArray(_) => b'x',
        }
    }

    /// The value of any integer type, whatever its width.
    #[must_use]
    pub const fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::ShortShortInt(value) => Some(value as i64),
            Self::ShortShortUint(value) => Some(value as i64),
            Self::ShortInt(value) | Self::ShortIntOfText(value) => Some(value as i64),
            Self::ShortUint(value) => Some(value as i64),
            Self::LongInt(value) => Some(value as i64),
            Self::LongUint(value) => Some(value as i64),
            Self::LongLongInt(value) | Self::LongLongIntOfText(value) => Some(value),
            _ => None,
        }
    }

    /// The octets of a long string.
    #[must_use]
    pub const fn as_longstr(&self) -> Option<&'a [u8]> {
        match *self {
            Self::LongString(octets) => Some(octets),
            _ => None,
        }
    }

    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        Some(match reader.octet()? {
            b't' => Self::Boolean(reader.octet()? != 0),
            b'b' => Self::ShortShortInt(reader.array().map(i8::from_be_bytes)?),
            b'B' => Self::ShortShortUint(reader.octet()?),
            b's' => Self::ShortInt(reader.array().map(i16::from_be_bytes)?),
            b'U' => Self::ShortIntOfText(reader.array().map(i16::from_be_bytes)?),
            b'u' => Self::ShortUint(reader.short()?),
            b'I' => Self::LongInt(reader.array().map(i32::from_be_bytes)?),
            b'i' => Self::LongUint(reader.long()?),
            b'l' => Self::LongLongInt(reader.array().map(i64::from_be_bytes)?),
            b'L' => Self::LongLongIntOfText(reader.array().map(i64::from_be_bytes)?),
            b'f' => Self::Float(reader.array().map(f32::from_be_bytes)?),
            b'd' => Self::Double(reader.array().map(f64::from_be_bytes)?),
            b'D' => Self::Decimal { scale: reader.octet()?, value: reader.long()? },
            b'S' => Self::LongString(reader.longstr()?),
            b'A' => Self::Array(ArrayReader::new(reader.longstr()?)),
            b'T' => Self::Timestamp(reader.longlong()?),
            b'F' => Self::Table(TableReader::new(reader.longstr()?)),
            b'V' => Self::Void,
            b'x' => Self::ByteArray(reader.longstr()?),
            _ => return None,
        })
    }
}

/// Reads the entries of a table in their order, duplicates included.
///
/// Made for octets that [`check`] has accepted. On others it stops before the first entry that does
/// not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TableReader<'a> {
    left: &'a [u8],
}

impl<'a> TableReader<'a> {
    /// A reader of a table's contents.
    #[must_use]
    pub const fn new(contents: &'a [u8]) -> Self {
        Self { left: contents }
    }

    /// The contents not read yet.
    #[must_use]
    pub const fn contents(&self) -> &'a [u8] {
        self.left
    }

    /// The first value under `name`: of duplicates the first counts.
    #[must_use]
    pub fn get(self, name: &[u8]) -> Option<Value<'a>> {
        self.into_iter().find_map(|(found, value)| (found == name).then_some(value))
    }
}

impl<'a> Iterator for TableReader<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader::new(self.left);
        let entry = reader.shortstr().zip(Value::read(&mut reader));
        self.left = if entry.is_some() { reader.rest() } else { &[] };
        entry
    }
}

/// Reads the elements of an array in their order, like [`TableReader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ArrayReader<'a> {
    left: &'a [u8],
}

impl<'a> ArrayReader<'a> {
    /// A reader of an array's contents.
    #[must_use]
    pub const fn new(contents: &'a [u8]) -> Self {
        Self { left: contents }
    }

    /// The contents not read yet.
    #[must_use]
    pub const fn contents(&self) -> &'a [u8] {
        self.left
    }
}

impl<'a> Iterator for ArrayReader<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader::new(self.left);
        let element = Value::read(&mut reader);
        self.left = if element.is_some() { reader.rest() } else { &[] };
        element
    }
}

#[cfg(test)]
mod tests;
