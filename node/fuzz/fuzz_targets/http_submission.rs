#![no_main]
//! See `node_fuzz::http_submission`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node_fuzz::http_submission(bytes));
