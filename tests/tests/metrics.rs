//! The Prometheus endpoint over HTTP, of a broker with clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use warren_tests::{TestBroker, eventually, loopback};

async fn broker() -> (TestBroker, SocketAddr) {
    let broker = TestBroker::with(|settings| settings.metrics.listen = loopback()).await;
    let Some(address) = broker.running().addresses.metrics.first().copied() else {
        panic!("no metrics endpoint")
    };
    (broker, address)
}

/// Status line and headers, and body.
async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => panic!("{error}"),
    };
    let request = format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n");
    let mut response = String::new();
    let exchanged = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_string(&mut response).await
    };
    if let Err(error) = exchanged.await {
        panic!("{path}: {error}");
    }
    match response.split_once("\r\n\r\n") {
        Some((head, body)) => (head.to_owned(), body.to_owned()),
        None => panic!("no HTTP: {response}"),
    }
}

/// Series with their values; what precedes the last space is the key.
async fn scrape(address: SocketAddr, path: &str) -> BTreeMap<String, f64> {
    let (head, body) = get(address, path).await;
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| match line.rsplit_once(' ').map(|(key, value)| (key, value.parse())) {
            Some((key, Ok(value))) => (key.to_owned(), value),
            _ => panic!("not a series: {line}"),
        })
        .collect()
}

#[tokio::test]
async fn what_clients_do_is_counted_by_protocol_and_never_uncounted() {
    let (broker, address) = broker().await;
    let mut earlier = scrape(address, "/metrics").await;
    for round in 1..=3 {
        let mut amqp = broker.amqp().await;
        let mut stomp = broker.stomp().await;
        stomp.log_in("1.1").await;
        let queue = format!("q{round}");
        amqp.declare(1, &queue).await;
        amqp.publish(1, "", &queue, "hello").await;
        amqp.publish(1, "", "nowhere", "hello").await;
        assert!(amqp.get(1, &queue, true).await.is_some());
        assert!(amqp.get(1, &queue, true).await.is_none());
        let during = scrape(address, "/metrics").await;
        assert_eq!(during.get("rabbitmq_connections"), Some(&2.0));
        assert_eq!(during.get("rabbitmq_queues"), Some(&f64::from(round)));
        falls_nowhere(&earlier, &during);
        amqp.close().await;
        drop(stomp);
        // A connection leaves the list a moment before it is counted.
        let mut after = BTreeMap::new();
        eventually("both connections are gone", async || {
            after = scrape(address, "/metrics").await;
            after.get("rabbitmq_connections") == Some(&0.0)
                && after.get("rabbitmq_connections_closed_total") == Some(&f64::from(2 * round))
        })
        .await;
        falls_nowhere(&during, &after);
        earlier = after;
    }
    for (series, expected) in [
        ("rabbitmq_connections_opened_total", 6.0),
        ("rabbitmq_connections_closed_total", 6.0),
        ("rabbitmq_channels_opened_total", 6.0),
        ("rabbitmq_channels_closed_total", 6.0),
        ("rabbitmq_global_messages_received_total{protocol=\"amqp091\"}", 6.0),
        ("rabbitmq_global_messages_received_total{protocol=\"STOMP 1.1\"}", 0.0),
        ("rabbitmq_global_messages_unroutable_dropped_total{protocol=\"amqp091\"}", 3.0),
        ("rabbitmq_channel_messages_unroutable_dropped_total", 3.0),
        ("rabbitmq_auth_attempts_total{protocol=\"amqp091\"}", 3.0),
        ("rabbitmq_auth_attempts_succeeded_total{protocol=\"STOMP 1.1\"}", 3.0),
        ("rabbitmq_message_size_bytes_count{protocol=\"amqp091\"}", 6.0),
        ("rabbitmq_message_size_bytes_sum{protocol=\"amqp091\"}", 30.0),
        ("rabbitmq_message_size_bytes_bucket{protocol=\"amqp091\",le=\"100.0\"}", 6.0),
        ("rabbitmq_queues_created_total", 3.0),
        ("warren_store_open_phase{phase=\"open\"}", 1.0),
        ("warren_store_open_phase{phase=\"replay\"}", 0.0),
        ("warren_store_open_progress_ratio", 1.0),
    ] {
        assert_eq!(earlier.get(series), Some(&expected), "{series}");
    }
}

fn falls_nowhere(earlier: &BTreeMap<String, f64>, later: &BTreeMap<String, f64>) {
    for (series, before) in earlier.iter().filter(|(series, _)| series.contains("_total")) {
        let now = later.get(series).copied();
        assert!(now >= Some(*before), "{series} fell from {before} to {now:?}");
    }
}

