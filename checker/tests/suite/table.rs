//! Every lie of the list, told consistently, is refuted with the property and the transactions concerned.

use checker::{Chunk, Finding};

use crate::fixture;
use crate::scene::{Scene, lies};

fn first_finding(chunks: &[Chunk]) -> Option<Finding> {
    let mut replay = fixture::genesis();
    chunks.iter().find_map(|chunk| replay.accept(chunk).err())
}

#[test]
fn the_history_itself_is_accepted() {
    let scene = Scene::new();
    assert_eq!(first_finding(&scene.honest()), None);
    let rejected = scene.testimonies.iter().flat_map(|testimony| &testimony.lines);
    assert_eq!(rejected.filter(|line| !line.record.outcome.is_committed()).count(), 7);
}

#[test]
fn every_lie_is_refuted_and_names_who_is_concerned() {
    let scene = Scene::new();
    let mut wrong = Vec::new();
    for lie in lies() {
        match first_finding(&(lie.tell)(&scene)) {
            Some(Finding::Refuted(found)) => {
                let named = |name: &str| {
                    // a star marks a transaction that the lie replaced: it has a name of its own
                    name.ends_with('*') || found.transactions.iter().any(|named| named.id == scene.id(name))
                };
                let first_is_replaced = lie.names.iter().any(|name| name.ends_with('*'));
                let names =
                    lie.names.iter().all(|name| named(name)) && (!first_is_replaced || !found.transactions.is_empty());
                if found.invariant != lie.invariant || !names {
                    wrong.push(format!("{}: {found}", lie.name));
                }
            }
            other => wrong.push(format!("{}: {other:?}", lie.name)),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
