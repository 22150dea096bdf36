#![no_main]
//! See `ledger_fuzz::verdict_bitmap`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_fuzz::verdict_bitmap(bytes));