#[tokio::test]
async fn objects_have_series_of_their_own_while_they_are_there() {
    let (broker, address) = broker().await;
    let mut amqp = broker.amqp().await;
    amqp.declare(1, "a\"b\\c").await;
    amqp.publish(1, "", "a\"b\\c", "12345").await;
    assert_eq!(amqp.counts(1, "a\"b\\c").await.0, 1);
    amqp.consume(1, "a\"b\\c", "tag").await;
    amqp.expect_text(1).await;
    let labels = r#"{vhost="/",queue="a\"b\\c"}"#;
    let per_object = scrape(address, "/metrics/per-object").await;
    let value = |name: &str| per_object.get(&format!("{name}{labels}")).copied();
    assert_eq!(value("rabbitmq_queue_messages_ready"), Some(0.0));
    assert_eq!(value("rabbitmq_queue_messages_unacked"), Some(1.0));
    assert_eq!(value("rabbitmq_queue_messages"), Some(1.0));
    assert_eq!(value("rabbitmq_queue_consumers"), Some(1.0));
    assert_eq!(value("rabbitmq_queue_messages_bytes"), Some(5.0));
    let path = "/metrics/detailed?family=connection_coarse_metrics&family=channel_metrics";
    let detailed = scrape(address, path).await;
    let find = |prefix: &str| detailed.iter().find(|(series, _)| series.starts_with(prefix));
    let (_, received) =
        find("rabbitmq_detailed_connection_incoming_bytes_total{connection=\"127.0.0.1:")
            .unwrap_or_else(|| panic!("{detailed:?}"));
    assert!(*received > 100.0);
    let unacked = find("rabbitmq_detailed_channel_messages_unacked{channel=\"127.0.0.1:");
    assert_eq!(unacked.map(|(_, value)| *value), Some(1.0), "{detailed:?}");
    assert!(find("rabbitmq_detailed_queue_messages").is_none(), "that family was not asked for");
    amqp.close().await;
    eventually("the connection has left no series", async || {
        let page = scrape(address, path).await;
        !page.keys().any(|series| series.contains("127.0.0.1:"))
    })
    .await;
}

#[tokio::test]
async fn pages_are_found_and_mistakes_are_explained() {
    let (_broker, address) = broker().await;
    for (path, status, text) in [
        ("/livez", "200", "alive\n"),
        ("/readyz", "200", "ready\n"),
        ("/healthz", "200", "healthy\n"),
        ("/healthz?verbose", "200", "\nstore: good, damages: 0\n"),
        ("/healthz?verbos", "400", "there is no parameter 'verbos'"),
        ("/metrics/detailed", "200", "# add ?family=NAME"),
        ("/metrics/detailed?family=queues", "400", "there is no family 'queues'"),
        ("/metrics/detailed?queue=q", "400", "there is no parameter 'queue'"),
        ("/metric", "404", "/metrics/per-object"),
        ("/", "404", "/metrics"),
    ] {
        let (head, body) = get(address, path).await;
        assert!(head.starts_with(&format!("HTTP/1.0 {status} ")), "{path}: {head}");
        assert!(body.contains(text), "{path}: {body}");
    }
}

#[tokio::test]
async fn an_alarm_is_told_and_the_broker_stays_ready() {
    let broker =
        TestBroker::set(&["limits.disk_free=1000000TiB", "metrics.listen=[\"127.0.0.1:0\"]"]);
    let broker = broker.await;
    let Some(address) = broker.running().addresses.metrics.first().copied() else {
        panic!("no metrics endpoint")
    };
    eventually("the disk alarm is on", async || {
        let alarm = "rabbitmq_alarms_free_disk_space_watermark";
        scrape(address, "/metrics").await.get(alarm) == Some(&1.0)
    })
    .await;
    let (head, body) = get(address, "/readyz").await;
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    assert_eq!(body, "ready, but publishers are held: low on disk\n");
    let (head, body) = get(address, "/healthz?verbose").await;
    assert!(head.starts_with("HTTP/1.0 503 "), "{head}");
    assert!(body.starts_with("unwell: publishers are held: low on disk\n"), "{body}");
    assert!(body.contains("\ndisk: alarm, "), "{body}");
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_scraper_that_keeps_its_connection() {
    let (broker, address) = broker().await;
    let Ok(mut idle) = TcpStream::connect(address).await else { panic!("no endpoint") };
    let Ok(()) = idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await else {
        panic!("no request")
    };
    let mut answer = [0; 12];
    let Ok(_) = idle.read_exact(&mut answer).await else { panic!("no answer") };
    assert_eq!(&answer, b"HTTP/1.1 200");
    let stopped = tokio::time::timeout(warren_tests::DEADLINE, broker.shutdown()).await;
    assert!(stopped.is_ok(), "the broker waits for a scraper");
}
