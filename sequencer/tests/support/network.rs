//! A network in memory: one millisecond each way, and links that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use seams::{Address, CallError, Duplex, Method, Service, TaskGroup, Transport, Wire, duplex};
use sequencer::Sequencer;
use tokio::time::{sleep, timeout};

const LATENCY: Duration = Duration::from_millis(1);
const OPENING: Duration = Duration::from_millis(50);

/// Where the nodes are, and which of them cannot hear one another.
#[derive(Debug, Default)]
pub struct Hub {
    state: Mutex<HubState>,
}

#[derive(Debug, Default)]
struct HubState {
    nodes: BTreeMap<Address, (TaskGroup, Sequencer)>,
    cut: BTreeSet<(Address, Address)>,
    calls: BTreeMap<Method, u64>,
}

impl Hub {
    pub fn join(&self, address: Address, group: TaskGroup, node: Sequencer) {
        self.state.lock().unwrap().nodes.insert(address, (group, node));
    }

    pub fn leave(&self, address: &Address) {
        self.state.lock().unwrap().nodes.remove(address);
    }

    pub fn cut(&self, from: &Address, to: &Address) {
        let mut state = self.state.lock().unwrap();
        state.cut.insert((from.clone(), to.clone()));
        state.cut.insert((to.clone(), from.clone()));
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().cut.clear();
    }

    /// How many calls of a method were sent.
    pub fn calls(&self, method: Method) -> u64 {
        self.state.lock().unwrap().calls.get(&method).copied().unwrap_or(0)
    }

    fn connected(&self, from: &Address, to: &Address) -> bool {
        let state = self.state.lock().unwrap();
        state.nodes.contains_key(to) && !state.cut.contains(&(from.clone(), to.clone()))
    }

    fn node(&self, to: &Address) -> Option<(TaskGroup, Sequencer)> {
        self.state.lock().unwrap().nodes.get(to).cloned()
    }
}

/// The network as one node sees it.
#[derive(Debug, Clone)]
pub struct ToyTransport {
    pub hub: Arc<Hub>,
    pub me: Address,
}

impl ToyTransport {
    /// Passes one message on, or never returns.
    async fn hop(&self, from: &Address, to: &Address) {
        sleep(LATENCY).await;
        if !self.hub.connected(from, to) {
            std::future::pending::<()>().await;
        }
    }

    async fn deliver(&self, to: &Address, method: Method, body: Bytes) -> Result<Bytes, CallError> {
        *self.hub.state.lock().unwrap().calls.entry(method).or_default() += 1;
        let Some((group, node)) = self.hub.node(to) else {
            return Err(CallError::Unreachable("nobody listens".to_owned()));
        };
        self.hop(&self.me, to).await;
        let answer = group.spawn(node.handle(method, body)).await;
        let answer = answer.map_err(|_aborted| CallError::Lost("the node crashed".to_owned()))?;
        self.hop(to, &self.me).await;
        answer
    }

    /// Carries one direction of a stream until it breaks.
    async fn carry(
        self,
        from: Address,
        to: Address,
        mut messages: tokio::sync::mpsc::Receiver<Bytes>,
        out: tokio::sync::mpsc::Sender<Result<Bytes, CallError>>,
    ) {
        while let Some(message) = messages.recv().await {
            sleep(LATENCY).await;
            if !self.hub.connected(&from, &to) || out.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }
}

impl Transport for ToyTransport {
    fn call(
        &self,
        to: &Address,
        method: Method,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let (this, to) = (self.clone(), to.clone());
        let call = async move { timeout(limit, this.deliver(&to, method, body)).await };
        call.map(|answer| answer.unwrap_or(Err(CallError::Timeout))).boxed()
    }

    fn open(&self, to: &Address, method: Method) -> BoxFuture<'static, Result<Duplex, CallError>> {
        let (this, to) = (self.clone(), to.clone());
        let unreachable = || CallError::Unreachable("nobody listens".to_owned());
        async move {
            let (group, node) = this.hub.node(&to).ok_or_else(unreachable)?;
            timeout(OPENING, this.hop(&this.me, &to)).await.map_err(|_elapsed| unreachable())?;
            let (near, near_wire) = duplex(64);
            let (far, far_wire) = duplex(64);
            let Wire { outgoing: near_out, incoming: near_in } = near_wire;
            let Wire { outgoing: far_out, incoming: far_in } = far_wire;
            drop(group.spawn(async move { node.accept(method, far) }));
            drop(tokio::spawn(this.clone().carry(this.me.clone(), to.clone(), near_out, far_in)));
            drop(tokio::spawn(this.clone().carry(to, this.me.clone(), far_out, near_in)));
            Ok(near)
        }
        .boxed()
    }
}
