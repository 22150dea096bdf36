#![no_main]
//! See `node_fuzz::order`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node_fuzz::order(bytes));
