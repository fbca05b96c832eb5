//! Who may do what, and who may come from where. A refusal is 403 and comes before anything is looked up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use broker_core::access::PermissionSpec;
use broker_core::name::{UserName, VhostName};
use proto_amqp::control::protocol::{basic, connection, exchange, queue};
use proto_amqp::{Properties, Version};
use proto_stomp::{Command, OwnedFrame};
use warren_tests::amqp::tables::{table, text};
use warren_tests::amqp::{Options, Peer, publish};
use warren_tests::{TestBroker, outward_address, stomp};

fn add_user(broker: &TestBroker, name: &str, tags: &[&str]) {
    let access = &broker.running().broker().access;
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    access.add_user(UserName::new(name).unwrap(), name.as_bytes(), tags).unwrap();
}

fn allow(broker: &TestBroker, name: &str, configure: &str, write: &str, read: &str) {
    let access = &broker.running().broker().access;
    let spec = PermissionSpec {
        configure: configure.to_owned(),
        write: write.to_owned(),
        read: read.to_owned(),
    };
    let (user, vhost) = (UserName::new(name).unwrap(), VhostName::new("/").unwrap());
    access.set_permission(&user, &vhost, spec).unwrap();
}

/// A user who may configure `c…`, write `w…` and read `r…`, logged in, and guest beside it.
async fn restricted(broker: &TestBroker) -> (Peer, Peer) {
    add_user(broker, "alice", &[]);
    allow(broker, "alice", "^c", "^w", "^r");
    (broker.amqp_as(&Options::user("alice")).await, broker.amqp().await)
}

fn refusal(resource: &str) -> String {
    format!("ACCESS_REFUSED - access to {resource} in vhost '/' refused for user 'alice'")
}

#[tokio::test]
async fn operations_without_permission_are_403() {
    let broker = TestBroker::start().await;
    let (mut peer, mut guest) = restricted(&broker).await;
    for name in ["c", "w", "r", "x"] {
        guest.declare(1, name).await;
        guest.declare_exchange(1, name, "fanout").await;
    }
    macro_rules! refused {
        ($request:expr, $method:expr, $resource:expr) => {
            peer.send(1, $request).await;
            peer.expect_channel_error(1, 403, &refusal($resource), $method).await;
        };
    }
    let declare_exchange = |name: &str| exchange::Declare {
        exchange: name.into(),
        kind: "fanout".into(),
        ..exchange::Declare::default()
    };
    let declare = |name: &str| queue::Declare { queue: name.into(), ..queue::Declare::default() };
    let bind = |queue: &str, exchange: &str| queue::Bind {
        queue: queue.into(),
        exchange: exchange.into(),
        ..queue::Bind::default()
    };
    let unbind = |queue: &str, exchange: &str| queue::Unbind {
        queue: queue.into(),
        exchange: exchange.into(),
        ..queue::Unbind::default()
    };
    let bind_exchange = |destination: &str, source: &str| exchange::Bind {
        destination: destination.into(),
        source: source.into(),
        ..exchange::Bind::default()
    };
    let delete_exchange =
        |name: &str| exchange::Delete { exchange: name.into(), ..exchange::Delete::default() };
    let delete = |name: &str| queue::Delete { queue: name.into(), ..queue::Delete::default() };

    refused!(declare_exchange("x"), (40, 10), "exchange 'x'");
    refused!(delete_exchange("w"), (40, 20), "exchange 'w'");
    refused!(bind_exchange("c", "r"), (40, 30), "exchange 'c'");
    refused!(bind_exchange("w", "x"), (40, 30), "exchange 'x'");
    refused!(declare("w"), (50, 10), "queue 'w'");
    refused!(bind("r", "r"), (50, 20), "queue 'r'");
    refused!(bind("w", "w"), (50, 20), "exchange 'w'");
    refused!(unbind("r", "r"), (50, 50), "queue 'r'");
    refused!(unbind("w", "w"), (50, 50), "exchange 'w'");
    refused!(queue::Purge { queue: "w".into(), nowait: false }, (50, 30), "queue 'w'");
    refused!(delete("r"), (50, 40), "queue 'r'");
    refused!(basic::Get { queue: "w".into(), no_ack: true }, (60, 70), "queue 'w'");
    let consume = basic::Consume { queue: "c".into(), ..basic::Consume::default() };
    refused!(consume, (60, 20), "queue 'c'");
    peer.publish(1, "r", "", "x").await;
    peer.expect_channel_error(1, 403, &refusal("exchange 'r'"), (60, 40)).await;
    // A name that the broker makes up is a name like any other.
    peer.send(1, queue::Declare::default()).await;
    let close: proto_amqp::control::protocol::channel::Close = peer.expect(1).await;
    let text = close.reply_text.to_string();
    assert!(text.starts_with("ACCESS_REFUSED - access to queue 'amq.gen-"), "{text}");
    peer.send(1, proto_amqp::control::protocol::channel::CloseOk {}).await;
    peer.open_channel(1).await;

    // And all that is allowed.
    peer.call(1, declare_exchange("c")).await;
    peer.call(1, declare("c")).await;
    peer.call(1, bind("w", "r")).await;
    peer.call(1, bind_exchange("w", "r")).await;
    peer.call(1, unbind("w", "r")).await;
    peer.publish(1, "w", "", "x").await;
    peer.call(1, queue::Purge { queue: "r".into(), nowait: false }).await;
    assert!(peer.get(1, "r", true).await.is_none());
    peer.consume(1, "r", "tag").await;
    peer.call(1, delete("c")).await;
    peer.call(1, delete_exchange("c")).await;
}

