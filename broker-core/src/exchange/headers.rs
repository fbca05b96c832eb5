//! Headers bindings: `x-match` and the comparison of a binding's arguments with a message's headers.
//!
//! Numbers and timestamps compare by value whatever their wire type, strings by octets; a number never equals a string,
//! nor a boolean a number. A binding argument without value (`V`) asks only that the header is there.

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

fn equal(wanted: &Value, header: Header<'_>) -> bool {
    match (wanted, &header) {
        (Value::Void, _) => true,
        (Value::LongString(a) | Value::Binary(a), Header::LongString(b) | Header::ByteArray(b)) => {
            **a == **b
        }
        (Value::LongString(_) | Value::Binary(_), _)
        | (_, Header::LongString(_) | Header::ByteArray(_)) => false,
        _ => same(wanted, &Value::from_wire(header)),
    }
}

/// Equality of values that are no strings. RabbitMQ: inside of arrays and tables the types of numbers count.
fn same(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        return a == b;
    }
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a == b,
        _ => false,
    }
}

/// An integer; a timestamp is one too.
fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Timestamp(seconds) => Some((*seconds).into()),
        other => other.as_integer().map(i128::from),
    }
}

fn number(value: &Value) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a float is on the other side of the comparison"
    )]
    match value {
        Value::Float(value) => Some((*value).into()),
        Value::Double(value) => Some(*value),
        other => whole(other).map(|value| value as f64),
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
