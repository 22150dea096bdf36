#![no_main]
//! See `ledger_fuzz::log_entry`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_fuzz::log_entry(bytes));
