//! One side's certificates: loaded from files, and again when the files change.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::{ClientConfig, ServerConfig};
use tokio::time::sleep;

use crate::fault::{TlsFault, written};
use crate::material::{Material, Texts};
use crate::role::Role;

/// Between two looks at the files. What is replaced is in use a second later, and a look is three short reads.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A certificate that expires sooner is warned of: time enough for whoever is on holiday.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);
/// Once an hour.
const LOOKS_PER_WARNING: u64 = 3_600;

/// Where certificates and keys are, in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The authority's certificate; several while one follows another.
    pub authority: PathBuf,
    /// Who this side is; none for callers that stay unknown.
    pub own: Option<OwnFiles>,
}

/// What shows who this side is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFiles {
    /// The certificate, before those between it and the authority's.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Which protocol a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2.
    Grpc,
    /// HTTP/1.1.
    Http,
}

/// Who this side is, and whom it believes. Clones are the same.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    files: Files,
    serving: Option<Role>,
    material: RwLock<Arc<Material>>,
    looked: Mutex<Looked>,
    replaced: AtomicU64,
    refused: AtomicU64,
}

/// What the last look at the files found.
struct Looked {
    used: Texts,
    /// What was no good, in the files or about them.
    refused: Option<Refused>,
}

#[derive(PartialEq, Eq)]
enum Refused {
    Texts(Box<Texts>),
    Unread(String),
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("files", &self.0.files).field("role", &self.role()).finish()
    }
}

impl Identity {
    /// Of a process that serves as this role.
    ///
    /// # Errors
    /// Where the files are no good; the message says what to do.
    pub fn serving(files: Files, role: Role) -> Result<Self, TlsFault> {
        Self::load(files, Some(role))
    }

    /// Of who only calls.
    ///
    /// # Errors
    /// Where the files are no good; the message says what to do.
    pub fn calling(files: Files) -> Result<Self, TlsFault> {
        Self::load(files, None)
    }

    fn load(files: Files, serving: Option<Role>) -> Result<Self, TlsFault> {
        let used = Texts::read(&files)?;
        let material = Arc::new(Material::of(&used, &files, serving)?);
        let looked = Mutex::new(Looked { used, refused: None });
        let (replaced, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self(Arc::new(Inner { files, serving, material: RwLock::new(material), looked, replaced, refused })))
    }

    /// Whose certificate it is.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.material().role
    }

    /// Until when the certificate is valid.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        let expires = self.material().expires?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(expires.as_secs()))
    }

    /// How often other files came into use, and how often they were no good.
    #[must_use]
    pub fn reloads(&self) -> (u64, u64) {
        (self.0.replaced.load(Ordering::Relaxed), self.0.refused.load(Ordering::Relaxed))
    }

    /// Looks whether the files hold something else, and uses that for connections to come. What is no good is told once
    /// and changes nothing. Reads files: not for threads that must not block.
    ///
    /// # Errors
    /// Where something new is no good, the first time that this is seen.
    pub fn refresh(&self) -> Result<(), TlsFault> {
        let mut looked = self.0.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = match Texts::read(&self.0.files) {
            Ok(texts) => texts,
            Err(fault) => return self.refuse(&mut looked, Refused::Unread(fault.to_string()), fault),
        };
        if texts == looked.used {
            looked.refused = None;
            return Ok(());
        }
        match Material::of(&texts, &self.0.files, self.0.serving) {
            Ok(material) => {
                let until = material.expires.map(written);
                *self.0.material.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(material);
                *looked = Looked { used: texts, refused: None };
                self.0.replaced.fetch_add(1, Ordering::Relaxed);
                tracing::info!(authority = %self.0.files.authority.display(), until, "other certificates are in use");
                Ok(())
            }
            Err(fault) => self.refuse(&mut looked, Refused::Texts(Box::new(texts)), fault),
        }
    }

    fn refuse(&self, looked: &mut Looked, refused: Refused, fault: TlsFault) -> Result<(), TlsFault> {
        if looked.refused.as_ref() == Some(&refused) {
            return Ok(());
        }
        looked.refused = Some(refused);
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        tracing::error!("the files of certificates changed and are no good, so that the old ones stay in use: {fault}");
        Err(fault)
    }

    /// Follows the files for ever, and warns while the certificate is about to expire.
    pub async fn keep_fresh(self) {
        for look in 0_u64.. {
            if look % LOOKS_PER_WARNING == 0 {
                self.warn_of_expiry();
            }
            sleep(LOOK_INTERVAL).await;
            self.refresh_elsewhere().await;
        }
    }

    fn warn_of_expiry(&self) {
        let Some(until) = self.material().expires else { return };
        let left = Duration::from_secs(until.as_secs().saturating_sub(UnixTime::now().as_secs()));
        if left < EXPIRY_WARNING {
            let until = written(until);
            tracing::warn!(
                until,
                "the certificate expires soon: issue a new one under the same name (`seriatim cert issue`)"
            );
        }
    }

    /// One look, on a thread that may block.
    pub(crate) async fn refresh_elsewhere(&self) {
        let identity = self.clone();
        // what is no good was logged, and a runtime that ends needs no certificates
        drop(tokio::task::spawn_blocking(move || identity.refresh()).await);
    }

    pub(crate) fn server(&self, protocol: Protocol) -> Option<Arc<ServerConfig>> {
        let material = self.material();
        let servers = material.servers.as_ref()?;
        Some(match protocol {
            Protocol::Grpc => Arc::clone(&servers.grpc),
            Protocol::Http => Arc::clone(&servers.http),
        })
    }

    /// For calls to where the name in the network counts beside the role, or the role alone.
    pub(crate) fn caller(&self, by_name: bool) -> Arc<ClientConfig> {
        let material = self.material();
        Arc::clone(if by_name { &material.by_name } else { &material.by_role })
    }

    fn material(&self) -> Arc<Material> {
        Arc::clone(&self.0.material.read().unwrap_or_else(PoisonError::into_inner))
    }
}
