//! The hot way allocates nothing once its buffers are warm.
#![expect(unsafe_code, reason = "a counting allocator implements GlobalAlloc, an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
};

use proto_amqp::{
    ChannelId, ContentHeader, Deliver, GetOk, Method, ReplyCode, Version, basic, frame, method,
    properties,
};

/// Counts the allocations of each thread and leaves the work to the system's allocator.
struct Counting;

thread_local! {
    // Const and without a destructor: using it in the allocator allocates nothing itself.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to `System`, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` through `alloc` above, with this `layout`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` once to warm up and says how often it allocates the second time.
fn allocations_of(mut work: impl FnMut()) -> usize {
    work();
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const CHANNEL: ChannelId = ChannelId(1);

/// content-type, headers {"retry": 3, "trace": {"id": "x"}}, delivery-mode 2.
const PROPERTIES: &[u8] = b"\xB0\x00\
    \x0Atext/plain\
    \x00\x00\x00\x23\x05retryI\x00\x00\x00\x03\x05traceF\x00\x00\x00\x0D\x02idS\x00\x00\x00\x05abcde\
    \x02";

#[test]
fn the_counter_counts() {
    assert!(allocations_of(|| drop(black_box(vec![0u8; 100]))) > 0);
}

#[test]
fn reading_a_publish_and_its_content_allocates_nothing() {
    let body = vec![7; 10_000];
    let mut wire = Vec::new();
    basic::write_publish(&mut wire, CHANNEL, b"amq.topic", b"a.routing.key", true);
    basic::write_content_header(&mut wire, CHANNEL, 10_000, PROPERTIES);
    basic::write_body(&mut wire, CHANNEL, &body, 4096);
    basic::write_ack(&mut wire, CHANNEL, 7, true);
    basic::write_nack(&mut wire, CHANNEL, 8, false);
    let mut frames = 0;
    let allocations = allocations_of(|| {
        let mut rest = &wire[..];
        while let Some(frame) = frame::parse(rest, 4096).unwrap() {
            match frame.kind {
                frame::FrameKind::Method => {
                    let method = method::decode(frame.payload, Version::V0_9_1).unwrap();
                    assert!(!matches!(black_box(method), Method::Control(_)));
                }
                frame::FrameKind::Header => {
                    let header = ContentHeader::parse(frame.payload).unwrap();
                    let found = properties::summarise(header.properties).unwrap();
                    assert!(found.is_persistent());
                    assert_eq!(black_box(found.headers_reader()).count(), 2);
                }
                frame::FrameKind::Body | frame::FrameKind::Heartbeat => {
                    black_box(frame.payload);
                }
            }
            frames += 1;
            rest = &rest[frame.wire_len..];
        }
    });
    assert_eq!(allocations, 0);
    assert_eq!(frames, 2 * 7, "all frames were read, twice");
}

#[test]
fn refusing_octets_allocates_nothing_until_the_text_is_wanted() {
    let allocations = allocations_of(|| {
        assert!(frame::parse(&[9, 0, 1, 0, 0, 0, 0, 0xCE], 4096).is_err());
        assert!(method::decode(&[0, 60, 0, 40, 0], Version::V0_9_1).is_err());
        assert!(method::decode(&[0, 99, 0, 40, 0], Version::V0_9_1).is_err());
        assert!(properties::summarise(&[0x20, 0, 0, 0, 0, 9]).is_err());
        assert!(ContentHeader::parse(&[0, 61]).is_err());
    });
    assert_eq!(allocations, 0);
}

#[test]
fn writing_into_a_warm_buffer_allocates_nothing() {
    let body = vec![7; 10_000];
    let mut out = Vec::new();
    let allocations = allocations_of(|| {
        out.clear();
        basic::write_deliver(
            &mut out,
            CHANNEL,
            &Deliver {
                consumer_tag: b"ctag",
                delivery_tag: 1,
                redelivered: false,
                exchange: b"amq.topic",
                routing_key: b"a.routing.key",
            },
        );
        basic::write_content_header(&mut out, CHANNEL, 10_000, PROPERTIES);
        basic::write_body(&mut out, CHANNEL, &body, 4096);
        basic::write_get_ok(
            &mut out,
            CHANNEL,
            &GetOk {
                delivery_tag: 2,
                redelivered: true,
                exchange: b"",
                routing_key: b"q",
                message_count: 9,
            },
        );
        basic::write_return(&mut out, CHANNEL, ReplyCode::NO_ROUTE, "NO_ROUTE", b"e", b"k");
        basic::write_publish(&mut out, CHANNEL, b"e", b"k", false);
        basic::write_ack(&mut out, CHANNEL, 3, true);
        basic::write_nack(&mut out, CHANNEL, 4, false);
    });
    assert_eq!(allocations, 0);
}
