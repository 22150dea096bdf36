#![no_main]
//! See `ledger_fuzz::signed_head`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_fuzz::signed_head(bytes));
