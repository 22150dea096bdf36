//! Every decoder against mutated valid encodings and random bytes. The properties are those of the fuzz targets.

use ledger::certificate::VerdictBitmap;
use ledger::identifier::canonical_bytes;
use ledger::{Symbol, Transaction};
use proptest::prelude::*;

use crate::golden::{bundles, certificates, entries, receipt, rejections, transactions};

#[expect(unreachable_pub, reason = "public in the fuzz crate")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

#[path = "../fixtures/mutations.rs"]
mod mutations;

use mutations::inputs;

fn bitmaps() -> Vec<Vec<u8>> {
    (0..20).map(|length| canonical_bytes(&VerdictBitmap::of(&vec![true; length]))).collect()
}

fn symbols() -> Vec<Vec<u8>> {
    let texts = ["USD", "a", "ABCDEFGHIJKLMNOP", "x.y-z_0"];
    let encoded = texts.iter().map(|text| canonical_bytes(&text.parse::<Symbol>().unwrap()));
    encoded.chain(texts.iter().map(|text| text.as_bytes().to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_one_transaction_or_none(
        bytes in inputs(transactions().iter().map(Transaction::encode).collect()),
    ) {
        targets::transaction(&bytes);
    }

    #[test]
    fn any_bytes_are_one_bundle_or_none(bytes in inputs(bundles())) {
        targets::bundle(&bytes);
    }

    #[test]
    fn any_bytes_are_one_log_entry_or_none(bytes in inputs(entries().iter().map(ledger::entry::LogEntry::encode).collect())) {
        targets::log_entry(&bytes);
    }

    #[test]
    fn any_bytes_are_one_receipt_or_none(bytes in inputs(vec![canonical_bytes(&receipt())])) {
        targets::receipt(&bytes);
    }

    #[test]
    fn any_bytes_are_one_signed_head_or_none(bytes in inputs(vec![canonical_bytes(&receipt().head)])) {
        targets::signed_head(&bytes);
    }

    #[test]
    fn any_bytes_are_one_verdict_bitmap_or_none(bytes in inputs(bitmaps())) {
        targets::verdict_bitmap(&bytes);
    }

    #[test]
    fn any_bytes_are_one_certificate_or_none(bytes in inputs(certificates().iter().map(canonical_bytes).collect())) {
        targets::certificate(&bytes);
    }

    #[test]
    fn any_bytes_are_one_rejection_or_none(bytes in inputs(rejections().iter().map(canonical_bytes).collect())) {
        targets::rejection(&bytes);
    }

    #[test]
    fn any_bytes_are_one_symbol_or_none(bytes in inputs(symbols())) {
        targets::symbol(&bytes);
    }
}
