//! What is made of definitions, and how damage reads. The commands themselves are tested by
//! `server/tests/store.rs`, through the binary.

use broker_core::storage::{Damage, Inspection, LostMessages, NodeId, Recovered, SeqRange};

use super::names::QueueNames;
use super::report::{Verdict, damage_json, damage_text};
use super::*;

fn inspection(definitions: &[(&str, &str)]) -> Inspection {
    let octets = |text: &str| text.as_bytes().into();
    let definitions = definitions.iter().map(|(key, value)| (octets(key), octets(value)));
    Inspection {
        node: NodeId::default(),
        format_version: Some(1),
        begin: 0,
        end: 0,
        checkpoints: Vec::new(),
        recovered: Recovered { definitions: definitions.collect(), ..Recovered::default() },
        files: Vec::new(),
    }
}

#[test]
fn queues_are_named_by_their_definitions_and_nothing_else_is() {
    let names = QueueNames::of(&inspection(&[
        (r#"{"queue":["/","orders"]}"#, r#"{"id":7,"auto_delete":false,"arguments":[]}"#),
        (r#"{"queue":["a","b\tc"]}"#, r#"{"id":8,"auto_delete":true,"arguments":[]}"#),
        (r#"{"exchange":["/","logs"]}"#, r#"{"id":9}"#),
        (r#"{"queue":["/"]}"#, r#"{"id":10,"auto_delete":false,"arguments":[]}"#),
        (r#"{"queue":["/","x"]}"#, r#"{"id":"11","auto_delete":false,"arguments":[]}"#),
        ("\u{0}", "{}"),
    ]));
    assert_eq!(names.ids().collect::<Vec<_>>(), [7, 8]);
    assert_eq!(names.in_words(7), "queue orders in /");
    assert_eq!(names.in_words(8), "queue b\\tc in a");
    assert_eq!(names.in_words(9), "queue #9");
}

fn lost(queue: u64, first: u64, last: u64, count: u64, certain: bool) -> LostMessages {
    LostMessages { queue, range: SeqRange { first, last }, count, certain }
}

fn sample() -> [Damage; 2] {
    [
        Damage {
            file: "seg/00.seg".into(),
            detail: "extent at offset 64 is damaged".into(),
            lost: vec![lost(7, 3, 3, 1, true), lost(9, 1, 20, 12, false)],
            quarantined: Some("quarantine/00.seg@64".into()),
        },
        Damage {
            file: PathBuf::new(),
            detail: "log or checkpoints are gone".into(),
            lost: vec![],
            quarantined: None,
        },
    ]
}

#[test]
fn a_line_of_damage_names_file_place_queue_and_messages() {
    let orders = (r#"{"queue":["/","orders"]}"#, r#"{"id":7,"auto_delete":false,"arguments":[]}"#);
    let names = QueueNames::of(&inspection(&[orders]));
    let directory = Path::new("/d/store");
    let said = |damage: &[Damage], verdict| damage_text(directory, damage, &names, &verdict);
    assert_eq!(
        said(&sample(), Verdict::Verified { read: 0 }),
        "seg/00.seg: extent at offset 64 is damaged; lost: queue orders in /, message 3; possibly \
         lost: queue #9, messages 1 to 20 (12 of them); kept in quarantine/00.seg@64\n\
         log or checkpoints are gone\n\
         damaged: /d/store, 2 places, messages lost: 1, and possibly up to 12 more. A start, or \
         `warren store repair`, sets the damage aside\n"
    );
    assert_eq!(
        said(&sample()[1..], Verdict::Repaired),
        "log or checkpoints are gone\n\
         repaired: /d/store, 1 place, no message lost; moved or copied to /d/store/quarantine: 0\n"
    );
    assert_eq!(
        said(&[], Verdict::Verified { read: 3 << 20 }),
        "sound: /d/store, 3.00 MiB of messages read\n"
    );
    assert_eq!(said(&[], Verdict::Repaired), "sound: /d/store, nothing was to be repaired\n");

    let document = damage_json(directory, &sample(), &names, &Verdict::Verified { read: 5 });
    assert_eq!(document["sound"], false);
    assert_eq!((&document["lost"], &document["possibly_lost"]), (&1.into(), &12.into()));
    assert_eq!(document["octets_read"], 5);
    assert_eq!(document["damage"][0]["lost"][0]["name"], "orders");
    assert_eq!(document["damage"][0]["lost"][1]["name"], serde_json::Value::Null);
    assert_eq!(document["damage"][0]["quarantined"], "quarantine/00.seg@64");
}

#[test]
fn every_refusal_has_a_code_and_says_what_to_do() {
    let path = || PathBuf::from("/d/store");
    for (error, code, words) in [
        (StorageError::Locked { path: path() }, 75, "another broker runs"),
        (StorageError::NoStore { path: path() }, 65, "holds no store"),
        (StorageError::NewerFormat { path: path(), found: 2, supported: 1 }, 65, "version 2"),
        (StorageError::LogMissing { path: path() }, 1, "--accept-data-loss"),
        (StorageError::DiskFull, 74, "no space left"),
    ] {
        let refusal = Refusal::from(error);
        assert_eq!(refusal.code, code);
        assert!(refusal.message.contains(words), "{}", refusal.message);
    }
}
