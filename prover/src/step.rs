//! Step lemmas: for every shape of transaction up to some bounds, and for all states, ids, places and amounts, what the
//! linear checker tests of one claim implies that the serial rule gives that claim, and that the state behind it is
//! again the one that the claims describe.
//!
//! The claims of a whole history are two tables, "created at" and "consumed at". The invariant at place i: an output is
//! live exactly if it was created before i and not consumed before i. With these lemmas the linear checker is a theorem
//! and not a second opinion; they are also what stands in where the solver finds no answer for a single transaction.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ledger::Hash;
use ledger::identifier::tagged_hash;
use z3::ast::{Bool, Dynamic, Int};
use z3::{FuncDecl, Params, SatResult, Solver, Sort, Symbol};

use crate::pattern::ENCODER_VERSION;
use crate::solver::{SolverSettings, solver_version};

/// Up to which shapes step lemmas are proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepBounds {
    /// Consumed outputs.
    pub inputs_max: usize,
    /// Referenced outputs.
    pub references_max: usize,
    /// Created outputs.
    pub outputs_max: usize,
}

impl Default for StepBounds {
    /// What nearly all traffic has; proved in a fraction of a second.
    fn default() -> Self {
        Self { inputs_max: 4, references_max: 1, outputs_max: 4 }
    }
}

/// The step lemmas that were proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepLemmas {
    /// Shapes of which every claim was proved: inputs, references, outputs.
    shapes: BTreeSet<(usize, usize, usize)>,
    /// Lemmas proved.
    pub proved: usize,
    /// Lemmas that were not.
    pub open: usize,
    /// Time that it took.
    pub time: Duration,
    digest: Hash,
}

/// What is claimed of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Committed,
    /// The first of inputs, then references, that is not live was never created.
    Unknown(usize),
    /// It was consumed.
    Spent(usize),
}

/// A local condition that can be left out, to see that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeftOut {
    Nothing,
    /// What is tested of the output that the claim is about.
    #[cfg(test)]
    Condition,
}

impl StepLemmas {
    /// Proves the lemmas up to these bounds.
    #[must_use]
    pub fn prove(bounds: &StepBounds, settings: &SolverSettings) -> Self {
        let began = Instant::now();
        let prover = StepProver::new(settings);
        let mut lemmas =
            Self { shapes: BTreeSet::new(), proved: 0, open: 0, time: Duration::ZERO, digest: digest(bounds) };
        for inputs in 0..=bounds.inputs_max {
            for references in 0..=bounds.references_max {
                for outputs in 0..=bounds.outputs_max {
                    let shape = (inputs, references, outputs);
                    let claims = claims(inputs + references);
                    let proved = claims.iter().filter(|claim| prover.holds(shape, **claim, LeftOut::Nothing)).count();
                    lemmas.proved += proved;
                    lemmas.open += claims.len() - proved;
                    if proved == claims.len() {
                        lemmas.shapes.insert(shape);
                    }
                }
            }
        }
        lemmas.time = began.elapsed();
        lemmas
    }

    /// True where every claim of a transaction of this shape was proved.
    #[must_use]
    pub fn covers(&self, inputs: usize, references: usize, outputs: usize) -> bool {
        self.shapes.contains(&(inputs, references, outputs))
    }

    /// The digest by which attestations name them.
    #[must_use]
    pub const fn digest(&self) -> Hash {
        self.digest
    }
}

fn digest(bounds: &StepBounds) -> Hash {
    let StepBounds { inputs_max, references_max, outputs_max } = bounds;
    let text = format!("{ENCODER_VERSION} {} {inputs_max} {references_max} {outputs_max}", solver_version());
    Hash::from_bytes(tagged_hash(b"seriatim steps..", &[text.as_bytes()]))
}

fn claims(named: usize) -> Vec<Claim> {
    let rejections = (0..named).flat_map(|position| [Claim::Unknown(position), Claim::Spent(position)]);
    std::iter::once(Claim::Committed).chain(rejections).collect()
}

struct StepProver {
    solver: Solver,
}

/// The vocabulary: outputs are of an uninterpreted sort, so nothing is assumed of their ids.
struct Terms {
    live: FuncDecl,
    created: FuncDecl,
    created_at: FuncDecl,
    consumed_at: FuncDecl,
    inputs: Vec<Dynamic>,
    references: Vec<Dynamic>,
    outputs: Vec<Dynamic>,
    /// Any output at all.
    any: Dynamic,
    place: Int,
    /// Times and head are right.
    timely: Bool,
}

