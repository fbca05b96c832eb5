//! Files, environment and flags, taken apart into single values that know where they were written.
//!
//! A source that cannot be read as such (a missing file, broken TOML, a flag without `=`) and a key
//! that does not exist are problems of this module. What a value must be is the next one's
//! ([`layers`](super::layers)).

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::{Dict, Value};
use toml::de::{DeTable, DeValue};

use super::keys::{self, Meaning, join};
use super::problem::{Place, Problem, SourceFile};

/// Where the file is looked for when none is named, first found first.
const SEARCH: [&str; 2] = ["/etc/warren/warren.toml", "warren.toml"];
/// The directory of further files, beside the main one.
const FURTHER_FILES: &str = "conf.d";
const PREFIX: &str = "WARREN_";
/// Names the main file, like `--config`; the one variable that is not a key.
const CONFIG_VARIABLE: &str = "WARREN_CONFIG";

/// Where settings come from, besides the built-in defaults.
#[derive(Clone, Default)]
pub struct Sources {
    /// The main file; it must exist. `None`: the first of `search` that exists, or none.
    pub config: Option<PathBuf>,
    /// Where to look when `config` is `None`.
    pub search: Vec<PathBuf>,
    /// The environment; only names that start with `WARREN_` matter.
    pub variables: Vec<(OsString, OsString)>,
    /// Flags, later ones over earlier ones.
    pub overrides: Vec<Override>,
}

/// A setting from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Override {
    /// `--set KEY=VALUE`, as written.
    Set(String),
    /// A flag of its own for one key: the flag's name, the key, the value as it is.
    Named(&'static str, &'static str, String),
    /// A flag that turns one key on: the flag's name, the key.
    On(&'static str, &'static str),
}

impl Sources {
    /// The sources of this process: the usual places, its environment, and the given flags.
    #[must_use]
    pub fn of_process(config: Option<PathBuf>, overrides: Vec<Override>) -> Self {
        let named = || std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty());
        Self {
            config: config.or_else(|| named().map(PathBuf::from)),
            search: SEARCH.iter().map(PathBuf::from).collect(),
            variables: std::env::vars_os()
                .filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
                .collect(),
            overrides,
        }
    }

    /// Every layer, lowest first, and the problems met on the way.
    pub(super) fn read(&self) -> (Vec<Layer>, Vec<Problem>) {
        let mut reader = Reader::default();
        reader.files(self);
        reader.environment(&self.variables);
        reader.flags(&self.overrides);
        (reader.layers, reader.problems)
    }
}

/// Values of variables and flags stay out of it: they may be passwords.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&OsString> = self.variables.iter().map(|(name, _)| name).collect();
        f.debug_struct("Sources")
            .field("config", &self.config)
            .field("search", &self.search)
            .field("variables", &names)
            .field("overrides", &self.overrides.len())
            .finish()
    }
}

/// The values of one source.
#[derive(Debug)]
pub(super) struct Layer {
    /// What figment calls it.
    pub(super) name: String,
    /// The file, if it is one.
    pub(super) file: Option<PathBuf>,
    pub(super) entries: Vec<Entry>,
}

/// One value of a key that exists.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    /// What it may mean; the first that fits the key counts. Never empty.
    pub(super) readings: Vec<Value>,
    /// The places of a list's elements.
    pub(super) elements: Vec<Place>,
}

#[derive(Default)]
struct Reader {
    layers: Vec<Layer>,
    problems: Vec<Problem>,
}

impl Reader {
    fn refuse(&mut self, place: Place, message: String, help: Option<String>) {
        self.problems.push(Problem { key: None, message, place, help });
    }

    // Files.

