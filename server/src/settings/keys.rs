//! The list of keys, derived from [`Settings`](super::Settings) itself, and the nearest one to a
//! misspelling.

use std::sync::LazyLock;

use serde_json::Value;

use super::Settings;
use super::units::MASK;

/// A key or a section that exists.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Dotted path.
    pub(super) path: String,
    /// The default as it serialises; null when there is none.
    pub(super) default: Value,
}

/// What a dotted path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Key,
    Section,
    /// A name that is kept for later; the sentence says so.
    Reserved(&'static str),
    Unknown,
}

/// Sections that people will look for because other brokers have them on the same ports.
const RESERVED: [(&str, &str); 2] = [
    ("management", "the HTTP API and its pages are not part of this version; take the setting out"),
    (
        "web_stomp",
        "STOMP over WebSocket comes with the HTTP API, not in this version; take the setting out",
    ),
];

struct Known {
    keys: Vec<Key>,
    sections: Vec<String>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    fn collect(path: &str, value: &Value, known: &mut Known) {
        let Value::Object(section) = value else {
            known.keys.push(Key { path: path.into(), default: value.clone() });
            return;
        };
        if !path.is_empty() {
            known.sections.push(path.into());
        }
        for (name, value) in section {
            collect(&join(path, name), value, known);
        }
    }
    let mut known = Known { keys: Vec::new(), sections: Vec::new() };
    // A test holds that the defaults serialise; without them every key would be unknown.
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    collect("", &defaults, &mut known);
    known
});

/// `name` below `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

/// Every key, in the order of the structs.
pub(super) fn all() -> &'static [Key] {
    &KNOWN.keys
}

/// What `path` means.
pub(super) fn meaning(path: &str) -> Meaning {
    if KNOWN.keys.iter().any(|key| key.path == path) {
        return Meaning::Key;
    }
    if KNOWN.sections.iter().any(|section| section == path) {
        return Meaning::Section;
    }
    let top = path.split('.').next().unwrap_or_default();
    match RESERVED.iter().find(|(name, _)| *name == top) {
        Some((_, sentence)) => Meaning::Reserved(sentence),
        None => Meaning::Unknown,
    }
}

/// Whether the value of `path` is a password: whether its default prints masked.
pub(super) fn is_secret(path: &str) -> bool {
    KNOWN.keys.iter().any(|key| key.path == path && key.default == MASK)
}

/// The key or section that someone who wrote `path` most likely meant.
pub(super) fn nearest(path: &str) -> Option<&'static str> {
    /// Below this, a suggestion puzzles more than it helps.
    const ALIKE_MIN: f64 = 0.8;

    let folded = fold(path);
    let keys = KNOWN.keys.iter().map(|key| key.path.as_str());
    let candidates = keys.chain(KNOWN.sections.iter().map(String::as_str));
    let scored = candidates.map(|candidate| (likeness(path, &folded, candidate), candidate));
    let (score, best) = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (score >= ALIKE_MIN).then_some(best)
}

/// `path` without the difference between levels and words: `AMQP_LISTEN` is `amqp.listen`.
fn fold(path: &str) -> String {
    path.to_ascii_lowercase().replace(['.', '-'], "_")
}

/// How alike two paths are, 0 to 1.
fn likeness(path: &str, folded: &str, candidate: &str) -> f64 {
    if folded == fold(candidate) {
        return 1.0;
    }
    let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
    let (candidate_parent, candidate_last) = candidate.rsplit_once('.').unwrap_or(("", candidate));
    let names = strsim::jaro_winkler(last, candidate_last);
    if parent == candidate_parent {
        return names;
    }
    // The right name in the wrong section comes after a near name in the right one.
    0.9 * names * (0.5 + 0.5 * strsim::jaro_winkler(parent, candidate_parent)).max(0.9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_keys_and_sections_of_every_level() {
        assert_eq!(meaning("data_dir"), Meaning::Key);
        assert_eq!(meaning("amqp.tls.listen"), Meaning::Key);
        assert_eq!(meaning("amqp.tls"), Meaning::Section);
        assert_eq!(meaning("amqp.nothing"), Meaning::Unknown);
        assert!(matches!(meaning("web_stomp.listen"), Meaning::Reserved(_)));
    }

    #[test]
    fn passwords_are_secret_and_nothing_else_is() {
        let secret: Vec<&str> =
            all().iter().map(|key| key.path.as_str()).filter(|path| is_secret(path)).collect();
        assert_eq!(secret, ["stomp.default_passcode", "auth.default_password"]);
    }

    #[test]
    fn a_misspelling_finds_its_key() {
        for (written, meant) in [
            ("amqp.heartbeet", Some("amqp.heartbeat")),
            ("amqp_listen", Some("amqp.listen")),
            ("AMQP.Listen", Some("amqp.listen")),
            ("amqp.frame-max", Some("amqp.frame_max")),
            ("frame_max", Some("amqp.frame_max")),
            ("ampq.listen", Some("amqp.listen")),
            ("ampq", Some("amqp")),
            ("tls.cert", Some("tls.certificate")),
            ("datadir", Some("data_dir")),
            ("log.levle", Some("log.level")),
            ("stomp.default_passwd", Some("stomp.default_passcode")),
            ("zookeeper", None),
            ("amqp.zzz", None),
        ] {
            assert_eq!(nearest(written), meant, "{written}");
        }
    }
}