#[tokio::test]
async fn permission_is_asked_before_anything_is_looked_up() {
    let broker = TestBroker::start().await;
    let (mut peer, _guest) = restricted(&broker).await;
    peer.publish(1, "missing", "", "x").await;
    peer.expect_channel_error(1, 403, &refusal("exchange 'missing'"), (60, 40)).await;
    peer.publish(1, "", "r", "x").await;
    peer.expect_channel_error(1, 403, &refusal("exchange 'amq.default'"), (60, 40)).await;
    peer.send(1, basic::Get { queue: "missing".into(), no_ack: true }).await;
    peer.expect_channel_error(1, 403, &refusal("queue 'missing'"), (60, 70)).await;
    let delete = queue::Delete { queue: "missing".into(), ..queue::Delete::default() };
    peer.send(1, delete).await;
    peer.expect_channel_error(1, 403, &refusal("queue 'missing'"), (50, 40)).await;
    // But what nobody may do comes first.
    let declare = queue::Declare { queue: "amq.mine".into(), ..queue::Declare::default() };
    peer.send(1, declare).await;
    let text = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'";
    peer.expect_channel_error(1, 403, text, (50, 10)).await;
    let delete = exchange::Delete { exchange: "amq.topic".into(), ..exchange::Delete::default() };
    peer.send(1, delete).await;
    let text = "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed";
    peer.expect_channel_error(1, 403, text, (40, 20)).await;
}

