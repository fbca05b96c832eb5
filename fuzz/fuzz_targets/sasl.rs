//! libFuzzer's entry to [`warren_fuzz::sasl`].

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| warren_fuzz::sasl::run(octets));
