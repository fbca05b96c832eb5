//! libFuzzer's entry to [`warren_fuzz::stomp_frame`].

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| warren_fuzz::stomp_frame::run(octets));
