//! Metrics for Prometheus, read off the parts when they are asked for. Names are a promise to dashboards and alerts.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use sequencer::{Role, Status};
use storage::state::{ProofStatus, ProverStanding};
use validator::{PoolCounters, ServiceCounters, ValidatorService, ValidatorState, ValidatorStatus};

use crate::api::Api;
use crate::api::status::{Health, role_name};
use crate::gateway::GatewayCounters;

/// Media type of the exposition.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything begins with this.
const PREFIX: &str = "seriatim";

/// The metrics of a node; of one that is starting, only that it is there.
///
/// # Errors
/// Never: text is written to memory.
pub async fn of_node(api: &Api) -> Result<String, fmt::Error> {
    let mut observed = NodeMetrics { node: api.facts().node, health: Some(api.health()), running: None };
    if let Ok(replica) = api.replica() {
        let head = replica.state().head();
        observed.running = Some(RunningMetrics {
            status: replica.sequencer().status(),
            gateway: replica.gateway().counters(),
            queued_transactions: count(replica.gateway().queued_transactions()),
            pool: replica.pool().counters(),
            validators: replica.pool().status(),
            required_certificates: u64::from(replica.state().configuration().validators.required),
            batch: head.batch,
            size: head.size.get(),
            epoch: head.epoch,
            log_time_ms: head.log_time.unix_millis(),
            signatures: count(replica.newest_signed_head().signatures.len()),
            live_outputs: replica.state().live_outputs(),
            earliest_batch: replica.state().earliest_batch(),
            disk_bytes: replica.disk_bytes().await.ok(),
            proofs: replica.state().proof_status(),
        });
    }
    encode(Box::new(observed))
}

/// The metrics of a validator.
///
/// # Errors
/// Never: text is written to memory.
pub fn of_validator(service: &ValidatorService) -> Result<String, fmt::Error> {
    encode(Box::new(ValidatorMetrics { counters: service.counters() }))
}

/// The metrics of a prover.
///
/// # Errors
/// Never: text is written to memory.
pub fn of_prover(figures: ProverMetrics) -> Result<String, fmt::Error> {
    encode(Box::new(figures))
}

/// What a prover tells of itself.
#[derive(Debug, Clone, Default)]
pub struct ProverMetrics {
    /// True once the ledger's configuration has its key.
    pub configured: bool,
    /// The newest batch that any node was seen with.
    pub newest_batch: u64,
    /// The last batch that was judged.
    pub judged_batch: u64,
    /// The last batch that was attested.
    pub attested_batch: u64,
    /// Attestations that were ordered.
    pub attestations: u64,
    /// Batches by verdict: proved, refuted, inconclusive.
    pub verdicts: [u64; 3],
    /// Transactions judged.
    pub transactions: u64,
    /// Uses of known patterns, and patterns proved.
    pub patterns: [u64; 2],
    /// Patterns in the cache.
    pub patterns_kept: u64,
    /// Questions to the solver, and those left open.
    pub solver_checks: [u64; 2],
    /// Solvers replaced by fresh ones.
    pub solvers_replaced: u64,
    /// Time spent proving, in microseconds.
    pub proving_us: u64,
    /// Transactions and live outputs that the replay holds.
    pub replay: [u64; 2],
    /// From a batch's log time to its attestation, in milliseconds: median, 99th percentile, longest.
    pub lag_ms: [f64; 3],
    /// Nodes that told something wrong.
    pub faulty_nodes: u64,
    /// True where it does not go on.
    pub stuck: bool,
}

fn encode(collector: Box<dyn Collector>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(collector);
    let mut exposition = String::new();
    text::encode(&mut exposition, &registry)?;
    Ok(exposition)
}

#[derive(Debug)]
struct NodeMetrics {
    node: u64,
    health: Option<Health>,
    running: Option<RunningMetrics>,
}

#[derive(Debug)]
struct RunningMetrics {
    status: Status,
    gateway: GatewayCounters,
    queued_transactions: u64,
    pool: PoolCounters,
    validators: Vec<ValidatorStatus>,
    required_certificates: u64,
    batch: u64,
    size: u64,
    epoch: u64,
    log_time_ms: u64,
    signatures: u64,
    live_outputs: u64,
    earliest_batch: u64,
    disk_bytes: Option<(u64, u64)>,
    proofs: ProofStatus,
}

