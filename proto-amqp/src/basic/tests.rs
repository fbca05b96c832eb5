//! The hot methods: octets out, values in, and what is refused.

use super::*;

const CHANNEL: ChannelId = ChannelId(0x0102);

#[test]
fn an_ack_is_one_frame_of_twenty_one_octets() {
    let mut out = Vec::new();
    write_ack(&mut out, CHANNEL, 0x0A0B, true);
    assert_eq!(out, [1, 1, 2, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0x0A, 0x0B, 1, 0xCE]);
    let payload = frame::parse(&out, 4096).unwrap().unwrap().payload;
    assert_eq!(
        decode_hot(payload),
        Ok(Some(Hot::Ack(Ack { delivery_tag: 0x0A0B, multiple: true })))
    );
}

#[test]
fn a_servers_nack_has_the_requeue_bit_set() {
    let mut out = Vec::new();
    write_nack(&mut out, CHANNEL, 7, false);
    let payload = frame::parse(&out, 4096).unwrap().unwrap().payload;
    assert_eq!(
        decode_hot(payload),
        Ok(Some(Hot::Nack(Nack { delivery_tag: 7, multiple: false, requeue: true })))
    );
}

#[test]
fn a_publish_is_written_and_read_octets_in_its_names_included() {
    let mut out = Vec::new();
    write_publish(&mut out, CHANNEL, b"", b"\xFF\x00.key", true);
    let payload = frame::parse(&out, 4096).unwrap().unwrap().payload;
    let expected =
        Publish { exchange: b"", routing_key: b"\xFF\x00.key", mandatory: true, immediate: false };
    assert_eq!(decode_hot(payload), Ok(Some(Hot::Publish(expected))));
}

#[test]
fn a_publish_cut_anywhere_is_truncated_and_named() {
    let payload = [0, 60, 0, 40, 0, 0, 1, b'e', 2, b'k', b'k', 3];
    assert!(matches!(
        decode_hot(&payload),
        Ok(Some(Hot::Publish(Publish { mandatory: true, immediate: true, .. })))
    ));
    for len in 4..payload.len() {
        let error = decode_hot(&payload[..len]).unwrap_err();
        assert_eq!(error.kind, MethodErrorKind::Truncated);
        assert_eq!(error.id, Some(MethodId::BASIC_PUBLISH));
        assert!(error.detail().starts_with("cannot decode <<"), "{}", error.detail());
    }
}

#[test]
fn octets_after_the_arguments_and_unused_bits_are_ignored() {
    let payload = [0, 60, 0, 90, 0, 0, 0, 0, 0, 0, 0, 5, 0xFE, 9, 9];
    assert_eq!(
        decode_hot(&payload),
        Ok(Some(Hot::Reject(Reject { delivery_tag: 5, requeue: false })))
    );
}

#[test]
fn what_is_not_hot_is_left_to_others() {
    for payload in [&[][..], &[0, 60, 0], &[0, 60, 0, 20], &[0, 61, 0, 40], &[1, 60, 0, 80]] {
        assert_eq!(decode_hot(payload), Ok(None), "{payload:?}");
    }
}

#[test]
fn a_delivery_is_written_and_parsed() {
    let deliver = Deliver {
        consumer_tag: b"ctag",
        delivery_tag: u64::MAX,
        redelivered: true,
        exchange: b"amq.topic",
        routing_key: &[b'k'; 255],
    };
    let mut out = Vec::new();
    write_deliver(&mut out, CHANNEL, &deliver);
    let frame = frame::parse(&out, 4096).unwrap().unwrap();
    assert_eq!(frame.wire_len, out.len());
    assert_eq!(parse_deliver(frame.payload), Some(deliver));
    for len in 0..frame.payload.len() {
        assert_eq!(parse_deliver(&frame.payload[..len]), None);
    }
    assert_eq!(parse_deliver(&[0, 60, 0, 80, 0, 0]), None);
}

#[test]
fn a_body_is_split_in_full_frames_and_a_remainder() {
    let body: Vec<u8> = (0..10_000u32).map(|n| n.to_be_bytes()[3]).collect();
    let mut out = Vec::new();
    write_body(&mut out, CHANNEL, &body, 4096);
    let mut lens = Vec::new();
    let mut joined: Vec<u8> = Vec::new();
    let mut rest = &out[..];
    while let Some(frame) = frame::parse(rest, 4096).unwrap() {
        assert_eq!((frame.kind, frame.channel), (FrameKind::Body, CHANNEL));
        lens.push(frame.payload.len());
        joined.extend(frame.payload);
        rest = &rest[frame.wire_len..];
    }
    assert!(rest.is_empty());
    assert_eq!(lens, [4088, 4088, 1824]);
    assert_eq!(joined, body);
}

#[test]
fn the_announced_content_length_is_exact() {
    for body_len in [0, 1, 4087, 4088, 4089, 8176, 8177, 100_000] {
        for frame_max in [0, 4096, 131_072] {
            let mut out = Vec::new();
            write_content_header(&mut out, CHANNEL, 0, &[0x10, 0, 2]);
            write_body(&mut out, CHANNEL, &vec![0; body_len], frame_max);
            assert_eq!(content_len(3, body_len, frame_max), out.len(), "{body_len} {frame_max}");
        }
    }
}

#[test]
fn an_empty_body_has_no_frame() {
    let mut out = Vec::new();
    write_body(&mut out, CHANNEL, b"", 4096);
    assert_eq!(out, b"");
}

#[test]
fn prefix_body_and_suffix_make_the_frame_that_write_body_writes() {
    let mut whole = Vec::new();
    write_body(&mut whole, CHANNEL, b"body", 4096);
    let parts = [&body_frame_prefix(CHANNEL, 4)[..], b"body", &body_frame_suffix()].concat();
    assert_eq!(parts, whole);
}
