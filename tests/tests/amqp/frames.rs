//! Frames and contents, well formed and otherwise (AMQP 0-9-1 §4.2.3, §4.2.6).

use proto_amqp::control::protocol::{basic, channel, connection, exchange, queue};
use proto_amqp::properties;
use proto_amqp::{MethodId, Properties, Version};
use warren_tests::TestBroker;
use warren_tests::amqp::{Method as _, Options, Peer, frame_of, method_payload, publish};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// The payload of a content header without properties.
fn header(class: u16, weight: u16, body_size: u64) -> Vec<u8> {
    let (class, weight) = (class.to_be_bytes(), weight.to_be_bytes());
    [&class[..], &weight, &body_size.to_be_bytes(), &properties::EMPTY].concat()
}

/// The octets of `basic.publish` on channel 1 to the queue `q`, without its content.
fn publish_method(peer: &Peer) -> Vec<u8> {
    peer.encoded(1, &publish("", "q").into_class())
}

/// Sends octets to a new connection with channel 1 open, and expects it closed so.
async fn check(broker: &TestBroker, octets: &[u8], code: u16, text: &str, method: (u16, u16)) {
    let mut peer = broker.amqp().await;
    peer.send_octets(octets).await;
    peer.expect_connection_error(code, text, method).await;
}

#[tokio::test]
async fn bad_frame_end_is_501() {
    let broker = TestBroker::start().await;
    let mut octets = frame_of(HEARTBEAT, 0, b"");
    octets[7] = 0xCD;
    let text = "FRAME_ERROR - type 8, all octets = <<>>: {invalid_frame_end_marker,205}";
    check(&broker, &octets, 501, text, (0, 0)).await;
    let mut octets = frame_of(METHOD, 1, &[0, 20, 0, 20, 1]);
    octets[12] = 0;
    let text = "FRAME_ERROR - type 1, all octets = <<0,20,0,20,1>>: {invalid_frame_end_marker,0}";
    check(&broker, &octets, 501, text, (0, 0)).await;
}

#[tokio::test]
async fn oversized_frame_is_501_before_its_payload() {
    let broker = TestBroker::start().await;
    let text = "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,131073,131064}";
    check(&broker, &[3, 0, 1, 0, 2, 0, 1], 501, text, (0, 0)).await;
    let text = "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,4294967295,131064}";
    check(&broker, &[1, 0, 1, 255, 255, 255, 255], 501, text, (0, 0)).await;
}

#[tokio::test]
async fn close_arrives_although_the_rest_of_the_oversized_frame_is_sent() {
    // Closing a socket with unread octets resets the connection, and the reset can overtake what was
    // written: the broker has to read on until the peer has understood.
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send_octets(&[3, 0, 1, 0, 16, 0, 0]).await;
    for _ in 0..64 {
        peer.send_octets(&[0; 16 * 1024]).await;
    }
    let text = "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,1048576,131064}";
    peer.expect_close(501, text, (0, 0)).await;
    peer.send_octets(&[0xCE]).await;
    peer.send(0, connection::CloseOk {}).await;
    peer.expect_end().await;
}

#[tokio::test]
async fn payload_may_be_eight_octets_longer_than_the_frame_max_allows() {
    let broker = TestBroker::start().await;
    let options = Options { frame_max: Some(4096), ..Options::default() };
    let mut peer = broker.amqp_as(&options).await;
    peer.declare(1, "q").await;
    let mut octets = publish_method(&peer);
    octets.extend(frame_of(HEADER, 1, &header(60, 0, 4096)));
    octets.extend(frame_of(BODY, 1, &[b'x'; 4096]));
    peer.send_octets(&octets).await;
    let got = peer.get(1, "q", true).await.unwrap();
    assert_eq!(got.body.len(), 4096);
    let mut octets = publish_method(&peer);
    octets.extend(frame_of(HEADER, 1, &header(60, 0, 4097)));
    octets.extend(frame_of(BODY, 1, &[b'x'; 4097]));
    peer.send_octets(&octets).await;
    let text = "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4097,4088}";
    peer.expect_connection_error(501, text, (0, 0)).await;
}

#[tokio::test]
async fn unknown_frame_type_is_501() {
    let broker = TestBroker::start().await;
    for kind in [0, 4, 5, 6, 7, 9, 255] {
        let text = format!("FRAME_ERROR - type {kind}, all octets = <<1,2>>: unknown_frame");
        check(&broker, &frame_of(kind, 0, &[1, 2]), 501, &text, (0, 0)).await;
    }
    let text = "FRAME_ERROR - type 8, first 16 octets = <<0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0>>: \
                unknown_frame";
    check(&broker, &frame_of(HEARTBEAT, 0, &[0; 17]), 501, text, (0, 0)).await;
}

