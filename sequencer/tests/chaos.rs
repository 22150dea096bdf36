//! Crashes, cuts and hand-overs at random: what was acknowledged stays, once, at its place.
//!
//! A first sieve for the log store and the network, with a machine that loses everything but its snapshots.
//! The simulator of crate `chaos-tests` covers more.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sequencer::{Options, ProposeFault, Sequencer};
use support::{Cluster, propose, quick, simulate};
use tokio::time::sleep;

const SEEDS: u64 = 60;
const STEPS: u64 = 60;
const NODES: u64 = 3;

fn small_log(id: u64) -> Options {
    Options {
        log_bytes_max: 6_000,
        log_bytes_keep: 1_500,
        cache_bytes_max: 500,
        append_bytes_max: 400,
        apply_entries_max: 7,
        ..quick(id)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Which entry was acknowledged where.
type Acknowledged = Arc<Mutex<BTreeMap<u64, String>>>;

fn client(node: Sequencer, entry: String, acknowledged: Acknowledged, refused: Arc<Mutex<Vec<String>>>) {
    drop(tokio::spawn(async move {
        match propose(&node, &entry).await {
            Ok(answer) => {
                let twice = acknowledged.lock().unwrap().insert(answer.id.index, entry);
                assert_eq!(twice, None, "two entries at {}", answer.id);
            }
            Err(ProposeFault::Unknown(_)) => {}
            Err(_) => refused.lock().unwrap().push(entry),
        }
    }));
}

async fn disturb(cluster: &mut Cluster, random: &mut Random) {
    let id = 1 + random.below(NODES);
    match random.below(12) {
        0 | 1 if cluster.nodes.contains_key(&id) => cluster.crash(id),
        2 => {
            for id in 1..=NODES {
                if cluster.nodes.contains_key(&id) {
                    cluster.crash(id);
                }
            }
        }
        3 => cluster.isolate(id),
        4 | 5 => cluster.hub.heal(),
        6 => {
            // also before anything was applied: then there is nothing to copy
            if let Some(node) = cluster.nodes.get(&id) {
                drop(node.sequencer.trigger_snapshot().await);
            }
        }
        7 => {
            for node in cluster.nodes.values() {
                drop(node.sequencer.transfer_leader(id, Duration::from_millis(100)).await);
            }
        }
        _ => {
            for id in 1..=NODES {
                if !cluster.nodes.contains_key(&id) {
                    cluster.start(id).await;
                }
            }
        }
    }
}

async fn run(seed: u64) -> usize {
    let mut random = Random(seed);
    let mut cluster = Cluster::with(seed, NODES, small_log).await;
    let acknowledged = Acknowledged::default();
    let refused = Arc::default();
    for step in 0..STEPS {
        for (id, node) in &cluster.nodes {
            for number in 0..random.below(6) {
                let entry = format!("seed {seed} step {step} node {id} number {number} and some more to fill the log");
                client(node.sequencer.clone(), entry, Arc::clone(&acknowledged), Arc::clone(&refused));
            }
        }
        sleep(Duration::from_millis(random.below(300))).await;
        disturb(&mut cluster, &mut random).await;
    }
    cluster.hub.heal();
    for id in 1..=NODES {
        if !cluster.nodes.contains_key(&id) {
            cluster.start(id).await;
        }
    }
    cluster.write("the end").await;
    cluster.agreement().await;
    let order: BTreeMap<u64, String> = cluster.nodes[&1]
        .machine
        .content()
        .entries
        .into_iter()
        .map(|(id, entry)| (id.index, String::from_utf8(entry.to_vec()).unwrap()))
        .collect();
    let acknowledged = acknowledged.lock().unwrap();
    for (index, entry) in acknowledged.iter() {
        assert_eq!(order.get(index), Some(entry), "seed {seed}: acknowledged at {index}");
    }
    for entry in refused.lock().unwrap().iter() {
        assert!(order.values().all(|applied| applied != entry), "seed {seed}: refused and applied: {entry}");
    }
    acknowledged.len()
}

#[test]
fn what_was_acknowledged_stays_whatever_happens() {
    let acknowledged: usize = (0..SEEDS)
        .map(|seed| {
            println!("seed {seed}");
            simulate(seed, run(seed))
        })
        .sum();
    assert!(acknowledged > 1000, "only {acknowledged} acknowledged: the test tests little");
}
