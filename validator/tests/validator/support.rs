//! Signed transactions, bundles of them, and a network in memory.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::certificate::ValidatorSet;
use ledger::check::LedgerIdentity;
use ledger::identifier::ClusterId;
use ledger::signature::SigningKey;
use ledger::{
    AssetType, AtomicGroupId, Body, Command, Intent, Limits, LogTime, Party, Quantity, Sequence, Signature, Transaction,
};
use seams::{Address, BoxFuture, CallError, Compute, Duplex, Entropy, Inline, Method, Service, Transport};
use validator::{PoolOptions, ServiceOptions, ValidatorPool, ValidatorService};

pub(crate) fn identity() -> LedgerIdentity {
    LedgerIdentity { cluster: ClusterId::of_name("test"), group: 0 }
}

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

/// The node's own key.
pub(crate) fn local_key() -> SigningKey {
    key(200)
}

pub(crate) fn set(epoch: u64, required: u16, keys: &[u8]) -> ValidatorSet {
    ValidatorSet { epoch, required, keys: keys.iter().map(|number| key(*number).party()).collect() }
}

fn body(nonce: u64) -> Body {
    let (from, to) = (key(100).party(), key(101).party());
    let asset = AssetType { issuer: key(102).party(), symbol: "USD".parse().unwrap() };
    Body {
        cluster: identity().cluster,
        group: 0,
        valid_until: LogTime::from_unix_millis(1),
        nonce,
        atomic: None,
        seen_head: None,
        signers: vec![from],
        intent: Intent::Command(Command::Transfer { asset, from, to, quantity: Quantity::new(1) }),
    }
}

fn signed(body: Body) -> Transaction {
    let signature = key(100).sign_transaction(&body);
    Transaction { body, signatures: vec![signature] }
}

/// What a member of a submission is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    FalseSignature,
    Unsigned,
    OtherCluster,
    Garbage,
}

pub(crate) fn submission(first_nonce: u64, kinds: &[Kind]) -> Vec<Vec<u8>> {
    let mut bodies: Vec<Body> = (first_nonce..).zip(kinds).map(|(nonce, _)| body(nonce)).collect();
    for (body, kind) in bodies.iter_mut().zip(kinds) {
        if *kind == Kind::OtherCluster {
            body.cluster = ClusterId::of_name("elsewhere");
        }
    }
    if bodies.len() > 1 {
        let group = AtomicGroupId::of(&bodies.iter().map(Body::id).collect::<Vec<_>>());
        bodies.iter_mut().for_each(|body| body.atomic = Some(group));
    }
    bodies.into_iter().zip(kinds).map(|(body, kind)| encode(body, *kind)).collect()
}

fn encode(body: Body, kind: Kind) -> Vec<u8> {
    let mut transaction = signed(body);
    match kind {
        Kind::Good | Kind::OtherCluster => transaction.encode(),
        Kind::FalseSignature => {
            transaction.signatures = vec![Signature::from_bytes([7; 64])];
            transaction.encode()
        }
        Kind::Unsigned => {
            transaction.signatures.clear();
            transaction.encode()
        }
        Kind::Garbage => vec![0xff; 40],
    }
}

pub(crate) fn bundle(submissions: &[Vec<Kind>]) -> (Bytes, Arc<BundleLayout>) {
    let mut builder = BundleBuilder::new();
    for (number, kinds) in (0_u64..).zip(submissions) {
        builder.push(Sequence::new(0), &submission(number * 100, kinds));
    }
    let bytes = Bytes::from(builder.finish());
    let layout = BundleLayout::read(&bytes, &Limits::V1).unwrap();
    (bytes, Arc::new(layout))
}

/// Three transactions, of which the second carries a false signature.
pub(crate) fn small_bundle() -> (Bytes, Arc<BundleLayout>) {
    bundle(&[vec![Kind::Good], vec![Kind::FalseSignature], vec![Kind::Good]])
}

/// Numbers that look random and are the same in every run.
#[derive(Debug, Default)]
pub(crate) struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let next = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mixed = (next ^ (next >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 29)).to_le_bytes()[..chunk.len()]);
        }
    }
}

type Tamper = Arc<dyn Fn(Bytes) -> Bytes + Send + Sync>;

