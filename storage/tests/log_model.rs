//! Random batches against a naive model: a map of entries.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use futures::executor::block_on;
use proptest::prelude::*;
use storage::{LogBatch, LogEngine, LogOp, LogOptions, SegmentLog, StorageFault};

/// The log as a map, and the lowest index it accepts.
#[derive(Debug, Clone, Default)]
struct Model {
    entries: BTreeMap<u64, Vec<u8>>,
    lowest: u64,
}

impl Model {
    /// The model after a batch, or nothing if it is refused.
    fn after(&self, batch: &LogBatch) -> Option<Self> {
        let mut next = self.clone();
        for op in batch.ops() {
            match op {
                LogOp::Put { index, record } => {
                    let follows = match next.entries.last_key_value() {
                        Some((last, _)) => *index == last + 1,
                        None => *index >= next.lowest,
                    };
                    if !follows {
                        return None;
                    }
                    if next.entries.is_empty() {
                        next.lowest = *index;
                    }
                    next.entries.insert(*index, record.to_vec());
                }
                LogOp::TruncateFrom(index) => drop(next.entries.split_off(index)),
                LogOp::PurgeThrough(index) => {
                    next.entries = next.entries.split_off(&(index + 1));
                    next.lowest = next.lowest.max(index + 1);
                }
                LogOp::PutMeta { .. } => {}
            }
        }
        Some(next)
    }
}

/// Most puts follow the last entry; the others go anywhere.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u8, u64)>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let batch = prop::collection::vec((0..12_u8, 0..30_u64), 1..6).prop_map(Step::Append);
    prop::collection::vec(prop_oneof![12 => batch, 1 => Just(Step::Reopen)], 1..40)
}

fn batch_of(model: &Model, choices: &[(u8, u64)]) -> LogBatch {
    let mut next = model.entries.last_key_value().map_or(model.lowest, |(last, _)| last + 1);
    choices.iter().fold(LogBatch::new(), |batch, (choice, index)| match choice {
        0 => batch.truncate_from(*index),
        1 => batch.purge_through(*index / 3),
        2 => batch.put(*index, "anywhere"),
        _ => {
            next += 1;
            batch.put(next - 1, format!("entry {index}"))
        }
    })
}

fn refused(fault: StorageFault) -> bool {
    matches!(fault, StorageFault::OutOfOrder { .. })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_log_behaves_like_a_map(steps in steps()) {
        let place = tempfile::tempdir().unwrap();
        let open = || SegmentLog::open(place.path(), b"test", LogOptions { segment_bytes: 8192, ..LogOptions::default() }).unwrap();
        let (mut log, mut model) = (open(), Model::default());
        for step in steps {
            match step {
                Step::Append(choices) => {
                    let batch = batch_of(&model, &choices);
                    let outcome = block_on(log.append(batch.clone()));
                    match model.after(&batch) {
                        Some(next) => {
                            prop_assert!(outcome.is_ok());
                            model = next;
                        }
                        None => prop_assert!(outcome.is_err_and(refused), "{batch:?}"),
                    }
                }
                Step::Reopen => {
                    drop(log);
                    log = open();
                }
            }
            let found: Vec<_> = log.read(0..u64::MAX, usize::MAX).unwrap();
            let found: Vec<_> = found.into_iter().map(|(index, record)| (index, record.to_vec())).collect();
            let kept: Vec<_> = model.entries.clone().into_iter().collect();
            prop_assert_eq!(found, kept);
        }
    }
}
