//! How results are shown: for people, as JSON, and into a file.

use std::path::Path;

use ::bench::proofs::ProofFigures;
use ::bench::report::{Latency, Report, Resources};
use anyhow::Context as _;
use indicatif::BinaryBytes;

/// Shows one report and writes it to a file where one is wanted.
pub(crate) fn report(report: &Report, file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", report.to_json());
    } else {
        print(report);
    }
    match file {
        Some(file) => write(file, &report.to_json()),
        None => Ok(()),
    }
}

/// Shows one of several reports; JSON waits for the last.
pub(crate) fn show(report: &Report, json: bool) {
    if !json {
        print(report);
    }
}

/// Writes the report over several runs, which were shown one by one.
pub(crate) fn whole(report: &Report, file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", report.to_json());
    }
    match file {
        Some(file) => write(file, &report.to_json()),
        None => Ok(()),
    }
}

/// Writes a page to look at in a browser.
pub(crate) fn page(file: &Path, html: &str) -> anyhow::Result<()> {
    write(file, html)?;
    eprintln!("Wrote {}", file.display());
    Ok(())
}

pub(crate) fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, format!("{text}\n")).with_context(|| format!("writing the report to {}", file.display()))
}

fn print(report: &Report) {
    println!("\n{}", report.workload);
    if let Some(graph) = &report.graph {
        line(
            "block",
            format!(
                "{} transactions, {} inputs, {} outputs ({} without value left out)",
                graph.transactions, graph.inputs, graph.outputs, graph.outputs_without_value
            ),
        );
        line(
            "graph",
            format!("{} in-block spends, depth {}, width {}", graph.in_block_spends, graph.depth, graph.width),
        );
        line(
            "as ledger transactions",
            format!("{} and {} that fund them", graph.ledger_transactions, graph.funding_transactions),
        );
    }
    if report.settlements_committed > 0 {
        line(
            "settlements",
            format!(
                "{} in {:.1} s: {:.0}/s",
                report.settlements_committed, report.seconds, report.settlements_per_second
            ),
        );
        line("settlement latency", latency(&report.settlement_latency_ms));
    }
    line(
        "transactions",
        format!(
            "{} in {:.1} s: {:.0}/s",
            report.transactions_committed, report.seconds, report.transactions_per_second
        ),
    );
    line("transaction latency", latency(&report.transaction_latency_ms));
    if let Some(offered) = &report.offered {
        line("offered", format!("{:.0}/s, {} settlements", offered.settlements_per_second, offered.settlements));
        line("pushed back", format!("{} settlements", offered.pushed_back));
    }
    if let Some(resources) = &report.resources {
        print_resources(resources);
    }
    for fault in &report.faults {
        line("fault", fault.clone());
    }
    let rejected: Vec<String> = report.rejected.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
    line("rejected", if rejected.is_empty() { "none".to_owned() } else { rejected.join(", ") });
    line("unknown outcomes", report.unknown.to_string());
    if report.audit_skipped {
        line("end state", "not audited".to_owned());
    } else {
        print_audit(report);
    }
    if let Some(proofs) = &report.proofs {
        print_proofs(proofs);
    }
    for problem in &report.problems {
        line("PROBLEM", problem.clone());
    }
    let verdict = match (report.is_good(), report.audit_skipped) {
        (true, false) => "Everything holds.",
        (true, true) => "Nothing went wrong; whether everything is there was not looked at.",
        (false, _) => "NOT GOOD: see above.",
    };
    println!("  {verdict}");
}

fn print_audit(report: &Report) {
    line("acknowledged and lost", report.lost.to_string());
    line(
        "heads agree",
        format!("{} ({} nodes, recomputed from each one's history)", yes(report.heads_agree), report.nodes),
    );
    line("assets conserved", yes(report.conserved).to_owned());
    line("receipts verified offline", report.receipts_verified.to_string());
}

fn print_proofs(proofs: &ProofFigures) {
    line(
        "attested and verified",
        format!("{} batches with {} transactions", proofs.attested_batches, proofs.attested_transactions),
    );
    line("refuted, inconclusive", format!("{}, {}", proofs.refuted, proofs.inconclusive));
    line("attestation lag", latency(&proofs.attestation_lag_ms));
    line("patterns known, new", format!("{}, {}", proofs.pattern_hits, proofs.pattern_misses));
    line("proved per prover second", format!("{:.0} transactions", proofs.proved_transactions_per_second));
}

fn print_resources(resources: &Resources) {
    let role = |(role, micros): (&String, &f64)| format!("{role} {micros:.0} us");
    let cpu: Vec<String> = resources.cpu_micros_per_transaction.iter().map(role).collect();
    line("cpu per transaction", cpu.join("   "));
    let size = |(name, bytes): (&String, &u64)| format!("{name} {}", BinaryBytes(*bytes));
    let memory: Vec<String> = resources.rss_peak_bytes.iter().map(size).collect();
    line("memory, peak", memory.join("   "));
    if !resources.disk_bytes.is_empty() {
        let disk: Vec<String> = resources.disk_bytes.iter().map(size).collect();
        line("disk", disk.join("   "));
    }
}

fn line(name: &str, value: impl std::fmt::Display) {
    println!("  {name:<26} {value}");
}

const fn yes(holds: bool) -> &'static str {
    if holds { "yes" } else { "NO" }
}

fn latency(latency: &Latency) -> String {
    format!(
        "p50 {:.2} ms   p95 {:.2} ms   p99 {:.2} ms   max {:.0} ms",
        latency.p50, latency.p95, latency.p99, latency.max
    )
}
