//! Heads as replicas reach them: the first replica at a batch says what it is, all others must agree, also the same
//! one after a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ledger::Hash;
use node::replica::Replica;
use sequencer::NodeId;
use storage::state::BatchRecord;

use crate::check::Property;
use crate::dice::lock;
use crate::sim::world::{Event, World};

/// What was seen. Clones share it.
#[derive(Debug, Clone)]
pub struct Observations {
    world: World,
    /// By batch: the head's hash, and who was seen there first.
    heads: Arc<Mutex<BTreeMap<u64, (Hash, NodeId)>>>,
}

impl Observations {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), heads: Arc::default() }
    }

    /// Follows a replica for as long as it lives.
    pub async fn follow(self, id: NodeId, replica: Replica) {
        let mut heads = replica.watch_heads();
        let mut seen = 0;
        loop {
            let newest = heads.borrow_and_update().batch;
            for number in seen + 1..=newest {
                match replica.state().batch(number) {
                    Ok(Some(batch)) if self.see(id, &batch) => {}
                    // once it differs, it differs for ever
                    Ok(Some(_)) => return,
                    // its disk failed: somebody else notices that
                    Err(_) => return,
                    Ok(None) => self
                        .world
                        .violation(Property::Acknowledgements, format!("node {id} lacks batch {number} of {newest}")),
                }
            }
            seen = seen.max(newest);
            if heads.changed().await.is_err() {
                return;
            }
        }
    }

    /// False where somebody had another head there.
    fn see(&self, id: NodeId, batch: &BatchRecord) -> bool {
        let (number, head) = (batch.head.batch, batch.head.hash());
        self.world.record(&Event::Applied { node: id, batch: number, head });
        let first = *lock(&self.heads).entry(number).or_insert((head, id));
        self.world.looked_at(Property::EqualReplicas, 1);
        if first.0 != head {
            let (expected, witness) = first;
            self.world.violation(
                Property::EqualReplicas,
                format!("node {id} has head {head} at batch {number}, and node {witness} had {expected}"),
            );
        }
        first.0 == head
    }

    /// The newest batch seen.
    #[must_use]
    pub fn newest(&self) -> u64 {
        lock(&self.heads).last_key_value().map_or(0, |(batch, _)| *batch)
    }

    /// What was seen once and is not in the final history.
    #[must_use]
    pub fn differences(&self, batches: &[Arc<BatchRecord>]) -> Vec<String> {
        let heads = lock(&self.heads);
        self.world.looked_at(Property::Acknowledgements, heads.len());
        let mut faults = Vec::new();
        for (number, (head, id)) in heads.iter() {
            let kept = batches.iter().find(|batch| batch.head.batch == *number).map(|batch| batch.head.hash());
            if kept != Some(*head) {
                faults.push(format!("node {id} applied batch {number} with head {head}; in the end it is {kept:?}"));
            }
        }
        faults
    }
}
