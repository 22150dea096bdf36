//! The network between processes: a proxy in front of each, and the state of every link.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::network::{Network, Place, Site};
use crate::dice::Dice;

/// Bytes taken from a connection at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks on their way in one direction of a connection.
const FLYING_MAX: usize = 64;
/// How much later something comes that had to be sent again.
const SENT_AGAIN: Duration = Duration::from_millis(200);
/// Time between two attempts to reach somebody who is cut off.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// How links treat what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Weather {
    /// How long it takes at least, in milliseconds.
    pub(super) delay_ms: u64,
    /// And up to how much more. Connections overtake one another by that.
    pub(super) jitter_ms: u64,
    /// What comes late because it was lost and sent again, in a thousand chunks.
    pub(super) loss_per_mille: u32,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct State {
    /// Directions in which nothing passes.
    cut: BTreeMap<(Place, Place), ()>,
    weather: Weather,
    /// Connections opened before this count were reset.
    resets: u64,
}

/// The network. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Links {
    state: Arc<watch::Sender<State>>,
    network: Arc<Network>,
    dice: Dice,
}

impl Links {
    pub(super) fn new(network: Network, dice: &Dice) -> Self {
        let state = Arc::new(watch::Sender::new(State::default()));
        Self { state, network: Arc::new(network), dice: dice.branch() }
    }

    /// What is below the proxies.
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// What is sent in these directions does not arrive: by the kernel where that is wanted and it can, else by the
    /// proxies. TCP knows a cut of the kernel's from its missing acknowledgements, and of the proxies' nothing.
    pub(super) fn cut(&self, directions: &[(Place, Place)], by_kernel: bool) -> io::Result<()> {
        for (from, to) in directions {
            if !(by_kernel && self.network.cut(*from, *to)?) {
                self.state.send_modify(|state| {
                    state.cut.insert((*from, *to), ());
                });
            }
        }
        Ok(())
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.state.send_modify(|state| state.weather = weather);
    }

    /// Everything passes again.
    pub(super) fn heal(&self) -> io::Result<()> {
        self.state.send_modify(|state| {
            state.cut.clear();
            state.weather = Weather::default();
        });
        self.network.heal()
    }

    /// Breaks every connection there is.
    pub(super) fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }

    /// Puts a proxy in front of a process; gives where others reach it. Ends with the runtime.
    pub(super) async fn proxy(&self, place: Place, site: &Site) -> io::Result<SocketAddr> {
        let (listener, target) = (TcpListener::bind(site.face).await?, site.grpc);
        let address = listener.local_addr()?;
        let links = self.clone();
        drop(tokio::spawn(async move {
            loop {
                let Ok((near, peer)) = listener.accept().await else { continue };
                drop(tokio::spawn(links.clone().carry(near, peer, address, place, target)));
            }
        }));
        Ok(address)
    }

    async fn carry(self, near: TcpStream, peer: SocketAddr, here: SocketAddr, place: Place, target: SocketAddr) {
        let links = self.clone();
        let found = tokio::task::spawn_blocking(move || links.network.owner(peer, here)).await;
        let from = found.unwrap_or(Place::Clients);
        // nobody listens: the connection ends, as a refused one does
        let Some(far) = self.connect(from, target).await else { return };
        if let Err(error) = near.set_nodelay(true).and(far.set_nodelay(true)) {
            tracing::debug!(%error, "small messages may wait");
        }
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        let mut state = self.state.subscribe();
        let resets = state.borrow_and_update().resets;
        tokio::select! {
            () = async { tokio::join!(self.pump(from, place, near_in, far_out), self.pump(place, from, far_in, near_out)); } => {}
            // dropping both halves of both connections resets them
            _ = state.wait_for(|state| state.resets != resets) => {}
        }
    }

    /// Connects to a process as if from elsewhere; `None` where nobody listens. Where packets vanish nobody is told so:
    /// it is tried until they do not.
    async fn connect(&self, from: Place, target: SocketAddr) -> Option<TcpStream> {
        loop {
            let attempt = async {
                let socket = TcpSocket::new_v4()?;
                if let Some(source) = self.network.source(from) {
                    socket.bind(SocketAddr::new(source, 0))?;
                }
                socket.connect(target).await
            };
            match attempt.await {
                Ok(stream) => return Some(stream),
                Err(error) if matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::TimedOut) => {
                    sleep(UNREACHABLE_PAUSE).await;
                }
                Err(error) => {
                    tracing::debug!(%error, %target, "a connection is not carried");
                    return None;
                }
            }
        }
    }

    /// One direction of a connection, until its end has been handed on.
    async fn pump(&self, from: Place, to: Place, input: OwnedReadHalf, mut output: OwnedWriteHalf) {
        let (flying, mut landing) = mpsc::channel(FLYING_MAX);
        let taking = self.take(input, flying);
        let mut state = self.state.subscribe();
        let landing = async {
            while let Some((arrival, chunk)) = landing.recv().await {
                sleep_until(arrival).await;
                let whole = state.wait_for(|state| !state.cut.contains_key(&(from, to))).await.is_ok();
                if !whole || output.write_all(&chunk).await.is_err() {
                    return;
                }
            }
            if state.wait_for(|state| !state.cut.contains_key(&(from, to))).await.is_ok() {
                // the other side may be gone
                drop(output.shutdown().await);
            }
        };
        tokio::select! {
            () = landing => {}
            () = async { taking.await; std::future::pending::<()>().await } => {}
        }
    }

    /// Takes what is sent, and says when it arrives.
    async fn take(&self, mut input: OwnedReadHalf, flying: mpsc::Sender<(Instant, Bytes)>) {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut last = Instant::now();
        while let Ok(count @ 1..) = input.read(&mut buffer).await {
            let Weather { delay_ms, jitter_ms, loss_per_mille } = self.state.borrow().weather;
            let again = if self.dice.chance(loss_per_mille) { SENT_AGAIN } else { Duration::ZERO };
            let delay = Duration::from_millis(delay_ms + self.dice.between(0..=jitter_ms)) + again;
            last = last.max(Instant::now() + delay);
            let chunk = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
            if flying.send((last, chunk)).await.is_err() {
                return;
            }
        }
    }
}
