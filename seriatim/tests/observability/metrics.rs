//! docs/metrics.md is what a running cluster serves.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cluster::{DevCluster, get};
use crate::golden::{Scrape, families, kept_page, page, write_page};

/// How long the cluster may take until it has something of everything to show.
const PATIENCE: Duration = Duration::from_secs(120);

const STAGES: [&str; 6] = ["admission", "queueing", "validation", "ordering", "apply", "response"];

fn scrape(addresses: &[String]) -> Vec<Scrape> {
    addresses.iter().map(|address| Scrape::read(&get(address, "/metrics").unwrap_or_default())).collect()
}

struct Seen {
    nodes: Vec<Scrape>,
    validators: Vec<Scrape>,
    provers: Vec<Scrape>,
}

impl Seen {
    fn of(cluster: &DevCluster) -> Self {
        Self {
            nodes: scrape(&cluster.list("http_endpoints")),
            validators: scrape(&cluster.list("validator_http_endpoints")),
            provers: scrape(&cluster.list("provers")),
        }
    }

    /// What has not happened yet, of all that the metrics are about.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut expect = |what: String, happened: bool| {
            if !happened {
                missing.push(what);
            }
        };
        let over_nodes =
            |name: &str, labels: &[(&str, &str)]| -> f64 { self.nodes.iter().map(|node| node.sum(name, labels)).sum() };
        for stage in STAGES {
            let count = over_nodes("seriatim_stage_seconds_count", &[("stage", stage)]);
            expect(format!("stage {stage}"), count > 0.0);
        }
        for (position, node) in self.nodes.iter().enumerate() {
            let committed = node.sum("seriatim_ordered_transactions_total", &[("outcome", "committed")]);
            expect(format!("transactions on node {}", position + 1), committed > 0.0);
            expect(format!("syncs on node {}", position + 1), node.sum("seriatim_log_sync_seconds_count", &[]) > 0.0);
        }
        let latency = self.nodes.iter().flat_map(|node| &node.samples);
        let answered = latency.filter(|sample| sample.name == "seriatim_validator_latency_p95_seconds").count();
        expect("a validator's latency".to_owned(), answered > 0);
        for validator in &self.validators {
            let checked = validator.sum("seriatim_validation_transactions_total", &[]);
            expect("a validator's transactions".to_owned(), checked > 0.0);
        }
        for prover in &self.provers {
            let proved = prover.sum("seriatim_proof_batches_total", &[("verdict", "proved")]);
            expect("a batch proved".to_owned(), proved > 0.0);
        }
        missing
    }
}

#[test]
fn the_list_of_metrics_is_what_a_running_cluster_serves() {
    let cluster = DevCluster::start(&["--nodes", "3", "--validators", "2", "--provers", "1", "--pairs", "8"], &[]);
    let begun = Instant::now();
    let seen = loop {
        let seen = Seen::of(&cluster);
        let missing = seen.missing();
        if missing.is_empty() {
            break seen;
        }
        assert!(begun.elapsed() < PATIENCE, "not seen: {missing:?}");
        sleep(Duration::from_millis(200));
    };
    cluster.stop();

    let made = page(&[
        ("Nodes", families(&seen.nodes)),
        ("Validators", families(&seen.validators)),
        ("Provers", families(&seen.provers)),
    ]);
    write_page(&made);
    let kept = kept_page();
    let only = |page: &str, other: &str| -> Vec<String> {
        page.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
    };
    let (undocumented, gone) = (only(&made, &kept), only(&kept, &made));
    assert!(
        undocumented.is_empty() && gone.is_empty(),
        "not in docs/metrics.md: {undocumented:#?}; no longer served: {gone:#?}"
    );
    assert_eq!(made, kept, "the order of docs/metrics.md");
    follows_conventions(&seen);
}

/// Base units last, and what a histogram counts is what its buckets hold.
fn follows_conventions(seen: &Seen) {
    for scrape in seen.nodes.iter().chain(&seen.validators).chain(&seen.provers) {
        for family in &scrape.families {
            let plain = family.name.trim_end_matches("_total");
            for unit in ["_ms", "_us", "_ns", "_millis", "_micros", "_percent", "_kb", "_mb", "_mib"] {
                assert!(!plain.ends_with(unit), "{} is not in a base unit", family.name);
            }
            let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
            assert!(family.name.starts_with("seriatim_") && family.name.chars().all(allowed), "{}", family.name);
        }
        let histograms = scrape.families.iter().filter(|family| family.kind == "histogram");
        for name in histograms.map(|family| &family.name) {
            let all = scrape.sum(&format!("{name}_bucket"), &[("le", "+Inf")]);
            assert!((all - scrape.sum(&format!("{name}_count"), &[])).abs() < 0.5, "{name}");
        }
    }
}
