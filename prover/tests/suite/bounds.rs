//! What is not proved is not passed off as proved: bounds of the solver, kept patterns, and proofs about nothing.

use std::sync::Arc;

use checker::attestation::AttestationFault;
use checker::{Attestation, Chunk, Frontier, Invariant, Verdict};
use ledger::identifier::canonical_bytes;
use proptest::prelude::*;
use prover::abstraction::Abstraction;
use prover::cache::PatternCache;
use prover::encode::{Formula, encode};
use prover::pattern::OutcomePattern;
use prover::pool::ProverPool;
use prover::solver::{Answer, ObligationSolver, SolverSettings};
use prover::step::StepBounds;
use prover::{ENCODER_VERSION, Pattern, Prover, ProverSettings, solver_version};

use crate::fixture;
use crate::history::histories;
use crate::honest::cases;
use crate::scene::{Scene, lies};
use crate::support::key;

const NO_STEPS: StepBounds = StepBounds { inputs_max: 0, references_max: 0, outputs_max: 0 };

/// A solver that may not do anything.
fn helpless(steps: StepBounds) -> Prover {
    let solver = SolverSettings { resource_limit: 1, retries: 1, ..SolverSettings::default() };
    Prover::new(ProverSettings { solver, steps, ..ProverSettings::default() })
}

fn patterns(chunks: &[Chunk]) -> Vec<Pattern> {
    let windows = chunks.iter().flat_map(|chunk| Abstraction::of(chunk).unwrap().windows(8));
    windows.map(|window| window.pattern).collect()
}

#[test]
fn a_solver_that_runs_out_is_inconclusive_names_what_is_open_and_keeps_nothing() {
    let (scene, mut prover) = (Scene::new(), helpless(NO_STEPS));
    let chunks = scene.honest();
    let report = prover.judge(&chunks[0], &mut fixture::genesis());
    assert!(report.by_replay.is_proved());
    let Verdict::Inconclusive(reason) = &report.verdict else { panic!("{}", report.verdict) };
    assert!(reason.contains(&scene.id("usd").to_string()), "{reason}");
    assert!(report.statistics.solver_unknown > 0 && report.statistics.undecided > 0);
    assert!(prover.cache().is_empty());
}

#[test]
fn an_attestation_of_what_was_left_open_says_so() {
    let (scene, mut prover) = (Scene::new(), helpless(NO_STEPS));
    let chunks: Vec<Chunk> = scene.honest().into_iter().filter(|chunk| chunk.batch == 1).collect();
    let (attestation, _) = prover.attest(&chunks, &mut fixture::genesis(), Attestation::NONE, &key("one")).unwrap();
    assert!(matches!(attestation.findings.verdict, Verdict::Inconclusive(_)));
    let verified = attestation.verify_evidence(&chunks, &mut fixture::genesis());
    assert!(matches!(verified, Err(AttestationFault::NotProved(_))), "{verified:?}");
}

#[test]
fn step_lemmas_stand_in_only_where_the_replay_accepts() {
    let (scene, mut prover) = (Scene::new(), helpless(StepBounds { inputs_max: 2, references_max: 1, outputs_max: 3 }));
    let chunks = scene.honest();
    let mut replay = fixture::genesis();
    assert_eq!(prover.judge(&chunks[0], &mut replay).verdict, Verdict::Proved);
    let alone = prover.judge_by_solver(&chunks[0], false).verdict;
    assert!(matches!(alone, Verdict::Inconclusive(_)), "{alone}");
    for lie in lies() {
        let mut replay = fixture::genesis();
        let verdicts: Vec<Verdict> =
            (lie.tell)(&scene).iter().map(|chunk| prover.judge(chunk, &mut replay).verdict).collect();
        assert!(!verdicts.iter().all(Verdict::is_proved), "{}", lie.name);
    }
}

