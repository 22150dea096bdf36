//! The checks are checked with bugs in production code, which only builds with the feature `planted` have.

use std::env;

use crate::hunt::{Quarry, hunt};
use chaos_tests::check::Property::{self, *};
use chaos_tests::{SimulationOptions, simulate};
use flaws::Flaw;

/// Also hunts for bugs that take hundreds of seeds: minutes each.
const RARE_VARIABLE: &str = "SERIATIM_SIM_RARE_BUGS";
/// Hunts for one of them, by its name.
const ONLY_VARIABLE: &str = "SERIATIM_SIM_BUG";
/// More seeds than this make a bug rare.
const SEEDS_COMMON: u64 = 100;

/// What has to find a bug, and within how many seeds.
const fn meant(flaw: Flaw) -> (&'static [Property], u64) {
    match flaw {
        Flaw::LeaderRestored => (&[EqualReplicas, Acknowledgements], 400),
        Flaw::AppendBeforeSync => (&[EqualReplicas, Acknowledgements], 60),
        Flaw::VoteBeforeSync => (&[EqualReplicas, Acknowledgements], 1_000),
        Flaw::SyncErrorSwallowed => (&[EqualReplicas, Acknowledgements, Soundness], 100),
        Flaw::PurgeBeforeFlush => (&[Soundness], 60),
        Flaw::OldSnapshotInstalled => (&[EqualReplicas, Acknowledgements, Soundness], 1_000),
        Flaw::ReadWithoutMajority => (&[RealTime], 20),
        Flaw::ReadWithoutWaiting => (&[Reads], 60),
        Flaw::FlushInTwoSteps => (&[Soundness], 60),
        Flaw::NoDeduplication => (&[OneOutcome], 20),
        Flaw::StaleInputs => (&[SingleSpend, Outcomes], 40),
        Flaw::AllocationStays => (&[SingleSpend, Outcomes], 20),
        Flaw::HalfAGroup => (&[Atomicity, Outcomes], 20),
        Flaw::LogTimeRunsBack => (&[Outcomes], 40),
        Flaw::OutcomesByChance => (&[EqualReplicas], 20),
        Flaw::CertificateUnchecked => (&[Authority], 20),
        Flaw::SignatureUnchecked => (&[Authority], 20),
        Flaw::VerdictsShifted => (&[Authority], 20),
        Flaw::UnknownIsRefused => (&[Authority, Acknowledgements], 40),
    }
}

fn quarry(flaw: Flaw) -> Quarry {
    let (found_by, seeds) = meant(flaw);
    let simulate = move |seed| {
        flaws::plant(Some(flaw));
        let report = simulate(&SimulationOptions::new(seed));
        flaws::plant(None);
        report
    };
    Quarry { name: flaw.to_string(), sentence: flaw.sentence(), found_by, seeds, simulate: Box::new(simulate) }
}

#[test]
fn every_bug_of_production_code_is_found_by_the_check_meant_for_it() {
    let (all, only) = (env::var_os(RARE_VARIABLE).is_some(), env::var(ONLY_VARIABLE).ok());
    let wanted = |quarry: &Quarry| match &only {
        Some(only) => quarry.name == *only,
        None => all || quarry.seeds <= SEEDS_COMMON,
    };
    hunt(&Flaw::ALL.iter().copied().map(quarry).filter(wanted).collect::<Vec<_>>());
}
