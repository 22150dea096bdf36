//! A private key in a file: 64 hexadecimal digits, readable by its owner only.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use ledger::signature::SigningKey;
use seams::Entropy;

/// Reads the key, or makes one where there is no such file.
pub(super) fn read_or_make(path: &Path, entropy: &dyn Entropy) -> anyhow::Result<SigningKey> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).with_context(|| format!("key file {}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(path, entropy).with_context(|| format!("making key file {}", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("key file {}", path.display())),
    }
}

fn parse(text: &str) -> anyhow::Result<SigningKey> {
    let mut seed = [0; 32];
    if hex::decode_to_slice(text.trim(), &mut seed).is_err() {
        bail!("expected 64 hexadecimal digits; restore the file, or remove it to get a new key");
    }
    Ok(SigningKey::from_seed(seed))
}

fn make(path: &Path, entropy: &dyn Entropy) -> anyhow::Result<SigningKey> {
    let mut seed = [0; 32];
    entropy.fill(&mut seed);
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    // under another name first: a crash leaves no half a key
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    writeln!(file, "{}", hex::encode(seed))?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    fs::File::open(directory)?.sync_all()?;
    Ok(SigningKey::from_seed(seed))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/node.key");
        let made = read_or_make(&path, &seams::OsEntropy).unwrap();
        assert_eq!(read_or_make(&path, &seams::OsEntropy).unwrap().party(), made.party());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "not a key").unwrap();
        assert!(read_or_make(&path, &seams::OsEntropy).is_err());
    }
}
