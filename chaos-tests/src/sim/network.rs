//! The network in memory: messages take their time, overtake each other, get lost or arrive twice; streams keep
//! their order and break; links can be cut in one direction or both.
//!
//! A call is delivered to the [`Service`] at its address, inside the task group of the process that listens there, so
//! that a crash ends it. What is in flight belongs to nobody: it arrives although its sender has crashed.

mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use seams::{Address, BoxFuture, CallError, Duplex, Method, Service, TaskGroup, Transport};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::check::Property;
use crate::dice::lock;
use crate::sim::world::{Event, World};

/// How long connecting is tried while nothing comes back.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// How the network treats messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weather {
    /// How long a message travels. Two messages may overtake each other, except in one direction of one stream.
    pub latency: RangeInclusive<Duration>,
    /// Calls that get lost, in a thousand messages; in a stream these come late instead.
    pub loss_per_mille: u32,
    /// Calls that arrive twice, in a thousand.
    pub duplication_per_mille: u32,
    /// Streams that break, in a thousand messages.
    pub breakage_per_mille: u32,
}

impl Weather {
    /// A good day in one data centre.
    #[must_use]
    pub fn calm() -> Self {
        let latency = Duration::from_millis(1)..=Duration::from_millis(3);
        Self { latency, loss_per_mille: 0, duplication_per_mille: 0, breakage_per_mille: 0 }
    }
}

/// The network. Clones are the same network.
#[derive(Debug, Clone)]
pub struct Network(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: World,
    state: Mutex<State>,
    /// Counts changes of the links, for those who wait for a link to be whole again.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    places: BTreeMap<Address, Place>,
    cuts: BTreeSet<(Address, Address)>,
    weather: Weather,
    /// Whether links stay as they are from now on.
    is_repaired: bool,
    streams: BTreeMap<u64, stream::Connection>,
    streams_opened: u64,
}

/// Who listens at an address.
#[derive(Clone)]
struct Place {
    group: TaskGroup,
    service: Arc<dyn Service>,
}

impl fmt::Debug for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Place")
    }
}