#[test]
fn attestations_of_a_history_are_verified_without_a_solver() {
    let (scene, mut prover) = (Scene::new(), Prover::new(ProverSettings::default()));
    let (mut proving, mut verifying) = (fixture::genesis(), fixture::genesis());
    let (mut predecessor, mut links, chunks) = (Attestation::NONE, Vec::new(), scene.honest());
    for batch in 1..=3 {
        let chunks: Vec<Chunk> = chunks.iter().filter(|chunk| chunk.batch == batch).cloned().collect();
        let (attestation, reports) = prover.attest(&chunks, &mut proving, predecessor, &key("one")).unwrap();
        assert_eq!(reports.len(), chunks.len());
        assert!(!attestation.findings.patterns.is_empty());
        attestation.verify_evidence(&chunks, &mut verifying).unwrap();
        predecessor = attestation.hash();
        links.push(attestation);
    }
    let trusted = [key("one").party()];
    let end = checker::attestation::verify_chain(&links, &trusted, &Frontier::genesis(), Attestation::NONE).unwrap();
    assert!(end.agrees_with(&scene.testimonies[2].head));
}

#[test]
fn a_kept_cache_is_proved_again_and_forged_lemmas_are_dropped() {
    let (scene, mut prover) = (Scene::new(), Prover::new(ProverSettings::default()));
    let chunks = scene.honest();
    chunks.iter().for_each(|chunk| assert!(prover.judge_by_solver(chunk, false).verdict.is_proved()));
    let (bytes, count) = (prover.cache().to_bytes(), prover.cache().len());
    let mut again = Prover::new(ProverSettings::default());
    assert_eq!(again.load(&bytes).unwrap().proved, count);
    let report = again.judge_by_solver(&chunks[1], false);
    assert_eq!((report.statistics.pattern_misses, report.statistics.solver_checks), (0, 0));

    // a loser told committed, as a lemma
    let forged: Vec<Vec<u8>> = patterns(&chunks).into_iter().filter_map(forge).collect();
    assert!(forged.len() > 5);
    let dropped = forged.len();
    let loaded = again.load(&canonical_bytes(&forged)).unwrap();
    assert_eq!((loaded.proved, loaded.dropped), (0, dropped));
}

/// The key of a pattern with one outcome turned round.
fn forge(mut pattern: Pattern) -> Option<Vec<u8>> {
    let members = pattern.units.iter_mut().flat_map(|unit| &mut unit.members);
    let outcome = members.map(|member| &mut member.outcome).find(|outcome| {
        matches!(
            outcome,
            OutcomePattern::InputSpent(..) | OutcomePattern::Committed | OutcomePattern::InputUnknown(_)
        )
    })?;
    *outcome = match outcome {
        OutcomePattern::Committed => OutcomePattern::Expired,
        _ => OutcomePattern::Committed,
    };
    Some(pattern.key().as_bytes().to_vec())
}

#[test]
fn keys_of_other_versions_and_what_is_no_key_are_dropped() {
    let (scene, mut prover) = (Scene::new(), Prover::new(ProverSettings::default()));
    let patterns = patterns(&scene.honest());
    let keys = |encoder: u16, solver: &str| -> Vec<Vec<u8>> {
        patterns.iter().map(|pattern| canonical_bytes(&(encoder, solver, pattern))).collect()
    };
    let own = keys(ENCODER_VERSION, solver_version());
    assert!(patterns.iter().zip(&own).all(|(pattern, key)| pattern.key().as_bytes() == key));
    let cut: Vec<Vec<u8>> = own.iter().map(|key| key[..key.len() - 1].to_vec()).collect();
    let others = [keys(ENCODER_VERSION + 1, solver_version()), keys(ENCODER_VERSION, "z3 1.0"), cut];
    for kept in others {
        let loaded = prover.load(&canonical_bytes(&kept)).unwrap();
        assert_eq!((loaded.proved, loaded.dropped), (0, patterns.len()));
    }
    assert!(prover.load(b"no cache").is_err());
    assert!(prover.cache().is_empty());
}

#[test]
fn a_cache_never_holds_more_than_its_bound_and_keeps_what_is_used() {
    let scene = Scene::new();
    let mut solver = ObligationSolver::new(SolverSettings::default());
    let mut keys: Vec<Vec<u8>> =
        patterns(&scene.honest()).iter().map(|pattern| pattern.key().as_bytes().to_vec()).collect();
    keys.sort();
    keys.dedup();
    assert!(keys.len() > 5, "{}", keys.len());
    let first = prover::PatternKey::from_bytes(&keys[0]).unwrap();
    let mut cache = PatternCache::new(4);
    for key in &keys {
        cache.load(&canonical_bytes(&vec![key.clone()]), &mut solver).unwrap();
        assert!(cache.len() <= 4, "{}", cache.len());
        assert!(cache.find(&first).is_some());
    }
}

