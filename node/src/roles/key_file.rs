//! A process's private key: made on the first start.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use client::{Key, KeyFault};
use ledger::signature::SigningKey;
use seams::OsEntropy;

/// The key of a process; made where there is no such file.
///
/// # Errors
/// Where the file cannot be read or made.
pub fn own_key(path: &Path) -> anyhow::Result<SigningKey> {
    let key = match Key::load(path) {
        Err(KeyFault::File { source, .. }) if source.kind() == ErrorKind::NotFound => make(path)?,
        loaded => loaded.context(
            "the private key cannot be read: put back the file that this process had; under another key it is not \
             believed",
        )?,
    };
    Ok(*key.signing_key())
}

fn make(path: &Path) -> anyhow::Result<Key> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("making key file {}", path.display());
    fs::create_dir_all(parent).with_context(failed)?;
    let key = Key::generate(&OsEntropy);
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
        let made = own_key(&path).unwrap();
        assert_eq!(own_key(&path).unwrap().party(), made.party());
    }
}
