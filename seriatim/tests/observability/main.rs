//! What a cluster of real processes shows of itself, held against what the documentation and the dashboards say.
#![expect(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod collector;
mod golden;
mod metrics;
mod queries;
mod traced;
mod prometheus;
