//! What was wrong with a refuted order: would another order of the same transactions explain what was seen?
//!
//! Every transaction gets a place on a line, between its invocation and its answer; whoever saw what another left comes
//! behind it, and before whoever consumed that. These are differences of integers. Satisfiable without the sequenced
//! order and unsatisfiable with it: the claims are linearizable, and the order is what is wrong. Unsatisfiable in any
//! order: the claims contradict each other, and the core names the transactions.

use std::collections::BTreeSet;

use checker::{Chunk, Fate};
use ledger::rejection::Rejection;
use ledger::{Outcome, OutputId, Sequence, TransactionId};
use z3::ast::{Bool, Int};
use z3::{Params, SatResult, Solver};

use crate::solver::SolverSettings;

/// Symbols of places, apart from those of patterns.
const PLACE: u32 = 1 << 22;
/// Symbols that stand for constraints in cores.
const TRACKED: u32 = 1 << 23;

/// What a diagnosis finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diagnosis {
    /// The sequenced order explains everything that was seen of outputs.
    Linearizable,
    /// Another order would: these transactions, in this order of their sequences.
    OtherOrder(Vec<Sequence>),
    /// No order does; these transactions contradict each other.
    NoOrder(Vec<TransactionId>),
    /// It was not found out.
    Unknown(String),
}

/// "This comes before that", or something that can never hold; and whom it is about.
struct Constraint {
    formula: Bool,
    about: Vec<usize>,
}

/// Looks for an order of a chunk's transactions that explains its claims about outputs.
#[must_use]
pub fn diagnose(chunk: &Chunk, settings: &SolverSettings) -> Diagnosis {
    let constraints = constraints(chunk);
    match check(&constraints, &sequenced(chunk), settings) {
        Found::Sat(_) => return Diagnosis::Linearizable,
        Found::Unknown(reason) => return Diagnosis::Unknown(reason),
        Found::Unsat(_) => {}
    }
    match check(&constraints, &[], settings) {
        Found::Sat(places) => {
            let mut order: Vec<(i64, Sequence)> =
                places.into_iter().zip(chunk.entries.iter().map(|entry| entry.sequence)).collect();
            order.sort_unstable();
            Diagnosis::OtherOrder(order.into_iter().map(|(_, sequence)| sequence).collect())
        }
        Found::Unsat(about) => {
            let named = about.iter().filter_map(|place| chunk.entries.get(*place)).map(checker::Entry::id);
            Diagnosis::NoOrder(named.collect())
        }
        Found::Unknown(reason) => Diagnosis::Unknown(reason),
    }
}

enum Found {
    Sat(Vec<i64>),
    Unsat(BTreeSet<usize>),
    Unknown(String),
}

fn check(constraints: &[Constraint], order: &[Constraint], settings: &SolverSettings) -> Found {
    let solver = Solver::new();
    let mut parameters = Params::new();
    parameters.set_u32("timeout", u32::try_from(settings.timeout.as_millis()).unwrap_or(u32::MAX));
    parameters.set_u32("rlimit", settings.resource_limit);
    solver.set_params(&parameters);
    let all: Vec<&Constraint> = constraints.iter().chain(order).collect();
    let tracked: Vec<Bool> = (TRACKED..).zip(&all).map(|(symbol, _)| Bool::new_const(symbol)).collect();
    for (constraint, name) in all.iter().zip(&tracked) {
        solver.assert_and_track(constraint.formula.clone(), name);
    }
    match solver.check() {
        SatResult::Sat => {
            let Some(model) = solver.get_model() else { return Found::Unknown("no model".to_owned()) };
            let places = all.iter().flat_map(|constraint| &constraint.about).max().map_or(0, |last| last + 1);
            let value = |place: usize| model.eval(&position(place), true).and_then(|value| value.as_i64());
            Found::Sat((0..places).map(|place| value(place).unwrap_or_default()).collect())
        }
        SatResult::Unsat => {
            let core = solver.get_unsat_core();
            let named = all.iter().zip(&tracked).filter(|(_, name)| core.contains(name));
            Found::Unsat(named.flat_map(|(constraint, _)| constraint.about.iter().copied()).collect())
        }
        SatResult::Unknown => {
            Found::Unknown(solver.get_reason_unknown().unwrap_or_else(|| "no reason given".to_owned()))
        }
    }
}

fn position(place: usize) -> Int {
    Int::new_const(PLACE.saturating_add(u32::try_from(place).unwrap_or(u32::MAX)))
}

