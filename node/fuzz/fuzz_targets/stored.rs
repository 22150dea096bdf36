#![no_main]
//! See `node_fuzz::stored`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node_fuzz::stored(bytes));
