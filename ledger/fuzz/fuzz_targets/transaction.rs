#![no_main]
//! See `ledger_fuzz::transaction`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_fuzz::transaction(bytes));
