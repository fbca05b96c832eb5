//! What the commands print: lines for people, one JSON document for programs.
//!
//! Both are made from the same values; the words of the JSON document are stable, the lines are not.
//! Text is aligned with blanks. Nothing that a client has chosen reaches the terminal unescaped.

use std::collections::BTreeMap;
use std::path::Path;

use broker_core::storage::{
    Damage, FORMAT_VERSION, FileReport, Inspection, LostMessages, RecoveredQueue,
};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::names::{Named, QueueNames};
use crate::store::printable;

/// What a command has done besides listing damage.
pub(super) enum Verdict {
    /// Everything was read, so many octets of messages among it.
    Verified { read: u64 },
    /// What was damaged is set aside.
    Repaired,
}

/// A file in quarantine, and what is written about it.
pub(super) struct Kept {
    file: String,
    len: u64,
    note: Option<String>,
}

/// What is in the quarantine of a store.
pub(super) fn quarantine(directory: &Path, inspection: &Inspection) -> Vec<Kept> {
    let is_note = |file: &&FileReport| file.path.extension().is_some_and(|kind| kind == "txt");
    let all = inspection.files.iter().filter(|file| kind_of(file) == "quarantine");
    all.filter(|file| !is_note(file))
        .map(|file| {
            let mut note = directory.join(&file.path).into_os_string();
            note.push(".txt");
            Kept {
                file: file.path.display().to_string(),
                len: file.len,
                // A note that cannot be read is as good as none: the list is about the files.
                note: std::fs::read_to_string(note).ok().map(|note| note.trim_end().to_owned()),
            }
        })
        .collect()
}

// Kinds of files.

fn kind_of(file: &FileReport) -> &'static str {
    let is_in = |dir: &str| file.path.starts_with(dir);
    let ends = |end: &str| file.path.extension().is_some_and(|kind| kind == end);
    match () {
        () if is_in("quarantine") => "quarantine",
        () if is_in("wal") && ends("wal") => "log",
        () if is_in("wal") && ends("spare") => "spare",
        () if is_in("seg") && ends("seg") => "segment",
        () if is_in("ckpt") && ends("ckpt") => "checkpoint",
        () if ends("tmp") || ends("moved") => "unfinished",
        () => "other",
    }
}

/// Number and octets of the files of each kind.
fn kinds(files: &[FileReport]) -> BTreeMap<&'static str, (u64, u64)> {
    let mut kinds: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for file in files {
        let (count, octets) = kinds.entry(kind_of(file)).or_default();
        *count += 1;
        *octets += file.len;
    }
    kinds
}

// Queues.

struct QueueRow<'a> {
    id: u64,
    name: Option<&'a Named>,
    messages: u64,
    octets: u64,
    returned: usize,
    next_seq: u64,
}

/// Queues that hold something, or have a name, by virtual host and name; nameless ones last.
fn queues<'a>(inspection: &Inspection, names: &'a QueueNames) -> Vec<QueueRow<'a>> {
    let found = &inspection.recovered.queues;
    let known = |id: u64| found.iter().find(|queue| queue.queue == id);
    let nameless = found.iter().map(|queue| queue.queue).filter(|id| names.get(*id).is_none());
    let mut rows: Vec<QueueRow<'a>> = names
        .ids()
        .chain(nameless)
        .map(|id| {
            let empty = RecoveredQueue::default();
            let queue = known(id).unwrap_or(&empty);
            QueueRow {
                id,
                name: names.get(id),
                messages: queue.live.len(),
                octets: queue.octets,
                returned: queue.returns.len(),
                next_seq: queue.next_seq,
            }
        })
        .collect();
    rows.sort_by(|a, b| {
        let key = |row: &QueueRow<'a>| {
            (row.name.is_none(), row.name.map(|name| (&name.vhost, &name.queue)), row.id)
        };
        key(a).cmp(&key(b))
    });
    rows
}

// Inspections.

