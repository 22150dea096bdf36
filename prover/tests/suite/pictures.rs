//! Graphs and diagnoses of the scene.

use ledger::dependency::ConflictKind;
use prover::diagnosis::{Diagnosis, diagnose};
use prover::graph::Graph;
use prover::solver::SolverSettings;

use crate::scene::{Scene, batch_chunks, lies};

#[test]
fn the_graph_of_the_contended_batch_shows_who_waits_for_whom() {
    let scene = Scene::new();
    let chunks = batch_chunks(&scene, 1);
    let graph = Graph::of(&chunks[0]).unwrap();
    let node = |name: &str| graph.nodes.iter().find(|node| node.transaction == scene.id(name)).unwrap();
    assert_eq!(graph.nodes.len(), 14);
    assert_eq!((node("loser").rejected, node("loser").lost_to), (Some("InputSpent"), Some(scene.id("winner"))));
    assert_eq!(node("winner").component, node("chained").component);
    assert_ne!(node("winner").component, node("settlement").component);
    assert_eq!((node("winner").level, node("chained").level), (0, 1));
    assert_eq!(graph.critical_path.len(), graph.levels);
    assert!(graph.count(ConflictKind::ReadAfterWrite) > 0);
    assert!(graph.count(ConflictKind::WriteAfterWrite) > 0);
    assert!(graph.count(ConflictKind::WriteAfterRead) > 0, "the revocation comes after the booking");
    assert!(graph.width > 1 && graph.components > 1);
}

#[test]
fn a_diagnosis_tells_a_wrong_order_from_claims_that_no_order_explains() {
    let (scene, settings) = (Scene::new(), SolverSettings::default());
    for chunk in scene.honest() {
        assert_eq!(diagnose(&chunk, &settings), Diagnosis::Linearizable);
    }
    let diagnosed = |name: &str| {
        let lie = lies().into_iter().find(|lie| lie.name == name).unwrap();
        let found = (lie.tell)(&scene).iter().map(|chunk| diagnose(chunk, &settings)).collect::<Vec<_>>();
        found.into_iter().find(|found| *found != Diagnosis::Linearizable).unwrap()
    };
    match diagnosed("spending before the creation") {
        Diagnosis::OtherOrder(order) => assert!(!order.is_sorted(), "{order:?}"),
        other => panic!("{other:?}"),
    }
    match diagnosed("both spenders of one output committed") {
        Diagnosis::NoOrder(named) => {
            assert!(named.contains(&scene.id("winner")) && named.contains(&scene.id("loser")), "{named:?}");
        }
        other => panic!("{other:?}"),
    }
    match diagnosed("spending from a rejected creator") {
        Diagnosis::NoOrder(named) => assert!(named.contains(&scene.id("orphan")), "{named:?}"),
        other => panic!("{other:?}"),
    }
}
