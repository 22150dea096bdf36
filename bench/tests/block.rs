//! Plans of blocks of our own making: whatever their shape, every planned transaction stands and everything balances.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use bench::block::{Plan, parse, plan};
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Txid, Witness, consensus, transaction,
};
use client::{Context, SignedTransaction};
use ledger::check::{LedgerIdentity, check_submissions};
use ledger::effects::Effects;
use ledger::transaction::ReceivedTransaction;
use ledger::{ClusterId, Contract, Limits, LogTime, OutputId, Quantity};
use proptest::prelude::*;

fn identity() -> LedgerIdentity {
    LedgerIdentity { cluster: ClusterId::of_name("block tests"), group: 0 }
}

fn context() -> impl FnMut() -> Context {
    let mut nonce = 0;
    move || {
        nonce += 1;
        Context { identity: identity(), limits: Limits::V1, valid_until: LogTime::from_unix_millis(1_000), nonce }
    }
}

fn transaction(inputs: Vec<OutPoint>, values: &[u64]) -> Transaction {
    let input = |previous_output| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let output = |(index, value): (usize, &u64)| TxOut {
        value: Amount::from_sat(*value),
        script_pubkey: ScriptBuf::from_bytes(vec![u8::try_from(index % 250).unwrap(); 3]),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.into_iter().map(input).collect(),
        output: values.iter().enumerate().map(output).collect(),
    }
}

fn external(number: u32) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([7; 32]), number)
}

fn block(transactions: Vec<Transaction>) -> Block {
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: CompactTarget::from_consensus(0),
        nonce: 0,
    };
    let coinbase = transaction(vec![OutPoint::null()], &[50, 0]);
    let block = Block { header, txdata: std::iter::once(coinbase).chain(transactions).collect() };
    parse(&consensus::serialize(&block)).unwrap()
}

/// Applies the plan by the ledger's own checks and a plain set of live outputs. Returns the total of what is live.
fn run(plan: &Plan) -> i128 {
    let mut live: BTreeMap<OutputId, Contract> = BTreeMap::new();
    let mut apply = |transaction: &SignedTransaction| {
        let received = [ReceivedTransaction::decode(transaction.bytes()).unwrap()];
        let verdicts = check_submissions(&[&received], &identity(), &Limits::V1);
        assert!(verdicts[0][0].is_ok(), "{:?}", verdicts[0][0].as_ref().err());
        let effects = Effects::of(&received[0].id(), &received[0].transaction().body);
        for (id, _) in &effects.consumed {
            assert!(live.remove(id).is_some(), "an input that does not exist");
        }
        live.extend(effects.created);
    };
    plan.funding.iter().for_each(&mut apply);
    for (index, planned) in plan.transactions.iter().enumerate() {
        assert!(planned.parents.iter().all(|parent| *parent < index), "a parent that comes later");
        apply(&planned.transaction);
    }
    live.values().filter_map(Contract::value).map(|(_, quantity)| quantity.minor_units()).sum()
}

fn plan_of(transactions: Vec<Transaction>) -> Plan {
    let plan = plan(&block(transactions), 1, context()).unwrap();
    assert_eq!(Quantity::new(run(&plan)), plan.supply, "what is live is what was issued");
    plan
}

#[test]
fn a_block_with_only_a_coinbase_is_one_issue() {
    let plan = plan_of(Vec::new());
    assert_eq!((plan.figures.transactions, plan.figures.ledger_transactions), (1, 1));
    assert_eq!(plan.supply, Quantity::new(50));
}

#[test]
fn a_chain_counts_its_depth_and_its_fees_go_to_the_collector() {
    let first = transaction(vec![external(0)], &[100, 20]);
    let second = transaction(vec![OutPoint::new(first.compute_txid(), 0)], &[90]);
    let third = transaction(vec![OutPoint::new(second.compute_txid(), 0), external(1)], &[200]);
    let plan = plan_of(vec![first, second, third]);
    assert_eq!((plan.figures.in_block_spends, plan.figures.depth, plan.figures.width), (2, 3, 2));
    // 120 for the first, 110 more for the third, 50 of the coinbase
    assert_eq!(plan.supply, Quantity::new(280));
}

#[test]
fn outputs_without_value_are_left_out_wherever_they_go() {
    let first = transaction(vec![external(0)], &[0, 5]);
    let from_nothing = transaction(vec![OutPoint::new(first.compute_txid(), 0)], &[0]);
    let only_data = transaction(vec![external(1)], &[0, 0]);
    let plan = plan_of(vec![first, from_nothing, only_data]);
    assert_eq!(plan.figures.outputs_without_value, 5);
    assert_eq!(plan.figures.ledger_transactions, 3);
}

#[test]
fn a_transaction_beyond_our_limits_becomes_several() {
    let wide = transaction((0..1_000).map(external).collect(), &vec![3; 2_500]);
    let child = transaction(vec![OutPoint::new(wide.compute_txid(), 2_400)], &[3]);
    let plan = plan_of(vec![wide, child]);
    assert!(plan.figures.ledger_transactions > 6);
    let largest = plan.transactions.iter().map(|planned| planned.transaction.bytes().len()).max().unwrap();
    assert!(largest < Limits::V1.transaction_bytes_max, "{largest}");
}

#[test]
fn two_runs_of_one_block_share_no_transaction() {
    let block = block(vec![transaction(vec![external(0)], &[5])]);
    let ids = |run| -> BTreeSet<_> {
        let plan = plan(&block, run, context()).unwrap();
        plan.transactions.iter().map(|planned| planned.transaction.id()).collect()
    };
    assert!(ids(1).is_disjoint(&ids(2)));
}

#[test]
fn what_is_no_block_is_refused() {
    let bytes = consensus::serialize(&block(Vec::new()));
    assert!(parse(&bytes[..bytes.len() - 1]).is_err());
    assert!(parse(b"0000").is_err());
    assert!(parse(&[bytes.as_slice(), &[0]].concat()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_graph_balances(
        shapes in proptest::collection::vec((proptest::collection::vec(any::<u16>(), 1..5), proptest::collection::vec(0_u64..100, 1..6)), 1..30)
    ) {
        let mut unspent: Vec<(OutPoint, u64)> = Vec::new();
        let mut transactions = Vec::new();
        for (number, (picks, wanted)) in (0_u32..).zip(&shapes) {
            let mut from_outside = false;
            let mut available = 0;
            let inputs: Vec<OutPoint> = (0_u32..).zip(picks).map(|(turn, pick)| {
                let choice = usize::from(*pick) % (unspent.len() + 2);
                if choice < unspent.len() {
                    let (outpoint, value) = unspent.swap_remove(choice);
                    available += value;
                    outpoint
                } else {
                    from_outside = true;
                    external(number * 100 + turn)
                }
            }).collect();
            // a valid block pays no more than it has, and what comes from outside is worth what is needed
            let values: Vec<u64> = wanted.iter().map(|value| {
                let value = if from_outside { *value } else { available.min(*value) };
                available = available.saturating_sub(value);
                value
            }).collect();
            let made = transaction(inputs, &values);
            let id = made.compute_txid();
            unspent.extend((0_u32..).zip(values).map(|(index, value)| (OutPoint::new(id, index), value)));
            transactions.push(made);
        }
        plan_of(transactions);
    }
}
