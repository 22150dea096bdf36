//! A Bitcoin block as a workload: its transactions with their real fan-in, fan-out, values and chains, as ours.
//!
//! What is derived, because a block does not carry it:
//! * Each script is a party whose key is derived from the script; outputs of earlier blocks belong to a party derived
//!   from the outpoint, since their scripts are elsewhere.
//! * Outputs of earlier blocks are issued first, with values that balance the spending transaction: together what its
//!   outputs need beyond its in-block inputs, at least one unit each. What then remains is the fee, which a collector
//!   receives.
//! * The coinbase issues its outputs.
//! * Outputs of value zero hold nothing and are left out (data carriers, mostly).
//! * A transaction beyond our limits becomes several: partial sums of its inputs first, partial sums of its outputs last.

use std::collections::BTreeMap;

use bitcoin::consensus::deserialize;
use bitcoin::{Block, OutPoint, Transaction, Txid};
use client::{Context, Key, SignedTransaction, expected_outputs};
use ledger::identifier::canonical_bytes;
use ledger::transaction::SupplyChange;
use ledger::view::LiveOutput;
use ledger::{AssetType, Body, Contract, Input, Intent, Movements, Party, Position, Quantity, Signature, Unlock};
use serde::Serialize;

/// Inputs of one of our transactions: with a signer each, about 100 KiB.
const INPUTS_MAX: usize = 400;
/// Outputs of one of our transactions: about 100 KiB.
const OUTPUTS_MAX: usize = 800;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum BlockFault {
    /// It is no block.
    #[error(
        "not a Bitcoin block in consensus serialization: {0}. Give the raw bytes of one block, not hex and not a blk file"
    )]
    NotABlock(#[from] bitcoin::consensus::encode::Error),
    /// Its values do not add up in 128 bits.
    #[error("values of the block overflow")]
    Overflow,
}

/// The shape of a block's graph.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct GraphFigures {
    /// Transactions of the block, coinbase included.
    pub transactions: usize,
    /// Their inputs, the coinbase's excepted.
    pub inputs: usize,
    /// Their outputs.
    pub outputs: usize,
    /// Inputs that spend an output of the same block.
    pub in_block_spends: usize,
    /// Transactions on the longest chain of in-block spends, both ends counted.
    pub depth: usize,
    /// Most transactions that may run at once: on one level of the graph.
    pub width: usize,
    /// Outputs of value zero, which are left out.
    pub outputs_without_value: usize,
    /// Our transactions that replay the block.
    pub ledger_transactions: usize,
    /// Our transactions that issue what earlier blocks had left.
    pub funding_transactions: usize,
}

/// One of our transactions with those that must commit before it, as indexes into [`Plan::transactions`].
#[derive(Debug, Clone)]
pub struct Planned {
    /// Ready to submit.
    pub transaction: SignedTransaction,
    /// What creates its inputs, in the plan.
    pub parents: Vec<usize>,
}

/// A block as transactions of ours.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Issues of what earlier blocks had left: all of them first, in any order.
    pub funding: Vec<SignedTransaction>,
    /// The block, in its order.
    pub transactions: Vec<Planned>,
    /// The asset that stands for bitcoin.
    pub asset: AssetType,
    /// Its supply in the end.
    pub supply: Quantity,
    /// The graph's shape.
    pub figures: GraphFigures,
}

/// Reads a block.
///
/// # Errors
/// Where the bytes are none.
pub fn parse(bytes: &[u8]) -> Result<Block, BlockFault> {
    Ok(deserialize(bytes)?)
}

/// Makes the plan. `run` tells plans of one block apart; `context` gives fresh nonces.
///
/// # Errors
/// Where values overflow.
pub fn plan(block: &Block, run: u64, context: impl FnMut() -> Context) -> Result<Plan, BlockFault> {
    let values = external_values(block)?;
    let mut planner = Planner::new(run, context);
    planner.fund(&values)?;
    for transaction in &block.txdata {
        planner.add(transaction)?;
    }
    let figures = GraphFigures {
        ledger_transactions: planner.transactions.len(),
        funding_transactions: planner.funding.len(),
        ..figures(block)
    };
    Ok(Plan {
        funding: planner.funding,
        transactions: planner.transactions,
        asset: planner.asset,
        supply: planner.supply,
        figures,
    })
}

