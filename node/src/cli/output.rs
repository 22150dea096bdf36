//! How results are shown: for people, as JSON, and into a file.

use std::path::Path;

use ::bench::report::{Latency, Report};
use anyhow::Context as _;

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

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, format!("{text}\n")).with_context(|| format!("writing the report to {}", file.display()))
}

fn print(report: &Report) {
    let line = |name: &str, value: String| println!("  {name:<26} {value}");
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
    for fault in &report.faults {
        line("fault", fault.clone());
    }
    let rejected: Vec<String> = report.rejected.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
    line("rejected", if rejected.is_empty() { "none".to_owned() } else { rejected.join(", ") });
    line("unknown outcomes", report.unknown.to_string());
    line("acknowledged and lost", report.lost.to_string());
    line(
        "heads agree",
        format!("{} ({} nodes, recomputed from each one's history)", yes(report.heads_agree), report.nodes),
    );
    line("assets conserved", yes(report.conserved).to_owned());
    line("receipts verified offline", report.receipts_verified.to_string());
    for problem in &report.problems {
        line("PROBLEM", problem.clone());
    }
    println!("  {}", if report.is_good() { "Everything holds." } else { "NOT GOOD: see above." });
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
