//! The page of a sweep.

use super::Page;
use super::chart::{Chart, Line};
use crate::processes::{LOAD_GENERATOR, NODES, VALIDATORS};
use crate::report::{Report, number};
use crate::scale::{Point, Scale, Sweep};

const OFFERED: &str = "settlements offered per second";

/// A sweep as a page.
#[must_use]
pub fn scale_page(scale: &Scale) -> String {
    let capacity = format!(
        "A closed loop reached {:.0} settlements per second; open loops offered parts of that.",
        scale.capacity_settlements_per_second
    );
    let mut page = Page::new(&scale.workload, &capacity);
    let verdict = if scale.is_good() { "Every run was good." } else { "A run was not good; see the report." };
    page.verdict(scale.is_good(), verdict);
    let rows: Vec<Vec<String>> = scale.points.iter().map(|point| cells(point).to_vec()).collect();
    page.rows("Runs", &COLUMNS, &rows);
    page.charts(&charts(scale));
    page.finish(&scale.workload)
}

/// Names of the columns of a sweep's table, on pages and in terminals.
pub const COLUMNS: [&str; 9] =
    ["run", "nodes", "validators", "offered/s", "settlements/s", "pushed back", "p50 ms", "p99 ms", "node CPU µs/tx"];

/// A run's row of that table.
#[must_use]
pub fn cells(Point { sweep, report }: &Point) -> [String; 9] {
    let run = match sweep {
        Sweep::Capacity => "closed loop".to_owned(),
        Sweep::OfferedLoad { percent } => format!("open loop, {percent} %"),
        Sweep::Nodes => "by nodes".to_owned(),
        Sweep::Validators => "by validators".to_owned(),
    };
    let offered = report.offered.as_ref();
    [
        run,
        report.nodes.to_string(),
        report.validators.to_string(),
        offered.map_or_else(String::new, |offered| format!("{:.0}", offered.settlements_per_second)),
        format!("{:.0}", report.settlements_per_second),
        offered.map_or_else(String::new, |offered| offered.pushed_back.to_string()),
        format!("{:.1}", report.settlement_latency_ms.p50),
        format!("{:.1}", report.settlement_latency_ms.p99),
        cpu(report, NODES).map_or_else(String::new, |micros| format!("{micros:.0}")),
    ]
}

fn cpu(report: &Report, role: &str) -> Option<f64> {
    report.resources.as_ref()?.cpu_micros_per_transaction.get(role).copied()
}

fn charts(scale: &Scale) -> Vec<Chart> {
    let offered = |value: &dyn Fn(&Report) -> f64| -> Vec<(f64, f64)> {
        let loads = scale.points.iter().filter(|point| matches!(point.sweep, Sweep::OfferedLoad { .. }));
        let reports = loads.map(|point| &point.report);
        reports.map(|report| (rate_offered(report), value(report))).collect()
    };
    let throughput = Chart::new("Rate against offered load", OFFERED, "settlements per second")
        .line(Line::new("committed", offered(&|report| report.settlements_per_second)))
        .line(Line::new("all that was offered", offered(&rate_offered)));
    let latency = Chart::new("Latency against offered load", OFFERED, "settlement latency, ms")
        .logarithmic()
        .line(Line::new("p50", offered(&|report| report.settlement_latency_ms.p50)))
        .line(Line::new("p99", offered(&|report| report.settlement_latency_ms.p99)));
    let mut charts = vec![throughput, latency];
    for (sweep, size) in [(Sweep::Nodes, NODES), (Sweep::Validators, VALIDATORS)] {
        charts.extend(charts_by_size(scale, sweep, size));
    }
    charts
}

fn charts_by_size(scale: &Scale, sweep: Sweep, size: &'static str) -> [Chart; 3] {
    let by_size = |value: &dyn Fn(&Report) -> Option<f64>| -> Vec<(f64, f64)> {
        let reports = scale.points.iter().filter(|point| point.sweep == sweep).map(|point| &point.report);
        let count = |report: &Report| number(if sweep == Sweep::Nodes { report.nodes } else { report.validators });
        reports.filter_map(|report| Some((count(report), value(report)?))).collect()
    };
    let rate = Chart::new(format!("Rate by {size}, closed loop"), size, "settlements per second")
        .line(Line::new("committed", by_size(&|report| Some(report.settlements_per_second))));
    let latency = Chart::new(format!("Latency by {size}, closed loop"), size, "settlement latency, ms")
        .logarithmic()
        .line(Line::new("p50", by_size(&|report| Some(report.settlement_latency_ms.p50))))
        .line(Line::new("p99", by_size(&|report| Some(report.settlement_latency_ms.p99))));
    let roles = [NODES, VALIDATORS, LOAD_GENERATOR];
    let cpu = Chart::new(format!("CPU per transaction by {size}"), size, "µs, all processes of a role")
        .lines(roles.map(|role| Line::new(role, by_size(&|report| cpu(report, role)))));
    [rate, latency, cpu]
}

fn rate_offered(report: &Report) -> f64 {
    report.offered.as_ref().map_or(0.0, |offered| offered.settlements_per_second)
}
