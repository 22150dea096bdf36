#![no_main]
//! See `node_fuzz::messages`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node_fuzz::messages(bytes));
