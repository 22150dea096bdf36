//! Directories and files that are whole or not there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::BackupFault;

/// Made by the file system itself: no content of anybody's.
const OF_THE_FILE_SYSTEM: &str = "lost+found";

pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupFault {
    move |source| BackupFault::Io { path: path.to_path_buf(), action, source }
}

/// Names in a directory, sorted; none where it does not exist.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, BackupFault> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("listing the directory", directory)(error)),
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let names: io::Result<Vec<String>> = entries.map(name).collect();
    let mut names = names.map_err(io("listing the directory", directory))?;
    names.sort();
    Ok(names)
}

/// Refuses a directory that has content.
pub(super) fn require_empty(directory: &Path) -> Result<(), BackupFault> {
    match names(directory)?.into_iter().find(|name| name != OF_THE_FILE_SYSTEM) {
        Some(found) => Err(BackupFault::NotEmpty { directory: directory.to_path_buf(), found }),
        None => Ok(()),
    }
}

/// Creates a directory and those above it that are missing, each durable by name.
pub(super) fn create(directory: &Path) -> Result<(), BackupFault> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create(parent)?;
    fs::create_dir(directory).map_err(io("creating the directory", directory))?;
    sync(parent)
}

/// Makes a file or a directory's list of names durable.
pub(super) fn sync(path: &Path) -> Result<(), BackupFault> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io("syncing to disk", path))
}

/// Writes a file of a directory whole: after a crash it is there or it is not.
pub(super) fn write_whole(directory: &Path, name: &str, content: &[u8]) -> Result<(), BackupFault> {
    let partial = directory.join(format!("{name}.partial"));
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(io("writing a file", &partial))?;
    let path = directory.join(name);
    fs::rename(&partial, &path).map_err(io("renaming a file", &path))?;
    sync(directory)
}

/// Removes a file or a directory with all it holds, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), BackupFault> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("removing", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
