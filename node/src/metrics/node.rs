//! What a node shows.

use std::fmt;
use std::time::Duration;

use ledger::Head;
use meters::{Counter, Distribution};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use sequencer::{Measures, Role, Status};
use storage::state::{OverlayMeasures, ProofStatus, ProverStanding};
use storage::{LogStats, Table};
use validator::{PoolCounters, ValidatorState, ValidatorStatus};

use super::writer::{Labels, Writer, count};
use crate::api::status::{Health, role_name};
use crate::api::{Api, RatesMeasured};
use crate::gateway::GatewayCounters;
use crate::replica::{DiskUsage, Replica};

/// What was read off a node.
#[derive(Debug)]
pub(super) struct NodeMetrics {
    node: u64,
    health: Health,
    intake_bytes: u64,
    /// Pieces that wait for their turn, and submissions that found no room.
    turns: (u64, u64),
    rates: RatesMeasured,
    running: Option<RunningMetrics>,
}

/// What was read off its replica.
#[derive(Debug)]
struct RunningMetrics {
    replica: Replica,
    status: Status,
    order: Measures,
    gateway: GatewayCounters,
    pool: PoolCounters,
    validators: Vec<ValidatorStatus>,
    required_certificates: u64,
    head: Head,
    signatures: u64,
    live_outputs: u64,
    earliest_batch: u64,
    log: LogStats,
    overlay: OverlayMeasures,
    disk: Option<DiskUsage>,
    proofs: ProofStatus,
}

impl NodeMetrics {
    pub(super) async fn read(api: &Api) -> Self {
        let running = match api.replica() {
            Ok(replica) => Some(RunningMetrics::read(replica).await),
            Err(_starting) => None,
        };
        Self {
            node: api.facts().node,
            health: api.health(),
            intake_bytes: count(api.intake().held_bytes()),
            turns: api.turns_measured(),
            rates: api.rates_measured(),
            running,
        }
    }
}

impl RunningMetrics {
    async fn read(replica: &Replica) -> Self {
        let state = replica.state();
        Self {
            replica: replica.clone(),
            status: replica.sequencer().status(),
            order: replica.sequencer().measures(),
            gateway: replica.gateway().counters(),
            pool: replica.pool().counters(),
            validators: replica.pool().status(),
            required_certificates: u64::from(state.configuration().validators.required),
            head: state.head(),
            signatures: count(replica.newest_signed_head().signatures.len()),
            live_outputs: state.live_outputs(),
            earliest_batch: state.earliest_batch(),
            log: replica.log_stats(),
            overlay: state.overlay(),
            disk: replica.disk_usage().await.ok(),
            proofs: state.proof_status(),
        }
    }
}

impl Collector for NodeMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer::new(encoder);
        writer.gauge("node", "This node's number", self.node)?;
        writer.gauge("ready", "1 where clients should be sent here", u64::from(self.health == Health::Ready))?;
        writer.bytes_gauge("intake", "Bytes of clients' messages that are still coming in", self.intake_bytes)?;
        let (waiting, refused) = self.turns;
        let help = "Requests that wait for their turn at the gateway, in pieces of a transaction or 4 KiB";
        writer.gauge("admission_waiting_pieces", help, waiting)?;
        writer.counter("admission_refused", "Submissions that had no turn in time", refused)?;
        self.write_rates(&mut writer)?;
        match &self.running {
            Some(running) => running.write(&mut writer),
            None => Ok(()),
        }
    }
}

impl NodeMetrics {
    fn write_rates(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let RatesMeasured { clients, refused, waited } = self.rates;
        let help = "Clients that submitted so lately that their allowance is not whole again, where it is bounded";
        writer.gauge("rate_clients", help, count(clients))?;
        let help = "Submissions beyond their client's rate, by how the client is known";
        writer.counters("rate_limited_submissions", help, &by("client", refused, |count| count))?;
        let help = "Turns of streams that waited for their client's rate, by how the client is known";
        writer.counters("rate_delayed_turns", help, &by("client", waited, |count| count))
    }
}

