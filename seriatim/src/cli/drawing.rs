//! A dependency graph as a picture: each column is a level, each row of columns a component. Transactions that meet nobody are counted
//! and not drawn.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ledger::dependency::{Conflict, ConflictKind};
use prover::graph::{Graph, Node};

const COLUMN: usize = 96;
const ROW: usize = 34;
const MARGIN: usize = 24;
const HEADER: usize = 92;
const RADIUS: usize = 11;
/// What the legend takes.
const LEGEND_WIDTH: usize = 760;
/// Components that are drawn; what is more is counted.
const COMPONENTS_MAX: usize = 60;
/// Components of up to so many levels stand side by side.
const WIDTH: usize = 1_200;

const INK: &str = "#424a53";
const PALE: &str = "#8c959f";
const COMMITTED: &str = "#1f6feb";
const REJECTED: &str = "#c1121f";
const PATH: &str = "#bf8700";

struct Place {
    x: usize,
    y: usize,
}

/// Draws a graph, under its name.
pub(super) fn svg(name: &str, graph: &Graph) -> String {
    let mut components: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, node) in graph.nodes.iter().enumerate() {
        components.entry(node.component).or_default().push(place);
    }
    let alone = components.values().filter(|members| members.len() == 1).count();
    let mut met: Vec<&Vec<usize>> = components.values().filter(|members| members.len() > 1).collect();
    met.sort_by_key(|members| std::cmp::Reverse(members.len()));
    let left_out = met.len().saturating_sub(COMPONENTS_MAX);
    met.truncate(COMPONENTS_MAX);
    let mut places: BTreeMap<usize, Place> = BTreeMap::new();
    let (mut x, mut y, mut tallest, mut width) = (MARGIN, HEADER, 0, LEGEND_WIDTH);
    for members in met {
        let (columns, rows) = extent(graph, members);
        if x > MARGIN && x + columns * COLUMN > WIDTH {
            (x, y, tallest) = (MARGIN, y + tallest * ROW + ROW / 2, 0);
        }
        lay_out(graph, members, (x, y), &mut places);
        x += columns * COLUMN;
        tallest = tallest.max(rows);
        width = width.max(x);
    }
    let height = y + tallest * ROW + MARGIN;
    let width = width + MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\" fill=\"{INK}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{MARGIN}\" y=\"28\" font-size=\"16\" font-weight=\"600\">{name}: transactions {}, levels {}</text>\n\
         <text x=\"{MARGIN}\" y=\"47\">{alone} transactions meet nobody and are not drawn{}</text>\n",
        graph.nodes.len(),
        graph.levels,
        if left_out > 0 { format!("; nor are {left_out} smaller components") } else { String::new() }
    );
    legend(&mut text);
    for conflict in &graph.conflicts {
        edge(&mut text, graph, conflict, &places);
    }
    for (number, place) in &places {
        if let Some(node) = graph.nodes.get(*number) {
            transaction(&mut text, node, place, graph.critical_path.contains(number));
        }
    }
    text.push_str("</svg>");
    text
}

/// Columns and rows that a component takes.
fn extent(graph: &Graph, members: &[usize]) -> (usize, usize) {
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    for node in members.iter().filter_map(|place| graph.nodes.get(*place)) {
        *rows.entry(node.level).or_default() += 1;
    }
    let (first, last) = (rows.keys().next().copied().unwrap_or(0), rows.keys().last().copied().unwrap_or(0));
    (last - first + 1, rows.values().copied().max().unwrap_or(1))
}

fn lay_out(graph: &Graph, members: &[usize], (x, y): (usize, usize), places: &mut BTreeMap<usize, Place>) {
    let first = members.iter().filter_map(|place| graph.nodes.get(*place)).map(|node| node.level).min().unwrap_or(0);
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    for number in members {
        let Some(node) = graph.nodes.get(*number) else { continue };
        let row = rows.entry(node.level).or_default();
        let place = Place { x: x + (node.level - first) * COLUMN + COLUMN / 2, y: y + *row * ROW + ROW / 2 };
        *row += 1;
        places.insert(*number, place);
    }
}

fn legend(text: &mut String) {
    let entries = [
        (MARGIN, style(ConflictKind::ReadAfterWrite), "read after write"),
        (MARGIN + 135, style(ConflictKind::WriteAfterWrite), "write after write"),
        (MARGIN + 270, style(ConflictKind::WriteAfterRead), "write after read"),
    ];
    for (x, style, name) in entries {
        push(
            text,
            format_args!("<path d=\"M{x} 66h22\" {style}/><text x=\"{}\" y=\"70\">{name}</text>\n", x + 28),
        );
    }
    let x = MARGIN + 400;
    push(
        text,
        format_args!(
            "<circle cx=\"{x}\" cy=\"66\" r=\"6\" fill=\"#fff\" stroke=\"{REJECTED}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"70\">rejected; dashed: its winner</text>\
             <circle cx=\"{}\" cy=\"66\" r=\"6\" fill=\"{COMMITTED}\" stroke=\"{PATH}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"70\">on the critical path</text>\n",
            x + 12,
            x + 180,
            x + 193
        ),
    );
}

const fn style(kind: ConflictKind) -> &'static str {
    match kind {
        ConflictKind::ReadAfterWrite => "stroke=\"#8c959f\" stroke-width=\"1.4\" fill=\"none\"",
        ConflictKind::WriteAfterWrite => {
            "stroke=\"#c1121f\" stroke-width=\"1.4\" stroke-dasharray=\"4 3\" fill=\"none\""
        }
        ConflictKind::WriteAfterRead => {
            "stroke=\"#1a7f37\" stroke-width=\"1.4\" stroke-dasharray=\"1 3\" fill=\"none\""
        }
    }
}

