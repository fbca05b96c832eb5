//! What the walk counts, wherever its input is cut.

use proto_amqp::basic::{self, Deliver};
use proto_amqp::{ChannelId, properties};
use proto_stomp::{FrameEnd, FrameWriter};

use super::*;

const FRAME_MAX: u32 = 4096;
const ONE: ChannelId = ChannelId(1);

/// An event that outlives its input.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Tag(u64, u64),
    Id(Vec<u8>, u64),
    Counted(u64),
    Settled(u64, bool, bool),
    Goodbye,
}

fn seen(event: Event<'_>) -> Seen {
    match event {
        Event::Delivered { handle: Handle::Tag(tag), stamp } => Seen::Tag(tag, stamp),
        Event::Delivered { handle: Handle::Id(id), stamp } => Seen::Id(id.to_vec(), stamp),
        Event::Delivered { handle: Handle::Unneeded, stamp } => Seen::Counted(stamp),
        Event::Settled { number, multiple, refused } => Seen::Settled(number, multiple, refused),
        Event::Goodbye => Seen::Goodbye,
    }
}

fn deliver(out: &mut Vec<u8>, tag: u64, body: &[u8]) {
    let deliver = Deliver {
        consumer_tag: b"c0",
        delivery_tag: tag,
        redelivered: false,
        exchange: b"",
        routing_key: b"q",
    };
    basic::write_deliver(out, ONE, &deliver);
    basic::write_content_header(out, ONE, body.len() as u64, &properties::EMPTY);
    basic::write_body(out, ONE, body, FRAME_MAX);
}

/// Feeds `input` in two pieces, cut at `cut`, as a socket would.
fn walked(walk: &mut Walk, input: &[u8], cut: usize) -> Vec<Seen> {
    let mut events = Vec::new();
    let consumed = walk.walk(&input[..cut], &mut |event| events.push(seen(event))).unwrap();
    let rest = walk.walk(&input[consumed..], &mut |event| events.push(seen(event))).unwrap();
    assert_eq!(consumed + rest, input.len(), "cut at {cut}");
    events
}

fn stamped(stamp: u64, len: usize) -> Vec<u8> {
    let mut body = stamp.to_be_bytes().to_vec();
    body.resize(len, b'w');
    body
}

#[test]
fn amqp_deliveries_are_counted_wherever_the_octets_are_cut() {
    let mut input = Vec::new();
    deliver(&mut input, 1, b"");
    deliver(&mut input, 2, &stamped(77, 8));
    deliver(&mut input, 3, b"short");
    // Three body frames; the stamp stands in the first.
    deliver(&mut input, 4, &stamped(78, 10_000));
    input.extend(frame::HEARTBEAT_FRAME);
    basic::write_ack(&mut input, ONE, 9, true);
    basic::write_nack(&mut input, ONE, 10, false);
    let expected = [
        Seen::Tag(1, 0),
        Seen::Tag(2, 77),
        Seen::Tag(3, 0),
        Seen::Tag(4, 78),
        Seen::Settled(9, true, false),
        Seen::Settled(10, false, true),
    ];
    for cut in 0..=input.len() {
        let mut walk = Walk::Amqp(AmqpWalk::new(FRAME_MAX, Handles::Read));
        assert_eq!(walked(&mut walk, &input, cut), expected, "cut at {cut}");
    }
}

#[test]
fn without_handles_deliveries_are_only_counted() {
    let mut input = Vec::new();
    deliver(&mut input, 5, &stamped(1, 16));
    let mut walk = Walk::Amqp(AmqpWalk::new(FRAME_MAX, Handles::Skip));
    assert_eq!(walked(&mut walk, &input, 0), [Seen::Counted(1)]);
}

fn amqp_error(input: &[u8]) -> BenchError {
    Walk::Amqp(AmqpWalk::new(FRAME_MAX, Handles::Skip)).walk(input, &mut |_| ()).unwrap_err()
}

fn control(class: &AMQPClass) -> Vec<u8> {
    let mut frame = Vec::new();
    proto_amqp::control::encode(ONE, class, AmqpVersion::V0_9_1, &mut frame).unwrap();
    frame
}

