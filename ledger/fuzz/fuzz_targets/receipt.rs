#![no_main]
//! See `ledger_fuzz::receipt`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_fuzz::receipt(bytes));
