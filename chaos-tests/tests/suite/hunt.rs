//! Looks for bugs that were planted: seed after seed, until the check meant for the bug finds it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use chaos_tests::Report;
use chaos_tests::check::{Property, Violation};

/// A bug to be found.
pub(crate) struct Quarry {
    pub(crate) name: String,
    /// What it is.
    pub(crate) sentence: &'static str,
    /// What is to find it.
    pub(crate) layer: &'static str,
    /// Of these properties one has to be found violated; anything else is an accident.
    pub(crate) found_by: &'static [Property],
    /// Words that the finding must have: none where the property alone says enough.
    pub(crate) words: &'static str,
    /// Words of a check in the product that stops a node because of just this: as good as a property. That a node stops
    /// for any other reason, or panics, is an accident.
    pub(crate) stopped_by: &'static [&'static str],
    /// Seeds within which it has to be found.
    pub(crate) seeds: u64,
    /// Runs a seed with the bug.
    pub(crate) simulate: Box<dyn Fn(u64) -> Report + Sync>,
}

/// What found a bug: the seed, what was found there, and the faults that it took.
pub(crate) struct Found {
    pub(crate) seed: u64,
    pub(crate) violation: Violation,
    pub(crate) report: Report,
}

impl Quarry {
    /// Whether this is what has to be found.
    fn is_meant(&self, report: &Report, violation: &Violation) -> bool {
        if violation.property != Property::Soundness {
            return self.found_by.contains(&violation.property) && violation.what.contains(self.words);
        }
        let checked = |reason: &String| self.stopped_by.iter().any(|words| reason.contains(words));
        report.stopped.values().filter(|reason| checked(reason)).any(|reason| violation.what.ends_with(reason))
    }

    /// The first seed in which the bug is found.
    pub(crate) fn find(&self) -> Option<Found> {
        assert!(
            !self.found_by.contains(&Property::Soundness),
            "that a node stops may be an accident: say by what check"
        );
        (1..=self.seeds).find_map(|seed| {
            let report = (self.simulate)(seed);
            let violation = report.violations().iter().find(|violation| self.is_meant(&report, violation)).cloned();
            violation.map(|violation| Found { seed, violation, report })
        })
    }

    /// One line of the table in docs/chaos.md, and what was found.
    fn line(&self, found: Option<&Found>) -> String {
        let Quarry { name, sentence, layer, seeds, .. } = self;
        let Some(Found { seed, violation, report }) = found else {
            return format!("| `{name}` | {sentence} | {layer}: NOT FOUND within {seeds} |");
        };
        let is_stop = violation.property == Property::Soundness;
        let by = if is_stop { "a check that stops the node" } else { violation.property.label() };
        let what: String = violation.what.chars().take(160).collect();
        format!("| `{name}` | {sentence} | {layer} | {by} | seed {seed} | {} | {what}", report.schedule.len())
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
