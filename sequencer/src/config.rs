//! openraft with our types: the one configuration, the runtime it spawns on, and short names.

use std::fmt::{self, Debug, Display};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flaws::{Flaw, is_planted};
use openraft::{OptionalSend, SnapshotPolicy, type_config::alias};
use openraft_rt::AsyncRuntime;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use seams::Address;

use crate::options::Options;
use crate::state_machine::StateMachine;
use crate::{NodeId, StartFault};

openraft::declare_raft_types!(
    /// Every type parameter of openraft, chosen once.
    pub(crate) TypeConfig:
        D = Payload,
        R = Response,
        NodeId = NodeId,
        Node = Member,
        AsyncRuntime = DeterministicRng<SeamsRuntime>,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, NodeId>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type RaftMetrics = openraft::RaftMetrics<TypeConfig>;

/// What was proposed: opaque. Shows only its size, in logs of openraft's too.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Payload(pub(crate) Bytes);

impl Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.0.len())
    }
}

impl Display for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(self, formatter)
    }
}

/// What the machine answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response(pub(crate) Bytes);

/// What the membership says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) address: Address,
}

/// Tokio, with every task in its node's task group: a simulated crash ends openraft's tasks too. It runs
/// inside [`DeterministicRng`], whose seed comes from the node's entropy, in production as in simulation.
pub(crate) struct SeamsRuntime(TokioRuntime);

impl Debug for SeamsRuntime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SeamsRuntime")
    }
}

impl AsyncRuntime for SeamsRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        seams::tasks::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        SeamsRuntime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// openraft's configuration. What is set here against its defaults is set for safety or because we do it
/// ourselves (docs/decisions/0001-openraft-alpha.md).
pub(crate) fn raft_config(options: &Options) -> Result<Arc<openraft::Config>, StartFault> {
    // openraft's followers wait for the leader's lease, which is its `election_timeout_max`, and then for a random time
    let lease = options.election_timeout_max / 2;
    let config = openraft::Config {
        cluster_name: "seriatim".to_owned(),
        heartbeat_interval: millis(options.heartbeat),
        election_timeout_min: millis(options.election_timeout_min.saturating_sub(lease)),
        election_timeout_max: millis(lease),
        // the way to a leader may be broken while its heartbeats still arrive: it must not hold up the others
        quorum_loss_probe_interval: Some(millis(lease) * 2),
        enable_pre_vote: Some(options.pre_vote),
        // a leader that restarts without its unsynced tail must not go on in the same term
        enable_leader_restore: Some(is_planted(Flaw::LeaderRestored)),
        allow_log_reversion: Some(false),
        // `compaction` decides when to snapshot and what to purge
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // bounded in bytes by the log reader; this is only a limit of the count
        max_payload_entries: 4096,
        backoff: format!("{}ms", millis(options.heartbeat)),
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| StartFault::Options(error.to_string()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;

    #[test]
    fn elections_begin_within_the_silence_that_the_options_name() {
        let options = Options::new(1);
        let raft = raft_config(&options).unwrap();
        let lease = raft.election_timeout_max;
        assert_eq!(lease + raft.election_timeout_min, millis(options.election_timeout_min));
        assert_eq!(lease + raft.election_timeout_max, millis(options.election_timeout_max));
        assert_eq!(raft.quorum_loss_probe_interval, Some(millis(options.election_timeout_max)));
    }

    #[test]
    fn votes_have_a_quarter_of_the_longest_silence_to_come_back() {
        let options = Options { election_timeout_min: Duration::from_millis(599), ..Options::new(1) };
        assert!(options.check().is_err(), "three quarters of 800 are 600");
        assert!(Options { election_timeout_min: Duration::from_millis(600), ..options }.check().is_ok());
    }
}
