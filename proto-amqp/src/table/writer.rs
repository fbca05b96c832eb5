//! Writing field tables, the other half of the format described in [`table`](super).
//!
//! A writer appends to the caller's buffer and patches the lengths of nested tables and arrays when
//! they end. Of a write that fails nothing is left in the buffer.

use super::{TableError, Value};

/// The most a length field of four octets can say.
const LENGTH_MAX: usize = u32::MAX as usize;

/// Appends a whole table, its four octets of length included.
///
/// # Errors
/// What `write` fails with, or [`TableError::TooLarge`] beyond four gibibytes; `out` is then as it was.
pub fn write_table(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut TableWriter<'_>) -> Result<(), TableError>,
) -> Result<(), TableError> {
    or_undo(out, |out| counted(out, |out| write(&mut TableWriter { out })))
}

/// Writes the entries of a table.
#[derive(Debug)]
pub struct TableWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> TableWriter<'o> {
    /// A writer that appends entries to `out`, without a length before them.
    pub const fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Appends an entry. Nested tables and arrays are copied as they are.
    ///
    /// # Errors
    /// [`TableError::NameTooLong`] above 255 octets, [`TableError::TooLarge`] when the value does not
    /// fit its length field.
    pub fn write(&mut self, name: &[u8], value: Value<'_>) -> Result<(), TableError> {
        or_undo(self.out, |out| {
            write_name(out, name)?;
            write_value(out, value)
        })
    }

    /// Appends an entry that is a table.
    ///
    /// # Errors
    /// As [`TableWriter::write`], or what `write` fails with.
    pub fn table(
        &mut self,
        name: &[u8],
        write: impl FnOnce(&mut TableWriter<'_>) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        or_undo(self.out, |out| {
            write_name(out, name)?;
            out.push(b'F');
            counted(out, |out| write(&mut TableWriter { out }))
        })
    }

    /// Appends an entry that is an array.
    ///
    /// # Errors
    /// As [`TableWriter::write`], or what `write` fails with.
    pub fn array(
        &mut self,
        name: &[u8],
        write: impl FnOnce(&mut ArrayWriter<'_>) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        or_undo(self.out, |out| {
            write_name(out, name)?;
            out.push(b'A');
            counted(out, |out| write(&mut ArrayWriter { out }))
        })
    }
}

/// Writes the elements of an array.
#[derive(Debug)]
pub struct ArrayWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> ArrayWriter<'o> {
    /// A writer that appends elements to `out`, without a length before them.
    pub const fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Appends an element. Nested tables and arrays are copied as they are.
    ///
    /// # Errors
    /// [`TableError::TooLarge`] when the value does not fit its length field.
    pub fn write(&mut self, value: Value<'_>) -> Result<(), TableError> {
        or_undo(self.out, |out| write_value(out, value))
    }

    /// Appends an element that is a table.
    ///
    /// # Errors
    /// As [`ArrayWriter::write`], or what `write` fails with.
    pub fn table(
        &mut self,
        write: impl FnOnce(&mut TableWriter<'_>) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        or_undo(self.out, |out| {
            out.push(b'F');
            counted(out, |out| write(&mut TableWriter { out }))
        })
    }

    /// Appends an element that is an array.
    ///
    /// # Errors
    /// As [`ArrayWriter::write`], or what `write` fails with.
    pub fn array(
        &mut self,
        write: impl FnOnce(&mut ArrayWriter<'_>) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        or_undo(self.out, |out| {
            out.push(b'A');
            counted(out, |out| write(&mut ArrayWriter { out }))
        })
    }
}

fn write_name(out: &mut Vec<u8>, name: &[u8]) -> Result<(), TableError> {
    let len = u8::try_from(name.len()).map_err(|_| TableError::NameTooLong(name.len()))?;
    out.push(len);
    out.extend_from_slice(name);
    Ok(())
}

fn write_value(out: &mut Vec<u8>, value: Value<'_>) -> Result<(), TableError> {
    out.push(value.letter());
    match value {
        Value::Boolean(value) => out.push(u8::from(value)),
        Value::ShortShortInt(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::ShortShortUint(value) => out.push(value),
        Value::ShortInt(value) | Value::ShortIntOfText(value) => {
            out.extend_from_slice(&value.to_be_bytes());
        }
        Value::ShortUint(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::LongInt(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::LongUint(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::LongLongInt(value) | Value::LongLongIntOfText(value) => {
            out.extend_from_slice(&value.to_be_bytes());
        }
        Value::Float(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Double(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Decimal { scale, value } => {
            out.push(scale);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Value::Timestamp(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::LongString(octets) | Value::ByteArray(octets) => write_counted(out, octets)?,
        Value::Array(array) => write_counted(out, array.contents())?,
        Value::Table(table) => write_counted(out, table.contents())?,
        Value::Void => {}
    }
    Ok(())
}

/// Appends the length of `octets` in four octets, and `octets`.
fn write_counted(out: &mut Vec<u8>, octets: &[u8]) -> Result<(), TableError> {
    let len = u32::try_from(octets.len()).map_err(|_| TableError::TooLarge { max: LENGTH_MAX })?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(octets);
    Ok(())
}

/// Appends what `write` does with the length of it before it.
fn counted(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), TableError>,
) -> Result<(), TableError> {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let contents_at = out.len();
    write(out)?;
    let len = u32::try_from(out.len() - contents_at)
        .map_err(|_| TableError::TooLarge { max: LENGTH_MAX })?;
    if let Some(length) = out.get_mut(length_at..contents_at) {
        length.copy_from_slice(&len.to_be_bytes());
    }
    Ok(())
}

/// Does `write`, and takes back what it has appended if it fails.
fn or_undo(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), TableError>,
) -> Result<(), TableError> {
    let before = out.len();
    write(out).inspect_err(|_| out.truncate(before))
}
