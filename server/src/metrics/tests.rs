//! The form of every page, checked strictly; what is on it; and that no counter ever falls.

use std::collections::BTreeMap;

use broker_core::arguments::Arguments;
use broker_core::consumer::ConnectionId;
use broker_core::name::QueueName;
use broker_core::storage::{OpenPhase, OpenProgress};
use broker_core::vhost::QueueDeclaration;
use tokio::io::AsyncReadExt as _;

use super::counted::Counted;
use super::families::Family;
use super::*;
use crate::counters::{Counters, Protocol};
use crate::node::Clock;
use crate::opening::Phase;
use crate::settings::{Settings, Size};
use crate::store;

fn exporter() -> Exporter {
    let (recorder, handle) = recorder();
    let directory = tempfile::tempdir().expect("a directory");
    let mut settings = Settings { data_dir: directory.path().into(), ..Settings::default() };
    settings.store.log_file_size = Size::mib(1);
    let clock = Clock::start();
    let opening = Opening::default();
    let opened = store::open(&settings, clock, &opening).expect("an empty store");
    // Its files are open, and nobody else looks at them.
    settings.data_dir = "/".into();
    let mut node = Node::new(settings, Counters::new(&recorder), opened.broker, clock);
    node.store = Some(opened.log);
    node.broker.bootstrap("/", "guest", b"guest").expect("an empty broker");
    Exporter { node: Arc::new(node), recorder: handle, churn: QueueChurn::default(), opening }
}

fn declare(exporter: &Exporter, vhost: &str, queue: &str) {
    let declaration = QueueDeclaration {
        name: QueueName::new(queue).expect("a name"),
        server_named: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: Arguments::new(),
    };
    let vhost = exporter.node.broker.vhost(vhost).expect("a virtual host");
    vhost.declare_queue(declaration, ConnectionId(1), 0).expect("declared");
}

async fn page(exporter: &Exporter, content: Content) -> String {
    let names = match content {
        Content::Detailed { .. } => Names::Detailed,
        Content::Aggregated | Content::PerObject => Names::Plain,
    };
    let (mut reader, writer) = duplex(1024);
    let mut text = String::new();
    let mut page = Page::new(names, writer);
    let write = async move { collect::write(exporter, &content, &mut page).await };
    let (written, read) = tokio::join!(write, reader.read_to_string(&mut text));
    written.expect("written");
    read.expect("read");
    text
}

fn everything() -> Content {
    Content::Detailed { groups: Group::ALL.into(), vhosts: None }
}

type Series = BTreeMap<(String, Vec<(String, String)>), f64>;

/// Reads a page as strictly as the format is written; gives types by family, and values by series.
fn check(page: &str) -> (BTreeMap<String, String>, Series) {
    assert!(page.ends_with('\n'), "the last line has an end");
    let mut types = BTreeMap::new();
    let mut series = Series::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a text behind the name");
            assert!(!text.is_empty());
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
            let kind = kind.unwrap_or_else(|| panic!("no TYPE below the HELP of {name}"));
            assert!(["counter", "gauge", "untyped", "histogram"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} comes twice");
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let (sample, labels, value) = sample(line);
                let suffix =
                    sample.strip_prefix(name).unwrap_or_else(|| panic!("{line} below {name}"));
                let suffixes: &[&str] =
                    if kind == "histogram" { &["_bucket", "_count", "_sum"] } else { &[""] };
                assert!(suffixes.contains(&suffix), "{line}");
                assert!(series.insert((sample, labels), value).is_none(), "twice: {line}");
            }
        } else {
            assert!(line.starts_with("# ") && !line.starts_with("# TYPE"), "{line:?}");
        }
    }
    (types, series)
}

