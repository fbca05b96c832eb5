//! Trying each value alone, then layering what fits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use figment::error::{Actual, Kind};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::problem::{Place, Problem};
use super::sources::{Entry, Sources};
use super::{Settings, keys, machine, rules};

/// Settings in force, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The files that were read, lowest layer first.
    pub files: Vec<PathBuf>,
    pub(super) origins: BTreeMap<String, Place>,
}

impl Loaded {
    /// Where the value of `key` was written.
    #[must_use]
    pub fn place(&self, key: &str) -> Place {
        self.origins.get(key).cloned().unwrap_or(Place::Default)
    }

    /// A problem with the value of `key`.
    pub(super) fn problem(&self, key: &str, message: String, help: Option<String>) -> Problem {
        Problem { key: Some(key.into()), message, place: self.place(key), help }
    }

    /// The settings in force as TOML, each with its origin; passwords masked.
    #[must_use]
    pub fn effective(&self) -> String {
        super::effective::render(self)
    }
}

/// Loads the settings: reads every source, checks every value and the rules between them.
///
/// Reads files; looks at nothing else of the machine (see [`machine`](super::machine)).
///
/// # Errors
/// All problems, lowest layer first, in the order of the text.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    match read(sources) {
        (Some(loaded), problems) if problems.is_empty() => Ok(loaded),
        (_, problems) => Err(problems),
    }
}

/// The same, and checks everything on this machine too: see [`machine::check`].
///
/// Where something is wrong with the settings themselves, the machine is asked about the values that somebody wrote
/// and that are not complained about: a default may stand for one that could not be read.
///
/// # Errors
/// All problems, in the same order.
pub fn check_all(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    let (loaded, mut problems) = read(sources);
    let found = loaded.as_ref().map(machine::check).unwrap_or_default();
    let is_whole = problems.is_empty();
    let known: Vec<_> = problems.iter().filter_map(|problem| problem.key.clone()).collect();
    problems.extend(found.into_iter().filter(|problem| {
        let is_known = problem.key.as_ref().is_some_and(|key| known.contains(key));
        is_whole || (problem.place != Place::Default && !is_known)
    }));
    match loaded {
        Some(loaded) if problems.is_empty() => Ok(loaded),
        _ => {
            sort(&mut problems);
            Err(problems)
        }
    }
}

/// What can be made of the settings, and all that is wrong with them; `None` when nothing can be made of them.
fn read(sources: &Sources) -> (Option<Loaded>, Vec<Problem>) {
    let (layers, mut problems) = sources.read();
    let mut figment = Figment::new();
    let mut origins = BTreeMap::new();
    let mut files = Vec::new();
    for layer in layers {
        files.extend(layer.file);
        let mut dict = Dict::new();
        for entry in &layer.entries {
            match fitting(entry) {
                Ok(value) => {
                    insert(&mut dict, &entry.key, value);
                    origins.insert(entry.key.clone(), entry.place.clone());
                }
                Err(mut found) => problems.append(&mut found),
            }
        }
        figment = figment.merge(Values { name: layer.name, dict });
    }
    let loaded = match figment.extract::<Settings>() {
        Ok(settings) => {
            let loaded = Loaded { settings, files, origins };
            problems.extend(rules::check(&loaded));
            Some(loaded)
        }
        // Each value fits alone, so this is our fault; say it all the same.
        Err(error) => {
            problems.push(Problem {
                key: None,
                message: format!("the settings do not fit together: {error}"),
                place: Place::Default,
                help: None,
            });
            None
        }
    };
    sort(&mut problems);
    (loaded, problems)
}

/// Values are tried after all files are read; the reader wants the order of the text.
fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| order(&a.place).cmp(&order(&b.place)));
}

/// Files in the order of their paths and text, then variables, flags, and what was never written.
fn order(place: &Place) -> (u8, Option<(&std::path::Path, usize, usize)>) {
    match place {
        Place::File(path) => (0, Some((path, 0, 0))),
        Place::Spot(spot) => (0, Some((spot.path(), spot.line(), spot.column()))),
        Place::Variable(_) => (1, None),
        Place::Flag(_) => (2, None),
        Place::Default => (3, None),
        Place::Process => (4, None),
    }
}

/// Some values as a layer for figment.
struct Values {
    name: String,
    dict: Dict,
}

impl Provider for Values {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }
    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// Puts `value` at the dotted path `key`.
fn insert(dict: &mut Dict, key: &str, value: Value) {
    let Some((section, rest)) = key.split_once('.') else {
        dict.insert(key.into(), value);
        return;
    };
    let below = dict.entry(section.into()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, below) = below {
        insert(below, rest, value);
    }
}

/// Whether `value` is what `key` takes.
fn try_alone(key: &str, value: &Value) -> Result<(), Kind> {
    let mut dict = Dict::new();
    insert(&mut dict, key, value.clone());
    let alone = Figment::from(Values { name: String::new(), dict });
    match alone.extract::<Settings>() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.kind),
    }
}

/// The reading of `entry` that its key takes, or what is wrong with the first of them.
fn fitting(entry: &Entry) -> Result<Value, Vec<Problem>> {
    let mut first_refusal = None;
    for reading in &entry.readings {
        match try_alone(&entry.key, reading) {
            Ok(()) => return Ok(reading.clone()),
            Err(kind) => {
                first_refusal.get_or_insert((reading, kind));
            }
        }
    }
    let Some((value, kind)) = first_refusal else {
        return Ok(Value::from(Dict::new()));
    };
    // Of a list, the elements that are wrong.
    if let Value::Array(_, elements) = value
        && elements.len() == entry.elements.len()
    {
        let problems: Vec<Problem> = elements
            .iter()
            .zip(&entry.elements)
            .filter_map(|(element, place)| {
                let alone = Value::from(vec![element.clone()]);
                let kind = try_alone(&entry.key, &alone).err()?;
                Some(refusal(&entry.key, &kind, place.clone()))
            })
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
    }
    Err(vec![refusal(&entry.key, &kind, entry.place.clone())])
}

fn refusal(key: &str, kind: &Kind, place: Place) -> Problem {
    let secret = keys::is_secret(key);
    let mut help = None;
    let message = match kind {
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("`{key}` must be {}, not {}", plain(expected), shown(found, secret))
        }
        Kind::UnknownVariant(found, expected) => {
            let near = expected
                .iter()
                .map(|word| {
                    (strsim::jaro_winkler(&found.to_lowercase(), &word.to_lowercase()), word)
                })
                .max_by(|(a, _), (b, _)| a.total_cmp(b));
            if let Some((likeness, word)) = near
                && likeness > 0.8
            {
                help = Some(format!("did you mean \"{word}\"?"));
            }
            format!("`{key}` must be {}, not {found:?}", one_of(expected))
        }
        // Texts of our own types; none of them quotes a secret, which is any string.
        other => format!("`{key}`: {other}"),
    };
    Problem { key: Some(key.into()), message, place, help }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// serde's word for what it expected, as a person would say it.
fn plain(expected: &str) -> String {
    match expected {
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "a boolean" => "true or false".into(),
        "a string" | "string" => "a string in quotes".into(),
        "path string" => "a path in quotes".into(),
        "a sequence" => "a list in brackets".into(),
        other if other.starts_with("enum") || other.contains("variant") => {
            "a word in quotes".into()
        }
        other => other.into(),
    }
}

fn shown(found: &Actual, secret: bool) -> String {
    match found {
        _ if secret => "a value of another type".into(),
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        Actual::Str(value) => format!("{value:?}"),
        Actual::Seq => "a list".into(),
        Actual::Map => "a table".into(),
        other => other.to_string(),
    }
}
