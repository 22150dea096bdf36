//! Metrics for Prometheus, read off the parts when they are asked for. Names are a promise to dashboards and alerts:
//! docs/metrics.md lists them all, and a test compares it with what processes serve.
//!
//! Every label has few values: names of stages, reasons and tables, and the members, validators and provers of the cluster.

mod process;
mod node;
mod workers;
mod writer;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tls::Identity;
use validator::ValidatorService;

use crate::api::Api;
use node::NodeMetrics;
use process::ProcessMetrics;
use workers::ValidatorMetrics;

pub use workers::ProverMetrics;

/// Media type of the exposition.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything begins with this.
const PREFIX: &str = "seriatim";

/// The metrics of a node; of one that is starting, only that it is there.
///
/// # Errors
/// Never: text is written to memory.
pub async fn of_node(api: &Api) -> Result<String, fmt::Error> {
    let process = ProcessMetrics::read("node", api.channels().identity());
    encode(process, Box::new(NodeMetrics::read(api).await))
}

/// The metrics of a validator, and of what secures its connections.
///
/// # Errors
/// Never: text is written to memory.
pub fn of_validator(service: &ValidatorService, identity: Option<&Identity>) -> Result<String, fmt::Error> {
    let validator = ValidatorMetrics { counters: service.counters(), check_times: service.check_times() };
    encode(ProcessMetrics::read("validator", identity), Box::new(validator))
}

/// The metrics of a prover, and of what secures its connections.
///
/// # Errors
/// Never: text is written to memory.
pub fn of_prover(figures: ProverMetrics, identity: Option<&Identity>) -> Result<String, fmt::Error> {
    encode(ProcessMetrics::read("prover", identity), Box::new(figures))
}

fn encode(process: ProcessMetrics, role: Box<dyn Collector>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(process));
    registry.register_collector(role);
    let mut exposition = String::new();
    text::encode(&mut exposition, &registry)?;
    Ok(exposition)
}
