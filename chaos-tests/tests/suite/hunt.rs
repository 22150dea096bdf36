//! Looks for bugs that were planted: seed after seed, until the check meant for the bug finds it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use chaos_tests::Report;
use chaos_tests::check::Property;

/// A bug to be found.
pub(crate) struct Quarry {
    pub(crate) name: String,
    /// What it is.
    pub(crate) sentence: &'static str,
    /// Of these properties one has to be found violated; anything else is an accident.
    pub(crate) found_by: &'static [Property],
    /// Seeds within which it has to be found.
    pub(crate) seeds: u64,
    /// Runs a seed with the bug.
    pub(crate) simulate: Box<dyn Fn(u64) -> Report + Sync>,
}

/// What found a bug: the seed, and the faults that it took.
pub(crate) struct Found {
    pub(crate) seed: u64,
    pub(crate) report: Report,
}

impl Quarry {
    /// The first seed in which the bug is found.
    pub(crate) fn find(&self) -> Option<Found> {
        let is_found =
            |report: &Report| report.violations().iter().any(|found| self.found_by.contains(&found.property));
        (1..=self.seeds).find_map(|seed| {
            let report = (self.simulate)(seed);
            is_found(&report).then_some(Found { seed, report })
        })
    }

    /// One line of the table in docs/chaos.md.
    fn line(&self, found: Option<&Found>) -> String {
        let Quarry { name, sentence, found_by, seeds, .. } = self;
        let Some(Found { seed, report }) = found else { return format!("| `{name}` | NOT FOUND within {seeds} |") };
        let by = report.violations().iter().find(|violation| found_by.contains(&violation.property));
        let by = by.map(|violation| violation.property.label()).unwrap_or_default();
        format!("| `{name}` | {sentence} | {by} | {seed} | {} |", report.faults)
    }
}

/// Hunts for all of them on every core, and tells of each.
///
/// # Panics
/// Where one is not found.
pub(crate) fn hunt(quarries: &[Quarry]) {
    assert!(!quarries.is_empty(), "nothing is hunted: no bug has such a name");
    let next = AtomicUsize::new(0);
    let one_after_another = || {
        let mut missed = Vec::new();
        while let Some(quarry) = quarries.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = quarry.find();
            let line = quarry.line(found.as_ref());
            println!("{line}");
            if found.is_none() {
                missed.push(line);
            }
        }
        missed
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let missed: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(one_after_another)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the hunt does not panic")).collect()
    });
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
}
