//! libFuzzer's entry to [`warren_fuzz::store_record`].

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| warren_fuzz::store_record::run(octets));