impl Network {
    /// A network without anybody on it, in calm weather.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let state = State {
            places: BTreeMap::new(),
            cuts: BTreeSet::new(),
            weather: Weather::calm(),
            is_repaired: false,
            streams: BTreeMap::new(),
            streams_opened: 0,
        };
        Self(Arc::new(Shared { world: world.clone(), state: Mutex::new(state), changes: watch::Sender::new(0) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// A process begins to listen.
    pub fn join(&self, address: Address, group: TaskGroup, service: Arc<dyn Service>) {
        self.state().places.insert(address, Place { group, service });
    }

    /// A process is gone: its streams break.
    pub fn leave(&self, address: &Address) {
        let mut state = self.state();
        state.places.remove(address);
        state.streams.values().filter(|stream| stream.is_of(address)).for_each(stream::Connection::sever);
    }

    /// The network as seen from an address.
    #[must_use]
    pub fn endpoint(&self, from: Address) -> Arc<dyn Transport> {
        Arc::new(Endpoint { network: self.clone(), from })
    }

    /// Changes the weather; false where it was like that.
    pub fn set_weather(&self, weather: Weather) -> bool {
        let before = std::mem::replace(&mut self.state().weather, weather.clone());
        before != weather
    }

    /// From now on nothing passes from one address to the other; the other direction stays as it is. False where nothing
    /// passed before.
    pub fn cut(&self, from: &Address, to: &Address) -> bool {
        let mut state = self.state();
        let is_late = state.is_repaired;
        let is_new = state.cuts.insert((from.clone(), to.clone()));
        drop(state);
        if is_late {
            let what = format!("the simulation itself cuts {from} -> {to} when faults are over");
            self.0.world.violation(Property::Soundness, what);
        }
        is_new
    }

    /// Faults are over: every link is whole, and stays so.
    pub fn repair(&self) {
        self.heal();
        self.set_weather(Weather::calm());
        self.state().is_repaired = true;
    }

    /// Makes every link whole; false where all were.
    pub fn heal(&self) -> bool {
        let cuts = std::mem::take(&mut self.state().cuts);
        self.0.changes.send_modify(|changes| *changes += 1);
        !cuts.is_empty()
    }

    fn is_cut(&self, from: &Address, to: &Address) -> bool {
        self.state().cuts.contains(&(from.clone(), to.clone()))
    }

    fn weather(&self) -> Weather {
        self.state().weather.clone()
    }

    fn place(&self, address: &Address) -> Option<Place> {
        self.state().places.get(address).cloned()
    }

    /// One message on its way; true where it arrives.
    pub async fn hop(&self, from: &Address, to: &Address, method: Option<Method>, body: &[u8]) -> bool {
        let world = &self.0.world;
        world.record(&Event::Sent { from, to, method, body });
        let weather = self.weather();
        let lost = world.chance(weather.loss_per_mille);
        sleep(world.pause(&weather.latency)).await;
        if lost || self.is_cut(from, to) {
            world.record(&Event::Dropped { from, to, method });
            return false;
        }
        world.record(&Event::Delivered { from, to, method });
        true
    }

    /// Takes a request to whoever listens, and gives the answer; `None` where the request is lost.
    async fn deliver(&self, call: &Call) -> Option<Result<Bytes, CallError>> {
        if !self.hop(&call.from, &call.to, Some(call.method), &call.body).await {
            return None;
        }
        let Some(place) = self.place(&call.to) else {
            return Some(Err(CallError::Unreachable("nobody listens there".to_owned())));
        };
        let handled = place.group.spawn(place.service.handle(call.method, call.body.clone())).await;
        Some(handled.unwrap_or_else(|_ended| Err(CallError::Lost("the process ended".to_owned()))))
    }

    async fn carry(self, call: Call, answer: oneshot::Sender<Result<Bytes, CallError>>) {
        if self.0.world.chance(self.weather().duplication_per_mille) {
            let (network, copy) = (self.clone(), call.clone());
            drop(tokio::spawn(async move { network.deliver(&copy).await }));
        }
        let Some(result) = self.deliver(&call).await else { return };
        let body = result.as_ref().map(Bytes::as_ref).unwrap_or_default();
        if self.hop(&call.to, &call.from, Some(call.method), body).await {
            // the caller may have given up
            drop(answer.send(result));
        }
    }
}

#[derive(Debug, Clone)]
struct Call {
    from: Address,
    to: Address,
    method: Method,
    body: Bytes,
}

#[derive(Debug)]
struct Endpoint {
    network: Network,
    from: Address,
}

impl Transport for Endpoint {
    fn call(
        &self,
        to: &Address,
        method: Method,
        body: Bytes,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let network = self.network.clone();
        let call = Call { from: self.from.clone(), to: to.clone(), method, body };
        Box::pin(async move {
            let (answer, arrived) = oneshot::channel();
            drop(tokio::spawn(network.carry(call, answer)));
            let arrived = async {
                match arrived.await {
                    Ok(answer) => answer,
                    // lost on the way: silence
                    Err(_) => std::future::pending().await,
                }
            };
            timeout(patience, arrived).await.unwrap_or(Err(CallError::Timeout))
        })
    }

    fn open(&self, to: &Address, method: Method) -> BoxFuture<'static, Result<Duplex, CallError>> {
        let (network, from, to) = (self.network.clone(), self.from.clone(), to.clone());
        Box::pin(async move {
            let reached = network.hop(&from, &to, Some(method), &[]).await && !network.is_cut(&to, &from);
            if !reached {
                sleep(CONNECT_PATIENCE).await;
                return Err(CallError::Unreachable("no answer to connecting".to_owned()));
            }
            let place = network.place(&to).ok_or_else(|| CallError::Unreachable("nobody listens there".to_owned()))?;
            Ok(network.connect(from, to, method, place))
        })
    }
}
