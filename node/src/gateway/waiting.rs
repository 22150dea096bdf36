//! Who waits for which bundle: the link from apply back to the gateway.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ledger::BundleDigest;
use storage::AppliedEntry;
use tokio::sync::mpsc;

use crate::machine::Observer;

/// What a bundle's owner may still be told: it is passed over at most once per set of certificates, and applied once.
const MESSAGES_MAX: usize = 8;

/// Bundles of this gateway that are on their way.
#[derive(Debug, Default)]
pub struct Waiting {
    bundles: Mutex<HashMap<BundleDigest, mpsc::Sender<Arc<AppliedEntry>>>>,
}

impl Waiting {
    /// Registers a bundle; what becomes of it arrives at the receiver. Two bundles with the same bytes are one bundle.
    pub(super) fn register(
        self: &Arc<Self>,
        bundle: BundleDigest,
    ) -> (WaitingGuard, mpsc::Receiver<Arc<AppliedEntry>>) {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        self.bundles.lock().expect("no holder panics").insert(bundle, sender);
        (WaitingGuard { waiting: Arc::clone(self), bundle }, receiver)
    }
}

/// Ends the waiting for a bundle when dropped.
#[derive(Debug)]
pub(super) struct WaitingGuard {
    waiting: Arc<Waiting>,
    bundle: BundleDigest,
}

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.waiting.bundles.lock().expect("no holder panics").remove(&self.bundle);
    }
}

impl Observer for Waiting {
    fn applied(&self, _index: u64, entry: &AppliedEntry) {
        let Some(bundle) = entry.bundle else { return };
        let sender = self.bundles.lock().expect("no holder panics").get(&bundle).cloned();
        if let Some(sender) = sender {
            // a full channel holds the answer already
            drop(sender.try_send(Arc::new(entry.clone())));
        }
    }
}
