//! What a user may not do ends the connection, and says what it was.

use super::broker::Broker;
use super::peer::Peer;

async fn log_in(broker: &Broker) -> Peer {
    broker.log_in_with("accept-version:1.2\nlogin:u\npasscode:p\n").await
}

async fn is_refused(broker: &Broker, frame: &str, resource: &str) {
    let mut peer = log_in(broker).await;
    peer.send(frame).await;
    let body = format!("ACCESS_REFUSED - access to {resource} in vhost '/' refused for user 'u'");
    peer.expect_last_error("access_refused", &body).await;
}

#[tokio::test]
async fn each_frame_needs_the_permissions_of_what_it_stands_for() {
    let broker = Broker::start().await;
    let mut guest = broker.log_in("1.2").await;
    guest.ask("SEND\ndestination:/queue/there\n\n").await;
    let subscribe = "SUBSCRIBE\nid:0\ndestination:";

    broker.add_user("", ".*", ".*").await;
    is_refused(&broker, "SEND\ndestination:/queue/c\n\n\0", "queue 'c'").await;
    is_refused(&broker, &format!("{subscribe}/queue/c\n\n\0"), "queue 'c'").await;
    let named = format!("{subscribe}/topic/k\nx-queue-name:q\n\n\0");
    is_refused(&broker, &named, "queue 'q'").await;

    broker.permit(".*", "", ".*").await;
    let default = "exchange 'amq.default'";
    is_refused(&broker, "SEND\ndestination:/queue/w\n\n\0", default).await;
    is_refused(&broker, "SEND\ndestination:/amq/queue/there\n\n\0", default).await;
    is_refused(&broker, "SEND\ndestination:/topic/k\n\n\0", "exchange 'amq.topic'").await;
    is_refused(&broker, "SEND\ndestination:/exchange/none/k\n\n\0", "exchange 'none'").await;
    is_refused(&broker, &named, "queue 'q'").await;

    broker.permit(".*", ".*", "").await;
    is_refused(&broker, &format!("{subscribe}/queue/r\n\n\0"), "queue 'r'").await;
    is_refused(&broker, &format!("{subscribe}/amq/queue/there\n\n\0"), "queue 'there'").await;
    is_refused(&broker, &named, "exchange 'amq.topic'").await;
    let dead_letters = "SEND\ndestination:/queue/d\nx-dead-letter-exchange:amq.fanout\n\n\0";
    is_refused(&broker, dead_letters, "queue 'd'").await;
}

#[tokio::test]
async fn a_permission_that_is_taken_away_counts_at_once() {
    let broker = Broker::start().await;
    broker.add_user(".*", ".*", ".*").await;
    let mut peer = log_in(&broker).await;
    peer.ask("SEND\ndestination:/queue/p\n\n1").await;
    broker.permit(".*", "", ".*").await;
    peer.send("SEND\ndestination:/queue/p\n\n2\0").await;
    peer.expect_last_error(
        "access_refused",
        "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'u'",
    )
    .await;
}

#[tokio::test]
async fn a_refused_subscription_leaves_no_queue_behind() {
    let broker = Broker::start().await;
    broker.add_user(".*", "", ".*").await;
    let subscribe = "SUBSCRIBE\nid:0\ndestination:/topic/k\nx-queue-name:q\n";
    let quorum = "durable:true\nauto-delete:false\nx-queue-type:quorum\n";
    for kind in ["", quorum] {
        is_refused(&broker, &format!("{subscribe}{kind}\n\0"), "queue 'q'").await;
        assert!(broker.list("queues", r#""name""#).await.is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn a_refused_subscription_leaves_a_queue_of_others_alone() {
    let broker = Broker::start().await;
    let subscribe =
        "SUBSCRIBE\nid:0\ndestination:/topic/k\nx-queue-name:q\ndurable:true\nauto-delete:false\n";
    let mut guest = broker.log_in("1.2").await;
    guest.ask(&format!("{subscribe}\n")).await;
    guest.ask("UNSUBSCRIBE\nid:0\n\n").await;
    broker.add_user(".*", "", ".*").await;
    is_refused(&broker, &format!("{subscribe}\n\0"), "queue 'q'").await;
    assert_eq!(broker.list("queues", r#""name""#).await, [r#"["q"]"#]);
}

#[tokio::test]
async fn without_a_permission_in_the_virtual_host_there_is_no_way_in() {
    let broker = Broker::start().await;
    broker.control(r#"{"command":"add_vhost","vhost":"other"}"#).await;
    let mut peer = broker.connect().await;
    peer.send("CONNECT\nhost:other\n\n\0").await;
    peer.expect_last_error("Bad CONNECT", "Virtual host 'other' access denied").await;
    broker.control(
        r#"{"command":"set_permissions","vhost":"other","user":"guest","configure":".*","write":".*","read":".*"}"#,
    )
    .await;
    broker.log_in_with("host:other\n").await;
}

#[tokio::test]
async fn an_impersonator_may_use_another_user_id() {
    let broker = Broker::start().await;
    broker.add_user(".*", ".*", ".*").await;
    broker.control(r#"{"command":"set_user_tags","user":"u","tags":["impersonator"]}"#).await;
    let mut peer = log_in(&broker).await;
    peer.ask("SEND\ndestination:/queue/i\nuser-id:somebody\n\n").await;
}