fn edge(text: &mut String, graph: &Graph, conflict: &Conflict, places: &BTreeMap<usize, Place>) {
    let (Some(from), Some(to)) = (places.get(&conflict.earlier), places.get(&conflict.later)) else { return };
    let follows = |pair: &[usize]| pair == [conflict.earlier, conflict.later];
    let on_path = graph.critical_path.windows(2).any(follows);
    let (start, end) = (from.x + RADIUS, to.x.saturating_sub(RADIUS));
    let middle = usize::midpoint(start, end);
    let d = format!("M{start} {}C{middle} {} {middle} {} {end} {}", from.y, from.y, to.y, to.y);
    if on_path {
        push(
            text,
            format_args!("<path d=\"{d}\" stroke=\"{PATH}\" stroke-width=\"4\" opacity=\"0.35\" fill=\"none\"/>\n"),
        );
    }
    push(text, format_args!("<path d=\"{d}\" {}/>\n", style(conflict.kind)));
}

fn transaction(text: &mut String, node: &Node, place: &Place, on_path: bool) {
    let Place { x, y } = place;
    let (fill, stroke, ink) = match node.rejected {
        Some(_) => ("#fff", REJECTED, REJECTED),
        None => (COMMITTED, COMMITTED, "#fff"),
    };
    let stroke = if on_path && node.rejected.is_none() { PATH } else { stroke };
    let width = if on_path { 3 } else { 2 };
    let title = match (node.rejected, node.lost_to) {
        (Some(reason), Some(winner)) => format!("{}: {reason}, lost to {winner}", node.transaction),
        (Some(reason), None) => format!("{}: {reason}", node.transaction),
        (None, _) => node.transaction.to_string(),
    };
    // the last digits tell transactions of one batch apart
    let label = node.sequence.get() % 10_000;
    push(
        text,
        format_args!(
            "<g><title>{title}</title><circle cx=\"{x}\" cy=\"{y}\" r=\"{RADIUS}\" fill=\"{fill}\" stroke=\"{stroke}\" \
             stroke-width=\"{width}\"/><text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" font-size=\"8.5\" fill=\"{ink}\">{label}\
             </text></g>\n",
            y + 3
        ),
    );
    if let Some(reason) = node.rejected {
        push(
            text,
            format_args!(
                "<text x=\"{}\" y=\"{}\" font-size=\"8\" fill=\"{PALE}\">{reason}</text>\n",
                x + RADIUS + 3,
                y + 3
            ),
        );
    }
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use ledger::{OutputId, Sequence, TransactionId};

    fn id(number: usize) -> TransactionId {
        TransactionId::from_bytes([u8::try_from(number).unwrap(); 32])
    }

    /// Two chains that meet, two losers of a race, a grant's user, and two that meet nobody.
    fn contended() -> Graph {
        let levels = [0, 1, 2, 0, 1, 3, 1, 1, 0, 0, 1, 0, 0];
        let components = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3];
        let node = |(place, (level, component)): (usize, (usize, usize))| Node {
            transaction: id(place),
            sequence: Sequence::new(40_210 + u64::try_from(place).unwrap()),
            rejected: [6, 7].contains(&place).then_some("InputSpent"),
            lost_to: [6, 7].contains(&place).then(|| id(1)),
            level,
            component,
        };
        let conflict =
            |(earlier, later, kind)| Conflict { earlier, later, kind, output: OutputId::from_bytes([1; 32]) };
        use ConflictKind::{ReadAfterWrite, WriteAfterRead, WriteAfterWrite};
        let conflicts = [
            (0, 1, ReadAfterWrite),
            (1, 2, ReadAfterWrite),
            (3, 4, ReadAfterWrite),
            (4, 5, ReadAfterWrite),
            (2, 5, ReadAfterWrite),
            (0, 6, ReadAfterWrite),
            (0, 7, ReadAfterWrite),
            (1, 6, WriteAfterWrite),
            (6, 7, WriteAfterWrite),
            (8, 4, WriteAfterRead),
            (9, 10, ReadAfterWrite),
        ];
        Graph {
            nodes: levels.into_iter().zip(components).enumerate().map(node).collect(),
            conflicts: conflicts.map(conflict).to_vec(),
            critical_path: vec![0, 1, 2, 5],
            width: 6,
            levels: 4,
            components: 4,
        }
    }

    #[test]
    fn every_transaction_that_meets_another_is_drawn_once_with_its_conflicts() {
        let text = svg("Batch 17", &contended());
        assert_eq!(text.matches("<title>").count(), 11);
        assert!(text.contains("2 transactions meet nobody"));
        assert_eq!(text.matches("InputSpent, lost to").count(), 2);
        // a legend's three, each conflict, and three marked as the critical path
        assert_eq!(text.matches("<path").count(), 3 + 11 + 3);
    }

    #[test]
    fn a_large_batch_is_drawn_within_bounds() {
        let mut graph = contended();
        for number in 0..2_000 {
            let node = graph.nodes[9].clone();
            graph.nodes.push(Node { component: 10 + number / 2, ..node });
        }
        let text = svg("Batch 1", &graph);
        assert!(text.contains("smaller components") && text.matches("<title>").count() <= 2 * COMPONENTS_MAX + 11);
    }
}
