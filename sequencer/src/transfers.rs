//! Snapshots that are on their way to other nodes, and what the log keeps for their sake.
//!
//! Whoever gets a snapshot goes on with the log behind it. A log that is cut off meanwhile makes it begin again with a newer
//! snapshot, and where a snapshot takes longer than the log keeps, it never ends. So the log stays from the snapshot on, until
//! its receiver has caught up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::NodeId;

/// How long after a transfer its receiver may take to be sent what comes behind it, or to be sent the rest.
const GRACE: Duration = Duration::from_secs(30);

/// The newest transfer to each node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transfers(Arc<Mutex<BTreeMap<NodeId, Transfer>>>);

#[derive(Debug)]
struct Transfer {
    /// The last entry in the snapshot.
    index: u64,
    bytes: u64,
    /// When it ended, well or not; `None` while it goes on.
    ended: Option<Instant>,
}

/// A transfer that goes on.
#[derive(Debug)]
pub(crate) struct Going {
    transfers: Transfers,
    to: NodeId,
}

impl Drop for Going {
    fn drop(&mut self) {
        if let Some(transfer) = self.transfers.lock().get_mut(&self.to) {
            transfer.ended = Some(Instant::now());
        }
    }
}

impl Transfers {
    /// A transfer begins, of a snapshot that ends with this entry and takes so many bytes.
    pub(crate) fn begin(&self, to: NodeId, index: u64, bytes: u64) -> Going {
        self.lock().insert(to, Transfer { index, bytes, ended: None });
        Going { transfers: self.clone(), to }
    }

    /// Through where the log may be purged, if nobody waits for more than it could be purged `through`. `replicated` is what
    /// each other node has, and `excess` what the log has grown beyond its bound, in bytes: where that is more than the snapshot
    /// was, a new snapshot costs less.
    pub(crate) fn held(&self, through: u64, replicated: &BTreeMap<NodeId, Option<u64>>, excess: u64) -> u64 {
        let mut transfers = self.lock();
        transfers.retain(|to, transfer| {
            let Some(matched) = replicated.get(to) else { return false };
            let Some(ended) = transfer.ended else { return true };
            transfer.index = transfer.index.max(matched.unwrap_or_default());
            transfer.index < through && ended.elapsed() < GRACE
        });
        let worth_it = transfers.values().filter(|transfer| transfer.bytes >= excess);
        worth_it.map(|transfer| transfer.index).min().unwrap_or(through).min(through)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Transfer>> {
        self.0.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: u64 = 7;

    fn matched(index: u64) -> BTreeMap<NodeId, Option<u64>> {
        BTreeMap::from([(LOST, Some(index)), (8, Some(1_000))])
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_stays_behind_a_snapshot_until_its_receiver_has_caught_up() {
        let transfers = Transfers::default();
        assert_eq!(transfers.held(500, &matched(0), 0), 500, "nobody waits for anything");
        let going = transfers.begin(LOST, 100, 1_000);
        assert_eq!(transfers.held(500, &matched(0), 0), 100);
        assert_eq!(transfers.held(90, &matched(0), 0), 90, "it would not have been purged further anyway");
        drop(going);
        assert_eq!(transfers.held(500, &matched(0), 0), 100, "it has the snapshot, and nothing behind it");
        assert_eq!(transfers.held(500, &matched(300), 0), 300);
        assert_eq!(transfers.held(600, &matched(600), 0), 600);
        assert_eq!(transfers.held(900, &matched(600), 0), 900, "it had caught up: from then on it is like the others");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_held_for_ever() {
        let transfers = Transfers::default();
        let going = transfers.begin(LOST, 100, 1_000);
        assert_eq!(transfers.held(500, &matched(0), 1_000), 100);
        assert_eq!(transfers.held(500, &matched(0), 1_001), 500, "a new snapshot is smaller than what is held");
        drop(going);
        tokio::time::sleep(GRACE / 2).await;
        assert_eq!(transfers.held(500, &matched(0), 0), 100);
        tokio::time::sleep(GRACE).await;
        assert_eq!(transfers.held(500, &matched(0), 0), 500, "the receiver has gone away");

        let _going = transfers.begin(LOST, 100, 1_000);
        assert_eq!(
            transfers.held(500, &BTreeMap::new(), 0),
            500,
            "another node leads, or the receiver is no member any more"
        );
    }
}
