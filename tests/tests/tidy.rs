//! What no compiler and no lint knows: the state of the repository's papers and of its dependencies.
//!
//! The files are those that a clone has: the tree without what `.gitignore` names. The dependencies
//! are those that `cargo tree` finds, held to `deny.toml`, which is read here so that the rules stand
//! in one place and hold without a tool that would have to be installed first. What is not checked
//! here: the rows of the conformance matrix, which `conformance/tests/matrix.rs` holds to the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file longer than this does more than one thing.
const SOURCE_LINES_MAX: usize = 900;

/// The specifications that a mark may cite in words.
const SPECIFICATIONS: [&str; 4] = ["amqp", "stomp-1.0", "stomp-1.1", "stomp-1.2"];

/// What speaks of the machine that a file was written on. In two pieces each, so that this file does
/// not hold them.
const MACHINE_PATHS: [[&str; 2]; 5] =
    [["/wo", "rk/"], ["/ro", "ot/"], ["/far", "m/"], ["/home/", "runner/"], ["/tmp/", "bash"]];

/// What speaks of how a file came about, whole words in any case.
const TOOL_WORDS: [[&str; 2]; 8] = [
    ["clau", "de"],
    ["anthro", "pic"],
    ["chat", "gpt"],
    ["open", "ai"],
    ["copi", "lot"],
    ["llm", "s"],
    ["sub", "agent"],
    ["language", " model"],
];

// ---- the tree ----

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the repository: its path from the root, with slashes, and its text.
struct File {
    path: String,
    /// `None` when it is not text.
    text: Option<String>,
}

impl File {
    fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }
}

