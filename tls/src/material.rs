//! Certificates and keys as files have them, checked against one another, and what both sides of TLS are made with.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use crate::fault::{TlsFault, written};
use crate::identity::{Files, OwnFiles};
use crate::role::Role;

/// The end of the year 9999: later than any certificate is valid, in seconds.
const FAR_FUTURE: u64 = 253_402_300_799;
/// How the two protocols are called in a handshake.
const ALPN_GRPC: &[u8] = b"h2";
const ALPN_HTTP: &[u8] = b"http/1.1";

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Texts {
    authority: Vec<u8>,
    own: Option<(Vec<u8>, Vec<u8>)>,
}

/// What is made of them.
pub(crate) struct Material {
    /// The own certificate's role.
    pub(crate) role: Option<Role>,
    /// Until when the own certificate is valid.
    pub(crate) expires: Option<UnixTime>,
    /// For connections to where the name in the network counts, too.
    pub(crate) by_name: Arc<ClientConfig>,
    /// For connections to where only the role counts.
    pub(crate) by_role: Arc<ClientConfig>,
    /// For servers; none without an own certificate.
    pub(crate) servers: Option<Servers>,
}

/// One for each protocol.
pub(crate) struct Servers {
    pub(crate) grpc: Arc<ServerConfig>,
    pub(crate) http: Arc<ServerConfig>,
}

impl Texts {
    pub(crate) fn read(files: &Files) -> Result<Self, TlsFault> {
        let own = files.own.as_ref().map(|own| {
            require_secret(&own.key)?;
            Ok((read(&own.certificate)?, read(&own.key)?))
        });
        Ok(Self { authority: read(&files.authority)?, own: own.transpose()? })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFault> {
    fs::read(path).map_err(|source| TlsFault::File { path: path.to_owned(), source })
}

/// A key of this process's user is for that user alone. One of another user (orchestrators hand out secrets as files of
/// the superuser) may be readable for a group of this process.
fn require_secret(path: &Path) -> Result<(), TlsFault> {
    let found = fs::metadata(path).map_err(|source| TlsFault::File { path: path.to_owned(), source })?;
    let mode = found.permissions().mode() & 0o777;
    let exposing = if found.uid() == geteuid().as_raw() { 0o077 } else { 0o037 };
    if mode & exposing != 0 {
        return Err(TlsFault::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

impl Material {
    /// What the texts say; `serving` as this role, where it is to serve.
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else it is, its own words say it")]
    pub(crate) fn of(texts: &Texts, files: &Files, serving: Option<Role>) -> Result<Self, TlsFault> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots(&texts.authority, &files.authority)?);
        let Some((own, (certificate, key))) = files.own.as_ref().zip(texts.own.as_ref()) else {
            let (by_name, by_role) =
                clients(&provider, &roots, None).map_err(|why| unusable(&files.authority, &why))?;
            return Ok(Self { role: None, expires: None, by_name, by_role, servers: None });
        };
        let chain = certificates(certificate, &own.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_secret| TlsFault::NoKey { path: own.key.clone() })?;
        let judge = Judge { chain: &chain, roots: &roots, algorithms: &provider.signature_verification_algorithms };
        let expires = judge.judge(own, &files.authority, serving.is_some())?;
        let role = chain.first().and_then(Role::of_certificate);
        if let Some(expected) = serving.filter(|expected| role != Some(*expected)) {
            return Err(TlsFault::WrongRole { path: own.certificate.clone(), found: role, expected });
        }
        let failed = |why: Error| match why {
            Error::InconsistentKeys(_) => {
                TlsFault::Mismatch { certificate: own.certificate.clone(), key: own.key.clone() }
            }
            why => unusable(&own.certificate, &why),
        };
        let pair = (chain, key);
        let (by_name, by_role) = clients(&provider, &roots, Some(&pair)).map_err(failed)?;
        let servers = Servers {
            grpc: server(&provider, &roots, &pair, ALPN_GRPC).map_err(failed)?,
            http: server(&provider, &roots, &pair, ALPN_HTTP).map_err(failed)?,
        };
        Ok(Self { role, expires: Some(expires), by_name, by_role, servers: Some(servers) })
    }
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn unusable(path: &Path, why: &Error) -> TlsFault {
    TlsFault::Unusable { path: path.to_owned(), why: why.to_string() }
}

fn certificates(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let none = || TlsFault::NoCertificate { path: path.to_owned() };
    let found: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|_syntax| none())?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

fn roots(text: &[u8], path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text, path)? {
        let added = roots.add(certificate);
        added.map_err(|why| TlsFault::Authority { path: path.to_owned(), why: why.to_string() })?;
    }
    Ok(roots)
}

/// Whether others will believe the own certificate.
struct Judge<'a> {
    chain: &'a [CertificateDer<'static>],
    roots: &'a RootCertStore,
    algorithms: &'a WebPkiSupportedAlgorithms,
}

impl Judge<'_> {
    /// Until when it is valid.
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else it is, its own words say it")]
    fn judge(&self, own: &OwnFiles, authority: &Path, serves: bool) -> Result<UnixTime, TlsFault> {
        let path = own.certificate.clone();
        let fault = |why| match why {
            webpki::Error::CertExpired { not_after, .. } => {
                TlsFault::Expired { path: path.clone(), until: written(not_after) }
            }
            webpki::Error::CertNotValidYet { not_before, .. } => {
                TlsFault::NotYetValid { path: path.clone(), from: written(not_before) }
            }
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                TlsFault::Foreign { path: path.clone(), authority: authority.to_owned() }
            }
            why => TlsFault::Unusable { path: path.clone(), why: why.to_string() },
        };
        let now = UnixTime::now();
        self.verify(now, KeyUsage::client_auth()).map_err(fault)?;
        if serves {
            self.verify(now, KeyUsage::server_auth()).map_err(fault)?;
        }
        // the verifier is what knows the end of a certificate's time
        let end = UnixTime::since_unix_epoch(Duration::from_secs(FAR_FUTURE));
        match self.verify(end, KeyUsage::client_auth()) {
            Err(webpki::Error::CertExpired { not_after, .. }) => Ok(not_after),
            Ok(()) | Err(_) => Ok(end),
        }
    }

    fn verify(&self, at: UnixTime, usage: KeyUsage) -> Result<(), webpki::Error> {
        let (leaf, above) = self.chain.split_first().ok_or(webpki::Error::UnknownIssuer)?;
        let leaf = EndEntityCert::try_from(leaf)?;
        leaf.verify_for_usage(self.algorithms.all, &self.roots.roots, above, at, usage, None, None).map(|_path| ())
    }
}

fn clients(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    pair: Option<&Pair>,
) -> Result<(Arc<ClientConfig>, Arc<ClientConfig>), Error> {
    let by_name = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build();
    let by_name = by_name.map_err(|why| Error::General(why.to_string()))?;
    let by_role =
        Arc::new(ChainVerifier { roots: Arc::clone(roots), algorithms: provider.signature_verification_algorithms });
    Ok((client(provider, by_name, pair)?, client(provider, by_role, pair)?))
}

fn client(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    pair: Option<&Pair>,
) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&[&TLS13])?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match pair {
        Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn server(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    (chain, key): &Pair,
    protocol: &[u8],
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build()
        .map_err(|why| Error::General(why.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())?;
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The ALPN of a client that speaks gRPC.
pub(crate) fn grpc_only(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![ALPN_GRPC.to_vec()];
    Arc::new(config)
}

/// Whether the authority issued a certificate, whatever name it is for: whoever uses this looks at the role.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
