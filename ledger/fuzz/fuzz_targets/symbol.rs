#![no_main]
//! See `ledger_fuzz::symbol`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_fuzz::symbol(bytes));