impl StepProver {
    fn new(settings: &SolverSettings) -> Self {
        let solver = Solver::new();
        let mut parameters = Params::new();
        parameters.set_u32("timeout", u32::try_from(settings.timeout.as_millis()).unwrap_or(u32::MAX));
        parameters.set_u32("rlimit", settings.resource_limit);
        solver.set_params(&parameters);
        Self { solver }
    }

    fn holds(&self, shape: (usize, usize, usize), claim: Claim, left_out: LeftOut) -> bool {
        let terms = Terms::of(shape);
        self.solver.push();
        terms.hypotheses(claim, left_out).iter().for_each(|hypothesis| self.solver.assert(hypothesis));
        self.solver.assert(terms.conclusion(claim).not());
        let result = self.solver.check();
        self.solver.pop(1);
        result == SatResult::Unsat
    }

    /// True where the hypotheses can hold: a lemma about nothing proves nothing.
    #[cfg(test)]
    fn can_hold(&self, shape: (usize, usize, usize), claim: Claim) -> bool {
        let terms = Terms::of(shape);
        self.solver.push();
        terms.hypotheses(claim, LeftOut::Nothing).iter().for_each(|hypothesis| self.solver.assert(hypothesis));
        let result = self.solver.check();
        self.solver.pop(1);
        result == SatResult::Sat
    }
}

impl Terms {
    fn of((inputs, references, outputs): (usize, usize, usize)) -> Self {
        let output = Sort::uninterpreted(Symbol::from("Output"));
        let (integer, boolean) = (Sort::int(), Sort::bool());
        let constant = |name: String| FuncDecl::new(name, &[], &output).apply(&[]);
        let constants = |kind: &str, count: usize| -> Vec<Dynamic> {
            (0..count).map(|position| constant(format!("{kind}{position}"))).collect()
        };
        Self {
            live: FuncDecl::new("live", &[&output], &boolean),
            created: FuncDecl::new("created", &[&output], &boolean),
            created_at: FuncDecl::new("created_at", &[&output], &integer),
            consumed_at: FuncDecl::new("consumed_at", &[&output], &integer),
            inputs: constants("input", inputs),
            references: constants("reference", references),
            outputs: constants("output", outputs),
            any: constant("any".to_owned()),
            place: Int::new_const("place"),
            timely: Bool::new_const("timely"),
        }
    }

    fn named(&self) -> impl Iterator<Item = &Dynamic> {
        self.inputs.iter().chain(&self.references)
    }

    fn is_live(&self, output: &Dynamic) -> Bool {
        self.live.apply(&[output]).as_bool().expect("the function's range is Bool")
    }

    fn is_created(&self, output: &Dynamic) -> Bool {
        self.created.apply(&[output]).as_bool().expect("the function's range is Bool")
    }

    fn created_at(&self, output: &Dynamic) -> Int {
        self.created_at.apply(&[output]).as_int().expect("the function's range is Int")
    }

    fn consumed_at(&self, output: &Dynamic) -> Int {
        self.consumed_at.apply(&[output]).as_int().expect("the function's range is Int")
    }

    /// By the tables, live where the transaction stands.
    fn table_live(&self, output: &Dynamic) -> Bool {
        Bool::and(&[self.created_at(output).lt(&self.place), self.consumed_at(output).ge(&self.place)])
    }

    fn hypotheses(&self, claim: Claim, left_out: LeftOut) -> Vec<Bool> {
        let mut hypotheses = Vec::new();
        let committed = claim == Claim::Committed;
        for output in self.named().chain(&self.outputs).chain([&self.any]) {
            // the invariant at this place, and that nothing is consumed before it is created
            hypotheses.push(self.is_live(output).eq(self.table_live(output)));
            hypotheses.push(self.is_created(output).eq(self.created_at(output).lt(&self.place)));
            hypotheses.push(self.consumed_at(output).gt(self.created_at(output)));
            // the tables have entries of this place only for what this transaction consumes and creates
            let consumed_here = self.consumed_at(output).eq(&self.place);
            let created_here = self.created_at(output).eq(&self.place);
            hypotheses.push(consumed_here.implies(among(output, &self.inputs, committed)));
            hypotheses.push(created_here.implies(among(output, &self.outputs, committed)));
        }
        for (position, output) in self.outputs.iter().enumerate() {
            hypotheses.extend(self.outputs.iter().take(position).map(|other| output.eq(other).not()));
            // names of own outputs are new: they are hashes that commit to the transaction
            hypotheses.push(self.created_at(output).ge(&self.place));
        }
        hypotheses.push(self.timely.clone());
        hypotheses.extend(self.local_conditions(claim, left_out));
        hypotheses
    }

