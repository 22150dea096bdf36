//! The page of a run: one self-contained file.

use super::drawing::{Bar, Drawing, Line, Scale, escape};
use super::{FaultSpan, LiveReport, NodePoint, NodeTrack, Verdict};

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff; max-width: 1160px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
p { margin: .3rem 0; } code { background: #f3f4f6; padding: .15rem .35rem; border-radius: 4px; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: left; padding: .24rem 1.2rem .24rem 0; border-bottom: 1px solid #e6e8eb; vertical-align: top; }
.number { text-align: right; } .good { color: #1a7f37; font-weight: 600; } .bad { color: #c1121f; font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; color: #424a53; font-size: .85rem; margin: .3rem 0; }
.legend i { display: inline-block; width: .9rem; height: .7rem; margin-right: .35rem; vertical-align: baseline; }
.figures { display: flex; flex-wrap: wrap; gap: .4rem 2.4rem; margin: 1rem 0; } .figures b { display: block; font-size: 1.35rem; }
svg { width: 100%; height: auto; display: block; } svg text { font: 11px system-ui, sans-serif; fill: #424a53; }
svg .heading { font-weight: 600; font-size: 12px; fill: #1f2328; } svg .grid { stroke: #d8dce1; stroke-width: .7; }
svg .axis { stroke: #8b949e; } svg .tick { stroke: #1f2328; stroke-width: 1.3; } svg .empty { fill: #f6f7f8; }
";

/// Families of faults and their colours.
const FAMILIES: [(&str, &str, &[&str]); 4] = [
    ("processes", "#c1121f", &["kill", "freeze", "rolling"]),
    (
        "network",
        "#2463b0",
        &["partition", "one-way", "bridge", "deaf", "isolate", "slow", "lossy", "reset"],
    ),
    ("disks", "#b07400", &["power", "full", "stall", "fail", "flip", "wipe"]),
    ("clocks, members, snapshots, lead", "#6a4c93", &["clock", "change", "snapshot", "transfer"]),
];

/// States of a node and their colours, the first word that fits.
const STATES: [(&str, &str); 8] = [
    ("leader", "#1a7f37"),
    ("follower", "#a9cbee"),
    ("learner", "#c9b6e4"),
    ("candidate", "#8a5a00"),
    ("no leader", "#f2a60c"),
    ("lagging", "#ffd699"),
    ("starting", "#d0d7de"),
    ("down", "#f0a3a9"),
];

fn fault_color(name: &str) -> &'static str {
    let fits = |(_, _, words): &&(&str, &str, &[&str])| words.iter().any(|word| name.starts_with(word));
    FAMILIES.iter().find(fits).map_or("#57606a", |(_, color, _)| color)
}

fn state_color(state: &str) -> &'static str {
    STATES.iter().find(|(word, _)| state.starts_with(word)).map_or("#8b949e", |(_, color)| color)
}

/// The page of a run.
#[must_use]
pub fn page(report: &LiveReport) -> String {
    let setting = &report.setting;
    let title = format!("Chaos run, seed {}", setting.seed);
    let mut body = format!(
        "<h1>{}</h1>\n<p>{} nodes, {} validators{}, {} clients ({}); {:.0} s; {} faults</p>\n",
        escape(&title),
        setting.nodes,
        setting.validators,
        if setting.prover { ", a prover" } else { "" },
        setting.clients,
        escape(&setting.workloads.join(", ")),
        report.seconds,
        report.faults.len()
    );
    body.push_str(&verdict_line(report));
    body.push_str(&figures(report));
    body.push_str(&legend());
    body.push_str(&drawing(report));
    body.push_str(&verdicts(&report.verdicts));
    body.push_str(&format!("<h2>Again</h2>\n<p><code>{}</code></p>\n", escape(&setting.command)));
    body.push_str(&faults(&report.faults));
    if !setting.skipped.is_empty() {
        body.push_str("<h2>Not done on this machine</h2>\n<ul>\n");
        setting.skipped.iter().for_each(|line| body.push_str(&format!("<li>{}</li>\n", escape(line))));
        body.push_str("</ul>\n");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n{STYLE}</style></head>\n\
         <body>\n{body}</body></html>\n",
        escape(&title)
    )
}

fn verdict_line(report: &LiveReport) -> String {
    let violations: u64 = report.verdicts.iter().map(|verdict| verdict.violations).sum();
    if violations == 0 {
        return "<p class=\"good\">Everything holds.</p>\n".to_owned();
    }
    format!("<p class=\"bad\">{violations} violations: see the verdicts.</p>\n")
}

fn figures(report: &LiveReport) -> String {
    let totals = &report.totals;
    let seconds = |felt: Option<f64>| felt.map_or("none".to_owned(), |felt| format!("{felt:.2} s"));
    let figures = [
        ("calls of clients", totals.operations.to_string()),
        ("committed", totals.committed.to_string()),
        ("rejected", totals.rejected.to_string()),
        ("refused", totals.refused.to_string()),
        ("unknown in the end", totals.unknown.to_string()),
        ("reads", totals.reads.to_string()),
        ("batches", totals.batches.to_string()),
        ("leader killed, until commits again: median", seconds(report.recovery_median)),
        ("the same, at worst", seconds(report.recovery_worst)),
    ];
    let cells = figures.map(|(name, value)| format!("<span><b>{}</b>{}</span>", escape(&value), escape(name)));
    format!("<div class=\"figures\">{}</div>\n", cells.concat())
}

fn legend() -> String {
    let item = |name: &str, color: &str| format!("<span><i style=\"background:{color}\"></i>{}</span>", escape(name));
    let faults: String = FAMILIES.iter().map(|(name, color, _)| item(name, color)).collect();
    let states: String = STATES.iter().map(|(name, color)| item(name, color)).collect();
    format!(
        "<div class=\"legend\">Faults: {faults}</div>\n<div class=\"legend\">Nodes: {states} <span>| a new term</span></div>\n"
    )
}

fn drawing(report: &LiveReport) -> String {
    let bar = |fault: &FaultSpan| Bar {
        begin: fault.begin,
        end: fault.end,
        color: fault_color(&fault.name),
        told: format!("{}: {}", fault.name, fault.detail),
    };
    let mut drawing = Drawing::new(report.seconds, report.faults.iter().map(bar).collect());
    // where nothing was answered there is no latency
    let answered = |slice: &&super::Slice| slice.max_ms > 0.0;
    let line = |value: fn(&super::Slice) -> f64, color, filled| Line {
        points: report.slices.iter().filter(answered).map(|slice| (slice.at, value(slice))).collect(),
        color,
        filled,
    };
    let per_second = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) * 2.0;
    let committed = Line {
        points: report.slices.iter().map(|slice| (slice.at, per_second(slice.committed))).collect(),
        color: "#1a7f37",
        filled: true,
    };
    drawing.lines("Committed", "per second", 130.0, Scale::Linear, &[committed]);
    let latencies = [line(|slice| slice.max_ms, "#d08c00", false), line(|slice| slice.p50_ms, "#2463b0", false)];
    drawing.lines("Latency", "ms: half, slowest", 110.0, Scale::Logarithmic, &latencies);
    drawing.heading("Nodes");
    for track in &report.tracks {
        let (bars, terms) = states(track, report.seconds);
        drawing.lane(&track.name, &bars, &terms);
    }
    drawing.heading("Faults");
    let mut kinds: Vec<&str> = report.faults.iter().map(|fault| fault.name.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.sort_by_key(|kind| FAMILIES.iter().position(|(_, color, _)| *color == fault_color(kind)));
    for kind in kinds {
        let bars: Vec<Bar> = report.faults.iter().filter(|fault| fault.name == kind).map(bar).collect();
        drawing.lane(kind, &bars, &[]);
    }
    drawing.finish()
}

/// A node's states as bars, and when it entered another term.
fn states(track: &NodeTrack, seconds: f64) -> (Vec<Bar>, Vec<f64>) {
    let same = |left: &NodePoint, right: &NodePoint| {
        left.state == right.state && left.node == right.node && left.term == right.term
    };
    let mut bars: Vec<Bar> = Vec::new();
    // a place that was never taken is not down
    let first_seen = track.points.iter().position(|point| point.term > 0).unwrap_or(track.points.len());
    for group in track.points.get(first_seen..).unwrap_or_default().chunk_by(same) {
        let Some(first) = group.first() else { continue };
        let told = format!("member {}: {}, term {}, applied {}", first.node, first.state, first.term, first.applied);
        if let Some(last) = bars.last_mut() {
            last.end = first.at;
        }
        bars.push(Bar { begin: first.at, end: seconds, color: state_color(&first.state), told });
    }
    let known: Vec<&NodePoint> = track.points.iter().filter(|point| point.term > 0).collect();
    let terms = known.windows(2).filter_map(|pair| match pair {
        [before, after] if after.term > before.term => Some(after.at),
        _ => None,
    });
    (bars, terms.collect())
}

fn verdicts(verdicts: &[Verdict]) -> String {
    let mut text =
        "<h2>Verdicts</h2>\n<table><tr><th></th><th>What must hold</th><th>Looked at</th><th></th></tr>\n".to_owned();
    for verdict in verdicts {
        let (class, says) = match verdict.violations {
            0 => ("good", "holds".to_owned()),
            count => ("bad", format!("violated {count} times")),
        };
        let told: String = verdict.told.iter().map(|told| format!("<br>{}", escape(told))).collect();
        text.push_str(&format!(
            "<tr><td>{}</td><td>{}{told}</td><td class=\"number\">{}</td><td class=\"{class}\">{says}</td></tr>\n",
            escape(&verdict.label),
            escape(&verdict.sentence),
            verdict.checked
        ));
    }
    text + "</table>\n"
}

fn faults(faults: &[FaultSpan]) -> String {
    let mut text = "<h2>Faults</h2>\n<table><tr><th>From</th><th>For</th><th>What</th><th></th></tr>\n".to_owned();
    for fault in faults {
        text.push_str(&format!(
            "<tr><td class=\"number\">{:.1} s</td><td class=\"number\">{:.1} s</td><td>{}</td><td>{}</td></tr>\n",
            fault.begin,
            fault.end - fault.begin,
            escape(&fault.name),
            escape(&fault.detail)
        ));
    }
    text + "</table>\n"
}
