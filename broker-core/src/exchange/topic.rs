//! Topic patterns as a trie of words, matched in time linear in the key whatever the patterns.
//!
//! `*` is exactly one word, `#` any number of words, none included; a word that merely contains one of the
//! two is literal. The empty key has no words; otherwise n dots make n + 1 words, empty ones included.
//! Matching walks all branches at once, word by word, and visits each node of the trie at most once a
//! word: a `#` node stays in the set of branches while words pass, it is never tried at every length.

use hashbrown::HashMap;

use super::{Destination, Target, Targets};

#[derive(Debug, Default)]
struct Node {
    words: HashMap<Box<[u8]>, Self, foldhash::fast::RandomState>,
    one: Option<Box<Self>>,
    any: Option<Box<Self>>,
    targets: Targets,
}

impl Node {
    fn child(&mut self, word: &[u8]) -> &mut Self {
        match word {
            b"*" => self.one.get_or_insert_default(),
            b"#" => self.any.get_or_insert_default(),
            word => self.words.entry(word.into()).or_default(),
        }
    }

    fn is_bare(&self) -> bool {
        self.targets.is_empty() && self.words.is_empty() && self.one.is_none() && self.any.is_none()
    }

    fn remove(&mut self, words: &mut dyn Iterator<Item = &[u8]>, destination: &Destination) {
        let Some(word) = words.next() else {
            self.targets.remove(destination);
            return;
        };
        let wild = match word {
            b"*" => &mut self.one,
            b"#" => &mut self.any,
            word => {
                if let Some(child) = self.words.get_mut(word) {
                    child.remove(words, destination);
                    if child.is_bare() {
                        self.words.remove(word);
                    }
                }
                return;
            }
        };
        if let Some(child) = wild {
            child.remove(words, destination);
            if child.is_bare() {
                *wild = None;
            }
        }
    }
}

/// The bindings of a topic exchange.
#[derive(Debug, Default)]
pub(super) struct TopicTable {
    root: Node,
}

/// Splits at dots; the empty key has no words.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|octet| *octet == b'.').take(if key.is_empty() { 0 } else { usize::MAX })
}

/// The words of a pattern; of several `#` in a row one says as much.
fn pattern_words(pattern: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut after_any = false;
    words(pattern).filter(move |word| {
        let repeated = after_any && *word == b"#";
        after_any = *word == b"#";
        !repeated
    })
}

/// A branch that is still possible.
struct Branch<'t> {
    node: &'t Node,
    /// The node is a `#`: it swallows further words.
    swallows: bool,
}

impl TopicTable {
    pub(super) fn add(&mut self, pattern: &[u8], target: Target) {
        let mut node = &mut self.root;
        for word in pattern_words(pattern) {
            node = node.child(word);
        }
        node.targets.add(target);
    }

    pub(super) fn remove(&mut self, pattern: &[u8], destination: &Destination) {
        self.root.remove(&mut pattern_words(pattern), destination);
    }

    pub(super) fn route<'t>(&'t self, key: &[u8], out: &mut Vec<&'t Target>) {
        let mut branches: Vec<Branch<'t>> = Vec::with_capacity(8);
        let mut next: Vec<Branch<'t>> = Vec::with_capacity(8);
        enter(&mut branches, &self.root, false);
        for word in words(key) {
            for branch in &branches {
                if branch.swallows {
                    enter(&mut next, branch.node, true);
                }
                if let Some(child) = branch.node.words.get(word) {
                    enter(&mut next, child, false);
                }
                if let Some(child) = &branch.node.one {
                    enter(&mut next, child, false);
                }
            }
            std::mem::swap(&mut branches, &mut next);
            next.clear();
            if branches.is_empty() {
                return;
            }
        }
        for branch in &branches {
            branch.node.targets.collect(out);
        }
    }
}

/// Adds a branch and the `#` below it, which may stand for no word at all.
///
/// A plain node has one parent and so is entered once a word. Only a `#` node can be entered twice, from
/// its parent and from itself.
fn enter<'t>(branches: &mut Vec<Branch<'t>>, node: &'t Node, swallows: bool) {
    if swallows && branches.iter().any(|branch| branch.swallows && std::ptr::eq(branch.node, node))
    {
        return;
    }
    branches.push(Branch { node, swallows });
    if let Some(any) = &node.any {
        enter(branches, any, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ExchangeName;

    fn target(name: &str) -> Target {
        Target::Exchange(ExchangeName::new(name).unwrap())
    }

    fn matches(pattern: &str, key: &str) -> bool {
        let mut table = TopicTable::default();
        table.add(pattern.as_bytes(), target("t"));
        let mut out = Vec::new();
        table.route(key.as_bytes(), &mut out);
        assert!(out.len() <= 1, "{pattern} on {key}: one binding matches at most once");
        let matched = !out.is_empty();
        table.remove(pattern.as_bytes(), &target("t").destination());
        assert!(table.root.is_bare(), "{pattern}: nothing remains of a removed binding");
        matched
    }

    /// The rule, written down without a thought for speed.
    fn naive(pattern: &[&str], key: &[&str]) -> bool {
        match pattern.split_first() {
            None => key.is_empty(),
            Some((&"#", rest)) => (0..=key.len()).any(|skip| naive(rest, &key[skip..])),
            Some((&word, rest)) => key.split_first().is_some_and(|(first, after)| {
                (word == "*" || word == *first) && naive(rest, after)
            }),
        }
    }

    #[test]
    fn the_table_of_known_cases() {
        for (pattern, key, expected) in [
            ("#", "", true),
            ("*", "", false),
            ("", "", true),
            ("a.#", "a", true),
            ("#.a", "a", true),
            ("#.#", "x", true),
            ("#.*", "a", true),
            ("#.*", "", false),
            ("a.#.b", "a.b", true),
            ("a.#.#.b", "a.x.b", true),
            ("*#", "x", false),
            ("a.*", "a.", true),
            ("a.*", "a", false),
            ("*.*", ".", true),
            ("a..b", "a..b", true),
            ("a.*.b", "a..b", true),
            ("#.b.#", "a.b.c", true),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern:?} on {key:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_trie_agrees_with_the_rule(
            pattern in proptest::collection::vec("[ab*#]|", 0..6),
            key in proptest::collection::vec("[ab]|", 0..6),
        ) {
            let split = |text: &str| -> Vec<String> {
                if text.is_empty() { vec![] } else { text.split('.').map(str::to_owned).collect() }
            };
            let (pattern, key) = (pattern.join("."), key.join("."));
            let (p, k) = (split(&pattern), split(&key));
            let p: Vec<&str> = p.iter().map(String::as_str).collect();
            let k: Vec<&str> = k.iter().map(String::as_str).collect();
            proptest::prop_assert_eq!(matches(&pattern, &key), naive(&p, &k));
        }
    }

    #[test]
    fn many_wildcards_do_not_multiply() {
        let mut table = TopicTable::default();
        let pattern = vec!["#.a"; 60].join(".");
        table.add(pattern.as_bytes(), target("t"));
        let key = vec!["a"; 120].join(".");
        let mut out = Vec::new();
        table.route(key.as_bytes(), &mut out);
        assert_eq!(out.len(), 1);
    }
}
