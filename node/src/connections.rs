//! Connections of strangers: taken in up to a number, shared out among addresses, given up where they stay silent.
//!
//! Whoever connects costs a file descriptor and a task before it has said a word. So a server takes in no more
//! connections than leave the disks their files, and one address no more than its share of them; what is beyond is
//! closed at once. Where the operating system cannot take one in, the server waits and goes on.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use rustix::process::{Resource, getrlimit, setrlimit};
use tls::{Accepted, Identity, PeerSlot, Protocol};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// Connections of one server at most. Thousands of clients are a busy day; tens of thousands are an attack.
const CONNECTIONS_MAX: usize = 8_192;
/// Of the files that the process may open, each of its two servers gets one in so many for connections.
const FILES_SHARE: usize = 4;
/// Of all connections, one address gets one in so many: there is room for others whatever one does.
const ADDRESS_SHARE: usize = 2;
/// What an operating system usually allows without being asked.
const FILES_UNKNOWN: usize = 1_024;
/// A connection begins to speak within this time. Longer than three lost packets on the slowest link take.
const OPENING_PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken in: descriptors come back as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Raises the number of files that this process may open as far as it may by itself, and gives that number.
pub fn raise_open_files() -> usize {
    let limits = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limits.maximum, ..limits };
    let allowed = if setrlimit(Resource::Nofile, raised).is_ok() { limits.maximum } else { limits.current };
    allowed.map_or(FILES_UNKNOWN, |count| usize::try_from(count).unwrap_or(usize::MAX))
}

/// How many connections one server takes in where the process may open so many files.
#[must_use]
pub fn connections_max(open_files: usize) -> usize {
    (open_files / FILES_SHARE).clamp(1, CONNECTIONS_MAX)
}

/// A listener that keeps the bounds.
#[derive(Debug)]
pub struct Connections {
    listener: TcpListener,
    opening_bytes: usize,
    places: Arc<Places>,
    secured: Option<(Identity, Protocol)>,
}

impl Connections {
    /// Takes in at most `connections_max` at once. Each has to send its first `opening_bytes` in time.
    #[must_use]
    pub fn new(listener: TcpListener, connections_max: usize, opening_bytes: usize) -> Self {
        let places = Places {
            connections_max,
            address_max: connections_max.div_ceil(ADDRESS_SHARE),
            taken: Mutex::new(BTreeMap::new()),
        };
        Self { listener, opening_bytes, places: Arc::new(places), secured: None }
    }

    /// The same; where there is an identity, every connection has to begin with a handshake.
    #[must_use]
    pub fn secured(self, identity: Option<Identity>, protocol: Protocol) -> Self {
        Self { secured: identity.map(|identity| (identity, protocol)), ..self }
    }

    /// The next connection.
    pub async fn accept(&self) -> Connection {
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection cannot be taken in");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = Places::take(&self.places, address.ip()) else {
                tracing::debug!(%address, "too many connections: this one is closed");
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, %address, "a connection ended at once");
                continue;
            }
            let opening = Opening { bytes_left: self.opening_bytes, deadline: Box::pin(sleep(OPENING_PATIENCE)) };
            let opening = Some(opening).filter(|opening| opening.bytes_left > 0);
            let stream = match &self.secured {
                None => Accepted::plain(stream),
                Some((identity, protocol)) => match Accepted::secured(stream, identity, *protocol) {
                    Some(stream) => stream,
                    None => continue,
                },
            };
            return Connection { stream, opening, place };
        }
    }

    /// Connections as they come, without end.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> {
        futures::stream::unfold(self, |connections| async {
            let connection = connections.accept().await;
            Some((Ok(connection), connections))
        })
    }
}

/// Who holds how many connections.
#[derive(Debug)]
struct Places {
    connections_max: usize,
    address_max: usize,
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

impl Places {
    fn take(places: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut taken = places.taken();
        let all: usize = taken.values().sum();
        let own = taken.get(&address).copied().unwrap_or_default();
        if all >= places.connections_max || own >= places.address_max {
            return None;
        }
        taken.insert(address, own + 1);
        Some(Place { places: Arc::clone(places), address })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(own) = taken.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// Who is at the other end of a connection, for whoever answers its requests.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Where it is.
    pub address: IpAddr,
    /// Who it is, as far as it has shown.
    pub peer: PeerSlot,
}

/// A connection that was taken in.
#[derive(Debug)]
pub struct Connection {
    stream: Accepted,
    opening: Option<Opening>,
    place: Place,
}

/// What a connection has still to send before it is believed to speak the protocol.
#[derive(Debug)]
struct Opening {
    bytes_left: usize,
    deadline: Pin<Box<Sleep>>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(opening) = &mut self.opening else { return read };
        opening.bytes_left = opening.bytes_left.saturating_sub(buffer.filled().len() - before);
        if opening.bytes_left == 0 {
            self.opening = None;
        } else if read.is_pending() && opening.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was said")));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller { address: self.place.address, peer: self.stream.peer() }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn listening(max: usize, opening_bytes: usize) -> (Connections, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Connections::new(listener, max, opening_bytes), address)
    }

    #[tokio::test]
    async fn one_address_gets_its_share_and_gets_it_again() {
        let (connections, address) = listening(4, 0).await;
        let mut strangers = Vec::new();
        for _ in 0..3 {
            strangers.push(TcpStream::connect(address).await.unwrap());
        }
        let taken = [connections.accept().await, connections.accept().await];
        // the third is closed while the next is waited for
        let mut beyond = strangers.pop().unwrap();
        let ended = tokio::select! {
            _ = connections.accept() => panic!("one address has half of four"),
            read = beyond.read_u8() => read,
        };
        assert!(ended.is_err());
        drop(taken);
        let _another = TcpStream::connect(address).await.unwrap();
        drop(connections.accept().await);
    }

    #[tokio::test]
    async fn silence_and_half_an_opening_end_and_a_whole_one_does_not() {
        tokio::time::pause();
        for (said, heard) in [(&b""[..], false), (&b"PRI"[..], false), (&b"PRI *"[..], true)] {
            let (connections, address) = listening(2, 5).await;
            let mut stranger = TcpStream::connect(address).await.unwrap();
            stranger.write_all(said).await.unwrap();
            let mut connection = connections.accept().await;
            let mut found = vec![0; said.len()];
            connection.read_exact(&mut found).await.unwrap();
            // time is paused: it jumps to whatever is waited for first
            let next = tokio::time::timeout(OPENING_PATIENCE * 3, connection.read_u8()).await;
            assert_eq!(next.is_err(), heard, "{said:?}: {next:?}");
        }
    }

    #[test]
    fn connections_leave_the_disks_their_files() {
        assert_eq!((connections_max(1_024), connections_max(1 << 20), connections_max(1)), (256, CONNECTIONS_MAX, 1));
    }
}
