//! Holds `matrix.toml` to the tests that exist, the programs to `matrix.toml`, and `MATRIX.md` to
//! both.
//!
//! `WARREN_UPDATE=1` writes `MATRIX.md` anew and marks as conforming the planned rows whose test
//! has come.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use warren_conformance::matrix::{self, Matrix};

/// Looks tests up in the sources, reading each file once.
#[derive(Default)]
struct Sources(HashMap<String, Option<String>>);

impl Sources {
    fn has(&mut self, test: &str) -> bool {
        let Some((file, function)) = test.split_once("::") else {
            return false;
        };
        let read = || matrix::read(&matrix::workspace().join(file)).ok();
        let source = self.0.entry(file.to_owned()).or_insert_with(read);
        source.as_ref().is_some_and(|source| matrix::defines_test(source, function))
    }
}

fn load() -> Matrix {
    let matrix = matrix::read(&matrix::path()).and_then(|text| matrix::parse(&text));
    matrix.unwrap_or_else(|failure| panic!("{failure}"))
}

fn programs(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .flat_map(|path| if path.is_dir() { programs(&path) } else { vec![path] })
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "py" || extension == "pl")
        })
        .collect()
}

#[test]
fn every_row_names_a_test_and_matrix_md_is_up_to_date() {
    let mut sources = Sources::default();
    let update = std::env::var_os("WARREN_UPDATE").is_some_and(|value| value == "1");
    if update {
        let text = matrix::read(&matrix::path()).unwrap();
        fs::write(matrix::path(), matrix::promoted(&text, |test| sources.has(test))).unwrap();
    }
    let matrix = load();
    let problems = matrix.problems(|test| sources.has(test));
    assert!(problems.is_empty(), "matrix.toml:\n{}", problems.join("\n"));

    let page = matrix::path().with_file_name("MATRIX.md");
    if update {
        fs::write(&page, matrix.render()).unwrap();
    }
    let stale = matrix::read(&page).ok() != Some(matrix.render());
    assert!(!stale, "MATRIX.md is stale: run this test with WARREN_UPDATE=1");
}

#[test]
fn every_mark_in_a_program_names_a_row_and_every_program_is_run() {
    let matrix = load();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests: String = fs::read_dir(root.join("tests"))
        .unwrap()
        .map(|entry| matrix::read(&entry.unwrap().path()).unwrap())
        .collect();
    let mut problems = Vec::new();
    let programs = programs(&root.join("clients"));
    assert!(programs.len() > 40, "the programs are not where they were: {programs:?}");
    for path in programs {
        let text = matrix::read(&path).unwrap();
        let shown = path.strip_prefix(root.join("clients")).unwrap().display().to_string();
        for mark in matrix.unknown_marks(&text) {
            problems.push(format!("{shown} marks {mark}, which is no row of matrix.toml"));
        }
        // Whatever ends with a call of done is a program of its own, except the other half of one.
        let is_program =
            text.trim_end().ends_with("done()") || text.trim_end().ends_with("done();");
        if is_program && shown != "gateway/echo.pl" && !tests.contains(&format!("\"{shown}\"")) {
            problems.push(format!("{shown} is run by no test"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
