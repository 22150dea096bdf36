//! What nodes say of themselves while a run goes on: for the report, not for the checks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::clients::Desk;
use super::cluster::statuses;
use crate::report::{NodePoint, NodeTrack};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks at the nodes until it is aborted; what was seen is in the tracks.
pub(super) async fn watch(desk: Arc<Desk>, addresses: Vec<SocketAddr>, tracks: Arc<std::sync::Mutex<Vec<NodeTrack>>>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let at = desk.now().as_secs_f64();
        let statuses = statuses(&addresses).await;
        let mut tracks = crate::dice::lock(&tracks);
        for (track, status) in tracks.iter_mut().zip(statuses) {
            let (state, node, term, applied) = match status {
                None => ("down".to_owned(), 0, 0, 0),
                Some(status) => {
                    let state = if status.health == "ready" { status.role } else { status.health };
                    (state, status.node, status.term, status.applied_index)
                }
            };
            track.points.push(NodePoint { at, node, state, term, applied });
        }
    }
}