fn before(earlier: usize, later: usize) -> Constraint {
    Constraint { formula: position(earlier).lt(position(later)), about: vec![earlier, later] }
}

fn never(about: Vec<usize>) -> Constraint {
    Constraint { formula: Bool::from_bool(false), about }
}

fn sequenced(chunk: &Chunk) -> Vec<Constraint> {
    (1..chunk.entries.len()).map(|place| before(place - 1, place)).collect()
}

/// Who created and who consumed an output, by the outcomes.
#[derive(Default)]
struct Lives {
    creator: Option<usize>,
    consumers: Vec<usize>,
    before: Option<Fate>,
}

fn constraints(chunk: &Chunk) -> Vec<Constraint> {
    let mut constraints = real_time(chunk);
    let mut lives: std::collections::BTreeMap<OutputId, Lives> = std::collections::BTreeMap::new();
    for output in &chunk.touched {
        let creator = chunk
            .entries
            .iter()
            .position(|entry| entry.id() == output.origin.transaction && entry.outcome.is_committed());
        lives.insert(output.id, Lives { creator, consumers: Vec::new(), before: Some(output.before) });
    }
    let named: Vec<Vec<OutputId>> = chunk.entries.iter().map(inputs).collect();
    for (place, (entry, inputs)) in chunk.entries.iter().zip(&named).enumerate() {
        for output in inputs.iter().filter(|_| entry.outcome.is_committed()) {
            lives.entry(*output).or_default().consumers.push(place);
        }
    }
    for (place, (entry, inputs)) in chunk.entries.iter().zip(&named).enumerate() {
        match &entry.outcome {
            Outcome::Committed { .. } => {
                for lives in inputs.iter().filter_map(|output| lives.get(output)) {
                    constraints.extend(was_live(lives, place));
                    let rivals = lives.consumers.iter().filter(|rival| **rival < place);
                    constraints.extend(rivals.map(|rival| never(vec![*rival, place])));
                }
            }
            Outcome::Rejected(Rejection::InputSpent { output, winner, .. }) => {
                let winner = chunk.entries.iter().position(|entry| entry.id() == *winner);
                let Some(lives) = lives.get(output) else { continue };
                constraints.extend(was_spent(lives, place, winner));
            }
            Outcome::Rejected(Rejection::InputUnknown { output, .. }) => {
                let Some(lives) = lives.get(output) else { continue };
                match (lives.before, lives.creator) {
                    (Some(Fate::Absent) | None, Some(creator)) => constraints.push(before(place, creator)),
                    (Some(Fate::Absent) | None, None) => {}
                    (Some(Fate::Live { .. } | Fate::Spent { .. }), _) => constraints.push(never(vec![place])),
                }
            }
            Outcome::Rejected(_) => {}
        }
    }
    constraints
}

/// Between invocation and answer. Stamps count transactions, so they are compared with one another only.
fn real_time(chunk: &Chunk) -> Vec<Constraint> {
    let mut constraints = Vec::new();
    for (place, entry) in chunk.entries.iter().enumerate() {
        let Some(responded) = entry.responded else { continue };
        let invoked_later = chunk.entries.iter().enumerate().filter(|(_, other)| other.invoked > responded);
        constraints.extend(invoked_later.map(|(later, _)| before(place, later)));
    }
    constraints
}

fn was_live(lives: &Lives, place: usize) -> Vec<Constraint> {
    match (lives.before, lives.creator) {
        (Some(Fate::Live { .. }), _) => Vec::new(),
        (_, Some(creator)) => vec![before(creator, place)],
        (_, None) => vec![never(vec![place])],
    }
}

fn was_spent(lives: &Lives, place: usize, winner: Option<usize>) -> Vec<Constraint> {
    match (lives.before, winner) {
        (Some(Fate::Spent { .. }), None) => Vec::new(),
        (_, Some(winner)) if lives.consumers.contains(&winner) => vec![before(winner, place)],
        (_, Some(winner)) => vec![never(vec![winner, place])],
        (_, None) => vec![never(vec![place])],
    }
}

fn inputs(entry: &checker::Entry) -> Vec<OutputId> {
    let effects = ledger::effects::Effects::of(&entry.id(), &entry.received.transaction().body);
    match &entry.outcome {
        Outcome::Committed { chosen } if !chosen.is_empty() => chosen.clone(),
        Outcome::Committed { .. } | Outcome::Rejected(_) => {
            effects.consumed.into_iter().map(|(output, _)| output).collect()
        }
    }
}