#[test]
fn a_close_ends_the_walk_with_the_brokers_words() {
    let close = AMQPClass::Channel(channel::AMQPMethod::Close(channel::Close {
        reply_code: 404,
        reply_text: "NOT_FOUND - no queue 'q'".into(),
        class_id: 60,
        method_id: 40,
    }));
    let said = amqp_error(&control(&close)).to_string();
    assert!(said.contains("404 NOT_FOUND - no queue 'q'"), "{said}");
}

#[test]
fn a_cancelled_consumer_is_an_error_and_a_goodbye_is_not() {
    let cancel = AMQPClass::Basic(amqp_basic::AMQPMethod::Cancel(amqp_basic::Cancel {
        consumer_tag: "c0".into(),
        nowait: true,
    }));
    assert!(matches!(amqp_error(&control(&cancel)), BenchError::Closed { .. }));
    let close_ok = AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}));
    let mut walk = Walk::Amqp(AmqpWalk::new(FRAME_MAX, Handles::Skip));
    assert_eq!(walked(&mut walk, &control(&close_ok), 0), [Seen::Goodbye]);
}

#[test]
fn frames_out_of_turn_and_bodies_too_long_are_protocol_errors() {
    let mut whole = Vec::new();
    deliver(&mut whole, 1, b"body");
    let method_len = frame::parse(&whole, FRAME_MAX).unwrap().unwrap().wire_len;
    // The header without its method, and the method twice.
    for input in [&whole[method_len..], &[&whole[..method_len], &whole[..]].concat()] {
        assert!(matches!(amqp_error(input), BenchError::Protocol(_)));
    }
    let mut too_long = whole[..method_len].to_vec();
    basic::write_content_header(&mut too_long, ONE, 3, &properties::EMPTY);
    basic::write_body(&mut too_long, ONE, b"four", FRAME_MAX);
    assert!(amqp_error(&too_long).to_string().contains("longer"));
}

fn message(out: &mut Vec<u8>, ack: &str, body: &[u8]) {
    let mut frame = FrameWriter::begin(out, Command::Message);
    frame.header(b"message-id", b"m");
    if !ack.is_empty() {
        frame.header(b"ack", ack.as_bytes());
    }
    frame.finish(body, FrameEnd::NulLf);
}

fn receipt(out: &mut Vec<u8>, id: &str) {
    let mut frame = FrameWriter::begin(out, Command::Receipt);
    frame.header(b"receipt-id", id.as_bytes());
    frame.finish(b"", FrameEnd::NulLf);
}

#[test]
fn stomp_messages_and_receipts_are_counted_wherever_the_octets_are_cut() {
    let mut input = Vec::new();
    message(&mut input, "a:1", &stamped(0x0001_0000_0000_0000, 16));
    receipt(&mut input, "0000000000012");
    message(&mut input, "a2", b"short");
    receipt(&mut input, FAREWELL_RECEIPT);
    let expected = [
        Seen::Id(b"a:1".to_vec(), 0x0001_0000_0000_0000),
        Seen::Settled(12, false, false),
        Seen::Id(b"a2".to_vec(), 0),
        Seen::Goodbye,
    ];
    for cut in 0..=input.len() {
        let mut walk = Walk::Stomp(Box::new(StompWalk::new(Handles::Read)));
        assert_eq!(walked(&mut walk, &input, cut), expected, "cut at {cut}");
    }
}

#[test]
fn what_stomp_cannot_go_on_after_is_an_error() {
    let error = |input: &[u8]| {
        Walk::Stomp(Box::new(StompWalk::new(Handles::Read))).walk(input, &mut |_| ()).unwrap_err()
    };
    let mut input = Vec::new();
    message(&mut input, "", b"");
    assert!(error(&input).to_string().contains("`ack`"));
    let mut input = Vec::new();
    receipt(&mut input, "never-asked-for");
    assert!(error(&input).to_string().contains("never-asked-for"));
    let said = error(b"ERROR\nmessage:Bad CONNECT\n\nAccess refused\n\0").to_string();
    assert!(said.contains("Bad CONNECT: Access refused"), "{said}");
}