#[tokio::test]
async fn default_exchange_is_checked_as_amq_default() {
    let broker = TestBroker::start().await;
    add_user(&broker, "alice", &[]);
    allow(&broker, "alice", "", "^amq\\.default$", "");
    let mut peer = broker.amqp_as(&Options::user("alice")).await;
    peer.publish(1, "", "nobody", "x").await;
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn passive_declarations_need_no_permission() {
    let broker = TestBroker::start().await;
    let (mut peer, mut guest) = restricted(&broker).await;
    guest.declare(1, "x").await;
    peer.counts(1, "x").await;
    let passive = exchange::Declare {
        exchange: "amq.topic".into(),
        passive: true,
        ..exchange::Declare::default()
    };
    peer.call(1, passive).await;
}

#[tokio::test]
async fn whoever_passes_messages_on_needs_the_rights_for_that() {
    let broker = TestBroker::start().await;
    add_user(&broker, "alice", &[]);
    allow(&broker, "alice", ".", "^w", "^r");
    let mut peer = broker.amqp_as(&Options::user("alice")).await;
    let alternate = |name: &str, to: &str| exchange::Declare {
        exchange: name.into(),
        kind: "fanout".into(),
        arguments: table([("alternate-exchange", text(to))]),
        ..exchange::Declare::default()
    };
    let dead = |name: &str, to: &str| queue::Declare {
        queue: name.into(),
        arguments: table([("x-dead-letter-exchange", text(to))]),
        ..queue::Declare::default()
    };
    peer.send(1, alternate("x", "w")).await;
    peer.expect_channel_error(1, 403, &refusal("exchange 'x'"), (40, 10)).await;
    peer.send(1, alternate("r", "x")).await;
    peer.expect_channel_error(1, 403, &refusal("exchange 'x'"), (40, 10)).await;
    peer.send(1, dead("x", "w")).await;
    peer.expect_channel_error(1, 403, &refusal("queue 'x'"), (50, 10)).await;
    peer.send(1, dead("r", "x")).await;
    peer.expect_channel_error(1, 403, &refusal("exchange 'x'"), (50, 10)).await;
    peer.call(1, alternate("r", "w")).await;
    peer.call(1, dead("r", "w")).await;
    // What is there already is only compared.
    allow(&broker, "alice", ".", "", "");
    peer.call(1, alternate("r", "w")).await;
    peer.call(1, dead("r", "w")).await;
}

#[tokio::test]
async fn a_permission_that_is_taken_away_is_missed_at_once() {
    let broker = TestBroker::start().await;
    let (mut peer, mut guest) = restricted(&broker).await;
    guest.declare_exchange(1, "w", "fanout").await;
    peer.publish(1, "w", "", "x").await;
    peer.expect_nothing(1).await;
    allow(&broker, "alice", "", "", "");
    peer.publish(1, "w", "", "x").await;
    peer.expect_channel_error(1, 403, &refusal("exchange 'w'"), (60, 40)).await;
}

#[tokio::test]
async fn impersonators_may_set_any_user_id() {
    let broker = TestBroker::start().await;
    add_user(&broker, "alice", &["impersonator"]);
    allow(&broker, "alice", ".*", ".*", ".*");
    let mut peer = broker.amqp_as(&Options::user("alice")).await;
    peer.declare(1, "q").await;
    let properties = Properties { user_id: Some(b"boss"), ..Properties::default() };
    peer.publish_with(1, publish("", "q"), &properties, b"x").await;
    assert_eq!(peer.get(1, "q", true).await.unwrap().decoded().user_id, Some(&b"boss"[..]));
}

#[tokio::test]
async fn guest_is_refused_from_elsewhere() {
    const EVERYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let Some(outward) = outward_address() else {
        eprintln!("not tried: this machine has no address but its loopback");
        return;
    };
    let broker = TestBroker::with(|settings| {
        settings.amqp.listen = vec![EVERYWHERE].into();
        settings.stomp.listen = vec![EVERYWHERE].into();
    })
    .await;
    add_user(&broker, "alice", &[]);
    allow(&broker, "alice", ".*", ".*", ".*");
    let amqp = |ip| SocketAddr::new(ip, broker.amqp_address().port());
    let here = Ipv4Addr::LOCALHOST.into();

    // The right password, and yet.
    let mut guest = Peer::connect(amqp(outward), Version::V0_9_1).await;
    guest.start().await;
    guest.send(0, Options::default().start_ok()).await;
    let close: connection::Close = guest.expect(0).await;
    assert_eq!(close.reply_code, 403);
    assert_eq!(
        close.reply_text.as_str(),
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker \
         logfile."
    );
    let address = SocketAddr::new(outward, broker.stomp_address().port());
    let mut guest = stomp::Peer::connect(address).await;
    guest.send(&OwnedFrame::new(Command::Connect).header("accept-version", "1.2")).await;
    let error = guest.expect_error("Bad CONNECT").await;
    assert_eq!(error.body, b"non-loopback access denied");

    for (ip, user) in [(outward, "alice"), (here, "alice"), (here, "guest")] {
        let mut peer = Peer::connect(amqp(ip), Version::V0_9_1).await;
        peer.log_in(&Options::user(user)).await;
        peer.close().await;
    }
}