/// The files that a clone has, sorted.
fn files() -> Vec<File> {
    let ignored = read(".gitignore");
    let ignored: Vec<&str> = ignored.lines().filter(|line| !line.is_empty()).collect();
    let mut found = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(directory) = pending.pop() {
        let entries = fs::read_dir(root().join(&directory));
        for entry in entries.unwrap_or_else(|error| panic!("{directory}: {error}")) {
            let entry = entry.unwrap_or_else(|error| panic!("{directory}: {error}"));
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = match &directory[..] {
                "" => name.clone(),
                directory => format!("{directory}/{name}"),
            };
            if name == ".git" || ignored.iter().any(|pattern| is_ignored(&path, &name, pattern)) {
                continue;
            }
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory {
                pending.push(path);
            } else {
                // A broken symbolic link reads as nothing and would be found by no check.
                let octets = fs::read(entry.path());
                let octets = octets.unwrap_or_else(|error| panic!("{path}: {error}"));
                let text = String::from_utf8(octets).ok();
                found.push(File { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 100, "the tree is not where it was");
    found
}

/// The forms that `.gitignore` uses: `/from/the/root`, `name/` and `**/*.ending`.
fn is_ignored(path: &str, name: &str, pattern: &str) -> bool {
    if let Some(from_root) = pattern.strip_prefix('/') {
        return path == from_root.trim_end_matches('/');
    }
    match pattern.strip_prefix("**/").unwrap_or(pattern) {
        ending if ending.starts_with('*') => name.ends_with(&ending[1..]),
        other => name == other.trim_end_matches('/'),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn toml_of(path: &str) -> toml::Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

// ---- sources ----

#[test]
fn every_source_file_opens_with_a_module_doc() {
    let without = files().into_iter().filter(|file| {
        file.has_extension("rs") && !file.text.as_ref().is_some_and(|text| text.starts_with("//! "))
    });
    let problems: Vec<String> =
        without.map(|file| format!("{} does not open with //!", file.path)).collect();
    report(&problems);
}

#[test]
fn no_source_file_is_too_long() {
    let mut problems = Vec::new();
    for file in files().iter().filter(|file| file.has_extension("rs")) {
        let lines = file.text.as_deref().unwrap_or_default().lines().count();
        if lines > SOURCE_LINES_MAX {
            problems.push(format!(
                "{} has {lines} lines: look for the second thing that it does",
                file.path
            ));
        }
    }
    report(&problems);
}

#[test]
fn no_file_speaks_of_where_or_how_it_was_written() {
    let mut problems = Vec::new();
    for file in files() {
        for (number, line) in file.text.iter().flat_map(|text| text.lines()).enumerate() {
            let found = said_of_the_workshop(line);
            problems.extend(found.map(|said| format!("{}:{}: {said}", file.path, number + 1)));
        }
    }
    report(&problems);
}

/// What a line says of the machine or the tools it was written with.
fn said_of_the_workshop(line: &str) -> Option<String> {
    let path = MACHINE_PATHS
        .iter()
        .map(|pieces| pieces.concat())
        // A path of a protocol may have such a part: only one that begins with it is a machine's.
        .find(|path| {
            line.match_indices(path.as_str()).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|before| before.is_alphanumeric() || "/_-.*}".contains(before))
            })
        });
    let lower = line.to_lowercase();
    let word = TOOL_WORDS.iter().map(|pieces| pieces.concat()).find(|word| {
        lower.match_indices(word.as_str()).any(|(at, _)| {
            let before = lower[..at].chars().next_back();
            let after = lower[at + word.len()..].chars().next();
            let ends = |neighbour: Option<char>| !neighbour.is_some_and(char::is_alphanumeric);
            ends(before) && ends(after)
        })
    });
    path.or(word)
}

#[test]
fn the_workshop_is_recognised() {
    let path = MACHINE_PATHS[1].concat();
    let word = TOOL_WORDS[0].concat();
    for (line, expected) in [
        (format!("see {path}notes"), Some(&path)),
        (format!("\"{path}x\""), Some(&path)),
        (format!("/queue{path}x"), None),
        (format!("by {}.", word.to_uppercase()), Some(&word)),
        (format!("{word}tte"), None),
    ] {
        assert_eq!(said_of_the_workshop(&line).as_ref(), expected, "{line}");
    }
}

// ---- marks ----

/// A mark is either the id of a row, in one word, or cites a specification in words.
#[test]
fn every_mark_in_the_code_names_a_row_of_the_matrix_or_cites_a_specification() {
    let matrix = toml_of("conformance/matrix.toml");
    let rows: BTreeSet<&str> = matrix["rule"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["id"].as_str())
        .collect();
    assert!(rows.len() > 50, "the rows are not where they were");
    let mut problems = Vec::new();
    for file in files().iter().filter(|file| file.has_extension("rs")) {
        let lines = file.text.as_deref().unwrap_or_default().lines();
        for (number, line) in lines.enumerate() {
            if let Some(mark) = mark_of(line).filter(|mark| !is_known_mark(mark, &rows)) {
                problems.push(format!(
                    "{}:{}: {mark:?} is no row of conformance/matrix.toml",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    report(&problems);
}

/// The text of a mark, which is all of its comment.
fn mark_of(line: &str) -> Option<&str> {
    let comment = line.trim_start();
    let text = comment.trim_start_matches('/');
    let is_comment = comment.len() - text.len() >= 2;
    text.trim_start().strip_prefix("spec: ").filter(|_| is_comment).map(str::trim)
}

fn is_known_mark(mark: &str, rows: &BTreeSet<&str>) -> bool {
    match mark.split_once(' ') {
        None => rows.contains(mark),
        Some((specification, _)) => SPECIFICATIONS.contains(&specification),
    }
}

#[test]
fn marks_are_told_from_other_text() {
    let rows = BTreeSet::from(["amqp.tls"]);
    for (line, expected) in [
        ("    // spec: amqp.tls", Some(true)),
        ("/// spec: amqp.nothing", Some(false)),
        ("// spec: amqp basic.ack: zero is all", Some(true)),
        ("// spec: stomp-1.2 ACK \"id\"", Some(true)),
        ("// spec: http Range", Some(false)),
        ("let text = \"// spec: amqp.nothing\";", None),
        ("spec: amqp.nothing", None),
    ] {
        let found = mark_of(line).map(|mark| is_known_mark(mark, &rows));
        assert_eq!(found, expected, "{line}");
    }
}

// ---- papers ----

#[test]
fn relative_links_lead_to_files_and_headings_that_exist() {
    let files = files();
    let pages: Vec<&File> = files.iter().filter(|file| file.has_extension("md")).collect();
    for page in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"] {
        assert!(pages.iter().any(|file| file.path == page), "{page} is missing");
    }
    let mut problems = Vec::new();
    for page in pages {
        for link in links(page.text.as_deref().unwrap_or_default()) {
            if !leads_somewhere(&page.path, &link) {
                problems.push(format!("{}: {link} leads nowhere", page.path));
            }
        }
    }
    report(&problems);
}

/// The targets of `[text](target)` outside of code.
fn links(markdown: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in without_code_blocks(markdown) {
        // Every second piece lies between backticks.
        let prose: String = line.split('`').step_by(2).collect();
        let targets = prose.split("](").skip(1);
        links.extend(targets.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
    }
    links
}

fn without_code_blocks(markdown: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    markdown.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_block ^= is_fence;
        !in_block && !is_fence
    })
}

fn leads_somewhere(page: &str, link: &str) -> bool {
    if link.contains("://") || link.starts_with("mailto:") {
        return true;
    }
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let directory = Path::new(page).parent().unwrap_or_else(|| Path::new(""));
    let target = match path {
        "" => root().join(page),
        path => root().join(directory).join(path),
    };
    if heading.is_empty() || target.extension().is_none_or(|extension| extension != "md") {
        return target.exists();
    }
    let text = fs::read_to_string(target).unwrap_or_default();
    without_code_blocks(&text)
        .filter(|line| line.starts_with('#'))
        .any(|line| anchor(line) == heading)
}

/// The anchor of a heading: lower case, blanks as hyphens, no punctuation.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

#[test]
fn links_are_found_and_followed() {
    let text = "# A `b`: c\n[x](a.md#h) `[y](z)` [w](v)\n```\n[k](l)\n```\n";
    assert_eq!(links(text), ["a.md#h", "v"]);
    assert_eq!(anchor("## A `b`: c-d"), "a-b-c-d");
    assert!(leads_somewhere("conformance/x.md", "../Cargo.toml"));
    assert!(leads_somewhere("x.md", "https://example.org/nothing"));
    assert!(!leads_somewhere("x.md", "no-such-file"));
}

// ---- dependencies ----

/// A package that is built for a program or a test on this machine.
struct Package {
    name: String,
    version: String,
    license: String,
    is_ours: bool,
}

/// What `cargo tree` says is built: features that nobody turns on bring nothing in.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--quiet"])
        .args(["--edges", "normal,build,dev", "--no-dedupe"])
        .args(["--prefix", "none", "--format", "{p}|{l}"])
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("cargo tree: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {errors}");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: BTreeSet<&str> = lines.lines().filter(|line| !line.is_empty()).collect();
    let packages: Vec<Package> = lines.into_iter().filter_map(package).collect();
    assert!(packages.len() > 100, "cargo tree has told of too little");
    packages
}

/// `name vVERSION (remarks)|licence`, with ` (*)` behind it where a test of a crate needs the crate.
fn package(line: &str) -> Option<Package> {
    let (package, license) = line.trim_end_matches(" (*)").rsplit_once('|')?;
    let mut words = package.split(' ');
    Some(Package {
        name: words.next()?.to_owned(),
        version: words.next()?.trim_start_matches('v').to_owned(),
        // A crate that a cycle of dev-dependencies leads back to is marked.
        license: license.trim_end_matches(" (*)").to_owned(),
        is_ours: words.next().is_some_and(|remark| remark.starts_with("(/")),
    })
}

fn texts<'t>(table: &'t toml::Table, part: &str, key: &str) -> BTreeSet<&'t str> {
    let list = table.get(part).and_then(|part| part.get(key)?.as_array());
    let name = |entry: &'t toml::Value| entry.as_str().or_else(|| entry.get("crate")?.as_str());
    list.into_iter().flatten().filter_map(name).collect()
}

#[test]
fn every_licence_is_allowed_and_every_allowed_licence_is_used() {
    let deny = toml_of("deny.toml");
    let allowed = texts(&deny, "licenses", "allow");
    let mut used = BTreeSet::new();
    let mut problems = Vec::new();
    for package in packages() {
        match Licence::parse(&package.license) {
            Some(licence) if licence.is_granted(&allowed) => licence.names(&mut used),
            _ => problems.push(format!(
                "{} {} is licensed under {:?}",
                package.name, package.version, package.license
            )),
        }
    }
    for allowed in allowed {
        if !used.contains(allowed) {
            problems.push(format!("deny.toml allows {allowed}, which nothing has"));
        }
    }
    report(&problems);
}

#[test]
fn a_crate_is_there_twice_only_where_deny_toml_says_why() {
    let deny = toml_of("deny.toml");
    let skipped = texts(&deny, "bans", "skip");
    for entry in deny["bans"]["skip"].as_array().into_iter().flatten() {
        assert!(entry["reason"].is_str(), "{entry} has no reason");
    }
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        versions.entry(package.name).or_default().insert(package.version);
    }
    let mut problems = Vec::new();
    for (name, versions) in &versions {
        let unexplained = versions
            .iter()
            .filter(|version| !skipped.contains(format!("{name}@{version}").as_str()));
        if unexplained.count() > 1 {
            problems.push(format!("{name} is there as {versions:?}"));
        }
    }
    for entry in skipped {
        let there = entry.split_once('@').is_some_and(|(name, version)| {
            versions
                .get(name)
                .is_some_and(|versions| versions.len() > 1 && versions.contains(version))
        });
        if !there {
            problems.push(format!("deny.toml skips {entry}, which is not there twice"));
        }
    }
    report(&problems);
}

#[test]
fn both_lock_files_know_one_registry_and_no_banned_crate() {
    let deny = toml_of("deny.toml");
    let registries = texts(&deny, "sources", "allow-registry");
    let banned = texts(&deny, "bans", "deny");
    assert!(!registries.is_empty() && !banned.is_empty());
    let mut problems = Vec::new();
    for path in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let lock = toml_of(path);
        for package in lock["package"].as_array().into_iter().flatten() {
            let name = package["name"].as_str().unwrap_or_default();
            let source = package.get("source").and_then(|source| source.as_str());
            let registry = source.map(|source| source.strip_prefix("registry+").unwrap_or(source));
            if registry.is_some_and(|registry| !registries.contains(registry)) {
                problems.push(format!("{path}: {name} comes from {source:?}"));
            }
            if banned.contains(name) {
                problems.push(format!("{path}: {name} is banned"));
            }
        }
    }
    report(&problems);
}

#[test]
fn lines_of_cargo_tree_are_understood() {
    let found = package("a-b v1.2.3 (/x/a-b) (proc-macro)|MIT OR ISC (*)");
    let found = found.expect("a package");
    assert_eq!((&found.name[..], &found.version[..]), ("a-b", "1.2.3"));
    assert_eq!((&found.license[..], found.is_ours), ("MIT OR ISC", true));
    assert!(!package("a v1.0.0|MIT").expect("a package").is_ours);
    assert!(package("").is_none());
}

#[test]
fn every_crate_of_ours_has_our_licence() {
    let ours: Vec<Package> = packages().into_iter().filter(|package| package.is_ours).collect();
    let names: Vec<&str> = ours.iter().map(|package| &package.name[..]).collect();
    for package in &ours {
        assert_eq!(package.license, "Apache-2.0 OR MIT", "{}", package.name);
    }
    for name in ["broker-core", "proto-amqp", "proto-stomp", "warren-server"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}

/// A licence expression, as SPDX writes them and as older crates do, with `/` for OR.
#[derive(Debug, PartialEq)]
enum Licence {
    /// A name, with its exception if it has one.
    Name(String),
    Any(Vec<Self>),
    All(Vec<Self>),
}

impl Licence {
    /// `None` for text that is no expression.
    fn parse(text: &str) -> Option<Self> {
        let spaced = text.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut left = &words[..];
        let licence = Self::any(&mut left)?;
        left.is_empty().then_some(licence)
    }

    fn any(left: &mut &[&str]) -> Option<Self> {
        Self::chain(left, "OR", Self::all, Self::Any)
    }

    fn all(left: &mut &[&str]) -> Option<Self> {
        Self::chain(left, "AND", Self::one, Self::All)
    }

    fn chain(
        left: &mut &[&str],
        operator: &str,
        operand: fn(&mut &[&str]) -> Option<Self>,
        join: fn(Vec<Self>) -> Self,
    ) -> Option<Self> {
        let mut operands = vec![operand(left)?];
        while let Some((_, rest)) = left.split_first().filter(|(first, _)| **first == operator) {
            *left = rest;
            operands.push(operand(left)?);
        }
        match operands.len() {
            1 => operands.pop(),
            _ => Some(join(operands)),
        }
    }

    fn one(left: &mut &[&str]) -> Option<Self> {
        let (first, rest) = left.split_first()?;
        *left = rest;
        if *first == "(" {
            let inner = Self::any(left)?;
            let (closing, rest) = left.split_first()?;
            *left = rest;
            return (*closing == ")").then_some(inner);
        }
        if ["OR", "AND", "WITH", ")"].contains(first) {
            return None;
        }
        if let ["WITH", exception, rest @ ..] = *left {
            *left = rest;
            return Some(Self::Name(format!("{first} WITH {exception}")));
        }
        Some(Self::Name((*first).to_owned()))
    }

    fn is_granted(&self, allowed: &BTreeSet<&str>) -> bool {
        match self {
            Self::Name(name) => allowed.contains(name.as_str()),
            Self::Any(choices) => choices.iter().any(|choice| choice.is_granted(allowed)),
            Self::All(parts) => parts.iter().all(|part| part.is_granted(allowed)),
        }
    }

    fn names(self, used: &mut BTreeSet<String>) {
        match self {
            Self::Name(name) => drop(used.insert(name)),
            Self::Any(inner) | Self::All(inner) => {
                inner.into_iter().for_each(|licence| licence.names(used));
            }
        }
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = BTreeSet::from(["MIT", "ISC"]);
    for (text, expected) in [
        ("MIT", Some(true)),
        ("GPL-3.0", Some(false)),
        ("GPL-3.0 OR MIT", Some(true)),
        ("GPL-3.0/MIT", Some(true)),
        ("GPL-3.0 AND MIT", Some(false)),
        ("(GPL-3.0 OR MIT) AND ISC", Some(true)),
        ("GPL-3.0 OR MIT AND ISC", Some(true)),
        ("MIT WITH Odd-exception", Some(false)),
        ("MIT WITH Odd-exception OR ISC", Some(true)),
        ("", None),
        ("MIT ISC", None),
        ("(MIT", None),
        ("MIT OR", None),
    ] {
        let found = Licence::parse(text).map(|licence| licence.is_granted(&allowed));
        assert_eq!(found, expected, "{text:?}");
    }
}