#[derive(Debug)]
struct ValidatorMetrics {
    counters: ServiceCounters,
}

type Labels<'a> = Vec<(&'a str, String)>;

/// Writes metrics one family after another.
struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Writer<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        gauge(value).encode(self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn gauges(&mut self, name: &str, help: &str, values: &[(Labels<'_>, u64)]) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            gauge(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn counters(&mut self, name: &str, help: &str, values: &[(Labels<'_>, u64)]) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    /// Median, 99th percentile and the largest.
    fn quantiles(&mut self, name: &str, help: &str, values: &[f64; 3]) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (quantile, value) in ["0.5", "0.99", "1"].into_iter().zip(values) {
            ConstGauge::new(*value).encode(family.encode_family(&[("quantile", quantile)])?)?;
        }
        Ok(())
    }

    fn build(&mut self, role: &str) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.gauges("build", "The program, as labels", &[(vec![("version", version), ("role", role.to_owned())], 1)])
    }
}

/// Gauges are signed 64-bit numbers; nothing here comes near their end.
fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

impl Collector for NodeMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer { encoder };
        writer.build("node")?;
        writer.gauge("node", "This node's number", self.node)?;
        writer.gauge("ready", "1 where clients should be sent here", u64::from(self.health == Some(Health::Ready)))?;
        match &self.running {
            Some(running) => running.write(&mut writer),
            None => Ok(()),
        }
    }
}

impl RunningMetrics {
    fn write(&self, writer: &mut Writer<'_>) -> fmt::Result {
        self.write_raft(writer)?;
        self.write_ledger(writer)?;
        self.write_gateway(writer)?;
        self.write_pool(writer)?;
        self.write_validators(writer)?;
        self.write_proofs(writer)
    }

    fn write_raft(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let status = &self.status;
        let roles = [Role::Learner, Role::Follower, Role::Candidate, Role::Leader, Role::Stopped];
        let role = |role: &Role| (vec![("role", role_name(*role).to_owned())], u64::from(*role == status.role));
        writer.gauges("raft_role", "1 for the part this node plays", &roles.iter().map(role).collect::<Vec<_>>())?;
        writer.gauge("raft_term", "The term", status.term)?;
        writer.gauge(
            "raft_leader",
            "The leader's number; 0 while none is known",
            status.leader.as_ref().map_or(0, |leader| leader.id),
        )?;
        writer.gauge("raft_last_log_index", "Last entry of the log", status.last_log.unwrap_or(0))?;
        writer.gauge(
            "raft_committed_index",
            "Last entry known to be committed",
            status.committed.map_or(0, |id| id.index),
        )?;
        writer.gauge("raft_applied_index", "Last entry applied", status.applied.map_or(0, |id| id.index))?;
        writer.gauge("raft_snapshot_index", "Last entry in the newest snapshot", status.snapshot.unwrap_or(0))?;
        writer.gauge("raft_purged_index", "Last entry purged from the log", status.purged.unwrap_or(0))?;
        writer.gauge("raft_voters", "Members that vote", count(status.members.voters.len()))?;
        writer.gauge("raft_learners", "Members that only receive", count(status.members.learners.len()))?;
        let replicated = |(id, index): (&u64, &Option<u64>)| (vec![("to", id.to_string())], index.unwrap_or(0));
        let replicated: Vec<_> = status.replicated.iter().map(replicated).collect();
        writer.gauges("raft_replicated_index", "On the leader: last entry that a node is known to hold", &replicated)
    }