#[tokio::test]
async fn heartbeat_on_a_channel_is_an_error() {
    let broker = TestBroker::start().await;
    let text = "UNEXPECTED_FRAME - type 8, all octets = <<>>";
    check(&broker, &frame_of(HEARTBEAT, 1, b""), 505, text, (0, 0)).await;
}

#[tokio::test]
async fn content_on_channel_0_is_505() {
    let broker = TestBroker::start().await;
    let text = "UNEXPECTED_FRAME - type 3, all octets = <<120>>";
    check(&broker, &frame_of(BODY, 0, b"x"), 505, text, (0, 0)).await;
    let text = "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>";
    check(&broker, &frame_of(HEADER, 0, &header(60, 0, 0)), 505, text, (0, 0)).await;
}

#[tokio::test]
async fn session_in_single_octets_works() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let octets = peer.encoded_publish(1, publish("", "q"), &Properties::default(), b"hello");
    for octet in octets {
        peer.send_octets(&[octet]).await;
    }
    assert_eq!(peer.drain(1, "q").await, ["hello"]);
}

#[tokio::test]
async fn frames_are_understood_wherever_they_are_cut() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let headers = [0x20, 0x00, 0, 0, 0, 4, 1, b'a', b't', 1];
    let properties = properties::summarise(&headers).unwrap();
    let one = peer.encoded_publish(1, publish("", "q"), &properties, b"first");
    let both = [one, peer.encoded_publish(1, publish("", "q"), &properties, b"second")].concat();
    for cut in 1..both.len() {
        let (front, back) = both.split_at(cut);
        peer.send_octets(front).await;
        // The broker has read the front when it answers on another connection's task; here it is enough
        // that the two parts are two writes.
        tokio::task::yield_now().await;
        peer.send_octets(back).await;
    }
    let bodies = peer.drain(1, "q").await;
    assert_eq!(bodies.len(), 2 * (both.len() - 1));
    for pair in bodies.chunks(2) {
        assert_eq!(pair, ["first", "second"]);
    }
}

#[tokio::test]
async fn unknown_method_is_503() {
    let broker = TestBroker::start().await;
    for (class, method) in [(60, 99), (99, 1), (50, 12), (10, 99), (60, 200)] {
        let payload = method_payload(MethodId { class, method }, b"");
        let text = "COMMAND_INVALID - unimplemented method";
        check(&broker, &frame_of(METHOD, 1, &payload), 503, text, (class, method)).await;
    }
}

#[tokio::test]
async fn arguments_cut_short_are_501() {
    let broker = TestBroker::start().await;
    for (class, method, arguments, text) in [
        (50, 10, &b"\0\0\x05abc"[..], "cannot decode <<0,0,5,97,98,99>>"),
        (60, 40, b"\0\0\x01", "cannot decode <<0,0,1>>"),
        (60, 80, b"\0\0", "cannot decode <<0,0>>"),
        (40, 10, b"\0\0\0\0\0\0\0\0\x09\x01ax", "cannot decode <<0,0,0,0,0,0,0,0,9,1,97,120>>"),
    ] {
        let payload = method_payload(MethodId { class, method }, arguments);
        let text = format!("FRAME_ERROR - {text}");
        check(&broker, &frame_of(METHOD, 1, &payload), 501, &text, (class, method)).await;
    }
}

#[tokio::test]
async fn payload_without_a_method_is_501() {
    let broker = TestBroker::start().await;
    let text = "FRAME_ERROR - type 1, all octets = <<0,60,0>>: unknown_frame";
    check(&broker, &frame_of(METHOD, 1, &[0, 60, 0]), 501, text, (0, 0)).await;
}

#[tokio::test]
async fn short_strings_that_are_not_utf8_are_501() {
    let broker = TestBroker::start().await;
    let declare = method_payload(MethodId { class: 50, method: 10 }, b"\0\0\x01\xff\0\0\0\0\0");
    let text = "FRAME_ERROR - Malformed UTF-8 in shortstr";
    check(&broker, &frame_of(METHOD, 1, &declare), 501, text, (0, 0)).await;
}

#[tokio::test]
async fn deeply_nested_table_is_refused() {
    let broker = TestBroker::start().await;
    // Tables within tables, far deeper than a stack can follow.
    let mut table = Vec::new();
    for _ in 0..2000 {
        let len = u32::try_from(table.len()).unwrap();
        table = [b"\x01aF", &len.to_be_bytes()[..], &table].concat();
    }
    let len = u32::try_from(table.len()).unwrap();
    let arguments = [b"\0\0\x01q\0", &len.to_be_bytes()[..], &table].concat();
    let payload = method_payload(MethodId { class: 50, method: 10 }, &arguments);
    let text = "SYNTAX_ERROR - field table nested deeper than 32 levels";
    check(&broker, &frame_of(METHOD, 1, &payload), 502, text, (50, 10)).await;
}

