//! Arguments of declarations, bindings and consumers: a decoded field table.
//!
//! Decoded once when a declaration arrives, so that no table is read again later. The words that error
//! texts use for the types (`signedint`, `longstr`, …) are those that clients of RabbitMQ know.

use std::fmt;

use proto_amqp::table::{TableReader, Value as WireValue};

/// One value of a field table (AMQP 0-9-1 §4.2.5.5, with the type letters that are on the wire).
#[derive(Debug, Clone)]
pub enum Value {
    /// `t`
    Bool(bool),
    /// `b`
    Byte(i8),
    /// `B`
    UnsignedByte(u8),
    /// `s`
    Short(i16),
    /// `u`
    UnsignedShort(u16),
    /// `I`
    SignedInt(i32),
    /// `i`
    UnsignedInt(u32),
    /// `l`
    Long(i64),
    /// `f`
    Float(f32),
    /// `d`
    Double(f64),
    /// `D`: scale and value
    Decimal(u8, u32),
    /// `S`
    LongString(Box<[u8]>),
    /// `A`
    Array(Vec<Self>),
    /// `T`: seconds since 1970
    Timestamp(u64),
    /// `F`
    Table(Arguments),
    /// `V`
    Void,
    /// `x`
    Binary(Box<[u8]>),
}

/// Floats are equal when their bits are: a binding with an argument that is no number is found again.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Byte(a), Self::Byte(b)) => a == b,
            (Self::UnsignedByte(a), Self::UnsignedByte(b)) => a == b,
            (Self::Short(a), Self::Short(b)) => a == b,
            (Self::UnsignedShort(a), Self::UnsignedShort(b)) => a == b,
            (Self::SignedInt(a), Self::SignedInt(b)) => a == b,
            (Self::UnsignedInt(a), Self::UnsignedInt(b)) => a == b,
            (Self::Long(a), Self::Long(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Double(a), Self::Double(b)) => a.to_bits() == b.to_bits(),
            (Self::Decimal(a, b), Self::Decimal(c, d)) => (a, b) == (c, d),
            (Self::LongString(a), Self::LongString(b)) | (Self::Binary(a), Self::Binary(b)) => {
                a == b
            }
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Table(a), Self::Table(b)) => a == b,
            (Self::Void, Self::Void) => true,
            _ => false,
        }
    }
}

impl Value {
    /// A long string from text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::LongString(text.as_bytes().into())
    }

    /// A value of a field table that has been checked.
    #[must_use]
    pub fn from_wire(value: WireValue<'_>) -> Self {
        match value {
            WireValue::Boolean(value) => Self::Bool(value),
            WireValue::ShortShortInt(value) => Self::Byte(value),
            WireValue::ShortShortUint(value) => Self::UnsignedByte(value),
            WireValue::ShortInt(value) | WireValue::ShortIntOfText(value) => Self::Short(value),
            WireValue::ShortUint(value) => Self::UnsignedShort(value),
            WireValue::LongInt(value) => Self::SignedInt(value),
            WireValue::LongUint(value) => Self::UnsignedInt(value),
            WireValue::LongLongInt(value) | WireValue::LongLongIntOfText(value) => {
                Self::Long(value)
            }
            WireValue::Float(value) => Self::Float(value),
            WireValue::Double(value) => Self::Double(value),
            WireValue::Decimal { scale, value } => Self::Decimal(scale, value),
            WireValue::LongString(octets) => Self::LongString(octets.into()),
            WireValue::Array(values) => Self::Array(values.map(Self::from_wire).collect()),
            WireValue::Timestamp(seconds) => Self::Timestamp(seconds),
            // The walk before has bounded the depth, so that this recursion is bounded too.
            WireValue::Table(table) => Self::Table(Arguments::from_table(table.contents())),
            WireValue::Void => Self::Void,
            WireValue::ByteArray(octets) => Self::Binary(octets.into()),
        }
    }

    /// The type's name in error texts.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Byte(_) => "byte",
            Self::UnsignedByte(_) => "unsignedbyte",
            Self::Short(_) => "short",
            Self::UnsignedShort(_) => "unsignedshort",
            Self::SignedInt(_) => "signedint",
            Self::UnsignedInt(_) => "unsignedint",
            Self::Long(_) => "long",
            Self::Float(_) => "float",
            Self::Double(_) => "double",
            Self::Decimal(..) => "decimal",
            Self::LongString(_) => "longstr",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
            Self::Binary(_) => "binary",
        }
    }

    /// The number in any of the seven integer types.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::Byte(n) => Some(n.into()),
            Self::UnsignedByte(n) => Some(n.into()),
            Self::Short(n) => Some(n.into()),
            Self::UnsignedShort(n) => Some(n.into()),
            Self::SignedInt(n) => Some(n.into()),
            Self::UnsignedInt(n) => Some(n.into()),
            Self::Long(n) => Some(n),
            _ => None,
        }
    }

    /// The text of a long string that is UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::LongString(octets) => std::str::from_utf8(octets).ok(),
            _ => None,
        }
    }

    /// Equality as redeclaration compares: all integer widths are one class, then the value decides.
    #[must_use]
    pub fn equivalent(&self, other: &Self) -> bool {
        match (self.as_integer(), other.as_integer()) {
            (Some(a), Some(b)) => a == b,
            (None, None) => self == other,
            _ => false,
        }
    }
}

