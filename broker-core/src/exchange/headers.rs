//! Headers bindings: `x-match` and the comparison of a binding's arguments with a message's headers.
//!
//! Numbers compare by value whatever their wire type, strings by octets; a number never equals a string, nor
//! a boolean a number. A binding argument without value (`V`) asks only that the header is there.

use proto_amqp::table::{TableReader, Value as Header};

use super::{Destination, Target, Targets};
use crate::arguments::{Arguments, Value};
use crate::error::Refusal;

/// The contents of a message's `headers` table, checked already; `None` when it has none.
pub type HeaderTable<'a> = Option<&'a [u8]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Match {
    any: bool,
    with_x: bool,
}

fn parse_match(arguments: &Arguments) -> Result<Match, Refusal> {
    let Some(value) = arguments.get("x-match") else {
        return Ok(Match { any: false, with_x: false });
    };
    let Value::LongString(octets) = value else {
        return Err(Refusal::InvalidMatch {
            reason: format!(
                "Invalid x-match field type {} (value {value}); expected longstr",
                value.type_name()
            ),
        });
    };
    match &**octets {
        b"all" => Ok(Match { any: false, with_x: false }),
        b"any" => Ok(Match { any: true, with_x: false }),
        b"all-with-x" => Ok(Match { any: false, with_x: true }),
        b"any-with-x" => Ok(Match { any: true, with_x: true }),
        _ => Err(Refusal::InvalidMatch {
            reason: format!(
                "Invalid x-match field value <<\"{value}\">>; expected all, any, all-with-x, or any-with-x"
            ),
        }),
    }
}

/// Checks the arguments of a binding to a headers exchange.
pub(super) fn check(arguments: &Arguments) -> Result<(), Refusal> {
    parse_match(arguments).map(|_| ())
}

#[derive(Debug)]
struct Pattern {
    arguments: Arguments,
    rule: Match,
    targets: Targets,
}

impl Pattern {
    fn matches(&self, headers: HeaderTable<'_>) -> bool {
        let mut effective = self.arguments.iter().filter(|(name, _)| {
            *name != "x-match" && (self.rule.with_x || !name.starts_with("x-"))
        });
        let found = |(name, wanted): (&str, &Value)| {
            headers.is_some_and(|table| {
                TableReader::new(table)
                    .get(name.as_bytes())
                    .is_some_and(|value| equal(wanted, value))
            })
        };
        if self.rule.any { effective.any(found) } else { effective.all(found) }
    }
}

fn number(header: &Header<'_>) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a float is on the other side of the comparison"
    )]
    match *header {
        Header::Float(value) => Some(value.into()),
        Header::Double(value) => Some(value),
        ref other => other.as_integer().map(|value| value as f64),
    }
}

fn equal(wanted: &Value, header: Header<'_>) -> bool {
    match (wanted, &header) {
        (Value::Void, _) => true,
        (Value::Bool(a), Header::Boolean(b)) => a == b,
        (Value::LongString(a) | Value::Binary(a), Header::LongString(b) | Header::ByteArray(b)) => {
            **a == **b
        }
        (Value::Timestamp(a), Header::Timestamp(b)) => a == b,
        (Value::Decimal(scale, value), Header::Decimal { scale: s, value: v }) => {
            scale == s && value == v
        }
        (Value::Float(_) | Value::Double(_), _) => {
            let wanted = match *wanted {
                Value::Float(value) => value.into(),
                Value::Double(value) => value,
                _ => return false,
            };
            number(&header).is_some_and(|header| header == wanted)
        }
        (Value::Array(a), Header::Array(b)) => {
            let mut theirs = *b;
            a.iter().all(|wanted| theirs.next().is_some_and(|header| equal(wanted, header)))
                && theirs.next().is_none()
        }
        (Value::Table(a), Header::Table(b)) => {
            let theirs: Vec<_> = b.collect();
            a.iter().count() == theirs.len()
                && a.iter().all(|(name, wanted)| {
                    theirs
                        .iter()
                        .any(|(header, value)| *header == name.as_bytes() && equal(wanted, *value))
                })
        }
        _ => match (wanted.as_integer(), header.as_integer()) {
            (Some(a), Some(b)) => a == b,
            #[expect(clippy::cast_precision_loss, reason = "the header is a float")]
            (Some(a), None) => number(&header).is_some_and(|b| b == a as f64),
            _ => false,
        },
    }
}

/// The bindings of a headers exchange, one pattern for each distinct set of arguments.
#[derive(Debug, Default)]
pub(super) struct HeadersTable {
    patterns: Vec<Pattern>,
}

impl HeadersTable {
    pub(super) fn add(&mut self, target: Target, arguments: &Arguments) {
        if let Some(pattern) = self.patterns.iter_mut().find(|there| there.arguments == *arguments)
        {
            pattern.targets.add(target);
            return;
        }
        let Ok(rule) = parse_match(arguments) else {
            return;
        };
        let mut targets = Targets::default();
        targets.add(target);
        self.patterns.push(Pattern { arguments: arguments.clone(), rule, targets });
    }

    pub(super) fn remove(&mut self, destination: &Destination, arguments: &Arguments) {
        let found = self.patterns.iter().position(|there| there.arguments == *arguments);
        if let Some(index) = found
            && let Some(pattern) = self.patterns.get_mut(index)
        {
            pattern.targets.remove(destination);
            if pattern.targets.is_empty() {
                self.patterns.swap_remove(index);
            }
        }
    }

    pub(super) fn route<'t>(&'t self, headers: HeaderTable<'_>, out: &mut Vec<&'t Target>) {
        for pattern in &self.patterns {
            if pattern.matches(headers) {
                pattern.targets.collect(out);
            }
        }
    }
}
