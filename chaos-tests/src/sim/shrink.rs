//! A failing seed with as few faults as will do.
//!
//! Faults are left out in ever smaller groups, as long as the same property stays violated. What happens besides is what
//! the seed makes of it each time, so a smaller schedule is another execution; it is as good a witness.

use std::collections::BTreeSet;
use std::fmt;

use crate::check::Property;
use crate::sim::run::{Report, SimulationOptions, simulate};

/// Simulations after which the best that was found has to do.
const RUNS_MAX: usize = 120;

/// What is left.
#[derive(Debug)]
pub struct Shrunk {
    /// The faults that are left out.
    pub left_out: BTreeSet<usize>,
    /// What the seed does without them.
    pub report: Report,
    /// Faults before.
    pub faults_before: usize,
    /// Simulations that it took.
    pub runs: usize,
}

/// Leaves out what can be left out. A sound seed stays as it is.
#[must_use]
pub fn shrink(options: &SimulationOptions) -> Shrunk {
    let first = simulate(options);
    let faults_before = first.schedule.len();
    let Some(property) = first.violations().first().map(|violation| violation.property) else {
        return Shrunk { left_out: options.left_out.clone(), report: first, faults_before, runs: 1 };
    };
    let mut best = Shrunk { left_out: options.left_out.clone(), report: first, faults_before, runs: 1 };
    let mut group = best.report.schedule.len().div_ceil(2).max(1);
    loop {
        let mut progress = false;
        let numbers: Vec<usize> = best.report.schedule.iter().map(|fault| fault.number).collect();
        for chunk in numbers.chunks(group) {
            if best.runs >= RUNS_MAX {
                return best;
            }
            let left_out: BTreeSet<usize> = best.left_out.iter().chain(chunk).copied().collect();
            let report = simulate(&SimulationOptions { left_out: left_out.clone(), ..options.clone() });
            best.runs += 1;
            if violates(&report, property) {
                (best.left_out, best.report, progress) = (left_out, report, true);
            }
        }
        if group == 1 && !progress {
            return best;
        }
        group = group.div_ceil(2).max(1);
    }
}

fn violates(report: &Report, property: Property) -> bool {
    report.violations().iter().any(|violation| violation.property == property)
}

impl fmt::Display for Shrunk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = &self.report.schedule;
        write!(out, "{} of {} faults are enough ({} runs):", left.len(), self.faults_before, self.runs)?;
        for fault in left {
            write!(out, "\n  {:>8.3} s  {:>3}  {:?}", fault.at.as_secs_f64(), fault.number, fault.kind)?;
        }
        for violation in self.report.violations() {
            write!(out, "\n  {violation}")?;
        }
        write!(out, "\n  replay: {} --trace", self.report.command)
    }
}
