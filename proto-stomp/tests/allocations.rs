//! The steady state allocates nothing: with warm scratch space and a warm buffer, reading a SEND and
//! writing a MESSAGE make no call to the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proto_stomp::{Command, Decoded, Decoder, FrameEnd, FrameWriter, HeaderBlock, Limits, Version};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; this one only counts")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SEND: &[u8] = b"SEND\ndestination:/queue/orders\ncontent-type:text/plain\npersistent:true\n\
    receipt:message-17\nh\\cost:a\\\\b\ncontent-length:5\n\nhello\0\n";

#[test]
fn a_send_is_read_and_a_message_written_without_allocating() {
    let mut decoder = Decoder::new(Limits::after_login(1000));
    decoder.set_version(Version::V1_2);
    let mut scratch = HeaderBlock::new();
    let mut out = Vec::new();
    let mut allocations_of_turn = || {
        let before = ALLOCATIONS.get();
        let mut input = SEND;
        while let Ok(Decoded::Frame { frame, wire_len }) = decoder.decode(input, &mut scratch) {
            out.clear();
            let mut message = FrameWriter::begin(&mut out, Command::Message);
            message.header_in_parts(b"message-id", &[b"T_0", b"@@session-1@@", b"17"]);
            for (name, value) in frame.headers.iter() {
                message.header(name, value);
            }
            message.finish(frame.body, FrameEnd::NulLf);
            input = &input[wire_len..];
        }
        ALLOCATIONS.get() - before
    };
    assert!(allocations_of_turn() > 0, "the first turn makes room, or nothing is counted");
    for _ in 0..100 {
        assert_eq!(allocations_of_turn(), 0);
    }
}
