//! What every decoder of the ledger must do with any bytes: refuse, or return a value whose encoding is those very
//! bytes. It neither panics nor allocates much more than it was given.
//!
//! The functions are run by libFuzzer (the targets beside this crate) and, with mutated valid encodings and random
//! bytes, by the ledger's own tests (`tests/suite/decoding.rs`), which include this file.

use borsh::BorshDeserialize;
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::certificate::{Certificate, VerdictBitmap};
use ledger::check::{LedgerIdentity, check_structure};
use ledger::effects::Effects;
use ledger::entry::LogEntry;
use ledger::identifier::canonical_bytes;
use ledger::protocol::Protocol;
use ledger::transaction::ReceivedTransaction;
use ledger::{Limits, Receipt, Rejection, SignedHead, Symbol};

/// A transaction: decoding is one-to-one, and everything that needs no state works on whatever decodes.
pub fn transaction(bytes: &[u8]) {
    let Ok(received) = ReceivedTransaction::decode(bytes) else { return };
    let transaction = received.transaction();
    assert_eq!(transaction.encode(), bytes);
    assert_eq!((transaction.id(), bytes.len()), (received.id(), received.encoded_bytes()));
    let identity = LedgerIdentity { cluster: transaction.body.cluster, group: transaction.body.group };
    if let Err(reason) = check_structure(&received, &identity, &Limits::V1) {
        assert!(reason.code() < 200, "{reason}");
    }
    let effects = Effects::of(&received.id(), &transaction.body);
    assert_eq!(effects.changed().count(), effects.consumed.len() + effects.created.len());
}

/// A bundle: what was read, written again, is the same.
pub fn bundle(bytes: &[u8]) {
    let Ok(layout) = BundleLayout::read(bytes, &Limits::V1) else { return };
    let mut builder = BundleBuilder::new();
    for submission in layout.submissions() {
        let ranges = layout.members().get(submission.members.clone()).expect("members are within the bundle");
        let members: Vec<&[u8]> =
            ranges.iter().map(|range| bytes.get(range.clone()).expect("members are within the bundle")).collect();
        builder.push(submission.stamp, &members);
    }
    assert_eq!(builder.transactions(), layout.members().len());
    assert_eq!(builder.finish(), bytes);
}

/// An entry of the log.
pub fn log_entry(bytes: &[u8]) {
    if let Ok(entry) = LogEntry::decode(bytes, Protocol::NEWEST) {
        assert_eq!(entry.encode(), bytes);
    }
}

/// A receipt: verifying any that decodes ends, and never succeeds without a trusted node.
pub fn receipt(bytes: &[u8]) {
    if let Ok(receipt) = Receipt::try_from_slice(bytes) {
        assert_eq!(canonical_bytes(&receipt), bytes);
        assert!(receipt.verify(&receipt.head.head.cluster, &[], 1).is_err());
    }
}

/// A signed head.
pub fn signed_head(bytes: &[u8]) {
    if let Ok(head) = SignedHead::try_from_slice(bytes) {
        assert_eq!(canonical_bytes(&head), bytes);
        assert_eq!(head.signers_among(&[]), 0);
    }
}

/// A verdict bitmap: what it says of each transaction is all that it encodes.
pub fn verdict_bitmap(bytes: &[u8]) {
    if let Ok(bitmap) = VerdictBitmap::try_from_slice(bytes) {
        let verdicts: Vec<bool> = (0..bitmap.len()).filter_map(|index| bitmap.passed(index)).collect();
        assert_eq!(canonical_bytes(&VerdictBitmap::of(&verdicts)), bytes);
        assert_eq!(bitmap.none_passed(), !verdicts.contains(&true));
    }
}

/// A certificate.
pub fn certificate(bytes: &[u8]) {
    if let Ok(certificate) = Certificate::try_from_slice(bytes) {
        assert_eq!(canonical_bytes(&certificate), bytes);
    }
}

/// A rejection.
pub fn rejection(bytes: &[u8]) {
    if let Ok(rejection) = Rejection::try_from_slice(bytes) {
        assert_eq!(canonical_bytes(&rejection), bytes);
    }
}

/// A symbol, as text and as bytes: both forms agree on what is one.
pub fn symbol(bytes: &[u8]) {
    if let Ok(symbol) = Symbol::try_from_slice(bytes) {
        assert_eq!(canonical_bytes(&symbol), bytes);
        assert_eq!(symbol.as_str().parse(), Ok(symbol));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(symbol) = text.parse::<Symbol>() {
        assert_eq!((symbol.as_str(), symbol.to_string().as_str()), (text, text));
        assert_eq!(Symbol::try_from_slice(&canonical_bytes(&symbol)).ok(), Some(symbol));
    }
}
