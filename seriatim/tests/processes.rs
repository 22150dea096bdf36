//! The product as its users start it: real processes, the leader killed, the end state proved.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

fn seriatim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seriatim")).args(arguments).output().unwrap()
}

fn report(output: &Output) -> serde_json::Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_demo_kills_the_leader_and_loses_nothing() {
    let report = report(&seriatim(&["demo", "--seconds", "6", "--pairs", "16", "--json"]));
    assert!(report["settlements_committed"].as_u64().unwrap() > 0);
    assert_eq!(report["faults"].as_array().unwrap().len(), 2);
    assert_eq!((report["lost"].as_u64(), report["unknown"].as_u64()), (Some(0), Some(0)));
    assert_eq!((report["heads_agree"].as_bool(), report["conserved"].as_bool()), (Some(true), Some(true)));
    assert_eq!(report["receipts_verified"].as_u64(), Some(50));
    assert_eq!(report["rejected"].as_object().unwrap().len(), 0);
    // every batch is attested, and verified from its evidence
    assert_eq!((report["refuted"].as_u64(), report["inconclusive"].as_u64()), (Some(0), Some(0)));
    let committed = report["transactions_committed"].as_u64().unwrap();
    assert!(report["attested_batches"].as_u64().unwrap() > 0);
    assert!(report["attested_transactions"].as_u64().unwrap() >= committed);
    assert!(report["pattern_hits"].as_u64().unwrap() > 0 && report["pattern_misses"].as_u64().unwrap() > 0);
    assert!(report["attestation_lag_ms"]["p99"].as_f64().unwrap() > 0.0);
    assert!(report["proved_transactions_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_proving_costs_is_measured_in_every_way_and_all_of_it_is_proved() {
    let arguments = ["bench", "prove", "--size", "300", "--contention", "0,50", "--workload", "swaps,nets", "--json"];
    let report = report(&seriatim(&arguments));
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2 * 2 * 5);
    assert_eq!((report["refuted"].as_u64(), report["inconclusive"].as_u64()), (Some(0), Some(0)));
    assert_eq!(report["transactions"].as_u64(), Some(4 * 5 * 300));
    let warm = rows.iter().filter(|row| row["way"] == "warm_cache");
    assert!(warm.into_iter().all(|row| row["pattern_misses"].as_u64() == Some(0)));
}

#[test]
fn one_hot_party_in_every_settlement_loses_no_race() {
    let arguments =
        ["bench", "load", "--duration", "3", "--in-flight", "16", "--hot", "--settlements-per-tx", "5", "--json"];
    let report = report(&seriatim(&arguments));
    assert!(report["settlements_committed"].as_u64().unwrap() > 0);
    assert_eq!(report["rejected"].as_object().unwrap().len(), 0);
    assert_eq!(report["conserved"].as_bool(), Some(true));
}

#[test]
fn an_open_loop_offers_what_was_asked_for_and_accounts_for_all_of_it() {
    let report = report(&seriatim(
        &[
            &["bench", "load", "--rate", "40", "--duration", "3", "--warm-up", "1", "--json"][..],
            &["--nodes", "1", "--validators", "1", "--live-outputs", "2500", "--settlements-per-tx", "2"],
        ]
        .concat(),
    ));
    let offered = &report["offered"];
    assert_eq!(offered["settlements"].as_u64(), Some(3 * 40));
    let measured: u64 =
        report["timeline"].as_array().unwrap().iter().map(|second| second["offered"].as_u64().unwrap()).sum();
    assert_eq!(measured, 3 * 40);
    assert!(report["settlements_committed"].as_u64().unwrap() > 0);
    assert_eq!((report["heads_agree"].as_bool(), report["conserved"].as_bool()), (Some(true), Some(true)));
    assert_eq!(report["audit_skipped"].as_bool(), Some(false));
    for name in ["node-1", "validator-1", "load generator"] {
        assert!(report["cpu_seconds"][name].as_f64().is_some(), "{name}");
        assert!(report["rss_peak_bytes"][name].as_u64().unwrap() > 0, "{name}");
    }
    assert!(report["disk_bytes"]["node-1"].as_u64().unwrap() > 0);
    assert_eq!(report["processes"].as_array().unwrap().len(), 3);
}

#[test]
fn loads_that_make_no_sense_are_refused_with_advice() {
    for (arguments, advice) in [
        (&["--rate", "0"][..], "0 is not in 1.."),
        (&["--rate", "5", "--in-flight", "4"], "cannot be used with"),
        (&["--pairs", "4"], "--rate"),
        (&["--duration", "0"], "0 is not in 1.."),
        (&["--endpoints", "127.0.0.1:1", "--nodes", "3"], "cannot be used with"),
    ] {
        let output = seriatim(&[&["bench", "load"], arguments].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(advice), "{arguments:?}: {message}");
    }
}

#[test]
fn a_file_that_is_no_block_is_refused_with_advice() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"no block").unwrap();
    let output = seriatim(&["replay", "--block", file.path().to_str().unwrap()]);
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("consensus serialization"), "{message}");
}

/// The real block of the shared data, where it is there; a clone without it has the blocks of `bench`'s own tests.
#[test]
fn a_real_block_commits_every_transaction_in_order_and_shuffled() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let block = root.parent().unwrap().join("shared/data/bitcoin-block-574200.raw");
    if !block.exists() {
        eprintln!("skipped: no block beside this checkout");
        return;
    }
    let whole = report(&seriatim(&["replay", "--block", block.to_str().unwrap(), "--clients", "16", "--json"]));
    assert_eq!(whole["runs"].as_array().unwrap().len(), 2);
    for report in whole["runs"].as_array().unwrap() {
        assert_eq!(report["transactions_committed"].as_u64(), report["graph"]["ledger_transactions"].as_u64());
        assert_eq!(report["lost"].as_u64(), Some(0));
        assert_eq!(report["conserved"].as_bool(), Some(true));
    }
}
