//! A leader whom no majority answers falls silent, so that the others may elect somebody who is heard.
//!
//! Where only the way to the leader is broken, its heartbeats still arrive: its followers wait for it, it waits for
//! them, and nothing is committed for as long as the fault lasts. Silence ends that: the followers' time runs out. A
//! leader that is answered again, or that has become a follower meanwhile, speaks again.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::type_config::alias::InstantOf;
use tokio::time::sleep;

use crate::config::{Raft, TypeConfig};
use crate::options::Options;

/// How much longer than the longest election timeout a majority may be silent: a slow disk is no broken way.
const PATIENCE: u32 = 2;

/// Runs until the node stops.
pub(crate) async fn watch(raft: Raft, options: Arc<Options>) {
    let patience = silent_max(&options);
    let mut leads_since: Option<InstantOf<TypeConfig>> = None;
    let mut silent = false;
    loop {
        sleep(options.heartbeat).await;
        let (leads, acked) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.running_state.is_err() {
                return;
            }
            let alone = metrics.membership_config.voter_ids().count() <= 1;
            let leads = metrics.state == ServerState::Leader && !alone;
            (leads, metrics.last_quorum_acked.map(|acked| acked.into_inner()))
        };
        leads_since = if leads { leads_since.or_else(|| Some(InstantOf::<TypeConfig>::now())) } else { None };
        let heard = leads_since.map(|since| acked.map_or(since, |acked| acked.max(since)));
        let is_silent = heard.is_some_and(|heard| heard.elapsed() > patience);
        if is_silent != silent {
            if is_silent {
                tracing::warn!("no majority answers for {patience:?}: the heartbeats stop, so that another may lead");
            }
            raft.runtime_config().heartbeat(!is_silent);
            silent = is_silent;
        }
    }
}

fn silent_max(options: &Options) -> Duration {
    options.election_timeout_max.saturating_mul(PATIENCE)
}