/// The figures of the block's own graph.
fn figures(block: &Block) -> GraphFigures {
    let mut figures = GraphFigures { transactions: block.txdata.len(), ..GraphFigures::default() };
    let mut level_of: BTreeMap<Txid, usize> = BTreeMap::new();
    let mut on_level: BTreeMap<usize, usize> = BTreeMap::new();
    for transaction in &block.txdata {
        let mut level = 1;
        if !transaction.is_coinbase() {
            figures.inputs += transaction.input.len();
        }
        for input in &transaction.input {
            if let Some(parent) = level_of.get(&input.previous_output.txid) {
                figures.in_block_spends += 1;
                level = level.max(parent + 1);
            }
        }
        figures.outputs += transaction.output.len();
        figures.outputs_without_value += transaction.output.iter().filter(|output| output.value.to_sat() == 0).count();
        level_of.insert(transaction.compute_txid(), level);
        *on_level.entry(level).or_default() += 1;
    }
    figures.depth = on_level.keys().next_back().copied().unwrap_or_default();
    figures.width = on_level.values().copied().max().unwrap_or_default();
    figures
}

/// Values for the outputs of earlier blocks: what each spender needs, shared evenly, at least one unit each.
fn external_values(block: &Block) -> Result<Vec<(OutPoint, i128)>, BlockFault> {
    let mut in_block: BTreeMap<OutPoint, i128> = BTreeMap::new();
    let mut external = Vec::new();
    for transaction in &block.txdata {
        let id = transaction.compute_txid();
        for (index, output) in transaction.output.iter().enumerate() {
            let index = u32::try_from(index).map_err(|_reason| BlockFault::Overflow)?;
            in_block.insert(OutPoint::new(id, index), i128::from(output.value.to_sat()));
        }
        if transaction.is_coinbase() {
            continue;
        }
        let spent = |outpoint: &OutPoint| in_block.get(outpoint).copied();
        let known: i128 = transaction.input.iter().filter_map(|input| spent(&input.previous_output)).sum();
        let unknown: Vec<OutPoint> = transaction
            .input
            .iter()
            .map(|input| input.previous_output)
            .filter(|outpoint| spent(outpoint).is_none())
            .collect();
        let needed: i128 = transaction.output.iter().map(|output| i128::from(output.value.to_sat())).sum();
        external.extend(shared(needed - known, unknown)?);
    }
    Ok(external)
}

fn shared(total: i128, outpoints: Vec<OutPoint>) -> Result<Vec<(OutPoint, i128)>, BlockFault> {
    if outpoints.is_empty() {
        return Ok(Vec::new());
    }
    let count = i128::try_from(outpoints.len()).map_err(|_reason| BlockFault::Overflow)?;
    let total = total.max(count);
    let share = |position: usize| total / count + if position == 0 { total % count } else { 0 };
    Ok(outpoints.into_iter().enumerate().map(|(position, outpoint)| (outpoint, share(position))).collect())
}

/// An output as the plan knows it: our position, who owns it, and which planned transaction creates it (none for
/// funding).
#[derive(Clone)]
struct Held {
    output: LiveOutput,
    owner: Key,
    creator: Option<usize>,
}

struct Planner<C> {
    run: u64,
    context: C,
    issuer: Key,
    asset: AssetType,
    held: BTreeMap<OutPoint, Held>,
    funding: Vec<SignedTransaction>,
    transactions: Vec<Planned>,
    supply: Quantity,
}

impl<C: FnMut() -> Context> Planner<C> {
    fn new(run: u64, context: C) -> Self {
        let issuer = derived(run, b"issuer", &[]);
        let asset = AssetType { issuer: issuer.party(), symbol: "BTC".parse().expect("letters") };
        Self {
            run,
            context,
            issuer,
            asset,
            held: BTreeMap::new(),
            funding: Vec::new(),
            transactions: Vec::new(),
            supply: Quantity::ZERO,
        }
    }

