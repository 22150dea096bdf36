//! The checks are checked with bugs in production code, which only builds with the feature `planted` have.

use std::env;

use crate::hunt::{Quarry, hunt};
use chaos_tests::check::Property::{self, *};
use chaos_tests::{SimulationOptions, simulate};
use flaws::Flaw;

/// Hunts for one bug alone, by its name.
const ONLY_VARIABLE: &str = "SERIATIM_SIM_BUG";

/// What has to find a bug, and within how many seeds. `None` where simulations are not what is meant to find it:
/// openraft itself ignores an old snapshot first, and `sequencer/src/durability.rs` finds it without openraft.
const fn meant(flaw: Flaw) -> Option<(&'static [Property], u64)> {
    let found_by: (&[Property], u64) = match flaw {
        Flaw::LeaderRestored => (&[EqualReplicas, Acknowledgements], 60),
        Flaw::AppendBeforeSync => (&[EqualReplicas, Acknowledgements], 60),
        Flaw::VoteBeforeSync => (&[EqualReplicas, Acknowledgements], 400),
        Flaw::SyncErrorSwallowed => (&[EqualReplicas, Acknowledgements, Soundness], 100),
        Flaw::PurgeBeforeFlush => (&[Soundness], 60),
        Flaw::OldSnapshotInstalled => return None,
        Flaw::ReadWithoutMajority => (&[RealTime], 20),
        Flaw::ReadWithoutWaiting => (&[Reads], 60),
        Flaw::FlushInTwoSteps => (&[Soundness], 60),
        Flaw::NoDeduplication => (&[OneOutcome], 20),
        Flaw::StaleInputs => (&[SingleSpend, Outcomes], 40),
        Flaw::AllocationStays => (&[SingleSpend, Outcomes], 20),
        Flaw::HalfAGroup => (&[Atomicity, Outcomes], 20),
        Flaw::LogTimeRunsBack => (&[AppendOnly], 40),
        Flaw::OutcomesByChance => (&[EqualReplicas], 20),
        Flaw::CertificateUnchecked => (&[Authority], 20),
        Flaw::SignatureUnchecked => (&[Authority], 20),
        Flaw::VerdictsShifted => (&[Authority], 20),
        Flaw::UnknownIsRefused => (&[Authority, Acknowledgements], 40),
    };
    Some(found_by)
}

fn quarry(flaw: Flaw) -> Option<Quarry> {
    let (found_by, seeds) = meant(flaw)?;
    let simulate = move |seed| {
        flaws::plant(Some(flaw));
        let report = simulate(&SimulationOptions::new(seed));
        flaws::plant(None);
        report
    };
    let (name, sentence) = (flaw.to_string(), flaw.sentence());
    Some(Quarry { name, sentence, found_by, seeds, simulate: Box::new(simulate) })
}

#[test]
fn every_bug_of_production_code_is_found_by_the_check_meant_for_it() {
    let only = env::var(ONLY_VARIABLE).ok();
    let wanted = |quarry: &Quarry| only.as_ref().is_none_or(|only| quarry.name == *only);
    hunt(&Flaw::ALL.iter().copied().filter_map(quarry).filter(wanted).collect::<Vec<_>>());
}