#[tokio::test]
async fn server_only_method_is_503() {
    let broker = TestBroker::start().await;
    let deliver = basic::Deliver::default().into_class();
    let get_empty = basic::GetEmpty {}.into_class();
    let cancel_ok = basic::CancelOk::default().into_class();
    let declare_ok = queue::DeclareOk::default().into_class();
    let exchange_ok = exchange::DeclareOk {}.into_class();
    let flow_ok = channel::FlowOk { active: true }.into_class();
    for class in [deliver, get_empty, cancel_ok, declare_ok, exchange_ok, flow_ok] {
        let method = (class.get_amqp_class_id(), class.get_amqp_method_id());
        let mut peer = broker.amqp().await;
        let octets = peer.encoded(1, &class);
        peer.send_octets(&octets).await;
        let text = "COMMAND_INVALID - unimplemented method";
        peer.expect_connection_error(503, text, method).await;
    }
}

#[tokio::test]
async fn methods_of_the_connection_on_a_channel_are_503() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let update = connection::UpdateSecret { new_secret: "new".into(), reason: "none".into() };
    peer.send(1, update).await;
    let text = "COMMAND_INVALID - unimplemented method";
    peer.expect_connection_error(503, text, (10, 70)).await;
}

#[tokio::test]
async fn methods_of_a_channel_on_channel_0_are_504() {
    let broker = TestBroker::start().await;
    let text = "CHANNEL_ERROR - unexpected method in connection state running";
    let mut peer = broker.amqp().await;
    peer.send(0, channel::Open {}).await;
    peer.expect_connection_error(504, text, (20, 10)).await;
    let mut peer = broker.amqp().await;
    peer.send(0, queue::Declare::default()).await;
    peer.expect_connection_error(504, text, (50, 10)).await;
}

#[tokio::test]
async fn header_without_publish_is_505() {
    let broker = TestBroker::start().await;
    let text = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
    check(&broker, &frame_of(HEADER, 1, &header(60, 0, 1)), 505, text, (0, 0)).await;
    check(&broker, &frame_of(BODY, 1, b"x"), 505, text, (0, 0)).await;
    // On a channel that was never opened too.
    check(&broker, &frame_of(HEADER, 5, &header(60, 0, 1)), 505, text, (0, 0)).await;
    check(&broker, &frame_of(BODY, 5, b"x"), 505, text, (0, 0)).await;
}

#[tokio::test]
async fn method_between_content_frames_is_505() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let method = publish_method(&peer);
    let flow = peer.encoded(1, &channel::Flow { active: true }.into_class());
    peer.send_octets(&[&method[..], &flow].concat()).await;
    let text = "UNEXPECTED_FRAME - expected content header for class 60, got non content header \
                frame instead";
    peer.expect_connection_error(505, text, (60, 40)).await;

    let announced = [&method[..], &frame_of(HEADER, 1, &header(60, 0, 5))].concat();
    let text = "UNEXPECTED_FRAME - expected content body, got non content body frame instead";
    check(&broker, &[&announced[..], &flow].concat(), 505, text, (60, 40)).await;
    check(&broker, &[&announced[..], &method].concat(), 505, text, (60, 40)).await;
    let twice = [&announced[..], &frame_of(HEADER, 1, &header(60, 0, 5))].concat();
    check(&broker, &twice, 505, text, (60, 40)).await;
}

#[tokio::test]
async fn body_when_a_header_is_due_is_505() {
    let broker = TestBroker::start().await;
    let peer = broker.amqp().await;
    let octets = [&publish_method(&peer)[..], &frame_of(BODY, 1, b"x")].concat();
    let text = "UNEXPECTED_FRAME - expected content header for class 60, got non content header \
                frame instead";
    check(&broker, &octets, 505, text, (60, 40)).await;
}

#[tokio::test]
async fn content_header_of_wrong_class_is_505() {
    let broker = TestBroker::start().await;
    let peer = broker.amqp().await;
    let octets = [&publish_method(&peer)[..], &frame_of(HEADER, 1, &header(50, 0, 0))].concat();
    let text =
        "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead";
    check(&broker, &octets, 505, text, (60, 40)).await;
}

#[tokio::test]
async fn content_header_with_weight_is_505() {
    let broker = TestBroker::start().await;
    let peer = broker.amqp().await;
    let octets = [&publish_method(&peer)[..], &frame_of(HEADER, 1, &header(60, 1, 0))].concat();
    let text = "UNEXPECTED_FRAME - expected content header for class 60, got non content header \
                frame instead";
    check(&broker, &octets, 505, text, (60, 40)).await;
}

