//! Damaged data directories: the real binary on copies of one directory of which each is damaged in another way.
//!
//! The directory holds three queues with messages, others that were acknowledged, an exchange with a binding, log
//! files, segments and two checkpoints, as a killed broker leaves them. What has to hold for every kind of file and
//! damage: the broker gets ready, or refuses and names the path; every message that is missing is named, by queue and
//! number, in the log, in `warren ctl status` and beside what is kept of it; nothing that is delivered is changed;
//! queues and their order are as they were; with `store.strict` damage refuses the start; and `warren store repair` leaves
//! a store that is sound.
//!
//! `WARREN_LONG=1` tries each with many places.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that it has failed"
)]

mod disk_damage {
    pub(super) mod damage;
    pub(super) mod template;
}

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::process::Command;

use disk_damage::damage::{Harm, Kind, harm};
use disk_damage::template::{QUEUES, Template, template};
use proto_amqp::control::protocol::exchange;
use tempfile::TempDir;
use warren_tests::amqp::Peer;
use warren_tests::disk::{copy_directory, drained, for_each_case, is_long_run};
use warren_tests::eventually;
use warren_tests::history::MessageId;
use warren_tests::process::{Place, Refused, WarrenProcess, binary};

const SETTINGS: [&str; 2] = ["store.log_file_size=1MiB", "amqp.max_message_size=512KiB"];
const STRICT: [&str; 3] = [SETTINGS[0], SETTINGS[1], "store.strict=true"];
const ACCEPTING: [&str; 3] = [SETTINGS[0], SETTINGS[1], "store.accept_data_loss=true"];

/// Places that the long run damages, for each kind of file and damage.
const PLACES: u64 = 20;

/// One damage.
#[derive(Debug, Clone, Copy)]
struct Case {
    kind: Kind,
    harm: Harm,
    seed: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, harm, seed } = self;
        write!(f, "{kind:?} {harm:?} (seed {seed})")
    }
}

fn cases() -> Vec<Case> {
    let seeds = if is_long_run() { 0..PLACES } else { 0..1 };
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        for harm in Harm::ALL.into_iter().filter(|harm| kind.suffers(*harm)) {
            let seeds = if harm.has_a_place() { seeds.clone() } else { 0..1 };
            cases.extend(seeds.map(|seed| Case { kind, harm, seed }));
        }
    }
    cases
}

/// A copy of the template to be damaged.
fn copy() -> (TempDir, Place) {
    let directory = TempDir::with_prefix("warren-damage-").unwrap();
    let place = Place::new(&directory.path().join("data"));
    copy_directory(&template().data_dir, &place.data_dir);
    (directory, place)
}

/// Messages that a report names: what the queue is called, first and last number.
fn named(damage: &[String]) -> Vec<(String, u64, u64)> {
    let numbers = |part: &str| -> Option<(String, u64, u64)> {
        let (queue, rest) = part.split_once(", message")?;
        let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        let (first, last) = match rest.strip_prefix("s ") {
            Some(range) => (digits(range)?, digits(range.split_once(" to ")?.1)?),
            None => (digits(rest.strip_prefix(' ')?)?, digits(rest.strip_prefix(' ')?)?),
        };
        Some((queue.to_owned(), first, last))
    };
    let parts = damage.iter().flat_map(|line| line.split("lost: queue ").skip(1));
    parts.filter_map(numbers).collect()
}

/// Whether a report says that a stretch of the log is gone: which messages were in it nobody knows.
fn lost_a_stretch(damage: &str) -> bool {
    let said = [
        "no sound frame for positions",
        "held the end of the log",
        "the log ends at position",
        "what followed is lost",
        // Of a record whose own head is hit, frame and place are known, not what it was.
        "frame at offset",
    ];
    said.iter().any(|said| damage.contains(said))
}

