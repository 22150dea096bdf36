#![no_main]
//! See `checker_fuzz::attestation`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checker_fuzz::attestation(bytes));
