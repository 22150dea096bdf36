//! What each step of a transaction costs by itself, on one core: encoding, the order-free checks, apply, the Merkle log,
//! the digest, and the write of a replica's changes into its store; and what proving costs, in several ways.
//!
//! Criterion measures; results are kept in a directory, and the next run is compared with them.
//!
//! Deliberately absent: clusters, the network and Raft, which crate `bench` measures from outside.

mod market;
mod pure;
mod stored;
mod prove;

use std::path::Path;
use std::time::Duration;

use criterion::Criterion;

pub use prove::{Case, ProveOptions, block_graph, prove};

/// Timed runs of each measurement.
const SAMPLES: usize = 30;

/// Runs the measurements whose names match the filter, a regular expression; all of them where there is none. Each takes
/// about `duration`. Results are kept in `directory`.
///
/// # Panics
/// Where the filter is no regular expression, or a temporary directory cannot be made.
pub fn run(filter: Option<&str>, duration: Duration, directory: &Path) {
    let mut criterion = Criterion::default()
        .output_directory(directory)
        .without_plots()
        .sample_size(SAMPLES)
        .warm_up_time(duration / 4)
        .measurement_time(duration);
    if let Some(filter) = filter {
        criterion = criterion.with_filter(filter);
    }
    pure::measure(&mut criterion);
    stored::measure(&mut criterion);
}
