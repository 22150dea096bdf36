//! Every decoder against mutated valid encodings and random bytes. The properties are those of the fuzz targets.

use ledger::certificate::VerdictBitmap;
use ledger::identifier::canonical_bytes;
use ledger::{Symbol, Transaction};
use proptest::prelude::*;

use crate::golden::{bundles, certificates, entries, receipt, rejections, transactions};

#[expect(unreachable_pub, reason = "public in the fuzz crate")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// One change of an encoding.
#[derive(Debug, Clone)]
enum Mutation {
    Flip {
        at: usize,
        bit: u8,
    },
    Set {
        at: usize,
        to: u8,
    },
    /// Four bytes become a length that no input has.
    Bomb {
        at: usize,
        length: u32,
    },
    Remove {
        at: usize,
        count: usize,
    },
    Insert {
        at: usize,
        bytes: Vec<u8>,
    },
    Repeat {
        from: usize,
        count: usize,
        at: usize,
    },
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let at = || any::<prop::sample::Index>().prop_map(|index| index.index(4_096));
    let mutation = prop_oneof![
        (at(), 0_u8..8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        (at(), prop_oneof![0_u8..4, Just(255), any::<u8>()]).prop_map(|(at, to)| Mutation::Set { at, to }),
        (at(), prop_oneof![Just(u32::MAX), Just(1 << 31), 0_u32..100_000])
            .prop_map(|(at, length)| Mutation::Bomb { at, length }),
        (at(), 1_usize..40).prop_map(|(at, count)| Mutation::Remove { at, count }),
        (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        (at(), 1_usize..100, at()).prop_map(|(from, count, at)| Mutation::Repeat { from, count, at }),
    ];
    prop::collection::vec(mutation, 0..4)
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let length = bytes.len();
        let place = |at: usize| at % length.max(1);
        match mutation {
            Mutation::Flip { at, bit } => bytes[place(*at)..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << bit),
            Mutation::Set { at, to } => bytes[place(*at)..].iter_mut().take(1).for_each(|byte| *byte = *to),
            Mutation::Bomb { at, length } => {
                bytes[place(*at)..].iter_mut().zip(length.to_le_bytes()).for_each(|(byte, new)| *byte = new);
            }
            Mutation::Remove { at, count } => {
                let start = place(*at).min(length);
                bytes.drain(start..start.saturating_add(*count).min(length));
            }
            Mutation::Insert { at, bytes: new } => {
                bytes.splice(place(*at).min(length)..place(*at).min(length), new.iter().copied());
            }
            Mutation::Repeat { from, count, at } => {
                let start = place(*from).min(length);
                let copy = bytes[start..start.saturating_add(*count).min(length)].to_vec();
                bytes.splice(place(*at).min(length)..place(*at).min(length), copy);
            }
        }
    }
    bytes
}

/// A valid encoding, mutated; or random bytes.
fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let mutated = (prop::sample::select(seeds), mutations()).prop_map(|(seed, mutations)| mutate(seed, &mutations));
    prop_oneof![8 => mutated.boxed(), 1 => prop::collection::vec(any::<u8>(), 0..300).boxed()]
}

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