fn damage_of(broker: &WarrenProcess) -> Vec<String> {
    let status = broker.status();
    let lines = status["damage"].as_array().unwrap().iter();
    lines.map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// Compares what a broker has with what was there.
async fn check_content(broker: &WarrenProcess, template: &Template) -> Vec<String> {
    let mut peer = broker.amqp().await;
    let mut found = Vec::new();
    for queue in QUEUES {
        found.push(drained(&mut peer, queue).await);
    }
    check_definitions(&mut peer).await;
    // What is found while reading is in it too.
    let damage = damage_of(broker);
    let named = named(&damage);
    let lost_a_stretch = damage.iter().any(|line| lost_a_stretch(line));
    for ((queue, found), live) in template.queues.iter().zip(&found).zip(&template.live) {
        assert!(found.is_sorted(), "{}: out of order", queue.name);
        let found: BTreeSet<MessageId> = found.iter().copied().collect();
        for id in live.difference(&found) {
            // By its name, as operators know it.
            let called = format!("{} in /", queue.name);
            let is_named = |(queue, first, last): &(String, u64, u64)| {
                *queue == called && (*first..=*last).contains(&id.seq)
            };
            // Numbers show a gap only where others follow; behind the last one the stretch of the log alone is known.
            let is_behind = lost_a_stretch && found.last().is_none_or(|last| last < id);
            let is_told = is_behind || named.iter().any(is_named);
            assert!(is_told, "{id} is gone from {}: {damage:#?}", queue.name);
        }
        let back: Vec<_> = found.difference(live).collect();
        assert!(back.iter().all(|id| id.producer == queue.producer), "of another queue: {back:?}");
        assert!(back.is_empty() || !damage.is_empty(), "{} has {back:?} again", queue.name);
    }
    damage
}

async fn check_definitions(peer: &mut Peer) {
    let passive = exchange::Declare {
        exchange: "fan".into(),
        kind: "fanout".into(),
        passive: true,
        ..exchange::Declare::default()
    };
    peer.call(1, passive).await;
    peer.publish(1, "fan", "", "still bound").await;
    assert_eq!(peer.get_soon(1, QUEUES[0]).await.text(), "still bound");
}

/// Whoever looks into the quarantine finds the queues by their names, as in the `line` about the damage.
async fn check_note(line: &str, place: &Place) {
    let Some((said, kept)) = line.split_once("; kept in ") else { return };
    let note = place.data_dir.join("store").join(format!("{kept}.txt"));
    for part in said.split("lost: queue ").skip(1) {
        let (queue, _) = part.split_once(", message").unwrap();
        let named = format!(" is queue {queue}\n");
        let is_named = async || fs::read_to_string(&note).is_ok_and(|note| note.contains(&named));
        eventually(&format!("{named:?} in {}", note.display()), is_named).await;
    }
}

fn check_refusal(refused: &Refused, place: &Place) {
    let Refused { status, log } = refused;
    assert!(log.contains(&*place.data_dir.to_string_lossy()), "it names no path: {log}");
    assert!(status.code().is_some_and(|code| code != 0), "{status}: {log}");
    assert!(!log.contains("panicked"), "{log}");
}

async fn run(case: Case) {
    let (_directory, place) = copy();
    let template = template();
    let file = harm(case.kind, case.harm, case.seed, &place.data_dir.join("store"));
    let (strict, broker) = match WarrenProcess::try_start_at(&place, &STRICT).await {
        // Strict has nothing against it: no other start has to find anything either.
        Ok(broker) => (None, broker),
        Err(refused) => {
            check_refusal(&refused, &place);
            match WarrenProcess::try_start_at(&place, &SETTINGS).await {
                Ok(broker) => (Some(refused), broker),
                Err(refused) => {
                    check_refusal(&refused, &place);
                    assert!(case.kind.may_refuse(case.harm), "it refuses: {}", refused.log);
                    return;
                }
            }
        }
    };
    let log = broker.log();
    let opening = log.split("the store is open").next().unwrap_or_default();
    assert_eq!(
        opening.contains("was set aside"),
        strict.is_some(),
        "strict and others differ: {log}"
    );
    let damage = check_content(&broker, template).await;
    for line in &damage {
        eventually(&format!("in the log: {line}"), async || broker.log().contains(line)).await;
        check_note(line, &place).await;
    }
    assert!(!broker.log().contains("panicked"), "{}", broker.log());
    if case.kind.is_missed(case.harm) {
        let is_named = |text: &str| !case.kind.is_named(case.harm) || text.contains(&file);
        assert!(damage.iter().any(|line| is_named(line)), "{file} is not named: {damage:#?}");
        assert!(
            strict.is_some_and(|refused| is_named(&refused.log)),
            "strict does not name {file}"
        );
    }
    if damage.is_empty() {
        return;
    }
    // The next start has nothing to report again.
    broker.kill().await;
    let again = WarrenProcess::start_at(&place, &SETTINGS).await;
    assert_eq!(damage_of(&again), Vec::<String>::new(), "named again, after {damage:#?}");
}

#[test]
fn damage_is_set_aside_and_named_and_costs_what_it_hit() {
    template();
    for_each_case(cases(), run);
}

/// `warren store` with this word: its exit code, and all that it said.
fn store(word: &str, place: &Place) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(["store", word, "--data-dir"]).arg(&place.data_dir);
    for setting in SETTINGS {
        command.args(["--set", setting]);
    }
    let output = command.env_remove("WARREN_CONFIG").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// It used to take a plain start, or not even that was enough.
async fn repair(case: Case) {
    let (_directory, place) = copy();
    harm(case.kind, case.harm, case.seed, &place.data_dir.join("store"));
    let (code, said) = store("repair", &place);
    if case.kind.may_refuse(case.harm) && !matches!(code, Some(0 | 1)) {
        return;
    }
    assert!(matches!(code, Some(0 | 1)), "{said}");
    let (code, found) = store("verify", &place);
    assert_eq!(code, Some(0), "{found}after {said}");
    let strict = WarrenProcess::try_start_at(&place, &STRICT).await;
    let broker = strict.unwrap_or_else(|refused| panic!("{}, after {said}", refused.log));
    assert_eq!(damage_of(&broker), Vec::<String>::new(), "after {said}");
}

#[test]
fn a_repaired_store_is_sound_and_strict_takes_it() {
    template();
    for_each_case(cases(), repair);
}

#[tokio::test]
async fn a_copy_without_damage_is_complete_and_strict_takes_it() {
    let (_directory, place) = copy();
    let broker = WarrenProcess::start_at(&place, &STRICT).await;
    let damage = check_content(&broker, template()).await;
    assert_eq!(damage, Vec::<String>::new());
}

#[tokio::test]
async fn a_store_that_lost_its_log_is_not_taken_for_a_new_one() {
    for lost in ["wal", "ckpt"] {
        let (_directory, place) = copy();
        fs::remove_dir_all(place.data_dir.join("store").join(lost)).unwrap();
        let refused = WarrenProcess::try_start_at(&place, &SETTINGS).await.unwrap_err();
        check_refusal(&refused, &place);
        assert!(refused.log.contains("accept_data_loss"), "{lost}: {}", refused.log);
        let mut broker = WarrenProcess::start_at(&place, &ACCEPTING).await;
        assert!(!damage_of(&broker).is_empty(), "{lost}: a loss that nobody is told of");
        assert!(broker.is_running());
        broker.kill().await;
        // Accepted once is accepted.
        WarrenProcess::start_at(&place, &SETTINGS).await.kill().await;
    }
}

#[tokio::test]
async fn a_second_broker_on_the_same_directory_is_refused() {
    let (_directory, place) = copy();
    let first = WarrenProcess::start_at(&place, &SETTINGS).await;
    let mut elsewhere = place.clone();
    elsewhere.log = place.data_dir.with_extension("second-log");
    let refused = WarrenProcess::try_start_at(&elsewhere, &SETTINGS).await.unwrap_err();
    check_refusal(&refused, &place);
    assert!(refused.log.contains("another broker runs on this data directory"), "{}", refused.log);
    assert_eq!(refused.status.code(), Some(69));
    // It has broken nothing.
    let damage = check_content(&first, template()).await;
    assert_eq!(damage, Vec::<String>::new());
}