    /// What the linear checker tests.
    fn local_conditions(&self, claim: Claim, left_out: LeftOut) -> Vec<Bool> {
        let kept = left_out == LeftOut::Nothing;
        let mut conditions = Vec::new();
        match claim {
            Claim::Committed => {
                for (position, input) in self.inputs.iter().enumerate() {
                    conditions.push(self.created_at(input).lt(&self.place));
                    if kept || position > 0 {
                        conditions.push(self.consumed_at(input).eq(&self.place));
                    }
                }
                let references = self.references.iter().filter(|_| kept || !self.inputs.is_empty());
                conditions.extend(references.map(|reference| self.table_live(reference)));
                conditions.extend(self.outputs.iter().map(|output| self.created_at(output).eq(&self.place)));
            }
            Claim::Unknown(position) | Claim::Spent(position) => {
                conditions.extend(self.named().take(position).map(|earlier| self.table_live(earlier)));
                let Some(output) = self.named().nth(position) else { return conditions };
                match claim {
                    Claim::Unknown(_) if kept => conditions.push(self.created_at(output).ge(&self.place)),
                    Claim::Spent(_) => {
                        conditions.push(self.created_at(output).lt(&self.place));
                        if kept {
                            conditions.push(self.consumed_at(output).lt(&self.place));
                        }
                    }
                    Claim::Unknown(_) | Claim::Committed => {}
                }
            }
        }
        conditions
    }

    /// The serial rule gives the claim, and the invariant holds of any output at the next place.
    fn conclusion(&self, claim: Claim) -> Bool {
        let fresh = self.outputs.iter().map(|output| self.is_created(output).not());
        let live = self.named().map(|output| self.is_live(output));
        let happens = Bool::and(&[self.timely.clone()].into_iter().chain(fresh).chain(live).collect::<Vec<_>>());
        let right = match claim {
            Claim::Committed => happens.clone(),
            Claim::Unknown(position) | Claim::Spent(position) => {
                let mut reason = vec![self.timely.clone()];
                reason.extend(self.named().take(position).map(|earlier| self.is_live(earlier)));
                reason.extend(self.named().nth(position).into_iter().flat_map(|output| {
                    let created = self.is_created(output);
                    [self.is_live(output).not(), if matches!(claim, Claim::Spent(_)) { created } else { created.not() }]
                }));
                Bool::and(&reason)
            }
        };
        let consumed = among(&self.any, &self.inputs, true);
        let created = among(&self.any, &self.outputs, true);
        let live_before = self.is_live(&self.any);
        let live_if = Bool::or(&[created.clone(), Bool::and(&[live_before.clone(), consumed.not()])]);
        let live_after = happens.ite(&live_if, &live_before);
        let created_before = self.is_created(&self.any);
        let created_after = happens.ite(&Bool::or(&[created, created_before.clone()]), &created_before);
        let next = Int::add(&[self.place.clone(), Int::from_i64(1)]);
        let table_live = Bool::and(&[self.created_at(&self.any).lt(&next), self.consumed_at(&self.any).ge(&next)]);
        Bool::and(&[right, live_after.eq(table_live), created_after.eq(self.created_at(&self.any).lt(&next))])
    }
}

/// True where the output is one of these, and there is anything to be one of.
fn among(output: &Dynamic, these: &[Dynamic], counts: bool) -> Bool {
    let equal: Vec<Bool> = these.iter().filter(|_| counts).map(|other| other.eq(output)).collect();
    if equal.is_empty() { Bool::from_bool(false) } else { Bool::or(&equal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: StepBounds = StepBounds { inputs_max: 3, references_max: 2, outputs_max: 3 };

    #[test]
    fn every_step_is_proved_up_to_the_bounds_and_no_further() {
        let lemmas = StepLemmas::prove(&BOUNDS, &SolverSettings::default());
        let claims_each = |named: usize| 1 + 2 * named;
        let expected: usize = (0..=3).flat_map(|a| (0..=2).map(move |r| 4 * claims_each(a + r))).sum();
        assert_eq!((lemmas.proved, lemmas.open), (expected, 0));
        assert!(lemmas.covers(3, 2, 3) && !lemmas.covers(4, 0, 1) && !lemmas.covers(0, 3, 1));
    }

    #[test]
    fn no_step_is_about_nothing_and_each_needs_its_condition() {
        let prover = StepProver::new(&SolverSettings::default());
        for inputs in 0..=3_usize {
            for references in 0..=2_usize {
                for claim in claims(inputs + references) {
                    let shape = (inputs, references, 2);
                    assert!(prover.can_hold(shape, claim), "{shape:?} {claim:?}");
                    let has_condition = inputs + references > 0;
                    assert_eq!(prover.holds(shape, claim, LeftOut::Condition), !has_condition, "{shape:?} {claim:?}");
                }
            }
        }
    }
}
