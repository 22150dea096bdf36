//! Faults from the command line: seeds repeat, real processes survive, runs can be looked at.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

/// How long real processes are under faults; more with this variable.
const SECONDS: u64 = 30;
const SECONDS_VARIABLE: &str = "SERIATIM_CHAOS_SECONDS";

fn seriatim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seriatim")).args(arguments).output().unwrap()
}

#[test]
fn a_seed_is_one_execution_and_is_told_in_one_line() {
    let told = || -> Value {
        let output = seriatim(&["chaos", "sim", "--seed", "11", "--steps", "12", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let first = told();
    assert_eq!(first, told());
    assert_eq!(first["verdict"], "sound");
    assert!(first["trace_hash"].as_str().unwrap().len() == 64 && first["faults"].as_u64().unwrap() > 2);
    assert!(first["simulated_seconds"].as_f64().unwrap() > 6.0 && first["operations"].as_u64().unwrap() > 50);
}

#[test]
fn seeds_that_there_are_not_are_a_wrong_usage() {
    let max = u64::MAX.to_string();
    let before_max = (u64::MAX - 1).to_string();
    for wrong in [
        ["--seed", before_max.as_str(), "--count", "5"].as_slice(),
        &["--count", "0"],
        &["--for", "0s"],
        &["--leave-out", "1", "--count", "2"],
        &["--leave-out", "1", "--calm"],
        &["--faults", "Earthquake"],
        &["--faults", "SplitVote", "--calm"],
        &["--faults", "SplitVote", "--keep", "failing"],
    ] {
        let output = seriatim(&[&["chaos", "sim"], wrong].concat());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{wrong:?}: {output:?}");
    }
    for right in [["--seed", max.as_str()].as_slice(), &["--seed", &max, "--for", "1ns"]] {
        let output = seriatim(&[&["chaos", "sim", "--steps", "1"], right].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.lines().count() == 1 && text.contains(&max), "{right:?}: {output:?}");
    }
}

#[test]
fn a_seed_says_how_it_is_replayed_and_leaves_its_history() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let told = |arguments: &[&str]| -> Value {
        let output = seriatim(&[&["chaos", "sim", "--seed", "11", "--steps", "12", "--json"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let whole = told(&["--out", out]);
    let others = [("--calm", ""), ("--leave-out", "0,2"), ("--faults", "SplitVote,CrashAll")];
    for (flag, value) in others {
        let arguments: Vec<&str> = [flag, value].into_iter().filter(|argument| !argument.is_empty()).collect();
        let report = told(&arguments);
        assert_ne!(report["trace_hash"], whole["trace_hash"]);
        let replay = report["replay"].as_str().unwrap();
        assert!(replay.contains(&arguments.join(" ")), "{replay}");
        let again = seriatim(&[replay.split(' ').skip(1).collect::<Vec<_>>(), vec!["--json"]].concat());
        assert_eq!(serde_json::from_slice::<Value>(&again.stdout).unwrap(), report);
    }
    let seed = directory.path().join("seed-11");
    let read = |name: &str| std::fs::read_to_string(seed.join(name)).unwrap();
    let lines = read("history.jsonl");
    assert_eq!(lines.lines().count(), read("history.edn").lines().count());
    assert_eq!(u64::try_from(lines.lines().count()).unwrap(), 2 * whole["operations"].as_u64().unwrap());
    assert_eq!(serde_json::from_str::<Value>(&read("report.json")).unwrap(), whole);
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn a_file_for_failing_seeds_that_cannot_be_written_is_told_before_anything_is_simulated() {
    let output = seriatim(&["chaos", "sim", "--keep", "/nowhere/failing"]);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/failing"));
}

#[test]
fn real_processes_under_faults_keep_every_invariant_and_the_run_can_be_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("run");
    let seconds = env::var(SECONDS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let (out, duration) = (out.to_str().unwrap(), format!("{seconds}s"));
    let output = seriatim(&["chaos", "run", "--seed", "5", "--duration", &duration, "--out", out, "--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", String::from_utf8_lossy(&output.stdout));
    println!("{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let totals = &report["totals"];
    assert_eq!(totals["unknown"], 0);
    assert!(totals["committed"].as_u64().unwrap() > 100 && totals["reads"].as_u64().unwrap() > 10);
    assert!(report["faults"].as_array().unwrap().len() > 2);
    let network = report["setting"]["network"].as_str().unwrap();
    assert!(errors.contains(if network == "namespaces" { "network: a namespace" } else { "network: loopback" }));
    let verdicts = report["verdicts"].as_array().unwrap();
    assert!(verdicts.len() >= 15 && verdicts.iter().all(|verdict| verdict["violations"] == 0), "{verdicts:#?}");
    // every batch was proved, and what the prover said of it is what its evidence leads to
    let attested = |verdict: &&Value| verdict["label"] == "invariant 11";
    assert!(verdicts.iter().find(attested).unwrap()["checked"].as_u64().unwrap() > 100, "{verdicts:#?}");
    // two events for each call, in both forms
    for file in ["history.jsonl", "history.edn"] {
        let history = std::fs::read_to_string(format!("{out}/{file}")).unwrap();
        let events = u64::try_from(history.lines().count()).unwrap();
        assert_eq!(Some(events), totals["operations"].as_u64().map(|operations| 2 * operations), "{file}");
    }
    // the registers once more, with their values
    let registers = std::fs::read_to_string(format!("{out}/registers.edn")).unwrap();
    assert!(registers.lines().count() > 20 && registers.contains(":f :cas"), "{registers}");
    let again = seriatim(&["chaos", "report", out]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let page = std::fs::read_to_string(format!("{out}/report.html")).unwrap();
    assert!(page.contains("Everything holds.") && page.contains("<svg") && page.contains("chaos run --seed 5"));
    assert!(page.contains(if network == "namespaces" { "Network: each process in" } else { "Network: loopback" }));
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));
    // what was run is not overwritten
    let refused = seriatim(&["chaos", "run", "--out", out]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("holds another run"));
}

/// Processes whose command line names this.
fn processes(of: &str) -> Vec<String> {
    let named = |pid: &String| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(of)
    };
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    pids.filter(|name| name.parse::<u32>().is_ok()).filter(named).collect()
}

#[test]
fn nothing_stays_of_a_run_whose_runner_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let mut runner = Command::new(env!("CARGO_BIN_EXE_seriatim"))
        .args(["chaos", "run", "--duration", "10m", "--faults", "snapshot", "--out", out])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = Vec::new();
    for line in BufReader::new(runner.stderr.take().unwrap()).lines() {
        told.push(line.unwrap());
        if told.last().unwrap().contains("clients at work") {
            break;
        }
    }
    let ours: Vec<String> = processes(out).into_iter().filter(|pid| *pid != runner.id().to_string()).collect();
    assert!(ours.len() >= 6, "{ours:?}: {told:#?}");
    let on_loopback = told.iter().any(|line| line.starts_with("network: loopback"));
    if on_loopback {
        println!("on loopback a process that stands still outlives its runner: none is made to, for {told:#?}");
    } else {
        // it cannot notice that anything has ended
        assert!(Command::new("kill").args(["-STOP", &ours[0]]).status().unwrap().success());
    }
    runner.kill().unwrap();
    runner.wait().unwrap();
    while !processes(out).is_empty() {
        sleep(Duration::from_millis(50));
    }
    // the next run unmounts what this one had mounted
    let next = format!("{out}/next");
    let output = seriatim(&["chaos", "run", "--duration", "1s", "--faults", "transfer-leader", "--out", &next]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(out), "{mounts}");
}

#[test]
fn a_fault_workload_or_network_that_is_none_is_refused_with_those_that_are() {
    let named = [
        ("--faults", "earthquake", "kill-leader"),
        ("--workloads", "poetry", "registers"),
        ("--network", "pigeons", "loopback"),
    ];
    for (flag, wrong, right) in named {
        let output = seriatim(&["chaos", "run", flag, wrong]);
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains(right));
    }
}