    fn files(&mut self, sources: &Sources) {
        let directory_of = |main: &Path| main.parent().map(|parent| parent.join(FURTHER_FILES));
        // An installed directory may hold further files only. In the working directory a `conf.d`
        // alone is somebody else's.
        let is_there = |main: &&PathBuf| {
            let beside = directory_of(main).filter(|_| main.is_absolute());
            main.exists() || beside.is_some_and(|directory| directory.is_dir())
        };
        let main = match &sources.config {
            Some(path) => path,
            None => match sources.search.iter().find(is_there) {
                Some(path) => path,
                None => return,
            },
        };
        if sources.config.is_some() || main.exists() {
            self.file(main);
        }
        let Some(directory) = directory_of(main) else {
            return;
        };
        let mut further = Vec::new();
        match std::fs::read_dir(&directory) {
            Ok(listing) => {
                for entry in listing {
                    match entry {
                        Ok(entry) => further.push(entry.path()),
                        Err(error) => return self.unreadable(&directory, &error),
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return self.unreadable(&directory, &error),
        }
        further.retain(|path| {
            let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            !hidden && path.extension().is_some_and(|extension| extension == "toml")
        });
        further.sort();
        for path in further {
            self.file(&path);
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let message = format!("cannot read {}: {error}", path.display());
        self.refuse(Place::File(path.into()), message, None);
    }

    fn file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.unreadable(path, &error),
        };
        let file = Arc::new(SourceFile { path: path.into(), text });
        let (document, errors) = DeTable::parse_recoverable(&file.text);
        if !errors.is_empty() {
            // What was recovered of a broken file would only add problems that are none.
            for error in errors {
                let place = file.spot(error.span().unwrap_or(0..0));
                self.refuse(place, format!("this is not TOML: {}", error.message()), None);
            }
            return;
        }
        let mut entries = Vec::new();
        self.table(&file, "", document.get_ref(), &mut entries);
        self.layers.push(Layer {
            name: path.display().to_string(),
            file: Some(path.into()),
            entries,
        });
    }

    /// Recurses into sections that exist only, so never deeper than [`Settings`](super::Settings).
    fn table(
        &mut self,
        file: &Arc<SourceFile>,
        path: &str,
        table: &DeTable<'_>,
        entries: &mut Vec<Entry>,
    ) {
        for (name, value) in table {
            let key = join(path, name.get_ref());
            match keys::meaning(&key) {
                Meaning::Key => entries.push(Entry {
                    key,
                    place: file.spot(value.span()),
                    readings: vec![to_figment(value.get_ref())],
                    elements: value.get_ref().as_array().map_or_else(Vec::new, |list| {
                        list.iter().map(|element| file.spot(element.span())).collect()
                    }),
                }),
                Meaning::Section => match value.get_ref() {
                    DeValue::Table(section) => self.table(file, &key, section, entries),
                    other => {
                        let message =
                            format!("`{key}` is a section, not {}", article(other.type_str()));
                        let help = Some(format!("write [{key}] and its keys below"));
                        self.refuse(file.spot(value.span()), message, help);
                    }
                },
                other => {
                    let what = if value.get_ref().is_table() { "section" } else { "key" };
                    self.unknown(other, what, &key, file.spot(name.span()), &|near| {
                        format!("`{near}`")
                    });
                }
            }
        }
    }

    /// `spell` writes a key the way this source does.
    fn unknown(
        &mut self,
        meaning: Meaning,
        what: &str,
        key: &str,
        place: Place,
        spell: &dyn Fn(&str) -> String,
    ) {
        let (message, help) = match meaning {
            Meaning::Reserved(sentence) => (format!("`{key}` cannot be set: {sentence}"), None),
            _ => {
                let help = keys::nearest(key).map(|near| format!("did you mean {}?", spell(near)));
                (format!("unknown {what} `{key}`"), help)
            }
        };
        self.problems.push(Problem { key: Some(key.into()), message, place, help });
    }

    // Environment.

    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        let mut named: Vec<(&str, &OsString)> = variables
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX) && *name != CONFIG_VARIABLE)
            .collect();
        named.sort_unstable();
        let mut entries: Vec<Entry> = Vec::new();
        for (name, value) in named {
            let place = Place::Variable(name.into());
            let Some(value) = value.to_str() else {
                self.refuse(place, format!("the value of {name} is not UTF-8"), None);
                continue;
            };
            let stem = name.trim_start_matches(PREFIX);
            if is_service_link(stem, value) {
                continue;
            }
            let key = stem.split("__").collect::<Vec<_>>().join(".").to_ascii_lowercase();
            let secret_file = key.strip_suffix("_file").filter(|key| keys::is_secret(key));
            if let Some(secret) = secret_file {
                let text = match std::fs::read_to_string(value) {
                    Ok(text) => text,
                    Err(error) => {
                        self.refuse(place, format!("cannot read {value}: {error}"), None);
                        continue;
                    }
                };
                if entries.iter().any(|entry| entry.key == secret) {
                    let message = format!("`{secret}` is set twice, by value and by file");
                    self.refuse(place, message, Some("keep one of the two variables".into()));
                    continue;
                }
                let line = text.strip_suffix('\n').unwrap_or(&text);
                let line = line.strip_suffix('\r').unwrap_or(line);
                entries.push(literal(secret.into(), place, line));
                continue;
            }
            if let Some(entry) = self.written(&key, value, place, &variable_of) {
                entries.push(entry);
            }
        }
        self.layers.push(Layer { name: "environment".into(), file: None, entries });
    }

    // Flags.

    fn flags(&mut self, overrides: &[Override]) {
        for given in overrides {
            let entry = match given {
                Override::Named(flag, key, value) => {
                    Some(literal((*key).into(), Place::Flag((*flag).into()), value))
                }
                Override::On(flag, key) => Some(Entry {
                    key: (*key).into(),
                    place: Place::Flag((*flag).into()),
                    readings: vec![Value::from(true)],
                    elements: Vec::new(),
                }),
                Override::Set(text) => match text.split_once('=') {
                    Some((key, value)) => {
                        let key = key.trim();
                        let place = Place::Flag(format!("--set {key}"));
                        self.written(key, value, place, &|near| format!("--set {near}=…"))
                    }
                    None => {
                        let message = "--set wants KEY=VALUE".to_owned();
                        // What has no `=` is no value, so nothing secret is shown here.
                        let help = Some(format!("write --set {text}=VALUE"));
                        self.refuse(Place::Flag("--set".into()), message, help);
                        None
                    }
                },
            };
            // A layer each: the last of two flags for one key counts.
            let entries = entry.into_iter().collect();
            self.layers.push(Layer { name: "command line".into(), file: None, entries });
        }
    }

    /// A value written outside a file: TOML if it reads as such and fits, otherwise the text itself.
    fn written(
        &mut self,
        key: &str,
        text: &str,
        place: Place,
        spell: &dyn Fn(&str) -> String,
    ) -> Option<Entry> {
        match keys::meaning(key) {
            Meaning::Key => {}
            Meaning::Section => {
                let message = format!("`{key}` is a section; set its keys one by one");
                self.refuse(place, message, None);
                return None;
            }
            other => {
                self.unknown(other, "key", key, place, spell);
                return None;
            }
        }
        let secret = keys::is_secret(key);
        let text = if secret { text } else { text.trim() };
        let mut readings = Vec::new();
        match DeValue::parse(text) {
            Ok(value) => readings.push(to_figment(value.get_ref())),
            Err(error) if !secret && text.starts_with(['[', '{']) => {
                let message = format!("`{key}` is not a TOML value: {}", error.message());
                self.refuse(place, message, None);
                return None;
            }
            Err(_) => {}
        }
        readings.push(Value::from(text));
        Some(Entry { key: key.into(), place, readings, elements: Vec::new() })
    }
}

