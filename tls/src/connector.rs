//! Connections that go out.
//!
//! A handshake of TLS 1.3 ends for the caller before the other side has judged its certificate. So a connector that
//! shows one waits for the other side's first word, which HTTP/2 begins with: a refusal is then the connection's
//! failure, and nothing was sent that could have been executed.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{AlertDescription, CertificateError, InvalidMessage};
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tower::Service;

use crate::fault::{named, written};
use crate::identity::Identity;
use crate::material::grpc_only;
use crate::role::Role;

/// A server that says nothing for so long is believed to have taken the certificate.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// A connection that goes out.
pub type SecuredStream = TlsStream<TcpStream>;

/// Why a secured connection is not made: nothing was sent over it. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    /// The address is none.
    #[error("\"{0}\" names no host")]
    NoHost(Uri),
    /// The host's name cannot be in a certificate.
    #[error("{host}: {source}")]
    Name {
        /// The name.
        host: String,
        /// Why.
        source: InvalidDnsNameError,
    },
    /// The network says no.
    #[error(transparent)]
    Network(io::Error),
    /// One of the two certificates is not accepted by the other side.
    #[error("{0}")]
    Certificate(String),
    /// Another role is there than has to be.
    #[error("the certificate there is of {}, and {expected} is expected: is the address right?", named(*.found))]
    Role {
        /// Whose it is.
        found: Option<Role>,
        /// Whose it has to be.
        expected: String,
    },
}

impl ConnectFault {
    /// Whether certificates are at fault, and not the network.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Certificate(_) | Self::Role { .. })
    }
}

/// The reason in a chain of wrappers, where it is that certificates are not accepted.
#[must_use]
pub fn secured_fault<'a>(fault: &'a (dyn Error + 'static)) -> Option<&'a ConnectFault> {
    let mut next = Some(fault);
    while let Some(fault) = next {
        if let Some(found) = fault.downcast_ref::<ConnectFault>() {
            return Some(found);
        }
        next = fault.source();
    }
    None
}

/// Who has to be at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// Anybody with a role that serves.
    Server,
    /// Any node.
    AnyNode,
    /// This node.
    Node(u64),
}

impl Expectation {
    fn is_met(self, found: Option<Role>) -> bool {
        match self {
            Self::Server => matches!(found, Some(Role::Node(_) | Role::Validator | Role::Prover)),
            Self::AnyNode => found.is_some_and(Role::is_node),
            Self::Node(number) => found == Some(Role::Node(number)),
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => formatter.write_str("a node, a validator or a prover"),
            Self::AnyNode => formatter.write_str("a node"),
            Self::Node(number) => write!(formatter, "node {number}"),
        }
    }
}

type Expecting = Arc<dyn Fn() -> Expectation + Send + Sync>;

/// Makes secured connections for gRPC. Clones tell each other who was at the other end.
#[derive(Clone)]
pub struct Connector {
    identity: Identity,
    by_name: bool,
    expecting: Expecting,
    found: Arc<Mutex<Option<Role>>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connector({:?})", self.identity)
    }
}

impl Connector {
    /// For clients and tools: to a node, whose certificate is for the name that it is called by.
    #[must_use]
    pub fn to_nodes(identity: Identity) -> Self {
        Self::new(identity, true, Arc::new(|| Expectation::AnyNode))
    }

    /// Between processes of a cluster: to whom is expected when the connection is made, whatever its name.
    #[must_use]
    pub fn between_roles(identity: Identity, expecting: impl Fn() -> Expectation + Send + Sync + 'static) -> Self {
        Self::new(identity, false, Arc::new(expecting))
    }

    fn new(identity: Identity, by_name: bool, expecting: Expecting) -> Self {
        Self { identity, by_name, expecting, found: Arc::default() }
    }

