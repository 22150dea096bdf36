//! Somebody on the network who is no member: asks the leader to order what no validator vouched for.

use std::time::Duration;

use bytes::Bytes;
use ledger::Transaction;
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::certificate::{Attested, VerdictBitmap};
use ledger::entry::CertifiedBundle;
use ledger::signature::SigningKey;
use node::gateway::ForwardRequest;
use seams::{Address, Method};
use sequencer::NodeId;

use crate::sim::cluster::Cluster;
use crate::sim::network::Network;
use crate::sim::world::World;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

/// A stranger who knows the protocol and every public key.
#[derive(Debug, Clone)]
pub(super) struct Intruder {
    pub(super) world: World,
    pub(super) network: Network,
    pub(super) cluster: Cluster,
    pub(super) address: Address,
}

impl Intruder {
    /// Sends the transaction to a node, with certificates in the names of all validators and a signature of his own.
    pub(super) async fn smuggle(&self, node: NodeId, transaction: &Transaction) {
        let Some((_, replica)) = self.cluster.replica(node) else { return };
        let (configuration, stamp) = (replica.state().configuration(), replica.state().head().size);
        drop(replica);
        let mut bundle = BundleBuilder::new();
        bundle.push(stamp, &[Bytes::from(transaction.encode())]);
        let bundle = bundle.finish();
        let Ok(layout) = BundleLayout::read(&bundle, &ledger::Limits::V1) else { return };
        let key = SigningKey::from_seed(self.world.key_seed());
        let attested = Attested {
            bundle: layout.digest(),
            verdicts: VerdictBitmap::of(&[true]),
            epoch: configuration.validators.epoch,
        };
        let forged = attested.certify(&key);
        let in_the_name_of = |validator| ledger::certificate::Certificate { validator, ..forged.clone() };
        let certificates = configuration.validators.keys.into_iter().map(in_the_name_of).collect();
        let request = ForwardRequest::Bundle(CertifiedBundle { bundle, certificates }).encode();
        let transport = self.network.endpoint(self.address.clone());
        // whatever he is told: what counts is that nothing of it happens
        drop(transport.call(self.cluster.address(node), Method::Forward, request, PATIENCE).await);
    }
}