    fn write_ledger(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.gauge("head_batch", "Batches applied", self.batch)?;
        writer.gauge("head_size", "Transactions with a place in the order", self.size)?;
        writer.gauge("head_epoch", "Epoch of the replicated configuration", self.epoch)?;
        writer.gauge("head_log_time_ms", "Log time of the newest batch", self.log_time_ms)?;
        writer.gauge("head_signatures", "Nodes that signed the newest signed head", self.signatures)?;
        writer.gauge("live_outputs", "Outputs that are not consumed", self.live_outputs)?;
        writer.gauge("earliest_batch", "The first batch of the history that is kept", self.earliest_batch)?;
        let Some((log, ledger)) = self.disk_bytes else { return Ok(()) };
        let disk = [(vec![("store", "log".to_owned())], log), (vec![("store", "ledger".to_owned())], ledger)];
        writer.gauges("disk_bytes", "Bytes on disk; the ledger's with its snapshots", &disk)
    }

    fn write_gateway(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let gateway = &self.gateway;
        writer.gauge("gateway_queued_transactions", "Admitted and not yet answered", self.queued_transactions)?;
        writer.counter("gateway_admitted", "Transactions admitted", gateway.admitted)?;
        writer.counter("gateway_overloaded", "Transactions refused for lack of room", gateway.overloaded)?;
        writer.counter("gateway_bundles", "Bundles closed", gateway.bundles)?;
        writer.counter(
            "gateway_repeated_forwards",
            "Attempts to reach the order beyond each bundle's first",
            gateway.repeated_forwards,
        )?;
        writer.counter(
            "gateway_certified_again",
            "Bundles certified again because the validator set had changed",
            gateway.certified_again,
        )?;
        let answers = [("outcome", gateway.answered), ("refused", gateway.refused), ("unknown", gateway.unknown)];
        let answers = answers.map(|(answer, value)| (vec![("answer", answer.to_owned())], value));
        writer.counters(
            "gateway_answers",
            "Transactions answered: with an outcome, refused by validation, or unknown",
            &answers,
        )
    }

    fn write_pool(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let pool = &self.pool;
        writer.counter("pool_bundles", "Bundles certified", pool.bundles)?;
        writer.counter(
            "pool_uncertified_bundles",
            "Bundles given back without certificates",
            pool.uncertified_bundles,
        )?;
        writer.counter(
            "pool_fallback_bundles",
            "Bundles that this node checked itself for want of a validator",
            pool.fallback_bundles,
        )?;
        writer.counter("pool_hedges", "Bundles put to one more validator because another was slow", pool.hedges)?;
        writer.counter("pool_failures", "Calls to validators that failed", pool.failures)?;
        writer.counter("pool_refusals", "Calls that an overloaded validator refused", pool.refusals)?;
        writer.counter("pool_disagreements", "Bundles on which validators disagreed", pool.disagreements)?;
        writer.counter("pool_convictions", "Wrong certificates; each made its validator faulty", pool.convictions)
    }

    fn write_proofs(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let proofs = &self.proofs;
        writer.gauge("attestations", "Attestations kept so far", proofs.attestations)?;
        writer.gauge(
            "attested_batch",
            "Up to this batch enough provers have proved every one",
            proofs.attested_batch,
        )?;
        writer.gauge("provers_required", "Provers that have to agree on a batch", u64::from(proofs.required))?;
        let each = |value: fn(&ProverStanding) -> u64| {
            let value = |(key, standing): (&ledger::Party, &Option<ProverStanding>)| {
                (vec![("key", key.to_string())], standing.as_ref().map_or(0, value))
            };
            proofs.provers.iter().map(value).collect::<Vec<_>>()
        };
        writer.gauges("prover_last_batch", "The last batch that a prover spoke of", &each(|it| it.last_batch))?;
        writer.gauges("prover_proved_batches", "Batches that a prover proved", &each(|it| it.proved))?;
        writer.gauges(
            "prover_inconclusive_batches",
            "Batches that a prover could not decide",
            &each(|it| it.inconclusive),
        )?;
        writer.gauges(
            "prover_alarm",
            "1 where a prover found something wrong, or contradicts the ledger or another prover",
            &each(|it| u64::from(it.alarm.is_some())),
        )
    }

