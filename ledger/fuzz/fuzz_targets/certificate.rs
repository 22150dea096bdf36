#![no_main]
//! See `ledger_fuzz::certificate`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_fuzz::certificate(bytes));
