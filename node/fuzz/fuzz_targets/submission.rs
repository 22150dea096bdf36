#![no_main]
//! See `node_fuzz::submission`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node_fuzz::submission(bytes));
