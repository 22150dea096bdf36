//! Whole clusters of the real code, from seeds.

#![expect(clippy::unwrap_used, reason = "tests")]

use chaos_tests::{SimulationOptions, simulate};

#[test]
fn a_cluster_without_faults_keeps_every_invariant() {
    let report = simulate(&SimulationOptions { faults: false, ..SimulationOptions::new(1) });
    println!("{report:#?}");
    assert_eq!(report.violations, [""; 0]);
    assert!(report.acknowledged > 100, "{report:?}");
}
