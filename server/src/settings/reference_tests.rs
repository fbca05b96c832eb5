//! Holds `config/warren.toml` to the code, both ways: every key with its default and its bounds, and
//! nothing else.

use std::collections::BTreeMap;

use super::keys;
use super::rules::all_bounds;
use super::*;

const REFERENCE: &str = include_str!("../../../config/warren.toml");

/// A setting of the reference: its line without the `#`, and the prose above it.
struct Documented {
    line: String,
    prose: String,
}

/// The settings of the reference by key.
fn documented() -> BTreeMap<String, Documented> {
    let mut settings = BTreeMap::new();
    let mut section = String::new();
    let mut prose = String::new();
    for line in REFERENCE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').into();
        } else if let Some(text) = line.strip_prefix("# ") {
            prose.push_str(text);
            prose.push(' ');
            continue;
        } else if let Some(setting) = line.strip_prefix('#').filter(|rest| !rest.is_empty()) {
            let name = setting.split_once(" = ").expect("a setting").0;
            let key = keys::join(&section, name);
            let entry = Documented { line: setting.into(), prose: prose.clone() };
            assert!(settings.insert(key, entry).is_none(), "{setting} is there twice");
        } else {
            assert!(line.is_empty() || line == "#", "neither prose nor setting: {line}");
        }
        prose.clear();
    }
    settings
}

/// The reference with every setting that has a default made active.
fn activated() -> String {
    let settings = documented();
    let mut section = "";
    let mut out = String::new();
    for key in keys::all().iter().filter(|key| !key.default.is_null()) {
        let (parent, _) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if parent != section {
            section = parent;
            out.push_str(&format!("[{section}]\n"));
        }
        out.push_str(&settings[&key.path].line);
        out.push('\n');
    }
    out
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let documented: Vec<String> = documented().into_keys().collect();
    let mut known: Vec<String> = keys::all().iter().map(|key| key.path.clone()).collect();
    known.sort();
    assert_eq!(documented, known);
}

#[test]
fn the_reference_is_in_the_order_of_the_code() {
    let mut section = "";
    let mut order = Vec::new();
    for line in REFERENCE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.strip_prefix('#').and_then(|l| l.split_once(" = "))
            && !name.starts_with(' ')
        {
            order.push(keys::join(section, name));
        }
    }
    let known: Vec<String> = keys::all().iter().map(|key| key.path.clone()).collect();
    assert_eq!(order, known);
}

#[test]
fn the_reference_shows_the_defaults() {
    let read: Settings = toml::from_str(&activated()).expect("the reference reads");
    assert_eq!(read, Settings::default());
}

#[test]
fn what_has_no_default_says_so() {
    for key in keys::all() {
        let prose = &documented()[&key.path].prose;
        let says = prose.contains("Not set by default");
        assert_eq!(says, key.default.is_null(), "{}: {prose}", key.path);
    }
}

#[test]
fn the_reference_names_every_bound() {
    for bounds in all_bounds(&Settings::default()) {
        let said = format!("{} to {}", bounds.low, bounds.high);
        let prose = &documented()[bounds.key].prose;
        assert!(prose.contains(&said), "{}: the prose lacks {said:?}: {prose}", bounds.key);
    }
}

#[test]
fn the_reference_as_it_is_shipped_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("warren.toml");
    std::fs::write(&path, REFERENCE).expect("a file");
    let loaded = load(&Sources { config: Some(path), ..Sources::default() }).expect("it loads");
    assert_eq!(loaded.settings, Settings::default());
}
