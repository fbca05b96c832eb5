//! That a ring holds what the codecs read back, and that patches land where they should.

use proto_amqp::frame::{self, FrameKind};
use proto_amqp::method::{self, Method};
use proto_amqp::{ContentHeader, Version};
use proto_stomp::{Decoded, Decoder, HeaderBlock, Limits, ParsedCommand};

use super::*;

fn shape<'a>(keys: &'a [String], body_len: usize) -> Shape<'a> {
    Shape { exchange: "x", keys, body_len, persistent: true, receipts: true }
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("key-{n:04}")).collect()
}

/// Routing key, property list and body of every publish.
fn read_amqp(mut octets: &[u8]) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let mut publishes: Vec<(String, Vec<u8>, Vec<u8>)> = Vec::new();
    while let Some(frame) = frame::parse(octets, 4096).unwrap() {
        assert_eq!(frame.channel, CHANNEL);
        match frame.kind {
            FrameKind::Method => {
                let Method::Publish(publish) =
                    method::decode(frame.payload, Version::V0_9_1).unwrap()
                else {
                    panic!("a method that is no publish");
                };
                assert_eq!(publish.exchange, b"x");
                let key = String::from_utf8(publish.routing_key.to_vec()).unwrap();
                publishes.push((key, Vec::new(), Vec::new()));
            }
            FrameKind::Header => {
                let header = ContentHeader::parse(frame.payload).unwrap();
                publishes.last_mut().unwrap().1 = header.properties.to_vec();
            }
            FrameKind::Body => publishes.last_mut().unwrap().2.extend(frame.payload),
            FrameKind::Heartbeat => panic!("a heartbeat"),
        }
        octets = &octets[frame.wire_len..];
    }
    assert!(octets.is_empty());
    publishes
}

#[test]
fn an_amqp_ring_holds_every_key_in_turn() {
    let keys = keys(3);
    let ring = Ring::amqp(shape(&keys, 1024), 4096).unwrap();
    let publishes = read_amqp(ring.octets());
    assert_eq!(publishes.len(), ring.count());
    assert!(ring.octets().len() >= RING_LEN);
    assert_eq!(ring.count() % 3, 0);
    for ((key, properties, body), expected) in publishes.iter().zip(keys.iter().cycle()) {
        assert_eq!(key, expected);
        assert_eq!(properties, &[0x10, 0, 2]);
        assert_eq!(body.len(), 1024);
    }
}

#[test]
fn a_stamp_changes_one_body_and_nothing_else() {
    let keys = keys(2);
    // Two body frames each.
    let mut ring = Ring::amqp(shape(&keys, 5000), 4096).unwrap();
    ring.stamp(3, 0x0102_0304_0506_0708);
    for (index, (_, _, body)) in read_amqp(ring.octets()).iter().enumerate() {
        let stamp = u64::from_be_bytes(*body.first_chunk().unwrap());
        assert_eq!(stamp, if index == 3 { 0x0102_0304_0506_0708 } else { 0 });
        assert!(body[STAMP_LEN..].iter().all(|&octet| octet == FILLER));
    }
}

#[test]
fn a_body_too_short_for_a_stamp_is_left_alone() {
    let keys = keys(1);
    let mut ring = Ring::amqp(shape(&keys, 7), 4096).unwrap();
    let before = ring.octets().to_vec();
    ring.stamp(0, u64::MAX);
    assert_eq!(ring.octets(), before);
}

#[test]
fn slices_end_with_the_ring() {
    let keys = keys(1);
    let ring = Ring::amqp(shape(&keys, 16), 4096).unwrap();
    assert_eq!(ring.slice(0, 2).len(), 2 * ring.stride());
    assert_eq!(ring.slice(ring.count() - 1, 5).len(), ring.stride());
}

#[test]
fn stomp_receipts_are_numbered_where_the_frames_say() {
    let keys = keys(2);
    let mut ring = Ring::stomp(shape(&keys, 32)).unwrap();
    ring.number(0, ring.count(), 41);
    ring.stamp(1, 7);
    let mut decoder = Decoder::new(Limits::after_login(1024));
    let mut scratch = HeaderBlock::new();
    let (mut rest, mut numbers) = (ring.octets(), Vec::new());
    loop {
        let len = match decoder.decode(rest, &mut scratch).unwrap() {
            Decoded::Incomplete => break,
            Decoded::Noise { wire_len } => wire_len,
            Decoded::Frame { frame, wire_len } => {
                assert!(matches!(frame.command, ParsedCommand::Known(Command::Send)));
                let header = |name| std::str::from_utf8(frame.headers.get(name).unwrap()).unwrap();
                assert_eq!(header("destination"), keys[numbers.len() % 2]);
                assert_eq!(header("persistent"), "true");
                assert_eq!(frame.body.len(), 32);
                assert_eq!(frame.body[7], if numbers.len() == 1 { 7 } else { 0 });
                numbers.push(header("receipt").parse::<usize>().unwrap());
                wire_len
            }
        };
        rest = &rest[len..];
    }
    assert_eq!(numbers, (41..41 + ring.count()).collect::<Vec<_>>());
}

#[test]
fn a_ring_too_large_is_refused_before_it_is_made() {
    let keys = keys(9_999);
    let error = Ring::amqp(shape(&keys, 1024 * 1024), 131_072).unwrap_err().to_string();
    assert!(error.contains("--size"), "{error}");
}
