//! Parties of a workload: keys derived from names, and what they own.

use client::{Key, SignedTransaction};
use ledger::effects::Effects;
use ledger::transaction::ReceivedTransaction;
use ledger::view::{LiveOutput, Place};
use ledger::{AssetType, Contract, Origin, OutcomeRecord, Party};

/// The key of the party with this name in this run.
#[must_use]
pub fn key_of(run: u64, name: &str) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key("seriatim workload party");
    hasher.update(&run.to_le_bytes());
    hasher.update(name.as_bytes());
    Key::from_seed(*hasher.finalize().as_bytes())
}

/// The outputs that a committed transaction created, in order.
///
/// # Panics
/// Where the transaction is not one that this program encoded.
#[must_use]
pub fn created(transaction: &SignedTransaction, record: &OutcomeRecord) -> Vec<LiveOutput> {
    let received = ReceivedTransaction::decode(transaction.bytes()).expect("a signed transaction decodes");
    let effects = Effects::of(&received.id(), &received.transaction().body);
    let named = effects.created.into_iter().enumerate();
    named
        .map(|(position, (id, contract))| {
            let index = u16::try_from(position).expect("the limits keep outputs below 2^16");
            LiveOutput {
                id,
                origin: Origin { transaction: received.id(), index },
                place: Place { sequence: record.sequence, index },
                contract,
            }
        })
        .collect()
}

/// Those of the outputs that are positions of this owner and asset.
pub fn positions_of(outputs: &[LiveOutput], owner: Party, asset: AssetType) -> impl Iterator<Item = LiveOutput> + '_ {
    outputs.iter().copied().filter(move |output| match &output.contract {
        Contract::Position(held) => held.owner == owner && held.asset == asset,
        Contract::Grant(_) | Contract::Allocation(_) => false,
    })
}

/// Those of the outputs that are allocations.
#[must_use]
pub fn allocations(outputs: &[LiveOutput]) -> Vec<LiveOutput> {
    outputs.iter().copied().filter(|output| matches!(output.contract, Contract::Allocation(_))).collect()
}
