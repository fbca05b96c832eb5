//! libFuzzer's entry to [`warren_fuzz::topic`].

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| warren_fuzz::topic::run(octets));