pub(super) fn inspection_text(
    directory: &Path,
    inspection: &Inspection,
    names: &QueueNames,
    quarantine: &[Kept],
) -> String {
    let Inspection { node, format_version, begin, end, checkpoints, recovered, files } = inspection;
    let version = match format_version {
        Some(version) => version.to_string(),
        None => format!("unknown: FORMAT is missing or damaged ({FORMAT_VERSION} is assumed)"),
    };
    let checkpoints: Vec<String> = checkpoints
        .iter()
        .map(|kept| format!("{:016x} at position {}", kept.id, kept.position))
        .collect();
    let (octets, records) = (recovered.replayed_octets, recovered.replayed_records);
    let mut out = aligned(&[
        row(["store", &directory.display().to_string()]),
        row(["node", &node.to_string()]),
        row(["format", &version]),
        row(["log", &format!("positions {begin} to {end}")]),
        row(["checkpoints", &or_none(&checkpoints.join(", "))]),
        row(["to replay", &format!("{octets} octets, {records} records")]),
        row(["definitions", &recovered.definitions.len().to_string()]),
    ]);

    out.push_str("\nFILES BY KIND\n");
    let mut rows = vec![row(["kind", "files", "octets"])];
    rows.extend(
        kinds(files)
            .iter()
            .map(|(kind, (count, octets))| row([kind, &count.to_string(), &octets.to_string()])),
    );
    out.push_str(&aligned(&rows));

    out.push_str("\nFILES\n");
    let mut rows = vec![row(["file", "octets", "used"])];
    rows.extend(files.iter().map(|file| {
        let used = file.used.map(|used| used.to_string()).unwrap_or_default();
        row([&printable(&file.path.display().to_string()), &file.len.to_string(), &used])
    }));
    out.push_str(&aligned(&rows));

    out.push_str("\nQUEUES\n");
    let mut rows = vec![row(["vhost", "name", "id", "messages", "octets", "returned"])];
    rows.extend(queues(inspection, names).iter().map(|queue| {
        let (vhost, name) = match queue.name {
            Some(name) => (printable(name.vhost.as_str()), printable(name.queue.as_str())),
            None => (String::new(), format!("#{}", queue.id)),
        };
        let numbers = [queue.id, queue.messages, queue.octets, queue.returned as u64];
        let [id, messages, octets, returned] = numbers.map(|number| number.to_string());
        row([&vhost, &name, &id, &messages, &octets, &returned])
    }));
    out.push_str(&aligned(&rows));

    out.push_str("\nQUARANTINE\n");
    for kept in quarantine {
        let note = kept.note.as_deref().unwrap_or("nothing is written about it");
        out.push_str(&format!(
            "{}, {} octets: {}\n",
            printable(&kept.file),
            kept.len,
            printable(&note.lines().collect::<Vec<_>>().join("; "))
        ));
    }
    if quarantine.is_empty() {
        out.push_str("empty\n");
    }
    if !recovered.damage.is_empty() {
        out.push_str(
            "\nDAMAGE that a start would set aside; `warren store verify` finds the rest\n",
        );
        for damage in &recovered.damage {
            out.push_str(&format!("{}\n", damage_line(damage, names)));
        }
    }
    out
}

pub(super) fn inspection_json(
    directory: &Path,
    inspection: &Inspection,
    names: &QueueNames,
    quarantine: &[Kept],
) -> Value {
    let Inspection { node, format_version, begin, end, checkpoints, recovered, files } = inspection;
    let checkpoints: Vec<Value> = checkpoints
        .iter()
        .map(|kept| json!({ "id": kept.id, "position": kept.position }))
        .collect();
    let files: Vec<Value> = files
        .iter()
        .map(|file| {
            let path = file.path.display().to_string();
            json!({ "path": path, "kind": kind_of(file), "octets": file.len, "used": file.used })
        })
        .collect();
    let queues: Vec<Value> = queues(inspection, names)
        .iter()
        .map(|queue| {
            json!({
                "id": queue.id,
                "vhost": queue.name.map(|name| name.vhost.as_str()),
                "name": queue.name.map(|name| name.queue.as_str()),
                "messages": queue.messages,
                "octets": queue.octets,
                "returned": queue.returned,
                "next_seq": queue.next_seq,
            })
        })
        .collect();
    let quarantine: Vec<Value> = quarantine
        .iter()
        .map(|kept| json!({ "path": kept.file, "octets": kept.len, "note": kept.note }))
        .collect();
    json!({
        "store": directory.display().to_string(),
        "node": node.to_string(),
        "format_version": format_version,
        "log": { "begin": begin, "end": end },
        "checkpoints": checkpoints,
        "replay": { "octets": recovered.replayed_octets, "records": recovered.replayed_records },
        "definitions": recovered.definitions.len(),
        "files": files,
        "queues": queues,
        "quarantine": quarantine,
        "damage": damage_values(&recovered.damage, names),
    })
}

