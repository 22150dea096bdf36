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