    fn fund(&mut self, values: &[(OutPoint, i128)]) -> Result<(), BlockFault> {
        for chunk in values.chunks(OUTPUTS_MAX) {
            let owners: Vec<Key> = chunk.iter().map(|(outpoint, _)| self.owner_of_outpoint(outpoint)).collect();
            let pays = owners.iter().zip(chunk).map(|(owner, (_, value))| (owner.party(), *value)).collect();
            let (transaction, outputs) = self.issue(pays)?;
            for (((outpoint, _), owner), output) in chunk.iter().zip(owners).zip(outputs) {
                self.held.insert(*outpoint, Held { output, owner, creator: None });
            }
            self.funding.push(transaction);
        }
        Ok(())
    }

    fn owner_of_outpoint(&self, outpoint: &OutPoint) -> Key {
        derived(self.run, b"outpoint", outpoint.to_string().as_bytes())
    }

    fn add(&mut self, transaction: &Transaction) -> Result<(), BlockFault> {
        let id = transaction.compute_txid();
        let run = self.run;
        let targets: Vec<(OutPoint, Key, i128)> = (0_u32..)
            .zip(&transaction.output)
            .filter(|(_, output)| output.value.to_sat() > 0)
            .map(|(index, output)| {
                let owner = derived(run, b"script", output.script_pubkey.as_bytes());
                (OutPoint::new(id, index), owner, i128::from(output.value.to_sat()))
            })
            .collect();
        if transaction.is_coinbase() {
            return self.add_coinbase(&targets);
        }
        let sources: Vec<Held> =
            transaction.input.iter().filter_map(|input| self.held.remove(&input.previous_output)).collect();
        if sources.is_empty() && targets.is_empty() {
            // it moved outputs without value into outputs without value
            return Ok(());
        }
        let sources = self.gather(id, sources)?;
        self.scatter(id, sources, targets)
    }

    fn add_coinbase(&mut self, targets: &[(OutPoint, Key, i128)]) -> Result<(), BlockFault> {
        for chunk in targets.chunks(OUTPUTS_MAX) {
            let pays = chunk.iter().map(|(_, owner, value)| (owner.party(), *value)).collect();
            let (transaction, outputs) = self.issue(pays)?;
            let creator = Some(self.push(transaction, Vec::new()));
            for ((outpoint, owner, _), output) in chunk.iter().zip(outputs) {
                self.held.insert(*outpoint, Held { output, owner: *owner, creator });
            }
        }
        Ok(())
    }

    /// While there are more inputs than one transaction takes, the first ones become one.
    fn gather(&mut self, id: Txid, mut sources: Vec<Held>) -> Result<Vec<Held>, BlockFault> {
        let gatherer = derived(self.run, b"gather", id.to_string().as_bytes());
        while sources.len() > INPUTS_MAX {
            let rest = sources.split_off(INPUTS_MAX);
            let sum = total(&sources)?;
            let (creator, outputs) = self.move_value(&sources, vec![(gatherer.party(), sum)])?;
            let gathered = outputs.into_iter().map(|output| Held { output, owner: gatherer, creator: Some(creator) });
            sources = rest.into_iter().chain(gathered).collect();
        }
        Ok(sources)
    }

    /// Pays the targets from the sources; while there are more than one transaction creates, the rest is carried on.
    fn scatter(
        &mut self,
        id: Txid,
        mut sources: Vec<Held>,
        mut targets: Vec<(OutPoint, Key, i128)>,
    ) -> Result<(), BlockFault> {
        let carrier = derived(self.run, b"carry", id.to_string().as_bytes());
        let collector = derived(self.run, b"fees", &[]);
        loop {
            let rest = targets.split_off(targets.len().min(OUTPUTS_MAX));
            let mut pays: Vec<(Party, i128)> =
                targets.iter().map(|(_, owner, value)| (owner.party(), *value)).collect();
            let paid: i128 = targets.iter().map(|(_, _, value)| value).sum();
            let left = total(&sources)?.checked_sub(paid).ok_or(BlockFault::Overflow)?;
            let receiver = if rest.is_empty() { collector.party() } else { carrier.party() };
            if left > 0 {
                pays.push((receiver, left));
            }
            let (creator, outputs) = self.move_value(&sources, pays)?;
            for ((outpoint, owner, _), output) in targets.iter().zip(&outputs) {
                self.held.insert(*outpoint, Held { output: *output, owner: *owner, creator: Some(creator) });
            }
            if rest.is_empty() {
                return Ok(());
            }
            let carried = outputs.last().copied().into_iter();
            sources = carried.map(|output| Held { output, owner: carrier, creator: Some(creator) }).collect();
            targets = rest;
        }
    }