// Damage.

pub(super) fn damage_text(
    directory: &Path,
    damage: &[Damage],
    names: &QueueNames,
    verdict: &Verdict,
) -> String {
    let mut out = String::new();
    for damage in damage {
        out.push_str(&format!("{}\n", damage_line(damage, names)));
    }
    let place = directory.display();
    let loss = in_words(damage);
    let kept = damage.iter().filter(|damage| damage.quarantined.is_some()).count();
    let line = match (damage.is_empty(), verdict) {
        (true, Verdict::Verified { read }) => {
            format!("sound: {place}, {} of messages read", HumanBytes(*read))
        }
        (false, Verdict::Verified { .. }) => format!(
            "damaged: {place}, {loss}. A start, or `warren store repair`, sets the damage aside"
        ),
        (true, Verdict::Repaired) => format!("sound: {place}, nothing was to be repaired"),
        (false, Verdict::Repaired) => format!(
            "repaired: {place}, {loss}; moved or copied to {}: {kept}",
            directory.join("quarantine").display()
        ),
    };
    out.push_str(&line);
    out.push('\n');
    out
}

pub(super) fn damage_json(
    directory: &Path,
    damage: &[Damage],
    names: &QueueNames,
    verdict: &Verdict,
) -> Value {
    let (lost, possibly) = losses(damage);
    let mut document = json!({
        "store": directory.display().to_string(),
        "sound": damage.is_empty(),
        "damage": damage_values(damage, names),
        "lost": lost,
        "possibly_lost": possibly,
    });
    let (key, value) = match verdict {
        Verdict::Verified { read } => ("octets_read", json!(read)),
        Verdict::Repaired => ("repaired", json!(!damage.is_empty())),
    };
    if let Some(document) = document.as_object_mut() {
        document.insert(key.to_owned(), value);
    }
    document
}

/// With the names that queues have.
fn damage_line(damage: &Damage, names: &QueueNames) -> String {
    printable(&damage.in_words(|id| names.in_words(id)))
}

fn damage_values(damage: &[Damage], names: &QueueNames) -> Vec<Value> {
    let lost = |lost: &LostMessages| {
        let name = names.get(lost.queue);
        json!({
            "queue": lost.queue,
            "vhost": name.map(|name| name.vhost.as_str()),
            "name": name.map(|name| name.queue.as_str()),
            "first": lost.range.first,
            "last": lost.range.last,
            "messages": lost.count,
            "certain": lost.certain,
        })
    };
    damage
        .iter()
        .map(|damage| {
            json!({
                "file": damage.file.display().to_string(),
                "detail": damage.detail,
                "lost": damage.lost.iter().map(lost).collect::<Vec<_>>(),
                "quarantined": damage.quarantined.as_ref().map(|path| path.display().to_string()),
            })
        })
        .collect()
}

/// Messages that are lost, and those that may be.
fn losses(damage: &[Damage]) -> (u64, u64) {
    let all = damage.iter().flat_map(|damage| &damage.lost);
    all.fold((0, 0), |(lost, possibly), messages| match messages.certain {
        true => (lost + messages.count, possibly),
        false => (lost, possibly + messages.count),
    })
}

fn in_words(damage: &[Damage]) -> String {
    let places = match damage.len() {
        1 => "1 place".to_owned(),
        count => format!("{count} places"),
    };
    match losses(damage) {
        (0, 0) => format!("{places}, no message lost"),
        (lost, 0) => format!("{places}, messages lost: {lost}"),
        (lost, possibly) => {
            format!("{places}, messages lost: {lost}, and possibly up to {possibly} more")
        }
    }
}

// Columns.

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

/// Rows in columns two blanks apart, without blanks at the ends of lines.
fn aligned(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  "));
        out.push_str(cells.collect::<String>().trim_end());
        out.push('\n');
    }
    out
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}
