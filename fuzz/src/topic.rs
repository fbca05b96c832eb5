//! Topic exchanges: many bindings at once against the rule, written down without a thought for speed.
//!
//! ```text
//!  input   which bindings are removed: eight octets | patterns, LF after each | the routing key
//! ```

use std::sync::{Arc, LazyLock};

use broker_core::{
    Broker, VirtualHost,
    arguments::Arguments,
    consumer::ConnectionId,
    exchange::{Binding, Destination, ExchangeSpec, ExchangeType, HeaderTable},
    log::MemoryLog,
    name::{ExchangeName, QueueName},
    vhost::QueueDeclaration,
};

use crate::script::Script;

/// Bindings of one input. More of them are left out, so that an input costs little.
const PATTERNS_MAX: usize = 12;
const NOBODY: ConnectionId = ConnectionId(0);
const KEY_LEN_MAX: usize = 255;

/// Declaring is slow and routing is what is tested: one exchange and its queues serve every input.
static FIELD: LazyLock<Field> = LazyLock::new(Field::declare);

struct Field {
    vhost: Arc<VirtualHost>,
    exchange: ExchangeName,
    queues: Vec<QueueName>,
}

/// Fuzzes the topic table through [`VirtualHost::bind`], `route` and `unbind`.
///
/// # Panics
/// When the table and the rule disagree.
pub fn run(octets: &[u8]) {
    let mut script = Script::new(octets);
    let removed = script.number();
    let mut patterns: Vec<&[u8]> = script.rest().split(|octet| *octet == b'\n').collect();
    let key = patterns.pop().unwrap_or_default();
    let key = &key[..key.len().min(KEY_LEN_MAX)];
    patterns.truncate(PATTERNS_MAX);

    for (number, pattern) in patterns.iter().enumerate() {
        FIELD.bind(number, pattern);
    }
    check(key, &patterns, |_| true);
    for number in (0..patterns.len()).filter(|number| removed >> number & 1 == 1) {
        FIELD.unbind(number, patterns[number]);
    }
    check(key, &patterns, |number| removed >> number & 1 == 0);
    for number in (0..patterns.len()).filter(|number| removed >> number & 1 == 0) {
        FIELD.unbind(number, patterns[number]);
    }
    check(key, &patterns, |_| false);
}

fn check(key: &[u8], patterns: &[&[u8]], is_bound: impl Fn(usize) -> bool) {
    let numbers = patterns.iter().enumerate();
    let mut expected: Vec<QueueName> = numbers
        .filter(|(number, pattern)| is_bound(*number) && matches(&words(pattern), &words(key)))
        .map(|(number, _)| FIELD.queues[number].clone())
        .collect();
    expected.sort();
    assert_eq!(FIELD.route(key), expected, "key {}", key.escape_ascii());
}

/// AMQP 0-9-1 §3.1.3.3: `*` is one word, `#` any number of words.
///
/// `reached[n]` says whether the pattern so far matches the first n words of the key.
fn matches(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
    let mut reached = vec![false; key.len() + 1];
    reached[0] = true;
    for word in pattern {
        if *word == b"#" {
            let first = reached.iter().position(|reached| *reached);
            if let Some(first) = first {
                reached[first..].fill(true);
            }
            continue;
        }
        for n in (0..key.len()).rev() {
            reached[n + 1] = reached[n] && (*word == b"*" || *word == key[n]);
        }
        reached[0] = false;
    }
    reached[key.len()]
}

/// The empty key has no words; otherwise there is one more than there are dots.
fn words(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() {
        return Vec::new();
    }
    key.split(|octet| *octet == b'.').collect()
}

impl Field {
    fn declare() -> Self {
        let vhost = Broker::new(Arc::new(MemoryLog::default()), Vec::new())
            .add_vhost("/")
            .expect("a new broker has no virtual host");
        let exchange = ExchangeName::new("patterns").expect("a short name");
        let spec = ExchangeSpec {
            name: exchange.clone(),
            kind: ExchangeType::Topic,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: Arguments::new(),
        };
        vhost.declare_exchange(spec).expect("a new exchange");
        let queues = (0..PATTERNS_MAX)
            .map(|number| QueueName::new(&format!("{number:02}")).expect("a short name"))
            .collect();
        for name in &queues {
            let declaration = QueueDeclaration {
                name: QueueName::clone(name),
                server_named: false,
                durable: false,
                exclusive: false,
                auto_delete: false,
                arguments: Arguments::new(),
            };
            vhost.declare_queue(declaration, NOBODY, 0).expect("a new queue");
        }
        Self { vhost, exchange, queues }
    }

    fn binding(&self, number: usize, pattern: &[u8]) -> Binding {
        Binding {
            source: self.exchange.clone(),
            destination: Destination::Queue(self.queues[number].clone()),
            routing_key: pattern.into(),
            arguments: Arguments::new(),
        }
    }

    fn bind(&self, number: usize, pattern: &[u8]) {
        self.vhost.bind(self.binding(number, pattern), NOBODY).expect("both ends exist");
    }

    fn unbind(&self, number: usize, pattern: &[u8]) {
        self.vhost.unbind(&self.binding(number, pattern), NOBODY).expect("both ends exist");
    }

    /// Where a message with this key goes, sorted.
    fn route(&self, key: &[u8]) -> Vec<QueueName> {
        let route = self
            .vhost
            .route(&self.exchange, &[key], HeaderTable::default())
            .expect("the exchange exists");
        let mut names: Vec<QueueName> =
            route.queues.iter().map(|queue| queue.spec.name.clone()).collect();
        names.sort();
        names
    }
}
