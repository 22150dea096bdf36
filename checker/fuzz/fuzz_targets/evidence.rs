#![no_main]
//! See `checker_fuzz::evidence`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checker_fuzz::evidence(bytes));