/// One label's values, each with what belongs to it.
fn by<T, V>(
    label: &'static str,
    named: impl IntoIterator<Item = (&'static str, T)>,
    value: impl Fn(T) -> V,
) -> Vec<(Labels<'static>, V)> {
    named.into_iter().map(|(name, it)| (vec![(label, name.to_owned())], value(it))).collect()
}

impl RunningMetrics {
    fn write(&self, writer: &mut Writer<'_>) -> fmt::Result {
        self.write_stages(writer)?;
        self.write_outcomes(writer)?;
        self.write_gateway(writer)?;
        self.write_raft(writer)?;
        self.write_ledger(writer)?;
        self.write_storage(writer)?;
        self.write_pool(writer)?;
        self.write_validators(writer)?;
        self.write_proofs(writer)
    }

    fn write_stages(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let stages = &self.replica.gateway().measures().stages;
        let times: Vec<(Labels<'_>, Distribution)> = by("stage", stages.named(), |times| times.distribution());
        let help = "Time by stage: admission by turn, queueing and response by submission, the others by bundle";
        writer.histograms("stage", help, &times)
    }

    fn write_outcomes(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let measures = self.replica.gateway().measures();
        let ordered = &measures.ordered;
        let outcomes =
            by("outcome", [("committed", &ordered.committed), ("rejected", &ordered.rejected)], Counter::get);
        let help = "Transactions that this replica applied, whoever admitted them; rejected ones were ordered in vain";
        writer.counters("ordered_transactions", help, &outcomes)?;
        let help = "Bundles that were ordered and brought nothing: all known already, or certificates of an old epoch";
        writer.counter("ordered_void_bundles", help, ordered.void_bundles.get())?;
        let rejections: Vec<_> = measures
            .rejections
            .named()
            .map(|(code, name, count)| (vec![("code", code.to_string()), ("reason", name.to_owned())], count))
            .collect();
        let help = "Transactions of this gateway's clients that were rejected, by number and name (docs/errors.md)";
        writer.counters("rejections", help, &rejections)?;
        let races = by("input", measures.lost_races.named(), Counter::get);
        let help = "Rejections because another transaction was first, by what both named";
        writer.counters("lost_races", help, &races)
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
        writer.gauges(
            "raft_replicated_index",
            "On the leader: last entry that a node is known to hold",
            &replicated,
        )?;
        let Measures { log_bytes, proposed_bytes, snapshots } = self.order;
        writer.bytes_gauge("raft_log", "Bytes of entries that are not purged", log_bytes)?;
        let help = "On the leader: bytes of entries that wait to be committed";
        writer.bytes_gauge("raft_proposed", help, proposed_bytes)?;
        writer.histogram("raft_snapshot", "Making one snapshot", &snapshots)
    }

    fn write_ledger(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let head = &self.head;
        writer.gauge("head_batch", "Batches applied", head.batch)?;
        writer.gauge("head_size", "Transactions with a place in the order", head.size.get())?;
        writer.gauge("head_epoch", "Epoch of the replicated configuration", head.epoch)?;
        let log_time = Duration::from_millis(head.log_time.unix_millis());
        writer.seconds_gauge("head_log_time", "Log time of the newest batch, since 1970", log_time)?;
        writer.gauge("head_signatures", "Nodes that signed the newest signed head", self.signatures)?;
        writer.gauge("live_outputs", "Outputs that are not consumed", self.live_outputs)?;
        writer.gauge("earliest_batch", "The first batch of the history that is kept", self.earliest_batch)
    }

    fn write_storage(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let LogStats { batches, syncs, entries, payload_bytes, write_times } = self.log;
        writer.counter("log_batches", "Groups of entries and metadata that became durable", batches)?;
        writer.counter("log_syncs", "Syncs that made them durable", syncs)?;
        writer.counter("log_entries", "Entries written", entries)?;
        writer.bytes_counter("log_written", "Payload of entries and metadata", payload_bytes)?;
        writer.histogram("log_sync", "Writing to the log once, with the sync", &write_times)?;
        let OverlayMeasures { rows, bytes, gathered_percent, write_outs } = self.overlay;
        writer.gauge("overlay_rows", "Changed rows in memory since the last write-out began", count(rows))?;
        writer.bytes_gauge("overlay", "Batches in memory since the last write-out began", count(bytes))?;
        let fill = f64::from(u32::try_from(gathered_percent).unwrap_or(u32::MAX)) / 100.0;
        let help = "What has gathered, as a part of what a write-out should take; from 2.2 on the order waits";
        writer.ratio_gauge("overlay_fill", help, fill)?;
        writer.histogram("overlay_write_out", "Writing the overlay to disk once", &write_outs)?;
        let Some(DiskUsage { log, ledger, tables }) = &self.disk else { return Ok(()) };
        let disk = by("store", [("log", *log), ("ledger", *ledger)], |bytes| bytes);
        writer.bytes_gauges("disk", "Bytes on disk; the ledger's with its snapshots", &disk)?;
        let tables = by("table", tables.iter().map(|(table, bytes)| (Table::name(*table), *bytes)), |bytes| bytes);
        writer.bytes_gauges("table", "Bytes of a table's files", &tables)
    }

    fn write_gateway(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let (gateway, queued) = (&self.gateway, self.replica.gateway());
        let transactions = count(queued.queued_transactions());
        writer.gauge("gateway_queued_transactions", "Admitted and not yet answered", transactions)?;
        writer.bytes_gauge("gateway_queued", "Bytes of them", count(queued.queued_bytes()))?;
        let in_flight = by("lane", queued.bundles_in_flight(), count);
        writer.gauges("gateway_bundles_in_flight", "Bundles on their way, by lane", &in_flight)?;
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
        let latency = |validator: &ValidatorStatus| Some((labels(validator), validator.latency_p95?));
        let latencies: Vec<_> = self.validators.iter().filter_map(latency).collect();
        let help = "The time within which a validator answered 95 % of its recent bundles";
        writer.seconds_gauges("validator_latency_p95", help, &latencies)?;
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
