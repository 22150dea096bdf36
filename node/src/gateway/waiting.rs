//! Who waits for which bundle: the link from apply back to the gateway.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ledger::BundleDigest;
use storage::AppliedEntry;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::machine::Observer;

/// What a bundle's owner may still be told: it is passed over at most once per set of certificates, and applied once.
const MESSAGES_MAX: usize = 8;

/// What became of a bundle in the order.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) entry: AppliedEntry,
    /// When this replica began to apply it.
    pub(super) began: Instant,
    /// When it had.
    pub(super) ended: Instant,
}

/// Bundles of this gateway that are on their way. Equal submissions at the same time make equal bundles: what becomes of
/// one is the answer to all of them.
#[derive(Debug, Default)]
pub struct Waiting {
    bundles: Mutex<HashMap<BundleDigest, Vec<mpsc::Sender<Arc<Decided>>>>>,
}

impl Waiting {
    /// Registers a bundle; what becomes of it arrives at the receiver.
    pub(super) fn register(self: &Arc<Self>, bundle: BundleDigest) -> (WaitingGuard, mpsc::Receiver<Arc<Decided>>) {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        self.bundles.lock().expect("no holder panics").entry(bundle).or_default().push(sender.clone());
        (WaitingGuard { waiting: Arc::clone(self), bundle, sender }, receiver)
    }
}

/// Ends the waiting for a bundle when dropped.
#[derive(Debug)]
pub(super) struct WaitingGuard {
    waiting: Arc<Waiting>,
    bundle: BundleDigest,
    sender: mpsc::Sender<Arc<Decided>>,
}

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        let mut bundles = self.waiting.bundles.lock().expect("no holder panics");
        if let Some(senders) = bundles.get_mut(&self.bundle) {
            senders.retain(|sender| !sender.same_channel(&self.sender));
            if senders.is_empty() {
                bundles.remove(&self.bundle);
            }
        }
    }
}

impl Observer for Waiting {
    fn applied(&self, _index: u64, entry: &AppliedEntry, began: Instant) {
        let Some(bundle) = entry.bundle else { return };
        let bundles = self.bundles.lock().expect("no holder panics");
        let Some(senders) = bundles.get(&bundle) else { return };
        let decided = Arc::new(Decided { entry: entry.clone(), began, ended: Instant::now() });
        for sender in senders {
            // a full channel holds the answer already
            drop(sender.try_send(Arc::clone(&decided)));
        }
    }
}
