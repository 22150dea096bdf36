//! Keys: made from a seed or from randomness, kept in files that only their owner can read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ledger::signature::SigningKey;
use ledger::{Body, Party, Signature};
use rustix::process::geteuid;
use seams::Entropy;

/// A private key: the party that it signs for, and its signatures.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    signing: SigningKey,
}

/// Why a key file is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// It cannot be read or written.
    #[error("key file {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than those it is for may read it.
    #[error("key file {path} may be read by others (mode {mode:o}); run chmod 600")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold 64 hexadecimal digits.
    #[error("key file {path} does not hold a seed of 64 hexadecimal digits")]
    Malformed {
        /// Which.
        path: PathBuf,
    },
}

impl Key {
    /// The key of a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { signing: SigningKey::from_seed(seed) }
    }

    /// A new key.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut seed = [0; 32];
        entropy.fill(&mut seed);
        Self::from_seed(seed)
    }

    /// Reads a key from a file that [`Self::save`] wrote, or that somebody else provides: a file of this process's user
    /// is for that user alone, one of another user may be readable for a group of this process.
    ///
    /// # Errors
    /// Where the file cannot be read, is readable by others, or holds something else.
    pub fn load(path: &Path) -> Result<Self, KeyFault> {
        let fault = |source| KeyFault::File { path: path.to_owned(), source };
        let found = fs::metadata(path).map_err(fault)?;
        let mode = found.permissions().mode() & 0o777;
        if mode & exposing(found.uid() == geteuid().as_raw()) != 0 {
            return Err(KeyFault::Exposed { path: path.to_owned(), mode });
        }
        let text = fs::read_to_string(path).map_err(fault)?;
        let mut seed = [0; 32];
        match hex::decode_to_slice(text.trim_ascii_end(), &mut seed) {
            Ok(()) => Ok(Self::from_seed(seed)),
            // the decoder's message would quote the secret
            Err(_secret) => Err(KeyFault::Malformed { path: path.to_owned() }),
        }
    }

    /// Writes the key to a new file that only its owner can read. Never replaces a file.
    ///
    /// # Errors
    /// Where the file exists or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), KeyFault> {
        let fault = |source| KeyFault::File { path: path.to_owned(), source };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fault)?;
        writeln!(file, "{}", hex::encode(self.signing.seed())).map_err(fault)?;
        file.sync_all().map_err(fault)
    }

    /// The party that the key signs for.
    #[must_use]
    pub fn party(&self) -> Party {
        self.signing.party()
    }

    /// Signs a transaction.
    #[must_use]
    pub fn sign(&self, body: &Body) -> Signature {
        self.signing.sign_transaction(body)
    }

    /// The ledger's form of the key.
    #[must_use]
    pub const fn signing_key(&self) -> &SigningKey {
        &self.signing
    }
}

/// The permission bits that show a key to others than those it is for. Orchestrators hand secrets to a process as files
/// of the superuser that a group of the process may read.
const fn exposing(own: bool) -> u32 {
    if own { 0o077 } else { 0o037 }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_saved_key_is_loaded_again_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alice.key");
        let key = Key::generate(&seams::OsEntropy);
        key.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Key::load(&path).unwrap().party(), key.party());
        assert!(matches!(key.save(&path), Err(KeyFault::File { .. })));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alice.key");
        Key::from_seed([1; 32]).save(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Key::load(&path), Err(KeyFault::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_file_of_somebody_else_may_be_shared_with_a_group_and_with_nobody_more() {
        for (mode, own, exposed) in [
            (0o600, true, false),
            (0o640, true, true),
            (0o604, true, true),
            (0o400, false, false),
            (0o440, false, false),
            (0o460, false, true),
            (0o444, false, true),
        ] {
            assert_eq!(mode & exposing(own) != 0, exposed, "{mode:o}, own: {own}");
        }
    }

    #[test]
    fn a_malformed_key_file_is_refused_without_quoting_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alice.key");
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let fault = Key::load(&path).unwrap_err();
        assert!(matches!(fault, KeyFault::Malformed { .. }));
        assert!(!fault.to_string().contains("secret"));
    }
}
