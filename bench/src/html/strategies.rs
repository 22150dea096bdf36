//! The page of the strategies.

use super::Page;
use super::chart::{Chart, Line};
use crate::report::number;
use crate::strategies::load::Measured;
use crate::strategies::report::{Curve, Row, StrategiesReport, Wanted};

/// Names of the columns of the figures' table, on pages and in terminals.
pub const STRATEGY_COLUMNS: [&str; 6] = ["strategy", "figure", "model", "measured", "ratio", "holds"];

/// A run's report as a page.
#[must_use]
pub fn strategies_page(report: &StrategiesReport) -> String {
    let settings: Vec<String> = report.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let title = format!("{}, {}", report.workload, report.mode);
    let mut page = Page::new(&title, &settings.join(", "));
    page.verdict(report.failing().count() == 0, &figures_verdict(report));
    page.verdict(report.is_good(), state_verdict(report));
    let remarks: Vec<(&str, String)> = report.remarks.iter().map(|remark| ("Remark", remark.clone())).collect();
    let problems = report.audit.problems.iter().map(|problem| ("Problem", problem.clone()));
    page.facts(&remarks.into_iter().chain(problems).collect::<Vec<_>>());
    page.charts(&charts(report));
    page.named_rows("Figures", &STRATEGY_COLUMNS, &figures(report));
    let runs: Vec<Vec<String>> = report.runs.iter().map(run_cells).collect();
    page.rows("Runs", &RUN_COLUMNS, &runs);
    page.finish(&title)
}

/// Each strategy is named once.
fn figures(report: &StrategiesReport) -> Vec<Vec<String>> {
    let mut last = "";
    let mut rows = Vec::with_capacity(report.rows.len());
    for row in &report.rows {
        let mut cells = row_cells(row).to_vec();
        if let (true, Some(name)) = (row.strategy == last, cells.first_mut()) {
            name.clear();
        }
        last = &row.strategy;
        rows.push(cells);
    }
    rows
}

fn figures_verdict(report: &StrategiesReport) -> String {
    let wanted = report.rows.iter().filter(|row| row.wanted != Wanted::Beside).count();
    match report.failing().count() {
        0 => format!("All {wanted} figures of which something is wanted are as wanted."),
        some => format!("{some} of {wanted} figures of which something is wanted are not as wanted: see \"NO\" below."),
    }
}

fn state_verdict(report: &StrategiesReport) -> &'static str {
    match (report.audit.audit_skipped, report.audit.is_good()) {
        (true, true) => "The end state was not audited.",
        (true, false) => "Something went wrong; see the problems.",
        (false, true) => "The end state holds: heads agree, nothing acknowledged is lost, assets are conserved.",
        (false, false) => "The end state does not hold; see the problems.",
    }
}

/// A figure's row of that table.
#[must_use]
pub fn row_cells(row: &Row) -> [String; 6] {
    let value = |value: f64| format!("{} {}", short(value), row.unit).trim_end().to_owned();
    let model = row.model.map_or_else(String::new, |model| match row.wanted {
        Wanted::AtMost => format!("≤ {}", value(model)),
        Wanted::AtLeast => format!("≥ {}", value(model)),
        Wanted::About | Wanted::Beside => value(model),
    });
    let ratio = row.ratio().filter(|_| matches!(row.wanted, Wanted::About | Wanted::Beside));
    let holds = match (row.wanted, row.holds()) {
        (Wanted::Beside, _) => "",
        (_, true) => "yes",
        (_, false) => "NO",
    };
    [
        row.strategy.clone(),
        row.figure.clone(),
        model,
        value(row.measured),
        ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
        holds.to_owned(),
    ]
}

fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1_000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}

const RUN_COLUMNS: [&str; 11] = [
    "run",
    "settled",
    "settlements/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "transactions",
    "wasted",
    "retries",
    "upkeep",
    "failed",
];

fn run_cells(run: &Measured) -> Vec<String> {
    vec![
        run.scenario.clone(),
        run.settled.to_string(),
        short(run.settlements_per_second),
        short(run.latency_ms.p50),
        short(run.latency_ms.p95),
        short(run.latency_ms.p99),
        run.transactions.to_string(),
        format!("{:.2} %", run.wasted_share * 100.0),
        run.retries.to_string(),
        run.upkeep.to_string(),
        run.failed.values().sum::<u64>().to_string(),
    ]
}

fn charts(report: &StrategiesReport) -> Vec<Chart> {
    let mut charts = vec![latency_by_rate(report)];
    charts.extend(report.curves.iter().map(curve));
    let mut live = Chart::new("Live positions of the hot parties", "time, s", "positions");
    for run in report.runs.iter().filter(|run| shows_positions(run)) {
        let points = run.live_positions.iter().map(|(at, live)| (*at, number(*live)));
        live = live.line(Line::new(run.scenario.clone(), points.collect()));
    }
    charts.push(live);
    charts
}

/// Runs whose positions are worth a line: pools and books on one party.
fn shows_positions(run: &Measured) -> bool {
    let kept = ["bookkeeping", "shards:100", "p99"];
    kept.iter().any(|kind| run.strategy.starts_with(kind)) && !run.live_positions.is_empty()
}

fn latency_by_rate(report: &StrategiesReport) -> Chart {
    let mut kinds: Vec<&str> = Vec::new();
    for run in &report.runs {
        let kind = run.strategy.split(':').next().unwrap_or_default();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let chart =
        Chart::new("Latency by throughput, each run a dot", "settlements per second", "settlement latency p50, ms");
    kinds.into_iter().fold(chart.logarithmic().scattered(), |chart, kind| {
        let of_kind = report.runs.iter().filter(|run| run.strategy.split(':').next() == Some(kind));
        let timed = of_kind.filter(|run| run.burst_seconds == 0.0);
        chart.line(Line::new(kind, timed.map(|run| (run.settlements_per_second, run.latency_ms.p50)).collect()))
    })
}

fn curve(curve: &Curve) -> Chart {
    let model = curve.points.iter().filter_map(|point| point.model.map(|model| (point.at, model)));
    let measured = curve.points.iter().map(|point| (point.at, point.measured));
    Chart::new(curve.title.clone(), curve.along.clone(), curve.value.clone())
        .line(Line::new("model", model.collect()))
        .line(Line::new("measured", measured.collect()))
}
