//! `warren bench backlog` against a real broker: that its books balance, and that they tell when they do not.

#![expect(clippy::unwrap_used, reason = "a test says with a panic that it has failed")]

use std::process::{Command, Output};

use serde_json::Value;
use warren_tests::process::{WarrenProcess, binary};

/// Runs `warren bench backlog` with these words, blocking.
fn backlog(broker: &WarrenProcess, words: &str) -> Output {
    let url = format!("amqp://guest:guest@{}", broker.address("amqp"));
    let mut command = Command::new(binary());
    command.args(["bench", "backlog", "--json", "--url", &url]).args(words.split_whitespace());
    command.output().unwrap()
}

/// Its report.
fn report(broker: &WarrenProcess, words: &str) -> Value {
    let done = backlog(broker, words);
    assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Its complaint, with the exit code.
fn complaint(broker: &WarrenProcess, words: &str) -> (Option<i32>, String) {
    let done = backlog(broker, words);
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[tokio::test]
async fn what_is_published_is_drained_in_order_from_every_queue() {
    let broker = WarrenProcess::start(&[]).await;
    let report = report(&broker, "--messages 3001 --size 64 --queues 3 --pause 1ms");
    assert_eq!(report["publish"]["confirmed"], 3001, "{report}");
    assert_eq!(report["drain"]["delivered"], 3001, "{report}");
    let queues = broker.ctl(&["list_queues", "name"]);
    assert!(queues.status.success(), "{queues:?}");
    assert!(!String::from_utf8_lossy(&queues.stdout).contains("wb"), "{queues:?}");
}

#[tokio::test]
async fn a_backlog_is_kept_for_a_second_run_and_only_drained_if_it_is_whole() {
    let broker = WarrenProcess::start(&[]).await;
    let published = report(&broker, "--messages 2000 --phase publish --queue-prefix kept");
    assert_eq!(published["drain"], Value::Null);
    for (words, code, told) in [
        ("--messages 2001 --phase drain --queue-prefix kept", 1, "2000 messages ready, not 2001"),
        ("--messages 2000 --queue-prefix kept", 64, "is in use"),
    ] {
        let (exit, said) = complaint(&broker, words);
        assert_eq!(exit, Some(code), "{words}: {said}");
        assert!(said.contains(told), "{words}: {said}");
    }
    let drained = report(&broker, "--messages 2000 --phase drain --queue-prefix kept");
    assert_eq!(drained["drain"]["delivered"], 2000, "{drained}");
    let (exit, said) = complaint(&broker, "--messages 2000 --phase drain --queue-prefix kept");
    assert_eq!(exit, Some(69), "the queue is gone: {said}");
}