fn literal(key: String, place: Place, text: &str) -> Entry {
    Entry { key, place, readings: vec![Value::from(text)], elements: Vec::new() }
}

/// The variable that sets `key`.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Whether this is one of the variables that container platforms set for a service that is called
/// `warren` or `warren-…` (`WARREN_SERVICE_HOST`, `WARREN_PORT_5672_TCP=tcp://…`): not a setting.
fn is_service_link(stem: &str, value: &str) -> bool {
    let after = |mark: &str| {
        let at = if stem.starts_with(mark) { Some(0) } else { stem.find(&format!("_{mark}")) };
        at.and_then(|at| stem.get(at..)?.trim_start_matches('_').strip_prefix(mark))
    };
    if after("SERVICE_HOST") == Some("") || after("SERVICE_PORT").is_some() {
        return true;
    }
    let Some(rest) = after("PORT") else {
        return false;
    };
    let is_url = value.split_once("://").is_some_and(|(s, _)| ["tcp", "udp", "sctp"].contains(&s));
    (rest.is_empty() && is_url)
        || rest.strip_prefix('_').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn article(noun: &str) -> String {
    let an = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if an { "an" } else { "a" })
}

fn to_figment(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        // Beyond 128 bits no key could take it; the text then fails with its digits in the message.
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => i64::try_from(number).map_or_else(|_| Value::from(number), Value::from),
            Err(_) => Value::from(number.as_str()),
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) => Value::from(number),
            Err(_) => Value::from(number.as_str()),
        },
        DeValue::Boolean(truth) => Value::from(*truth),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(list) => {
            let list: Vec<Value> = list.iter().map(|v| to_figment(v.get_ref())).collect();
            Value::from(list)
        }
        DeValue::Table(table) => {
            let dict: Dict = table
                .iter()
                .map(|(name, v)| (name.get_ref().to_string(), to_figment(v.get_ref())))
                .collect();
            Value::from(dict)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_of_container_platforms_are_no_settings() {
        for (stem, value) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "5672"),
            ("SERVICE_PORT_AMQP", "5672"),
            ("PORT", "tcp://10.0.0.1:5672"),
            ("PORT_5672_TCP", "tcp://10.0.0.1:5672"),
            ("PORT_5672_TCP_PROTO", "tcp"),
            ("AMQP_SERVICE_HOST", "10.0.0.1"),
            ("AMQP_PORT_5672_TCP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_service_link(stem, value), "{stem}");
        }
        assert!(!is_service_link("PORT", "5672"), "a setting someone believes in");
        assert!(!is_service_link("AMQP__PORT", "5672"));
    }

    #[test]
    fn no_key_looks_like_a_service_link() {
        for key in keys::all() {
            let stem = variable_of(&key.path);
            assert!(!is_service_link(stem.trim_start_matches(PREFIX), "tcp://x"), "{stem}");
        }
    }
}