#[tokio::test]
async fn malformed_properties_are_502() {
    let broker = TestBroker::start().await;
    let peer = broker.amqp().await;
    let method = publish_method(&peer);
    for (list, text) in [
        (&b"\x80\x00\x05ab"[..], "SYNTAX_ERROR - property list ends within content-type"),
        (b"\x00\x01\x00\x00", "SYNTAX_ERROR - property flags continue in a second word"),
        (b"\x00\x00xy", "SYNTAX_ERROR - octets after the last property: 2"),
    ] {
        let fixed = [&60_u16.to_be_bytes()[..], &[0, 0], &0_u64.to_be_bytes(), list].concat();
        let octets = [&method[..], &frame_of(HEADER, 1, &fixed)].concat();
        check(&broker, &octets, 502, text, (60, 40)).await;
    }
}

#[tokio::test]
async fn body_longer_than_announced_is_an_error() {
    let broker = TestBroker::start().await;
    let peer = broker.amqp().await;
    let announced = [&publish_method(&peer)[..], &frame_of(HEADER, 1, &header(60, 0, 3))].concat();
    let text = "FRAME_ERROR - content body of 4 octets is longer than the 3 declared";
    let octets = [&announced[..], &frame_of(BODY, 1, b"four")].concat();
    check(&broker, &octets, 501, text, (60, 40)).await;
    let pieces = [frame_of(BODY, 1, b"ab"), frame_of(BODY, 1, b"cd")].concat();
    check(&broker, &[announced, pieces].concat(), 501, text, (60, 40)).await;
}

#[tokio::test]
async fn body_after_an_empty_content_is_505() {
    let broker = TestBroker::start().await;
    let peer = broker.amqp().await;
    let empty = [&publish_method(&peer)[..], &frame_of(HEADER, 1, &header(60, 0, 0))].concat();
    let octets = [&empty[..], &frame_of(BODY, 1, b"x")].concat();
    let text = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
    check(&broker, &octets, 505, text, (0, 0)).await;
}

#[tokio::test]
async fn empty_body_has_no_frame() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.consume(1, "q", "tag").await;
    peer.publish(1, "", "q", "").await;
    assert_eq!(peer.expect_text(1).await, "");
    // Nor does one follow: the next frame of the channel is a method.
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn empty_body_frames_in_between_are_accepted() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let mut octets = publish_method(&peer);
    octets.extend(frame_of(HEADER, 1, &header(60, 0, 4)));
    for piece in [&b""[..], b"ab", b"", b"cd"] {
        octets.extend(frame_of(BODY, 1, piece));
    }
    peer.send_octets(&octets).await;
    assert_eq!(peer.drain(1, "q").await, ["abcd"]);
}

#[tokio::test]
async fn contents_of_two_channels_interleave() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.open_channel(2).await;
    peer.declare(1, "q").await;
    let mut octets = publish_method(&peer);
    octets.extend(peer.encoded(2, &publish("", "q").into_class()));
    octets.extend(frame_of(HEADER, 2, &header(60, 0, 4)));
    octets.extend(frame_of(HEADER, 1, &header(60, 0, 4)));
    for (channel, piece) in [(1, b"on"), (2, b"TW"), (1, b"e."), (2, b"O.")] {
        octets.extend(frame_of(BODY, channel, piece));
    }
    peer.send_octets(&octets).await;
    assert_eq!(peer.drain(1, "q").await, ["one.", "TWO."]);
}

#[tokio::test]
async fn deliveries_respect_the_receivers_frame_max() {
    let broker = TestBroker::start().await;
    let mut publisher = broker.amqp().await;
    let narrow = Options { frame_max: Some(4096), ..Options::default() };
    let mut narrow = broker.amqp_as(&narrow).await;
    publisher.declare(1, "q").await;
    for len in [0, 1, 4087, 4088, 4089, 8176, 100_000, 300_000, 1_000_003] {
        let body: Vec<u8> = (0..len).map(|octet: u32| octet.to_le_bytes()[0]).collect();
        let method = publish("", "q");
        publisher.publish_with(1, method, &Properties::default(), &body).await;
        publisher.expect_nothing(1).await;
        // The peer checks each frame against what it agreed to.
        let got = narrow.get(1, "q", true).await.unwrap();
        assert!(got.body == body, "{len} octets came as {}", got.body.len());
    }
}

#[tokio::test]
async fn frames_before_tuning_are_small() {
    // The end that comes is not that of the time to log in.
    let broker = TestBroker::set(&["amqp.handshake_timeout=10m"]).await;
    let mut peer = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    peer.start().await;
    // Announced, not sent: nobody waits for 64 KiB of a stranger.
    peer.send_octets(&[METHOD, 0, 0, 0, 1, 0, 0]).await;
    peer.expect_end().await;
}
