#![no_main]
//! See `ledger_fuzz::bundle`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger_fuzz::bundle(bytes));
