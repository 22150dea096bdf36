//! Streams: each direction keeps its order, a lost message comes late and holds up those behind it, and a link that
//! stays cut breaks the stream for both sides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use seams::{Address, CallError, Duplex, Method, Wire, duplex};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Network, Place};
use crate::sim::world::Event;

/// Messages that a stream's user may send ahead of the network.
const BUFFERED_MAX: usize = 64;
/// Messages on their way in one direction.
const FLYING_MAX: usize = 64;
/// How much later a message comes that had to be sent again.
const SENT_AGAIN: Duration = Duration::from_millis(200);

/// One open stream, as the network remembers it.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    ends: [Address; 2],
    severed: Arc<watch::Sender<bool>>,
}

impl Connection {
    pub(super) fn is_of(&self, address: &Address) -> bool {
        self.ends.contains(address)
    }

    /// Breaks the stream for both sides.
    pub(super) fn sever(&self) {
        self.severed.send_replace(true);
    }
}

impl Network {
    /// Opens a stream to a process and gives the caller's end.
    pub(super) fn connect(&self, from: Address, to: Address, method: Method, place: Place) -> Duplex {
        let (near, near_wire) = duplex(BUFFERED_MAX);
        let (far, far_wire) = duplex(BUFFERED_MAX);
        let connection = Connection { ends: [from.clone(), to.clone()], severed: Arc::new(watch::Sender::new(false)) };
        let number = {
            let mut state = self.state();
            state.streams_opened += 1;
            let number = state.streams_opened;
            state.streams.insert(number, connection.clone());
            number
        };
        let Wire { outgoing: near_out, incoming: near_in } = near_wire;
        let Wire { outgoing: far_out, incoming: far_in } = far_wire;
        let lane = |from: &Address, to: &Address, messages, out| Lane {
            network: self.clone(),
            from: from.clone(),
            to: to.clone(),
            method,
            connection: connection.clone(),
            messages,
            out,
        };
        let forth = lane(&from, &to, near_out, far_in);
        let back = lane(&to, &from, far_out, near_in);
        drop(place.group.spawn(async move { place.service.accept(method, far) }));
        let network = self.clone();
        drop(tokio::spawn(async move {
            futures::join!(forth.run(), back.run());
            network.state().streams.remove(&number);
        }));
        near
    }
}

/// One direction of a stream.
struct Lane {
    network: Network,
    from: Address,
    to: Address,
    method: Method,
    connection: Connection,
    messages: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Result<Bytes, CallError>>,
}

impl Lane {
    /// Carries messages until their sender is done, or the stream breaks.
    async fn run(mut self) {
        let mut severed = self.connection.severed.subscribe();
        let whole = tokio::select! {
            biased;
            _ = severed.wait_for(|severed| *severed) => false,
            whole = self.carry() => whole,
        };
        if !whole {
            self.connection.sever();
            // without room for the error, the end of the stream says the same
            drop(self.out.try_send(Err(CallError::Lost("the stream broke".to_owned()))));
        }
    }

    /// False where the stream breaks.
    async fn carry(&mut self) -> bool {
        let mut flying: VecDeque<(Instant, Bytes)> = VecDeque::new();
        let mut last = Instant::now();
        let mut more = true;
        loop {
            let first = flying.front().map(|(arrival, _)| *arrival);
            tokio::select! {
                biased;
                message = self.messages.recv(), if more && flying.len() < FLYING_MAX => match message {
                    Some(message) => {
                        last = last.max(self.arrival(&message));
                        flying.push_back((last, message));
                    }
                    None => more = false,
                },
                () = sleep_until(first.unwrap_or(last)), if first.is_some() => {
                    let Some((_, message)) = flying.pop_front() else { continue };
                    if !self.land(message).await {
                        return false;
                    }
                }
                else => return true,
            }
        }
    }

    fn arrival(&self, message: &Bytes) -> Instant {
        let world = &self.network.0.world;
        world.record(&Event::Sent { from: &self.from, to: &self.to, method: Some(self.method), body: message });
        let weather = self.network.weather();
        let again = if world.chance(weather.loss_per_mille) { SENT_AGAIN } else { Duration::ZERO };
        Instant::now() + world.pause(&weather.latency) + again
    }

    /// Hands a message over, where the link is whole or becomes so in time.
    async fn land(&self, message: Bytes) -> bool {
        let world = &self.network.0.world;
        let (from, to, method) = (&self.from, &self.to, Some(self.method));
        let breaks = world.chance(self.network.weather().breakage_per_mille);
        if breaks || !self.whole_in_time().await {
            world.record(&Event::Dropped { from, to, method });
            return false;
        }
        world.record(&Event::Delivered { from, to, method });
        self.out.send(Ok(message)).await.is_ok()
    }

    async fn whole_in_time(&self) -> bool {
        let mut changes = self.network.0.changes.subscribe();
        if !self.network.is_cut(&self.from, &self.to) {
            return true;
        }
        let patience = self.network.0.world.pause(&(Duration::from_millis(500)..=Duration::from_secs(4)));
        let whole = changes.wait_for(|_| !self.network.is_cut(&self.from, &self.to));
        timeout(patience, whole).await.is_ok_and(|waited| waited.is_ok())
    }
}