/// A line `name{label="value",…} number`, escapes resolved.
fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let end = line.find(['{', ' ']).expect("an end of the name");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").expect("a label");
            assert!(is_name(label), "{line}");
            let mut value = String::new();
            let mut chars = after.chars();
            loop {
                match chars.next().expect("a closing quote") {
                    '"' => break,
                    '\\' => value.push(match chars.next() {
                        Some('n') => '\n',
                        Some(c @ ('\\' | '"')) => c,
                        other => panic!("escape {other:?} in {line}"),
                    }),
                    c => value.push(c),
                }
            }
            labels.push((label.to_owned(), value));
            match chars.next() {
                Some(',') => rest = chars.as_str(),
                Some('}') => break rest = chars.as_str(),
                other => panic!("{other:?} behind a label in {line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').expect("a space before the value");
    (name.to_owned(), labels, value.parse().expect("a number"))
}

fn value(series: &Series, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    series.get(&(name.to_owned(), labels)).copied()
}

#[tokio::test]
async fn every_page_has_the_right_form() {
    let exporter = exporter();
    exporter.node.broker.add_vhost("v \"1\"\\").expect("added");
    declare(&exporter, "/", "a\"b\\c\\n");
    declare(&exporter, "v \"1\"\\", "größe\tx");
    for content in [Content::Aggregated, Content::PerObject, everything()] {
        let text = page(&exporter, content.clone()).await;
        let (types, series) = check(&text);
        assert!(types.contains_key("rabbitmq_identity_info"), "{content:?}");
        let ready = match &content {
            Content::Aggregated => {
                assert_eq!(value(&series, "rabbitmq_queue_messages_ready", &[]), Some(0.0));
                continue;
            }
            Content::PerObject => "rabbitmq_queue_messages_ready",
            Content::Detailed { .. } => "rabbitmq_detailed_queue_messages_ready",
        };
        for labels in [
            [("vhost", "/"), ("queue", "a\"b\\c\\n")],
            [("vhost", "v \"1\"\\"), ("queue", "größe\tx")],
        ] {
            assert_eq!(value(&series, ready, &labels), Some(0.0), "{text}");
        }
    }
}

#[tokio::test]
async fn a_label_with_a_line_feed_stays_on_its_line() {
    const FAMILY: Family = Family {
        name: "warren_test",
        kind: Kind::Gauge,
        labels: &["label"],
        per_object: &[],
        help: "For this test",
    };
    let (mut reader, writer) = duplex(1024);
    let mut page = Page::new(Names::Plain, writer);
    page.single(&FAMILY, &[("label", "a\"b\n\\c")], 1);
    page.flush().await.expect("written");
    drop(page);
    let mut text = String::new();
    reader.read_to_string(&mut text).await.expect("read");
    assert!(text.contains("warren_test{label=\"a\\\"b\\n\\\\c\"} 1\n"), "{text}");
    let (_, series) = check(&text);
    assert_eq!(value(&series, "warren_test", &[("label", "a\"b\n\\c")]), Some(1.0));
}

#[tokio::test]
async fn the_pages_together_have_every_family_of_the_catalogue() {
    let exporter = exporter();
    let (mut types, _) = check(&page(&exporter, Content::Aggregated).await);
    types.extend(check(&page(&exporter, Content::PerObject).await).0);
    let known: BTreeMap<_, _> = families::ALL
        .iter()
        .map(|family| (family.name.to_owned(), family.kind.to_string()))
        .collect();
    assert_eq!(types, known);
}

#[test]
fn every_counter_of_the_recorder_is_in_the_catalogue() {
    let (recorder, handle) = recorder();
    let _counters = Counters::new(&recorder);
    let counted = Counted::read(&handle.render());
    let known: Vec<_> = families::ALL
        .iter()
        .filter(|family| family.kind == Kind::Counted)
        .map(|family| family.name)
        .collect();
    for name in counted.names() {
        assert!(known.contains(&name), "{name} is counted and not listed in families.rs");
    }
    for name in known {
        assert!(counted.series(name).next().is_some(), "nothing counts {name}");
    }
}

#[tokio::test]
async fn counters_are_there_before_anything_has_happened() {
    let exporter = exporter();
    let (types, series) = check(&page(&exporter, Content::Aggregated).await);
    for protocol in Protocol::ALL.map(Protocol::label) {
        let labels = [("protocol", protocol)];
        let received = "rabbitmq_global_messages_received_total";
        assert_eq!(value(&series, received, &labels), Some(0.0), "{protocol}");
        for bound in ["100.0", "100000000.0", "+Inf"] {
            let labels = [("protocol", protocol), ("le", bound)];
            let bucket = value(&series, "rabbitmq_message_size_bytes_bucket", &labels);
            assert_eq!(bucket, Some(0.0), "{protocol} {bound}");
        }
    }
    assert_eq!(types.get("rabbitmq_message_size_bytes").map(String::as_str), Some("histogram"));
}

#[tokio::test]
async fn sizes_and_sums_come_from_what_was_counted() {
    let exporter = exporter();
    let amqp = exporter.node.counters.of(Protocol::Amqp);
    amqp.sizes.record(100, 2);
    amqp.sizes.record(101, 1);
    amqp.sizes.record(200_000_000, 1);
    amqp.unroutable_dropped.increment(2);
    exporter.node.counters.of(Protocol::Stomp1_2).unroutable_dropped.increment(3);
    amqp.auth_succeeded.increment(4);
    amqp.auth_failed.increment(1);
    let (_, series) = check(&page(&exporter, Content::Aggregated).await);
    let bucket = |bound| {
        let labels = [("protocol", "amqp091"), ("le", bound)];
        value(&series, "rabbitmq_message_size_bytes_bucket", &labels)
    };
    let buckets = ["100.0", "1000.0", "100000000.0", "+Inf"].map(bucket);
    assert_eq!(buckets, [Some(2.0), Some(3.0), Some(3.0), Some(4.0)]);
    let amqp = [("protocol", "amqp091")];
    assert_eq!(value(&series, "rabbitmq_message_size_bytes_sum", &amqp), Some(200_000_301.0));
    assert_eq!(value(&series, "rabbitmq_auth_attempts_total", &amqp), Some(5.0));
    let dropped = "rabbitmq_channel_messages_unroutable_dropped_total";
    assert_eq!(value(&series, dropped, &[]), Some(5.0));
}

/// Counts of queues used to leave the sums together with their virtual host.
#[tokio::test]
async fn no_counter_falls_when_queues_and_virtual_hosts_go() {
    let exporter = exporter();
    let broker = &exporter.node.broker;
    let mut before = Series::new();
    for round in 0..4 {
        let name = format!("v{}", round % 2);
        let vhost = broker.add_vhost(&name).expect("added");
        for queue in ["a", "b"] {
            declare(&exporter, &name, queue);
        }
        if round % 2 == 0 {
            check_nothing_fell(&exporter, &mut before).await;
        }
        let queue = QueueName::new("a").expect("a name");
        vhost.delete_queue(&queue, None, false, false).expect("deleted");
        check_nothing_fell(&exporter, &mut before).await;
        broker.delete_vhost(&vhost.name).expect("deleted");
        check_nothing_fell(&exporter, &mut before).await;
    }
    let total = |name: &str| value(&before, name, &[]);
    assert_eq!(total("rabbitmq_queues_created_total"), Some(8.0));
    assert_eq!(total("rabbitmq_queues_deleted_total"), Some(8.0));
}

async fn check_nothing_fell(exporter: &Exporter, before: &mut Series) {
    let (_, now) = check(&page(exporter, Content::Aggregated).await);
    for (key, earlier) in before.iter().filter(|((name, _), _)| name.ends_with("_total")) {
        let later = now.get(key).unwrap_or_else(|| panic!("{key:?} is gone"));
        assert!(later >= earlier, "{key:?} fell from {earlier} to {later}");
    }
    *before = now;
}

#[tokio::test]
async fn an_object_that_is_gone_leaves_no_series_behind() {
    let exporter = exporter();
    declare(&exporter, "/", "gone");
    assert!(page(&exporter, everything()).await.contains("queue=\"gone\""));
    let vhost = exporter.node.broker.vhost("/").expect("a virtual host");
    let queue = QueueName::new("gone").expect("a name");
    vhost.delete_queue(&queue, None, false, false).expect("deleted");
    assert!(!page(&exporter, everything()).await.contains("queue=\"gone\""));
}

#[tokio::test]
async fn a_page_with_too_many_objects_says_how_much_is_missing() {
    let exporter = exporter();
    for number in 0..4000 {
        declare(&exporter, "/", &format!("q{number}"));
    }
    let content = Content::Detailed {
        groups: vec![Group::QueueConsumerCount, Group::QueueCoarse],
        vhosts: None,
    };
    let (_, series) = check(&page(&exporter, content).await);
    let objects =
        series.keys().filter(|(_, labels)| labels.iter().any(|(name, _)| name == "queue"));
    // 3333 queues with three series each, one series of a fourth group.
    assert_eq!(objects.count(), 10_000);
    assert_eq!(value(&series, "warren_scrape_series_omitted", &[]), Some(6000.0));
}

#[tokio::test]
async fn virtual_hosts_can_be_chosen() {
    let exporter = exporter();
    exporter.node.broker.add_vhost("other").expect("added");
    declare(&exporter, "/", "here");
    declare(&exporter, "other", "there");
    let parameters = [("family", "queue_coarse_metrics"), ("vhost", "other")];
    let content = selection(&parameters.map(|(name, value)| (name.into(), value.into())));
    let text = page(&exporter, content.expect("a selection")).await;
    assert!(text.contains("queue=\"there\"") && !text.contains("queue=\"here\""), "{text}");
}

#[test]
fn parameters_without_meaning_are_refused_not_ignored() {
    for (name, value, expected) in [
        ("family", "queue_course_metrics", "queue_coarse_metrics"),
        ("queue", "a", "family and vhost"),
    ] {
        let refused = selection(&[(name.to_owned(), value.to_owned())]).expect_err("refused");
        assert!(refused.contains(value) || refused.contains(name), "{refused}");
        assert!(refused.contains(expected), "{refused}");
    }
}

/// The document has a row for each metric, with its type, labels and meaning as the code has them.
#[test]
fn the_document_lists_what_there_is() {
    let document = include_str!("../../../docs/metrics.md");
    let ticked = |labels: &[&str]| {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        labels.join(", ")
    };
    let rows: Vec<String> = families::ALL
        .iter()
        .map(|family| {
            let labels = match (family.labels, family.per_object) {
                (labels, []) => ticked(labels),
                (_, per_object) => format!("per object: {}", ticked(per_object)),
            };
            let Family { name, kind, help, .. } = family;
            format!("| `{name}` | {kind} | {labels} | {help} |")
        })
        .collect();
    for row in &rows {
        assert!(document.contains(row.as_str()), "docs/metrics.md has no line\n{row}");
    }
    let listed = document.lines().filter(|line| line.starts_with("| `")).count();
    let groups = Group::ALL.len();
    assert_eq!(listed, rows.len() + groups, "docs/metrics.md has lines about nothing");
    for group in Group::ALL {
        assert!(document.contains(&format!("| `{}` | ", group.name())), "{group:?}");
    }
}

async fn said(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn while_the_store_is_being_opened_there_is_a_page_and_the_broker_is_not_ready() {
    let open = exporter();
    let opening = Opening::default();
    let endpoint = Endpoint::new(open.recorder.clone(), opening.clone());
    let phase_of = |series: &Series| {
        let on = |phase: &&Phase| {
            let labels = [("phase", phase.word())];
            value(series, "warren_store_open_phase", &labels) == Some(1.0)
        };
        Phase::ALL.iter().filter(on).map(|phase| phase.word()).collect::<Vec<_>>()
    };
    let (phase, done, total) = (OpenPhase::Replay, 30 << 20, 40 << 20);
    opening.reach(OpenProgress { phase, done, total });
    for page in
        [aggregated(State(endpoint.clone())).await, per_object(State(endpoint.clone())).await]
    {
        let (status, text) = said(page).await;
        assert_eq!(status, StatusCode::OK);
        let (types, series) = check(&text);
        assert_eq!(phase_of(&series), ["replay"], "{text}");
        assert_eq!(value(&series, "warren_store_open_progress_ratio", &[]), Some(0.75));
        for there in ["rabbitmq_identity_info", "process_resident_memory_bytes"] {
            assert!(types.contains_key(there), "{there} in {text}");
        }
    }
    let all = Query(vec![("family".to_owned(), "all".to_owned())]);
    let (_, text) = said(detailed(State(endpoint.clone()), all).await).await;
    check(&text);
    let (status, text) = ready(State(endpoint.clone())).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let expected = "not ready: opening the store: replay, 75 %, 30.00 MiB of 40.00 MiB\n";
    assert_eq!(text, expected);

    // The store alone makes nobody ready: there have to be listeners too.
    opening.enter(Phase::Open);
    let (status, text) = ready(State(endpoint.clone())).await;
    assert_eq!((status.as_u16(), text.as_str()), (503, "not ready: the store is open\n"));
    endpoint.open(Arc::clone(&open.node));
    let (status, text) = ready(State(endpoint.clone())).await;
    assert_eq!((status.as_u16(), text.as_str()), (200, "ready\n"));
    let (_, text) = said(aggregated(State(endpoint)).await).await;
    let (types, series) = check(&text);
    assert_eq!(phase_of(&series), ["open"], "{text}");
    assert_eq!(value(&series, "warren_store_open_progress_ratio", &[]), Some(1.0));
    assert!(types.contains_key("rabbitmq_queues"));
}