/// What happens at one address.
#[derive(Clone)]
pub(crate) struct Station {
    pub service: Arc<dyn Service>,
    /// Until the answer is there.
    pub delay: Duration,
    /// Rewrites answers.
    pub tamper: Option<Tamper>,
    /// Rewrites requests.
    pub mislead: Option<Tamper>,
    /// Never answers.
    pub hangs: bool,
}

/// Delivers calls to stations by address; nobody is at other addresses.
#[derive(Default)]
pub(crate) struct Network {
    stations: Mutex<BTreeMap<Address, Station>>,
    calls: Mutex<BTreeMap<Address, u64>>,
}

impl Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Network")
    }
}

impl Network {
    pub(crate) fn place(&self, address: &Address, service: Arc<dyn Service>) {
        let delay = Duration::from_millis(10);
        let station = Station { service, delay, tamper: None, mislead: None, hangs: false };
        self.stations.lock().unwrap().insert(address.clone(), station);
    }

    pub(crate) fn change(&self, address: &Address, change: impl FnOnce(&mut Station)) {
        change(self.stations.lock().unwrap().get_mut(address).unwrap());
    }

    pub(crate) fn remove(&self, address: &Address) -> Station {
        self.stations.lock().unwrap().remove(address).unwrap()
    }

    pub(crate) fn restore(&self, address: &Address, station: Station) {
        self.stations.lock().unwrap().insert(address.clone(), station);
    }

    pub(crate) fn calls(&self, address: &Address) -> u64 {
        self.calls.lock().unwrap().get(address).copied().unwrap_or(0)
    }
}

impl Transport for Network {
    fn call(
        &self,
        to: &Address,
        method: Method,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        *self.calls.lock().unwrap().entry(to.clone()).or_default() += 1;
        let Some(station) = self.stations.lock().unwrap().get(to).cloned() else {
            return async { Err(CallError::Unreachable("nobody is there".to_owned())) }.boxed();
        };
        let answer = async move {
            let body = station.mislead.map_or(body.clone(), |mislead| mislead(body));
            tokio::time::sleep(station.delay).await;
            if station.hangs {
                std::future::pending::<()>().await;
            }
            let answer = station.service.handle(method, body).await?;
            Ok(station.tamper.map_or(answer.clone(), |tamper| tamper(answer)))
        };
        async move { tokio::time::timeout(timeout, answer).await.unwrap_or(Err(CallError::Timeout)) }.boxed()
    }

    fn open(&self, _to: &Address, _method: Method) -> BoxFuture<'static, Result<Duplex, CallError>> {
        async { Err(CallError::Unreachable("no streams here".to_owned())) }.boxed()
    }
}

pub(crate) fn address(number: u8) -> Address {
    Address::new(format!("validator-{number}:7000"))
}

pub(crate) fn service(number: u8) -> ValidatorService {
    ValidatorService::new(ServiceOptions::default(), identity(), Limits::V1, key(number), Arc::new(Inline))
}

/// A network with these validators at their addresses.
pub(crate) fn network(validators: &[u8]) -> Arc<Network> {
    let network = Arc::new(Network::default());
    for number in validators {
        network.place(&address(*number), Arc::new(service(*number)));
    }
    network
}

pub(crate) fn options() -> PoolOptions {
    PoolOptions { announcement_lease: Duration::from_secs(3_600), ..PoolOptions::default() }
}

pub(crate) fn pool_with(options: PoolOptions, network: &Arc<Network>) -> ValidatorPool {
    let (transport, compute): (Arc<dyn Transport>, Arc<dyn Compute>) = (network.clone(), Arc::new(Inline));
    ValidatorPool::new(options, transport, compute, identity(), local_key(), Arc::new(Counting::default()))
}

/// A pool to which these validators have announced themselves.
pub(crate) fn pool(network: &Arc<Network>, validators: &[u8]) -> ValidatorPool {
    let pool = pool_with(options(), network);
    validators.iter().for_each(|number| announce(&pool, *number, 1));
    pool
}

pub(crate) fn announce(pool: &ValidatorPool, number: u8, unix_ms: u64) {
    let announcement = validator::message::Announcement::new(&identity(), &address(number), unix_ms, &key(number));
    pool.handle_announcement(&announcement.encode()).unwrap();
}

pub(crate) fn party(number: u8) -> Party {
    key(number).party()
}
