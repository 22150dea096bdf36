//! Connections that came in. Hands are shaken as the first bytes are read or written, so that whoever accepts
//! connections never waits for one of them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::identity::{Identity, Protocol};
use crate::peer::PeerSlot;

/// A connection, secured or not.
#[derive(Debug)]
pub struct Accepted {
    state: State,
    peer: PeerSlot,
}

enum State {
    Plain(TcpStream),
    ShakingHands(Box<Accept<TcpStream>>),
    Secured(Box<TlsStream<TcpStream>>),
    /// The other side was refused, or does not speak TLS.
    Failed,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::ShakingHands(_) => "ShakingHands",
            Self::Secured(_) => "Secured",
            Self::Failed => "Failed",
        })
    }
}

impl Accepted {
    /// A connection as it came, without TLS.
    #[must_use]
    pub const fn plain(stream: TcpStream) -> Self {
        Self { state: State::Plain(stream), peer: PeerSlot::plain() }
    }

    /// A connection that has to begin with a handshake. None where this side has no certificate to show.
    #[must_use]
    pub fn secured(stream: TcpStream, identity: &Identity, protocol: Protocol) -> Option<Self> {
        let acceptor = TlsAcceptor::from(identity.server(protocol)?);
        Some(Self { state: State::ShakingHands(Box::new(acceptor.accept(stream))), peer: PeerSlot::secured() })
    }

    /// Where it is told who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerSlot {
        self.peer.clone()
    }

    /// Shakes hands if that is still to be done.
    fn poll_hands(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut State>> {
        if let State::ShakingHands(accept) = &mut self.state {
            match ready!(Pin::new(accept).poll(context)) {
                Ok(stream) => {
                    self.peer.tell(stream.get_ref().1.peer_certificates());
                    self.state = State::Secured(Box::new(stream));
                }
                Err(fault) => {
                    tracing::debug!(%fault, "a connection is refused: hands were not shaken");
                    self.state = State::Failed;
                    return Poll::Ready(Err(fault));
                }
            }
        }
        Poll::Ready(Ok(&mut self.state))
    }
}

fn failed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "hands were not shaken")
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.poll_hands(context))? {
            State::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            State::Secured(stream) => Pin::new(stream).poll_read(context, buffer),
            State::ShakingHands(_) | State::Failed => Poll::Ready(Err(failed())),
        }
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_hands(context))? {
            State::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            State::Secured(stream) => Pin::new(stream).poll_write(context, bytes),
            State::ShakingHands(_) | State::Failed => Poll::Ready(Err(failed())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Plain(stream) => Pin::new(stream).poll_flush(context),
            State::Secured(stream) => Pin::new(stream).poll_flush(context),
            // nothing was written yet
            State::ShakingHands(_) => Poll::Ready(Ok(())),
            State::Failed => Poll::Ready(Err(failed())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            State::Secured(stream) => Pin::new(stream).poll_shutdown(context),
            // dropping it closes it
            State::ShakingHands(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_hands(context))? {
            State::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            State::Secured(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            State::ShakingHands(_) | State::Failed => Poll::Ready(Err(failed())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.state {
            State::Plain(stream) => stream.is_write_vectored(),
            // rustls takes slices, too
            State::ShakingHands(_) | State::Secured(_) | State::Failed => true,
        }
    }
}
