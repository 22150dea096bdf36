//! A process's private key: made on the first start.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use client::{Key, KeyFault};
use ledger::signature::SigningKey;
use seams::Entropy;

/// Reads the key, or makes one where there is no such file.
pub(super) fn read_or_make(path: &Path, entropy: &dyn Entropy) -> anyhow::Result<SigningKey> {
    let key = match Key::load(path) {
        Err(KeyFault::File { source, .. }) if source.kind() == ErrorKind::NotFound => make(path, entropy)?,
        loaded => loaded.context(
            "the private key cannot be read: put back the file that this process had; under another key it is not \
             believed",
        )?,
    };
    Ok(*key.signing_key())
}

fn make(path: &Path, entropy: &dyn Entropy) -> anyhow::Result<Key> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("making key file {}", path.display());
    fs::create_dir_all(parent).with_context(failed)?;
    let key = Key::generate(entropy);
    key.save(path)?;
    // the file's name is on disk before anybody learns the key
    fs::File::open(parent).and_then(|directory| directory.sync_all()).with_context(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_key_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/node.key");
        let made = read_or_make(&path, &seams::OsEntropy).unwrap();
        assert_eq!(read_or_make(&path, &seams::OsEntropy).unwrap().party(), made.party());
    }
}