    fn move_value(
        &mut self,
        sources: &[Held],
        pays: Vec<(Party, i128)>,
    ) -> Result<(usize, Vec<LiveOutput>), BlockFault> {
        let inputs = sources
            .iter()
            .map(|held| Input { origin: held.output.origin, contract: held.output.contract, unlock: Unlock::Owner })
            .collect();
        let outputs = self.positions(pays);
        let keys: BTreeMap<Party, Key> = sources.iter().map(|held| (held.owner.party(), held.owner)).collect();
        let (transaction, created) = self.sign(Movements { inputs, outputs, ..Movements::default() }, &keys);
        let mut parents: Vec<usize> = sources.iter().filter_map(|held| held.creator).collect();
        parents.sort_unstable();
        parents.dedup();
        Ok((self.push(transaction, parents), created))
    }

    fn issue(&mut self, pays: Vec<(Party, i128)>) -> Result<(SignedTransaction, Vec<LiveOutput>), BlockFault> {
        let sum = Quantity::new(pays.iter().map(|(_, value)| value).sum());
        self.supply = self.supply.checked_add(sum).ok_or(BlockFault::Overflow)?;
        let outputs = self.positions(pays);
        let supply = vec![SupplyChange { asset: self.asset, quantity: sum }];
        let keys = BTreeMap::from([(self.issuer.party(), self.issuer)]);
        Ok(self.sign(Movements { outputs, supply, ..Movements::default() }, &keys))
    }

    fn positions(&self, pays: Vec<(Party, i128)>) -> Vec<Contract> {
        let position =
            |(owner, value)| Contract::Position(Position { asset: self.asset, owner, quantity: Quantity::new(value) });
        pays.into_iter().map(position).collect()
    }

    fn sign(&mut self, movements: Movements, keys: &BTreeMap<Party, Key>) -> (SignedTransaction, Vec<LiveOutput>) {
        let context = (self.context)();
        let body = Body {
            cluster: context.identity.cluster,
            group: context.identity.group,
            valid_until: context.valid_until,
            nonce: context.nonce,
            atomic: None,
            seen_head: None,
            signers: keys.keys().copied().collect(),
            intent: Intent::Movements(movements),
        };
        let id = body.id();
        let outputs = expected_outputs(&id, &body);
        let signatures: Vec<Signature> = keys.values().map(|key| key.sign(&body)).collect();
        let bytes = canonical_bytes(&ledger::Transaction { body, signatures });
        (SignedTransaction::decode(bytes.into()).expect("just encoded"), outputs)
    }

    fn push(&mut self, transaction: SignedTransaction, parents: Vec<usize>) -> usize {
        self.transactions.push(Planned { transaction, parents });
        self.transactions.len() - 1
    }
}

fn total(held: &[Held]) -> Result<i128, BlockFault> {
    let values = held.iter().filter_map(|held| held.output.contract.value());
    let sum = values.map(|(_, quantity)| quantity.minor_units()).try_fold(0_i128, i128::checked_add);
    sum.ok_or(BlockFault::Overflow)
}

fn derived(run: u64, kind: &[u8], name: &[u8]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key("seriatim block replay");
    hasher.update(&run.to_le_bytes());
    hasher.update(kind);
    hasher.update(&[0]);
    hasher.update(name);
    Key::from_seed(*hasher.finalize().as_bytes())
}
