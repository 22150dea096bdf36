//! What a cluster of real processes shows of itself, held against what the documentation and the dashboards say.
#![expect(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod golden;
mod metrics;
mod queries;
mod prometheus;
