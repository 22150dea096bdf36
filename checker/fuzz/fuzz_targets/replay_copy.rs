#![no_main]
//! See `checker_fuzz::replay_copy`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checker_fuzz::replay_copy(bytes));
