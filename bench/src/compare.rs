//! Two sets of reports, figure by figure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::strategies::report::Row;

/// A figure before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Of which strategy.
    pub strategy: String,
    /// What is counted or timed.
    pub figure: String,
    /// Of the values.
    pub unit: String,
    /// The median of the earlier reports; `None` where they do not have it.
    pub before: Option<f64>,
    /// The median of the later reports; `None` where they do not have it.
    pub after: Option<f64>,
    /// Median after by median before.
    pub ratio: Option<f64>,
    /// The lowest and the highest ratio between any later and any earlier report.
    pub spread: Option<(f64, f64)>,
}

/// Compares every figure that any of the reports has, in the order in which they first come.
#[must_use]
pub fn compare(before: &[Vec<Row>], after: &[Vec<Row>]) -> Vec<Comparison> {
    let mut order = Vec::new();
    let (earlier, later) = (values(before, &mut order), values(after, &mut order));
    order
        .into_iter()
        .map(|(strategy, figure, unit)| {
            let key = (strategy.clone(), figure.clone());
            let (old, new) =
                (earlier.get(&key).cloned().unwrap_or_default(), later.get(&key).cloned().unwrap_or_default());
            let (before, after) = (median(&old), median(&new));
            let ratio = before.zip(after).filter(|(before, _)| *before != 0.0).map(|(before, after)| after / before);
            let spread = spread(&old, &new).filter(|_| old.len() + new.len() > 2);
            Comparison { strategy, figure, unit, before, after, ratio, spread }
        })
        .collect()
}

type Key = (String, String);

fn values(reports: &[Vec<Row>], order: &mut Vec<(String, String, String)>) -> BTreeMap<Key, Vec<f64>> {
    let mut values: BTreeMap<Key, Vec<f64>> = BTreeMap::new();
    for row in reports.iter().flatten() {
        if !order.iter().any(|(strategy, figure, _)| *strategy == row.strategy && *figure == row.figure) {
            order.push((row.strategy.clone(), row.figure.clone(), row.unit.clone()));
        }
        values.entry((row.strategy.clone(), row.figure.clone())).or_default().push(row.measured);
    }
    values
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => sorted.get(middle).copied(),
        _ => sorted.get(middle - 1).zip(sorted.get(middle)).map(|(low, high)| f64::midpoint(*low, *high)),
    }
}

fn spread(before: &[f64], after: &[f64]) -> Option<(f64, f64)> {
    let extremes = |values: &[f64]| {
        let low = values.iter().copied().min_by(f64::total_cmp)?;
        Some((low, values.iter().copied().max_by(f64::total_cmp)?))
    };
    let ((old_low, old_high), (new_low, new_high)) = extremes(before).zip(extremes(after))?;
    (old_low > 0.0).then_some((new_low / old_high, new_high / old_low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(values: &[(&str, f64)]) -> Vec<Row> {
        values.iter().map(|(figure, value)| Row::alone("serial", *figure, "1/s", *value)).collect()
    }

    #[test]
    fn medians_are_compared_and_the_spread_is_that_of_all_pairs() {
        let before = [report(&[("rate", 10.0)]), report(&[("rate", 20.0)]), report(&[("rate", 12.0), ("gone", 1.0)])];
        let after = [report(&[("rate", 30.0), ("new", 2.0)]), report(&[("rate", 24.0)])];
        let found = compare(&before, &after);
        let names: Vec<&str> = found.iter().map(|comparison| comparison.figure.as_str()).collect();
        assert_eq!(names, ["rate", "gone", "new"]);
        assert_eq!((found[0].before, found[0].after, found[0].ratio), (Some(12.0), Some(27.0), Some(2.25)));
        assert_eq!(found[0].spread, Some((1.2, 3.0)));
        assert_eq!((found[1].ratio, found[2].ratio, found[2].spread), (None, None, None));
        assert_eq!(compare(&before[..1], &after[..1])[0].spread, None, "two values have a ratio and no spread");
    }
}
