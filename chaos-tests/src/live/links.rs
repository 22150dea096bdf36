//! The network between processes: a proxy in front of each, and the state of every link.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use procfs::process::{FDTarget, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::dice::{Dice, lock};

/// Bytes taken from a connection at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks on their way in one direction of a connection.
const FLYING_MAX: usize = 64;
/// How much later something comes that had to be sent again.
const SENT_AGAIN: Duration = Duration::from_millis(200);

/// Who is at an end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// All clients.
    Clients,
    /// A node, by its position.
    Node(usize),
    /// A validator, by its position.
    Validator(usize),
    /// The prover.
    Prover,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients => out.write_str("clients"),
            Self::Node(position) => write!(out, "n{}", position + 1),
            Self::Validator(position) => write!(out, "v{}", position + 1),
            Self::Prover => out.write_str("prover"),
        }
    }
}

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
    pids: Arc<Mutex<BTreeMap<u32, Place>>>,
    dice: Dice,
}

impl Links {
    pub(super) fn new(dice: &Dice) -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())), pids: Arc::default(), dice: dice.branch() }
    }

    /// From now on this process is at this place.
    pub(super) fn is_at(&self, pid: u32, place: Place) {
        let mut pids = lock(&self.pids);
        pids.retain(|_, other| *other != place);
        pids.insert(pid, place);
    }

    pub(super) fn cut(&self, from: Place, to: Place) {
        self.state.send_modify(|state| {
            state.cut.insert((from, to), ());
        });
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.state.send_modify(|state| state.weather = weather);
    }

    /// Everything passes again.
    pub(super) fn heal(&self) {
        self.state.send_modify(|state| {
            state.cut.clear();
            state.weather = Weather::default();
        });
    }

    /// Breaks every connection there is.
    pub(super) fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }

    /// Puts a proxy in front of a process; gives where others reach it. Ends with the runtime.
    pub(super) async fn proxy(&self, place: Place, target: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
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
        let found = tokio::task::spawn_blocking(move || links.who(peer, here)).await;
        let from = found.unwrap_or(Place::Clients);
        // nobody listens: the connection ends, as a refused one does
        let Ok(far) = TcpStream::connect(target).await else { return };
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

    /// Whose connection it is: the kernel knows the socket, and which process holds it.
    fn who(&self, peer: SocketAddr, here: SocketAddr) -> Place {
        let sockets = procfs::net::tcp().unwrap_or_default();
        let socket = sockets.iter().find(|socket| socket.local_address == peer && socket.remote_address == here);
        let Some(inode) = socket.map(|socket| socket.inode) else { return Place::Clients };
        let holds = |pid: u32| {
            let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok());
            let sockets = process.and_then(|process| process.fd().ok()).into_iter().flatten().flatten();
            sockets.into_iter().any(|found| matches!(found.target, FDTarget::Socket(found) if found == inode))
        };
        let pids = lock(&self.pids).clone();
        pids.into_iter().find(|(pid, _)| holds(*pid)).map_or(Place::Clients, |(_, place)| place)
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
