//! Every lie of the list that shows inside a chunk is refuted by the solver too, naming the transactions concerned; and
//! none of them is ever attested.

use checker::{Invariant, Verdict};
use prover::{Prover, ProverSettings};

use crate::fixture;
use crate::scene::{Lie, Scene, lies};

fn prover(window_units: usize) -> Prover {
    let chain_window_units = window_units;
    Prover::new(ProverSettings { window_units, chain_window_units, ..ProverSettings::default() })
}

/// What the solver alone finds first.
fn by_solver(prover: &mut Prover, chunks: &[checker::Chunk]) -> Verdict {
    let verdicts = chunks.iter().map(|chunk| prover.judge_by_solver(chunk, false).verdict);
    verdicts.into_iter().find(|verdict| !verdict.is_proved()).unwrap_or(Verdict::Proved)
}

fn names_who_is_concerned(scene: &Scene, lie: &Lie, found: &checker::Counterexample) -> bool {
    let replaced = |name: &&&str| name.ends_with('*');
    let named = |name: &&str| found.transactions.iter().any(|named| named.id == scene.id(name));
    lie.names.iter().any(|name| replaced(&name)) && !found.transactions.is_empty()
        || lie.names.is_empty()
        || lie.names.iter().filter(|name| !name.ends_with('*')).any(named)
}

#[test]
fn the_history_itself_is_proved() {
    let scene = Scene::new();
    for window_units in [1, 2, 8] {
        assert_eq!(by_solver(&mut prover(window_units), &scene.honest()), Verdict::Proved);
    }
}

#[test]
fn every_lie_is_refuted_by_the_solver_where_a_chunk_shows_it() {
    let (scene, mut wrong) = (Scene::new(), Vec::new());
    for window_units in [1, 8] {
        let mut prover = prover(window_units);
        for lie in lies() {
            match by_solver(&mut prover, &(lie.tell)(&scene)) {
                Verdict::Refuted(found) if lie.seen_by_solver && names_who_is_concerned(&scene, &lie, &found) => {}
                // frontiers, and states before, are hypotheses of the solver: the replay and the composer judge them
                Verdict::Proved if !lie.seen_by_solver => {}
                other => wrong.push(format!("{} in windows of {window_units}: {other}", lie.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_lie_is_attested() {
    let scene = Scene::new();
    let mut prover = prover(8);
    for lie in lies() {
        let mut replay = fixture::genesis();
        let chunks = (lie.tell)(&scene);
        let verdicts: Vec<Verdict> = chunks.iter().map(|chunk| prover.judge(chunk, &mut replay).verdict).collect();
        assert!(verdicts.iter().any(|verdict| matches!(verdict, Verdict::Refuted(_))), "{}: {verdicts:?}", lie.name);
    }
}

#[test]
fn solver_and_checker_agree_on_what_is_violated() {
    let (scene, mut prover) = (Scene::new(), prover(8));
    let about_value = [Invariant::Conservation, Invariant::Constraint, Invariant::Admission, Invariant::RealTime];
    for lie in lies().into_iter().filter(|lie| about_value.contains(&lie.invariant) && lie.seen_by_solver) {
        match by_solver(&mut prover, &(lie.tell)(&scene)) {
            Verdict::Refuted(found) => assert_eq!(found.invariant, lie.invariant, "{}", lie.name),
            other => panic!("{}: {other}", lie.name),
        }
    }
}
