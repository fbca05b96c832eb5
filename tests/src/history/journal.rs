//! The files of a history: one for each client, one line for each event.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::{Entry, Event, History};

/// The ending of a journal's name.
const ENDING: &str = "jsonl";

/// A directory of journals that share one clock and one order.
#[derive(Debug, Clone)]
pub struct Journals {
    directory: PathBuf,
    began: Instant,
    order: Arc<AtomicU64>,
}

impl Journals {
    /// Makes the directory and begins to count.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let order = Arc::new(AtomicU64::new(0));
        Ok(Self { directory: directory.to_owned(), began: Instant::now(), order })
    }

    /// Where the journals are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The journal of a client that has none yet.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn client(&self, name: &str) -> io::Result<Journal> {
        let file = File::create_new(self.directory.join(format!("{name}.{ENDING}")))?;
        Ok(Journal { file: BufWriter::new(file), journals: self.clone() })
    }
}

/// What one client writes down. Kept in memory for a while: drop it before it is read.
#[derive(Debug)]
pub struct Journal {
    file: BufWriter<File>,
    journals: Journals,
}

impl Journal {
    /// Writes an event down, with its moment and its place among those of all clients.
    ///
    /// # Panics
    /// When the disk does not take it: a history with holes accuses the innocent.
    pub fn note(&mut self, life: u32, event: Event) {
        let at_us = self.journals.began.elapsed().as_micros();
        let entry = Entry {
            order: self.journals.order.fetch_add(1, Ordering::SeqCst),
            at_us: u64::try_from(at_us).unwrap_or(u64::MAX),
            life,
            client: 0,
            event,
        };
        let written = serde_json::to_writer(&mut self.file, &entry)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"));
        if let Err(error) = written {
            panic!("the history cannot be written: {error}");
        }
    }
}

/// A history that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1 on; 0 when it is the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.why)
    }
}

impl History {
    /// Reads all journals of a directory.
    ///
    /// # Errors
    /// [`Unreadable`]: a file that cannot be read, or the first line that is no event.
    pub fn read(directory: &Path) -> Result<Self, Unreadable> {
        let unreadable =
            |path: &Path, line: usize, why: String| Unreadable { path: path.to_owned(), line, why };
        let listed = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let listed = listed.map_err(|error| unreadable(directory, 0, error.to_string()))?;
        let mut paths: Vec<PathBuf> = listed.into_iter().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == ENDING));
        paths.sort();
        let (mut clients, mut entries) = (Vec::new(), Vec::new());
        for (client, path) in paths.iter().enumerate() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            clients.push(name);
            let text = fs::read_to_string(path);
            let text = text.map_err(|error| unreadable(path, 0, error.to_string()))?;
            for (index, line) in text.lines().enumerate() {
                let entry: Entry = serde_json::from_str(line)
                    .map_err(|error| unreadable(path, index + 1, error.to_string()))?;
                entries.push(Entry { client, ..entry });
            }
        }
        Ok(Self::new(clients, entries))
    }
}