    fn write_validators(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let labels = |validator: &ValidatorStatus| {
            let key = validator.key.map(|key| key.to_string()).unwrap_or_default();
            vec![("address", validator.address.as_str().to_owned()), ("key", key)]
        };
        let state = |validator: &ValidatorStatus| {
            let mut labels = labels(validator);
            labels.push(("state", state_name(&validator.state).to_owned()));
            (labels, 1)
        };
        let each = |value: fn(&ValidatorStatus) -> u64| {
            self.validators.iter().map(|validator| (labels(validator), value(validator))).collect::<Vec<_>>()
        };
        writer.gauge("validators_required", "Certificates that a bundle needs", self.required_certificates)?;
        let states: Vec<_> = self.validators.iter().map(state).collect();
        writer.gauges("validator_state", "1 for the state that a validator is in", &states)?;
        writer.gauges(
            "validator_in_flight",
            "Bundles with a validator now",
            &each(|validator| count(validator.in_flight)),
        )?;
        writer.counters(
            "validator_served",
            "Bundles that a validator answered",
            &each(|validator| validator.served),
        )?;
        writer.counters("validator_failed", "Calls to a validator that failed", &each(|validator| validator.failed))
    }
}

fn state_name(state: &ValidatorState) -> &'static str {
    match state {
        ValidatorState::Healthy => "healthy",
        ValidatorState::Probation { .. } => "probation",
        ValidatorState::Faulty { .. } => "faulty",
        ValidatorState::UnknownKey => "unknown_key",
    }
}

impl Collector for ProverMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer { encoder };
        let labelled = |label: &'static str, names: &[&str], values: &[u64]| -> Vec<_> {
            names.iter().zip(values).map(|(name, value)| (vec![(label, (*name).to_owned())], *value)).collect()
        };
        writer.build("prover")?;
        writer.gauge("prover_configured", "1 where the ledger counts this prover", u64::from(self.configured))?;
        writer.gauge("proof_newest_batch", "The newest batch that any node was seen with", self.newest_batch)?;
        writer.gauge("proof_judged_batch", "The last batch that was judged", self.judged_batch)?;
        writer.gauge("proof_attested_batch", "The last batch that was attested", self.attested_batch)?;
        writer.gauge(
            "proof_lag_batches",
            "Batches that are not attested yet",
            self.newest_batch.saturating_sub(self.attested_batch),
        )?;
        writer.quantiles("proof_lag_ms", "From a batch's log time to its attestation", &self.lag_ms)?;
        writer.counter("proof_attestations", "Attestations that were ordered", self.attestations)?;
        let verdicts = labelled("verdict", &["proved", "refuted", "inconclusive"], &self.verdicts);
        writer.counters("proof_batches", "Batches judged", &verdicts)?;
        writer.counter("proof_transactions", "Transactions judged", self.transactions)?;
        let patterns = labelled("pattern", &["known", "new"], &self.patterns);
        writer.counters("proof_windows", "Windows by whether their pattern was known", &patterns)?;
        writer.gauge("proof_patterns", "Patterns in the cache", self.patterns_kept)?;
        let checks = labelled("answer", &["any", "none"], &self.solver_checks);
        writer.counters("proof_solver_checks", "Questions to the solver, and those it left open", &checks)?;
        writer.counter("proof_solvers_replaced", "Solvers replaced by fresh ones", self.solvers_replaced)?;
        writer.counter("proof_time_us", "Time spent proving", self.proving_us)?;
        let replay = labelled("held", &["transactions", "live outputs"], &self.replay);
        writer.gauges("proof_replay", "What the replay holds in memory", &replay)?;
        writer.gauge("proof_faulty_nodes", "Nodes that told something wrong", self.faulty_nodes)?;
        writer.gauge("proof_stuck", "1 where the prover does not go on; its log says why", u64::from(self.stuck))
    }
}

impl Collector for ValidatorMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer { encoder };
        let ServiceCounters { bundles, transactions, rejected, busy, refused, malformed } = self.counters;
        writer.build("validator")?;
        writer.counter("validation_bundles", "Bundles answered with a certificate", bundles)?;
        writer.counter("validation_transactions", "Transactions in them", transactions)?;
        writer.counter("validation_rejected", "Transactions that did not pass", rejected)?;
        writer.gauge("validation_busy", "Bundles in work now", busy)?;
        writer.counter("validation_refused", "Bundles refused for lack of room", refused)?;
        writer.counter("validation_malformed", "Requests that could not be read", malformed)
    }
}
