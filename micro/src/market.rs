//! What is measured: settlements as clients make them, and a state in which they can happen.

use std::collections::HashMap;

use bench::party::key_of;
use client::{Context, Key, SignedTransaction, TransactionBuilder, expected_outputs};
use ledger::apply::AdmittedBundle;
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::certificate::{Attested, ValidatorSet, VerdictBitmap};
use ledger::check::LedgerIdentity;
use ledger::entry::CertifiedBundle;
use ledger::signature::SigningKey;
use ledger::transaction::ReceivedTransaction;
use ledger::view::{LedgerView, LiveOutput, Place, ViewFault};
use ledger::{
    AssetType, ClusterId, Contract, Hash, Leg, Limits, LogTime, Origin, Outcome, OutputId, Party, Quantity, Sequence,
    Terms, TransactionId,
};

/// Log time of everything here, in milliseconds; what it is does not matter.
pub(crate) const NOW: LogTime = LogTime::from_unix_millis(1_000_000);
/// When transactions and allocations end: later.
const LATER: LogTime = LogTime::from_unix_millis(2_000_000);

/// The ledger of these transactions.
pub(crate) fn identity() -> LedgerIdentity {
    LedgerIdentity { cluster: ClusterId::of_name("micro"), group: 0 }
}

/// The validator that vouches for everything.
pub(crate) fn validator() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

/// What a transaction says besides its intent.
pub(crate) fn context(nonce: u64) -> Context {
    Context { identity: identity(), limits: Limits::V1, valid_until: LATER, nonce }
}

/// Signs what was built.
pub(crate) fn signed(builder: &TransactionBuilder, key: &Key) -> SignedTransaction {
    let prepared = builder.prepare().expect("it keeps the rules");
    prepared.sign(key).and_then(client::Prepared::finish).expect("the key is the one that has to sign")
}

/// A bundle of these transactions, certified as if each had passed.
pub(crate) fn certified(transactions: &[SignedTransaction], stamp: Sequence, epoch: u64) -> CertifiedBundle {
    let bytes: Vec<&[u8]> = transactions.iter().map(|transaction| transaction.bytes().as_ref()).collect();
    certified_bytes(&bytes, stamp, epoch)
}

/// The same of transactions as bytes.
pub(crate) fn certified_bytes<B: AsRef<[u8]>>(transactions: &[B], stamp: Sequence, epoch: u64) -> CertifiedBundle {
    let mut builder = BundleBuilder::new();
    for transaction in transactions {
        builder.push(stamp, &[transaction]);
    }
    let bundle = builder.finish();
    let digest = BundleLayout::read(&bundle, &Limits::V1).expect("the builder keeps the form").digest();
    let verdicts = VerdictBitmap::of(&vec![true; transactions.len()]);
    let certificates = vec![Attested { bundle: digest, verdicts, epoch }.certify(&validator())];
    CertifiedBundle { bundle, certificates }
}

/// Two-party settlements that are proposed and can be settled.
pub(crate) struct Market {
    /// The settling transactions, one per pair of parties.
    pub(crate) settlements: Vec<SignedTransaction>,
    /// Everything that exists before them.
    pub(crate) state: State,
}

impl Market {
    pub(crate) fn new(pairs: u64) -> Self {
        let mut market = Self { settlements: Vec::new(), state: State::default() };
        (0..pairs).for_each(|pair| market.add(pair));
        market
    }

    fn add(&mut self, pair: u64) {
        let keys = [key_of(pair, "alice"), key_of(pair, "bob")];
        let assets = keys.map(|key| AssetType { issuer: key.party(), symbol: "X".parse().expect("a letter") });
        let [cash, bond] = [0, 1].map(|side: usize| {
            let mut builder = TransactionBuilder::new(context(pair));
            builder.issue(assets[side], keys[side].party(), Quantity::new(1_000));
            self.state.perform(&signed(&builder, &keys[side]))[0]
        });
        let leg = |payer: usize| Leg {
            payer: keys[payer].party(),
            receiver: keys[1 - payer].party(),
            asset: assets[payer],
            quantity: Quantity::new(1),
        };
        let terms = Terms { legs: vec![leg(0), leg(1)], nonce: pair };
        let mut proposal = TransactionBuilder::new(context(pair));
        proposal.spend(&cash).propose(&terms, 0, LATER);
        let locked = self.state.perform(&signed(&proposal, &keys[0]));
        let allocations: Vec<LiveOutput> =
            locked.into_iter().filter(|output| matches!(output.contract, Contract::Allocation(_))).collect();
        let mut settlement = TransactionBuilder::new(context(pair));
        settlement.spend(&bond).settle(&terms, &allocations);
        self.settlements.push(signed(&settlement, &keys[1]));
    }

    /// The settling transactions as a node receives them.
    pub(crate) fn received(&self) -> Vec<ReceivedTransaction> {
        self.settlements.iter().map(received).collect()
    }
}

/// A transaction as a node receives it.
pub(crate) fn received(transaction: &SignedTransaction) -> ReceivedTransaction {
    ReceivedTransaction::decode(transaction.bytes()).expect("a signed transaction decodes")
}

/// A bundle that is admitted under the validator here.
pub(crate) fn admitted(certified: &CertifiedBundle) -> AdmittedBundle<'_> {
    let validators = ValidatorSet { epoch: 1, required: 1, keys: [validator().party()].into() };
    AdmittedBundle::admit(certified, &validators, &Limits::V1).expect("the validator vouches for it")
}

/// Live outputs in memory.
#[derive(Default)]
pub(crate) struct State {
    live: HashMap<OutputId, Place>,
}

impl State {
    /// Adds what a transaction creates, which this gives back.
    fn perform(&mut self, transaction: &SignedTransaction) -> Vec<LiveOutput> {
        let created = expected_outputs(&transaction.id(), &received(transaction).transaction().body);
        self.live.extend(created.iter().map(|output| (output.id, output.place)));
        created
    }
}

impl LedgerView for State {
    fn live(&self, id: &OutputId) -> Result<Option<Place>, ViewFault> {
        Ok(self.live.get(id).copied())
    }

    fn spender(&self, _: &OutputId, _: &Origin) -> Result<Option<TransactionId>, ViewFault> {
        Ok(None)
    }

    fn outcome(&self, _: &TransactionId) -> Result<Option<(Sequence, Outcome)>, ViewFault> {
        Ok(None)
    }

    fn log_root_at(&self, _: Sequence) -> Result<Option<Hash>, ViewFault> {
        Ok(None)
    }

    fn positions(&self, _: &Party, _: &AssetType, _: usize) -> Result<Vec<LiveOutput>, ViewFault> {
        Ok(Vec::new())
    }
}
