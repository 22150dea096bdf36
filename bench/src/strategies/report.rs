//! What a run of strategies says of itself.

use std::collections::BTreeMap;

use client::strategy::StrategyConfig;
use serde::{Deserialize, Serialize};

use super::load::Measured;
use super::model::Costs;
use crate::report::Report;

/// How far a figure may be from the model's where it is to be the same.
const TOLERANCE: f64 = 0.05;

/// How a measured figure stands to the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// The same, within 5 %.
    About,
    /// No more.
    AtMost,
    /// No less.
    AtLeast,
    /// Told beside it.
    Beside,
}

/// One figure, as the model says and as it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Of which strategy.
    pub strategy: String,
    /// What is counted or timed.
    pub figure: String,
    /// What the model says, if it does.
    pub model: Option<f64>,
    /// What was found.
    pub measured: f64,
    /// Of both.
    pub unit: String,
    /// How they should stand to each other.
    pub wanted: Wanted,
}

impl Row {
    /// A figure beside the model's.
    #[must_use]
    pub fn new(
        strategy: &str,
        figure: impl Into<String>,
        unit: &str,
        wanted: Wanted,
        model: f64,
        measured: f64,
    ) -> Self {
        Self {
            strategy: strategy.to_owned(),
            figure: figure.into(),
            model: Some(model),
            measured,
            unit: unit.to_owned(),
            wanted,
        }
    }

    /// A figure of which the model says nothing.
    #[must_use]
    pub fn alone(strategy: &str, figure: impl Into<String>, unit: &str, measured: f64) -> Self {
        let wanted = Wanted::Beside;
        Self { model: None, ..Self::new(strategy, figure, unit, wanted, 0.0, measured) }
    }

    /// True where it stands to the model's as it should.
    #[must_use]
    pub fn holds(&self) -> bool {
        let Some(model) = self.model else { return true };
        let room = model.abs() * TOLERANCE;
        match self.wanted {
            Wanted::About => (self.measured - model).abs() <= room,
            Wanted::AtMost => self.measured <= model,
            Wanted::AtLeast => self.measured >= model,
            Wanted::Beside => true,
        }
    }

    /// Measured by model.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.model.filter(|model| *model != 0.0).map(|model| self.measured / model)
    }
}

/// A point of a curve: the model's value beside the measured one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurvePoint {
    /// Where.
    pub at: f64,
    /// The model's value, if it says one.
    pub model: Option<f64>,
    /// What was measured.
    pub measured: f64,
}

/// A curve of the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Its title.
    pub title: String,
    /// What runs along.
    pub along: String,
    /// What is measured.
    pub value: String,
    /// From left to right.
    pub points: Vec<CurvePoint>,
}

/// A whole run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StrategiesReport {
    /// What ran.
    pub workload: String,
    /// `calibrated` or `native`.
    pub mode: String,
    /// How it was run: flags by name.
    pub settings: BTreeMap<String, String>,
    /// The figures.
    pub rows: Vec<Row>,
    /// Curves.
    pub curves: Vec<Curve>,
    /// Costs fitted to this ledger, in native mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fitted: Option<Costs>,
    /// Each scenario by itself.
    pub runs: Vec<Measured>,
    /// Why a row does not hold, where that is known.
    pub remarks: Vec<String>,
    /// The end state, and what went wrong.
    pub audit: Report,
}

impl StrategiesReport {
    /// Nothing has run.
    #[must_use]
    pub fn new(mode: &str) -> Self {
        let audit = Report { audit_skipped: true, ..Report::default() };
        Self { workload: "bench strategies".to_owned(), mode: mode.to_owned(), audit, ..Self::default() }
    }

    /// Keeps a scenario's figures beside the rows that were made of it. Settlements that failed are problems, but for the
    /// strategy that shows how they fail.
    pub fn add(&mut self, measured: Measured) {
        self.audit.unknown += measured.unknown;
        if measured.strategy != StrategyConfig::Naive.name() {
            let failed = measured.failed.iter();
            let lines =
                failed.map(|(reason, count)| format!("{}: {count} settlements failed: {reason}", measured.scenario));
            self.audit.problems.extend(lines);
        }
        self.runs.push(measured);
    }

    /// The rows that do not hold.
    pub fn failing(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.holds())
    }

    /// True where nothing is unknown, lost or unbalanced, and in calibrated mode every row holds.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.audit.is_good() && (self.mode != "calibrated" || self.failing().next().is_none())
    }

    /// As JSON.
    ///
    /// # Panics
    /// Never: it holds nothing that JSON cannot.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers, texts and maps of them are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_a_problem_of_the_report_unless_it_was_to_fail() {
        for (strategy, problems) in [("bookkeeping:1", 1), ("naive", 0)] {
            let mut report = StrategiesReport::new("synchrony");
            let failed = BTreeMap::from([("no funds".to_owned(), 3)]);
            report.add(Measured { strategy: strategy.to_owned(), failed, ..Measured::default() });
            assert_eq!((report.audit.problems.len(), report.is_good()), (problems, problems == 0), "{strategy}");
        }
    }

    #[test]
    fn a_row_holds_as_it_is_wanted() {
        for (wanted, model, measured, holds) in [
            (Wanted::About, 100.0, 104.9, true),
            (Wanted::About, 100.0, 94.9, false),
            (Wanted::AtMost, 20.0, 20.0, true),
            (Wanted::AtMost, 20.0, 20.1, false),
            (Wanted::AtLeast, 0.99, 1.0, true),
            (Wanted::AtLeast, 0.99, 0.98, false),
            (Wanted::Beside, 1.0, 900.0, true),
        ] {
            assert_eq!(Row::new("s", "f", "u", wanted, model, measured).holds(), holds, "{wanted:?} {measured}");
        }
    }
}
