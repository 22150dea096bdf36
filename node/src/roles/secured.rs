//! A process's certificates, from its configuration: read at the start, and followed from then on.

use std::net::SocketAddr;

use tls::{Files, Identity, Role, TlsFault};

/// Who the process is to others; none where connections are not secured, which is said once.
///
/// # Errors
/// Where the files are no good, or of another role; the message says what to do.
pub fn identity(files: Option<&Files>, role: Role, listen: SocketAddr) -> Result<Option<Identity>, TlsFault> {
    let Some(files) = files else {
        if listen.ip().is_loopback() {
            tracing::info!("connections are not secured, and only this machine can make any (--tls-ca secures them)");
        } else {
            tracing::warn!(
                %listen,
                "connections are not secured: whoever reaches this address can read along and act as any role. Give \
                 --tls-ca, --tls-certificate and --tls-key (docs/security.md), or see that only the cluster reaches it"
            );
        }
        return Ok(None);
    };
    let identity = Identity::serving(files.clone(), role)?;
    let until = identity.expires().map(|until| humantime::format_rfc3339_seconds(until).to_string());
    tracing::info!(role = %role, until, "connections are secured");
    drop(seams::tasks::spawn(identity.clone().keep_fresh()));
    Ok(Some(identity))
}
