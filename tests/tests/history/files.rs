//! What clients write is what the checker reads.

use tempfile::TempDir;
use warren_tests::history::{Event, History, Journals, MessageId, TransactionId, check};

fn all_events() -> Vec<Event> {
    let id = MessageId { producer: 3, seq: u64::MAX };
    let queue = || "q \"with\" quotes\n".to_owned();
    let tx = TransactionId(7);
    vec![
        Event::Started,
        Event::Published { id, queues: vec![queue()], persistent: true, crc: 1, tx: None },
        Event::Published { id, queues: Vec::new(), persistent: false, crc: 2, tx: Some(tx) },
        Event::Confirmed { id },
        Event::Refused { id },
        Event::Delivered { id, queue: queue(), redelivered: true, crc: u32::MAX },
        Event::Garbled { queue: queue(), start: "\\x00".to_owned() },
        Event::AckSent { id, queue: queue(), tx: None },
        Event::AckSent { id, queue: queue(), tx: Some(tx) },
        Event::Acked { id, queue: queue() },
        Event::Requeued { id, queue: queue() },
        Event::Answered,
        Event::Begun { tx },
        Event::CommitSent { tx },
        Event::Committed { tx },
        Event::RolledBack { tx },
        Event::Drained { queue: queue() },
        Event::Killed,
        Event::Stopped,
    ]
}

#[test]
fn what_was_written_is_read_in_the_order_of_lives_and_then_of_writing() {
    let directory = TempDir::with_prefix("warren-history-").unwrap();
    let journals = Journals::new(directory.path()).unwrap();
    let mut late = journals.client("late").unwrap();
    let mut early = journals.client("early").unwrap();
    late.note(2, Event::Killed);
    for event in all_events() {
        early.note(1, event);
        late.note(2, Event::Answered);
    }
    drop((early, late));
    let history = History::read(directory.path()).unwrap();
    assert_eq!(history.clients, ["early", "late"]);
    let events: Vec<Event> = history.entries().iter().map(|entry| entry.event.clone()).collect();
    let answered = all_events().into_iter().map(|_| Event::Answered);
    let wanted: Vec<Event> =
        all_events().into_iter().chain([Event::Killed]).chain(answered).collect();
    assert_eq!(events, wanted);
    let lives: Vec<u32> = history.entries().iter().map(|entry| entry.life).collect();
    assert!(lives.is_sorted());
}

#[test]
fn a_line_that_is_no_event_is_named() {
    let directory = TempDir::with_prefix("warren-history-").unwrap();
    let path = directory.path().join("client.jsonl");
    std::fs::write(&path, "{\"order\":0,\"at_us\":0,\"life\":1,\"event\":\"started\"}\n{}\n")
        .unwrap();
    let error = History::read(directory.path()).unwrap_err();
    assert_eq!((error.path, error.line), (path, 2));
}

#[test]
fn nobody_writes_into_the_journal_of_another() {
    let directory = TempDir::with_prefix("warren-history-").unwrap();
    let journals = Journals::new(directory.path()).unwrap();
    let _client = journals.client("client").unwrap();
    assert!(journals.client("client").is_err());
}

#[test]
fn a_finding_shows_its_events_with_their_clients() {
    let directory = TempDir::with_prefix("warren-history-").unwrap();
    let journals = Journals::new(directory.path()).unwrap();
    let mut client = journals.client("consumer").unwrap();
    let id = MessageId { producer: 1, seq: 2 };
    let queue = "q".to_owned();
    client.note(1, Event::Delivered { id, queue, redelivered: false, crc: 0 });
    drop(client);
    let report = check(&History::read(directory.path()).unwrap());
    let text = report.to_string();
    assert!(
        text.contains("phantom: message 1:2 queue q: nobody has published it\n    consumer: {"),
        "{text}"
    );
    assert!(text.contains("\"event\":\"delivered\",\"id\":\"1:2\""), "{text}");
    assert!(text.contains("\nphantom                   1\n"), "{text}");
}