#[test]
fn no_lemma_is_about_nothing() {
    let (scene, mut solver) = (Scene::new(), ObligationSolver::new(SolverSettings::default()));
    for pattern in patterns(&scene.honest()) {
        let formula = encode(&pattern, None);
        assert_eq!(solver.can_hold(&formula), Some(true), "{pattern:?}");
        assert_eq!(solver.decide(&formula), Answer::Proved);
        // without its hypotheses and definitions nothing follows
        let bare = Formula { assertions: Vec::new(), violations: encode(&pattern, None).violations };
        assert!(matches!(solver.decide(&bare), Answer::Refuted(_)), "{pattern:?}");
    }
}

#[test]
fn every_constraint_is_needed_to_catch_some_lie() {
    let (scene, mut solver) = (Scene::new(), ObligationSolver::new(SolverSettings::default()));
    let told: Vec<Vec<Pattern>> = lies()
        .iter()
        .filter(|lie| lie.seen_by_solver)
        .map(|lie| {
            let chunks = (lie.tell)(&scene);
            let apart: Result<Vec<_>, _> =
                chunks.iter().map(|chunk| Abstraction::of(chunk).map(|it| it.windows(8))).collect();
            apart
                .map(|windows| windows.into_iter().flatten().map(|window| window.pattern).collect())
                .unwrap_or_default()
        })
        .collect();
    let mut proves = |patterns: &[Pattern], without: Option<Invariant>| {
        patterns.iter().all(|pattern| {
            let mut formula = encode(pattern, None);
            formula.violations.retain(|(label, _)| Some(label.invariant) != without);
            solver.decide(&formula) == Answer::Proved
        })
    };
    let constraints = [
        Invariant::Outcome,
        Invariant::Group,
        Invariant::Observation,
        Invariant::PostState,
        Invariant::Conservation,
        Invariant::Constraint,
        Invariant::Admission,
        Invariant::Order,
    ];
    for constraint in constraints {
        let passes = |patterns: &&Vec<Pattern>| !proves(patterns, None) && proves(patterns, Some(constraint));
        assert!(told.iter().find(passes).is_some(), "nothing passes without {constraint:?}");
    }
}

#[test]
fn threads_find_what_one_prover_finds() {
    let scene = Scene::new();
    let mut pool = ProverPool::start(2, ProverSettings::default(), None).unwrap();
    let mut alone = Prover::new(ProverSettings::default());
    for lie in lies() {
        let chunks = (lie.tell)(&scene);
        let pending: Vec<_> = chunks.iter().map(|chunk| pool.prove(Arc::new(chunk.clone()), false).unwrap()).collect();
        for (chunk, pending) in chunks.iter().zip(pending) {
            let found = alone.judge_by_solver(chunk, false);
            let other = pending.wait().unwrap();
            // which of several claims that differ a model shows may depend on what the solver saw before
            assert_eq!(
                std::mem::discriminant(&other.verdict),
                std::mem::discriminant(&found.verdict),
                "{}: {} and {}",
                lie.name,
                other.verdict,
                found.verdict
            );
        }
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn a_key_gives_its_pattern_back_and_no_other_bytes_do(history in histories(), at in any::<prop::sample::Index>()) {
        let testimonies = fixture::testimonies(&history);
        let (chunks, _) = fixture::chunks(&testimonies, 30);
        for pattern in patterns(&chunks) {
            let key = pattern.key();
            prop_assert_eq!(key.pattern(), Some(pattern));
            let mut bytes = key.as_bytes().to_vec();
            prop_assert_eq!(prover::PatternKey::from_bytes(&bytes), Some(key.clone()));
            let place = at.index(bytes.len());
            bytes[place] ^= 1;
            // other bytes are another pattern, or none
            prop_assert!(prover::PatternKey::from_bytes(&bytes).is_none_or(|other| other.pattern() != key.pattern()));
        }
    }
}
