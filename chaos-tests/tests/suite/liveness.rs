//! What must go on while something stays broken.

use std::sync::Arc;
use std::time::Duration;

use chaos_tests::sim::client::Client;
use chaos_tests::sim::clock::NodeClock;
use chaos_tests::sim::cluster::{Cluster, ClusterOptions};
use chaos_tests::sim::network::Network;
use chaos_tests::sim::observations::Observations;
use chaos_tests::sim::recorder::History;
use chaos_tests::sim::world::World;
use chaos_tests::workload::Market;
use tokio::time::Instant;

/// The way to the leader is broken for ever, and its own way to the others is whole: somebody else takes over.
#[tokio::test(start_paused = true)]
async fn a_leader_that_hears_nobody_does_not_hold_up_the_others() {
    for seed in 1..=5 {
        let world = World::new(seed, false);
        let network = Network::new(&world);
        let observations = Observations::new(&world);
        let options = ClusterOptions {
            nodes: 3,
            validators: 0,
            clock_skew: Duration::ZERO,
            log_bytes_max: 1024 * 1024,
            flush_size: storage::FlushSize::default(),
            heartbeat: Duration::from_millis(50),
            bundles_in_flight_max: 4,
            provers: Vec::new(),
            lie: None,
            bug: None,
        };
        let cluster = Cluster::new(&world, &network, &observations, options);
        cluster.found().await;
        let history = History::new(&world, &Arc::default());
        let market = Market::new(&world, Arc::new(NodeClock::right(&world)), cluster.identity());
        let client = Client::new(1, &world, &network, &cluster, &history, &market, None);
        client.prepare(Instant::now() + Duration::from_secs(30)).await;
        let deaf = cluster.leaders().into_iter().next().expect("somebody leads");
        for other in cluster.addresses().iter().chain([client.address()]) {
            network.cut(other, cluster.address(deaf));
        }
        client.prepare(Instant::now() + Duration::from_secs(30)).await;
        assert_eq!(world.findings().violations(), [], "seed {seed}");
        assert!(cluster.leaders().iter().any(|leader| *leader != deaf), "seed {seed}: somebody else leads");
        cluster.end();
    }
}