/// How a value stands in the texts of refused redeclarations and in lists.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            // With a point, so that it is no integer: 5.0.
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Double(value) => write!(f, "{value:?}"),
            Self::Decimal(scale, value) => write!(f, "{value}e-{scale}"),
            Self::LongString(octets) | Self::Binary(octets) => {
                write!(f, "{}", String::from_utf8_lossy(octets))
            }
            Self::Timestamp(seconds) => write!(f, "{seconds}"),
            Self::Void => f.write_str("undefined"),
            Self::Array(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{value}")?;
                }
                f.write_str("]")
            }
            Self::Table(arguments) => write!(f, "{arguments}"),
            Self::Byte(_)
            | Self::UnsignedByte(_)
            | Self::Short(_)
            | Self::UnsignedShort(_)
            | Self::SignedInt(_)
            | Self::UnsignedInt(_)
            | Self::Long(_) => write!(f, "{}", self.as_integer().unwrap_or_default()),
        }
    }
}

/// A field table, sorted by name; of a repeated name the first value counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arguments(Vec<(Box<str>, Value)>);

impl Arguments {
    /// No arguments.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Decodes the contents of a field table that has been checked (see [`proto_amqp::table::check`]); names
    /// that are not UTF-8 are read with replacement characters.
    #[must_use]
    pub fn from_table(contents: &[u8]) -> Self {
        TableReader::new(contents)
            .map(|(name, value)| (String::from_utf8_lossy(name).into(), Value::from_wire(value)))
            .collect()
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let index = self.0.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        self.0.get(index).map(|(_, value)| value)
    }

    /// Sets `name`, replacing a value that is there.
    pub fn set(&mut self, name: &str, value: Value) {
        match self.0.binary_search_by(|(key, _)| (**key).cmp(name)) {
            Ok(index) => {
                if let Some(entry) = self.0.get_mut(index) {
                    entry.1 = value;
                }
            }
            Err(index) => self.0.insert(index, (name.into(), value)),
        }
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Box<str>, Value)> for Arguments {
    fn from_iter<T: IntoIterator<Item = (Box<str>, Value)>>(entries: T) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.dedup_by(|(later, _), (first, _)| later == first);
        Self(entries)
    }
}

impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match value {
                Value::LongString(_) => write!(f, "{comma}{{\"{name}\",\"{value}\"}}")?,
                _ => write!(f, "{comma}{{\"{name}\",{value}}}")?,
            }
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_width_are_equivalent() {
        assert!(Value::Byte(5).equivalent(&Value::Long(5)));
        assert!(!Value::Byte(5).equivalent(&Value::text("5")));
    }

    #[test]
    fn the_first_of_a_repeated_name_counts() {
        let arguments: Arguments =
            [("b".into(), Value::Void), ("a".into(), Value::Byte(1)), ("a".into(), Value::Byte(2))]
                .into_iter()
                .collect();
        assert_eq!(arguments.get("a"), Some(&Value::Byte(1)));
        assert_eq!(arguments.to_string(), "[{\"a\",1},{\"b\",undefined}]");
    }
}
