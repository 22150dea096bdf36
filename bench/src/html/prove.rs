//! The page of what proving costs.

use super::Page;
use super::chart::{Chart, Line};
use crate::prove::{MemoryFit, ProveReport, ProveRow, Way};

const WAYS: [Way; 5] = [Way::FreshSolver, Way::OneSolver, Way::ColdCache, Way::WarmCache, Way::Checker];

/// A run's report as a page.
#[must_use]
pub fn prove_page(report: &ProveReport) -> String {
    let mut page = Page::new(report.workload, &format!("{}; processor time of one thread", report.solver));
    let verdict = if report.is_good() {
        "Everything honest was proved, and nothing else."
    } else {
        "Something honest was not proved, or something planted was; see the report."
    };
    page.verdict(report.is_good(), verdict);
    let mut facts = vec![("Transactions proved", report.transactions.to_string())];
    for fit in &report.fits {
        let text = format!(
            "{}: {:.2} µs per transaction and {:.0} µs once; the measurements lie within {:.0} % of that line",
            fit.way.name(),
            fit.micros_per_transaction,
            fit.constant_micros,
            fit.largest_deviation_percent
        );
        facts.push(("Growth", text));
    }
    if let Some(fit) = &report.memory_fit {
        facts.push(("Growth of memory", memory_growth(fit)));
    }
    if let Some(block) = &report.block {
        let yes = |holds: bool| if holds { "yes" } else { "no" };
        facts.push(("Block", format!("{} transactions, all proved: {}", block.transactions, yes(block.proved))));
        let planted = format!("refuted: {}; named: {}", yes(block.planted_refuted), yes(block.planted_named));
        facts.push(("Planted double spend", planted));
    }
    if let Some(recorded) = &report.recorded {
        let text = format!(
            "{} transactions in {} batches: {:.2} µs each with a cold cache, {:.2} µs with a warm one",
            recorded.transactions,
            recorded.batches,
            recorded.cold_micros_per_transaction,
            recorded.warm_micros_per_transaction
        );
        facts.push(("A ledger's evidence", text));
    }
    page.facts(&facts);
    page.charts(&charts(report));
    let rows: Vec<Vec<String>> = report.rows.iter().map(|row| cells(row).to_vec()).collect();
    page.rows("Measurements", &COLUMNS, &rows);
    if let Some(recorded) = &report.recorded {
        let steps = recorded.steps.iter();
        let rows: Vec<Vec<String>> =
            steps.map(|step| vec![step.name.to_owned(), format!("{:.2}", step.micros_per_transaction)]).collect();
        page.rows("What a prover does with that evidence, warm", &["step", "µs per transaction"], &rows);
    }
    page.finish(report.workload)
}

/// The growth of memory in words, on pages and in terminals.
#[must_use]
pub fn memory_growth(fit: &MemoryFit) -> String {
    format!(
        "{:.0} bytes per transaction and {:.0} MiB once; the measurements lie within {:.0} % of that line",
        fit.bytes_per_transaction, fit.constant_mib, fit.largest_deviation_percent
    )
}

/// Names of the columns of the table, on pages and in terminals.
pub const COLUMNS: [&str; 9] =
    ["workload", "contention", "depth", "size", "way", "ms", "transactions/s", "times faster", "hit rate"];

/// A row of that table.
#[must_use]
pub fn cells(row: &ProveRow) -> [String; 9] {
    let windows = row.pattern_hits + row.pattern_misses;
    let hits = if windows == 0 { String::new() } else { format!("{:.2} %", share(row.pattern_hits, windows)) };
    let measured = if row.transactions < row.size { format!(" (first {})", row.transactions) } else { String::new() };
    [
        row.workload.clone(),
        format!("{} %", row.contention_percent),
        row.depth.to_string(),
        row.size.to_string(),
        format!("{}{measured}", row.way.name()),
        format!("{:.2}", row.seconds * 1e3),
        format!("{:.0}", row.transactions_per_second),
        row.times_faster_than_fresh.map_or_else(String::new, |times| format!("{times:.1}")),
        hits,
    ]
}

fn share(part: u64, whole: u64) -> f64 {
    crate::report::number(part) / crate::report::number(whole) * 100.0
}

fn charts(report: &ProveReport) -> [Chart; 3] {
    let size = |row: &ProveRow| crate::report::count(row.size);
    let is_swept = |row: &&ProveRow| row.workload == "mixed" && row.contention_percent == 5 && row.depth == 1;
    let by_size = |value: &dyn Fn(&ProveRow) -> f64| {
        WAYS.map(|way| {
            let rows = report.rows.iter().filter(is_swept).filter(|row| row.way == way);
            // one tick for each power of ten
            Line::new(way.name(), rows.map(|row| (size(row).log10(), value(row))).collect())
        })
    };
    let per_transaction =
        |row: &ProveRow| row.seconds * 1e6 / crate::report::number(u64::try_from(row.transactions).unwrap_or(1));
    let older = report.older.iter().map(|figure| {
        let count = crate::report::count(figure.transactions);
        (count.log10(), figure.seconds * 1e6 / count)
    });
    let time = Chart::new("Time per transaction by size", "transactions, powers of ten", "µs per transaction")
        .logarithmic()
        .lines(by_size(&per_transaction))
        .line(Line::new("the older prover (the last was given up)", older.collect()));
    let warm = report.rows.iter().filter(is_swept).filter(|row| row.way == Way::WarmCache);
    let points = warm.map(|row| (size(row).log10(), row.resident_mib)).collect();
    let memory = Chart::new("Resident memory by size", "transactions, powers of ten", "MiB")
        .logarithmic()
        .line(Line::new("evidence, replay and prover", points));
    let contention = WAYS.map(|way| {
        let rows = report.rows.iter().filter(|row| row.workload == "mixed" && row.depth == 1 && row.size == 10_000);
        let point = |row: &ProveRow| {
            let percent = crate::report::count(row.contention_percent);
            (percent, row.transactions_per_second)
        };
        let mut points: Vec<(f64, f64)> = rows.filter(|row| row.way == way).map(point).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        Line::new(way.name(), points)
    });
    let contention = Chart::new(
        "Rate by contention, 10,000 transactions",
        "transactions that lose a race, %",
        "transactions per second",
    )
    .logarithmic()
    .lines(contention);
    [time, memory, contention]
}
