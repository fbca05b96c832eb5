//! libFuzzer's entry to [`warren_fuzz::amqp_table`].

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| warren_fuzz::amqp_table::run(octets));
