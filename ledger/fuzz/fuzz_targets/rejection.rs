#![no_main]
//! See `ledger_fuzz::rejection`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_fuzz::rejection(bytes));