    /// Who was at the other end of the newest connection.
    #[must_use]
    pub fn found(&self) -> Option<Role> {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(self, uri: Uri) -> Result<SecuredStream, ConnectFault> {
        let host = uri.host().ok_or_else(|| ConnectFault::NoHost(uri.clone()))?;
        let port = uri.port_u16().unwrap_or(443);
        self.identity.refresh_elsewhere().await;
        let config = grpc_only(&self.identity.caller(self.by_name));
        let shows = self.identity.role().is_some();
        let (mut stream, found) = shake_hands(config, host, port).await?;
        let expected = (self.expecting)();
        if !expected.is_met(found) {
            return Err(ConnectFault::Role { found, expected: expected.to_string() });
        }
        if shows && let Ok(Err(fault)) = timeout(FIRST_WORD, stream.fill_buf()).await {
            return Err(refused(fault, host));
        }
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(stream)
    }
}

impl Identity {
    /// A connection for HTTP/1.1 to any role, whose certificate is for the name that it is called by, or, with
    /// `by_name` false, for any name.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub async fn connect_http(&self, host: &str, port: u16, by_name: bool) -> Result<SecuredStream, ConnectFault> {
        let (stream, found) = shake_hands(self.caller(by_name), host, port).await?;
        let expected = Expectation::Server;
        if expected.is_met(found) {
            return Ok(stream);
        }
        Err(ConnectFault::Role { found, expected: expected.to_string() })
    }
}

/// A connection, and who is at its other end.
async fn shake_hands(
    config: Arc<rustls::ClientConfig>,
    host: &str,
    port: u16,
) -> Result<(SecuredStream, Option<Role>), ConnectFault> {
    // an address of IPv6 stands in brackets
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name =
        ServerName::try_from(bare.to_owned()).map_err(|source| ConnectFault::Name { host: host.to_owned(), source })?;
    let stream = TcpStream::connect((bare, port)).await.map_err(ConnectFault::Network)?;
    stream.set_nodelay(true).map_err(ConnectFault::Network)?;
    let shaken = TlsConnector::from(config).connect(name, stream).await;
    let stream = shaken.map_err(|fault| refused(fault, host))?;
    let certificates = stream.get_ref().1.peer_certificates();
    let found = certificates.and_then(<[_]>::first).and_then(Role::of_certificate);
    Ok((stream, found))
}

/// What a failed handshake means to whoever wants to call `host`.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else it is, its own words say it")]
fn refused(fault: io::Error, host: &str) -> ConnectFault {
    let Some(inner) = fault.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return ConnectFault::Network(fault);
    };
    let message = match inner {
        rustls::Error::InvalidCertificate(why) => theirs(why, host),
        rustls::Error::AlertReceived(why) => own(*why),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the other side does not speak TLS: use http://, or give it certificates (--tls-certificate)".to_owned()
        }
        other => other.to_string(),
    };
    ConnectFault::Certificate(message)
}

/// The other side's certificate is not accepted here.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else it is, its own words say it")]
fn theirs(why: &CertificateError, host: &str) -> String {
    match why {
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the certificate there has expired ({}): issue a new one for it (`seriatim cert issue`)",
            written(*not_after)
        ),
        CertificateError::Expired => {
            "the certificate there has expired: issue a new one for it (`seriatim cert issue`)".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate there is not valid yet: compare the clocks of both machines".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate there was not issued by the authority in --tls-ca: use the one of this cluster".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "the certificate there is not for the name {host}: call it by a name that is in it, or issue one with \
             `--name {host}`"
        ),
        other => format!("the certificate there is not accepted: {other:?}"),
    }
}

/// This side's certificate is not accepted there.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else it is, its own words say it")]
fn own(why: AlertDescription) -> String {
    match why {
        AlertDescription::CertificateExpired => {
            "the other side refuses this side's certificate, which has expired: issue a new one (`seriatim cert issue`)"
                .to_owned()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the other side refuses this side's certificate, which is of another authority: use one of this cluster's"
                .to_owned()
        }
        AlertDescription::NoApplicationProtocol => {
            "the other side speaks another protocol: HTTP and gRPC have each an address of their own".to_owned()
        }
        other => format!("the other side refuses this side's certificate ({other:?})"),
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<SecuredStream>;
    type Error = ConnectFault;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, ConnectFault>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), ConnectFault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}
