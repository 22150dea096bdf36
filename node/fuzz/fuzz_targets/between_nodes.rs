#![no_main]
//! See `node_fuzz::between_nodes`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node_fuzz::between_nodes(bytes));
