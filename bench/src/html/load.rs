//! The page of one load.

use super::Page;
use super::chart::{Chart, Line};
use crate::processes::{ProcessFigures, Sample};
use crate::report::{Latency, Report, SecondFigures, number};

const TIME: &str = "time since the measured part began, s";
const MEBIBYTE: f64 = 1_048_576.0;

/// A run's report as a page.
#[must_use]
pub fn load_page(report: &Report) -> String {
    let settings: Vec<String> = report.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let cluster = format!("nodes {}, validators {}", report.nodes, report.validators);
    let mut page = Page::new(&report.workload, &format!("{cluster}, {}", settings.join(", ")));
    let verdict = match (report.is_good(), report.audit_skipped) {
        (true, false) => "The end state holds: heads agree, nothing acknowledged is lost, assets are conserved.",
        (true, true) => "The end state was not audited.",
        (false, _) => "Something is wrong; see the problems.",
    };
    page.verdict(report.is_good(), verdict);
    page.facts(&facts(report));
    page.charts(&charts(report));
    page.finish(&report.workload)
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let rate = |count: u64, per_second: f64| format!("{count} in {:.0} s: {per_second:.0}/s", report.seconds);
    let mut facts = vec![
        ("Settlements", rate(report.settlements_committed, report.settlements_per_second)),
        ("Settlement latency", latency(&report.settlement_latency_ms)),
        ("Transactions", rate(report.transactions_committed, report.transactions_per_second)),
        ("Transaction latency", latency(&report.transaction_latency_ms)),
    ];
    if let Some(offered) = &report.offered {
        let text =
            format!("{:.0}/s; {} settlements were pushed back", offered.settlements_per_second, offered.pushed_back);
        facts.push(("Offered", text));
    }
    facts.push(("Refused transactions", report.refused.to_string()));
    let rejected: Vec<String> = report.rejected.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
    facts.push(("Rejected transactions", if rejected.is_empty() { "none".to_owned() } else { rejected.join(", ") }));
    if let Some(resources) = &report.resources {
        let cpu = resources.cpu_micros_per_transaction.iter().map(|(role, micros)| format!("{role} {micros:.0} µs"));
        facts.push(("CPU per transaction", cpu.collect::<Vec<_>>().join(", ")));
        for (name, bytes) in [("Memory, peak", &resources.rss_peak_bytes), ("Disk at the end", &resources.disk_bytes)] {
            let each = bytes.iter().map(|(process, bytes)| format!("{process} {:.0} MiB", mebibytes(*bytes)));
            facts.push((name, each.collect::<Vec<_>>().join(", ")));
        }
    }
    facts.retain(|(_, value)| !value.is_empty());
    facts.extend(report.problems.iter().map(|problem| ("Problem", problem.clone())));
    facts
}

fn latency(latency: &Latency) -> String {
    let Latency { p50, p95, p99, max } = latency;
    format!("p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms, longest {max:.0} ms")
}

fn charts(report: &Report) -> [Chart; 5] {
    let timeline = |name: &str, value: &dyn Fn(&SecondFigures) -> f64| {
        let middle = |second: usize| number(u64::try_from(second).unwrap_or(u64::MAX)) + 0.5;
        let points = report.timeline.iter().enumerate().map(|(second, figures)| (middle(second), value(figures)));
        Line::new(name, points.collect())
    };
    let counted = |name: &str, count: &dyn Fn(&SecondFigures) -> u64| {
        let any = report.timeline.iter().any(|figures| count(figures) > 0);
        let line = timeline(name, &|figures| number(count(figures)));
        any.then_some(line)
    };
    let throughput = Chart::new("Throughput", TIME, "per second")
        .lines(counted("settlements committed", &|figures| figures.settlements))
        .lines(counted("transactions committed", &|figures| figures.transactions))
        .lines(counted("settlements offered", &|figures| figures.offered))
        .lines(counted("settlements pushed back", &|figures| figures.pushed_back))
        .lines(counted("transactions refused", &|figures| figures.refused));
    let settlements = Chart::new("Latency of settlements", TIME, "ms")
        .logarithmic()
        .line(timeline("p50", &|figures| figures.settlement_latency_ms.p50))
        .line(timeline("p99", &|figures| figures.settlement_latency_ms.p99))
        .line(timeline("longest", &|figures| figures.settlement_latency_ms.max));
    let transactions = Chart::new("Latency of transactions", TIME, "ms")
        .logarithmic()
        .line(timeline("p50", &|figures| figures.transaction_latency_ms.p50))
        .line(timeline("p99", &|figures| figures.transaction_latency_ms.p99))
        .line(timeline("longest", &|figures| figures.transaction_latency_ms.max));
    let cpu = Chart::new("CPU by process", TIME, "busy processors").lines(report.processes.iter().map(cpu_line));
    let memory = |process: &ProcessFigures| {
        let point = |sample: &Sample| (sample.seconds, mebibytes(sample.rss_bytes));
        Line::new(process.name.clone(), process.samples.iter().map(point).collect())
    };
    let memory = Chart::new("Resident memory by process", TIME, "MiB").lines(report.processes.iter().map(memory));
    [throughput, settlements, transactions, cpu, memory]
}

fn cpu_line(process: &ProcessFigures) -> Line {
    let between = |pair: &[Sample]| {
        let (cpu, time) = (pair[1].cpu_seconds - pair[0].cpu_seconds, pair[1].seconds - pair[0].seconds);
        (pair[0].seconds + time / 2.0, cpu / time)
    };
    Line::new(process.name.clone(), process.samples.windows(2).map(between).collect())
}

fn mebibytes(bytes: u64) -> f64 {
    number(bytes) / MEBIBYTE
}
