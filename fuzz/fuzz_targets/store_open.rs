//! libFuzzer's entry to [`warren_fuzz::store_open`].

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| warren_fuzz::store_open::run(octets));
