//! One solver, asked one obligation after another. A solver and its terms belong to one OS thread.
//!
//! Every question is bounded twice: by a resource limit, which gives the same answer on every machine, and by a wall
//! timeout, which holds where a machine is too slow for that. What is not answered is asked again with other seeds, and
//! then is unknown, which is never a proof.

use std::time::{Duration, Instant};

use z3::{Params, SatResult, Solver};

use crate::encode::{Formula, Label};

/// How a solver is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SolverSettings {
    /// Work per question, in the solver's own units. A window of 8 transactions takes some thousands.
    pub resource_limit: u32,
    /// Time per question.
    pub timeout: Duration,
    /// How often an unanswered question is asked again, each time with another seed.
    pub retries: u32,
    /// Questions after which the solver is replaced by a fresh one, so that what it learned does not pile up.
    pub questions_per_solver: u64,
}

impl Default for SolverSettings {
    fn default() -> Self {
        Self { resource_limit: 20_000_000, timeout: Duration::from_secs(5), retries: 2, questions_per_solver: 2_000 }
    }
}

/// What a solver says of a formula.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// No claim can differ.
    Proved,
    /// Claims that differ in one model, in the order of the formula.
    Refuted(Vec<Label>),
    /// It did not find out, and says why.
    Unknown(String),
}

/// What was asked so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SolverStatistics {
    /// Questions, repetitions included.
    pub checks: u64,
    /// Questions without an answer.
    pub unknown: u64,
    /// Solvers that were replaced by fresh ones.
    pub replaced: u64,
    /// Time in the solver and in making formulas for it.
    pub time: Duration,
}

/// A long-lived incremental solver.
#[derive(Debug)]
pub struct ObligationSolver {
    solver: Solver,
    settings: SolverSettings,
    asked: u64,
    statistics: SolverStatistics,
}

/// The name and version of the library, as attestations and kept caches name it.
#[must_use]
pub fn solver_version() -> String {
    format!("z3 {}", z3::full_version())
}

impl ObligationSolver {
    /// A solver for the calling thread.
    #[must_use]
    pub fn new(settings: SolverSettings) -> Self {
        Self { solver: Solver::new(), settings, asked: 0, statistics: SolverStatistics::default() }
    }

    /// What was asked so far.
    #[must_use]
    pub const fn statistics(&self) -> SolverStatistics {
        self.statistics
    }

    /// Asks whether any claim can differ.
    pub fn decide(&mut self, formula: &Formula) -> Answer {
        let began = Instant::now();
        self.renew();
        let mut answer = Answer::Unknown(String::new());
        for seed in 0..=self.settings.retries {
            answer = self.ask(formula, seed);
            if !matches!(answer, Answer::Unknown(_)) {
                break;
            }
        }
        self.statistics.time += began.elapsed();
        answer
    }

    /// Asks whether the hypotheses of a formula can hold at all: where not, its proof would be worth nothing.
    pub fn can_hold(&mut self, formula: &Formula) -> Option<bool> {
        self.solver.push();
        self.bound(0);
        formula.assertions.iter().for_each(|assertion| self.solver.assert(assertion));
        let result = self.solver.check();
        self.solver.pop(1);
        match result {
            SatResult::Sat => Some(true),
            SatResult::Unsat => Some(false),
            SatResult::Unknown => None,
        }
    }

    fn renew(&mut self) {
        self.asked += 1;
        if self.asked.is_multiple_of(self.settings.questions_per_solver.max(1)) {
            self.solver = Solver::new();
            self.statistics.replaced += 1;
        }
    }

    fn bound(&self, seed: u32) {
        let mut parameters = Params::new();
        let timeout = u32::try_from(self.settings.timeout.as_millis()).unwrap_or(u32::MAX);
        parameters.set_u32("timeout", timeout);
        parameters.set_u32("rlimit", self.settings.resource_limit);
        parameters.set_u32("random_seed", seed);
        self.solver.set_params(&parameters);
    }

    fn ask(&mut self, formula: &Formula, seed: u32) -> Answer {
        self.statistics.checks += 1;
        self.solver.push();
        self.bound(seed);
        formula.assertions.iter().for_each(|assertion| self.solver.assert(assertion));
        self.solver.assert(formula.goal());
        let answer = match self.solver.check() {
            SatResult::Unsat => Answer::Proved,
            SatResult::Sat => self.differing(formula),
            SatResult::Unknown => {
                self.statistics.unknown += 1;
                Answer::Unknown(self.solver.get_reason_unknown().unwrap_or_else(|| "no reason given".to_owned()))
            }
        };
        self.solver.pop(1);
        answer
    }

    fn differing(&self, formula: &Formula) -> Answer {
        let Some(model) = self.solver.get_model() else {
            return Answer::Unknown("satisfiable without a model".to_owned());
        };
        let differs = |(label, violation): &(Label, z3::ast::Bool)| {
            let value = model.eval(violation, true).and_then(|value| value.as_bool());
            (value == Some(true)).then_some(*label)
        };
        Answer::Refuted(formula.violations.iter().filter_map(differs).collect())
    }

    /// The obligation as SMT-LIB 2, for any other solver: `unsat` is a proof.
    pub fn export(&mut self, formula: &Formula) -> String {
        let solver = Solver::new();
        formula.assertions.iter().for_each(|assertion| solver.assert(assertion));
        solver.assert(formula.goal());
        solver.to_smt2()
    }
}
