//! Where a node keeps its data: a file system of its own that can fail, or a plain directory that cannot.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::dice::Dice;

/// Size of a node's file system; its image is sparse.
const IMAGE_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// The end of an image's name; before it is the runner's pid.
const IMAGE: &str = "image";
/// What is left when a disk is filled.
const LEFT_BYTES: u64 = 256 * 1024;
/// Ends a mounted file system as a power cut does: what is not on the disk yet never gets there (`EXT4_IOC_SHUTDOWN`,
/// no flush of the journal). Neither the standard library nor the system's tools offer this call.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

/// A node's disk.
#[derive(Debug)]
pub(super) struct Disk {
    /// Where it is mounted, or the plain directory.
    root: PathBuf,
    image: Option<PathBuf>,
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Takes down the file systems of runs whose runner is gone and had no time to. One that it had stalled holds even
/// processes that were killed. Tells where they were.
pub(super) fn reclaim() -> Vec<PathBuf> {
    let mounts = procfs::process::Process::myself().and_then(|process| process.mountinfo());
    let abandoned = |source: &str| {
        let device = Path::new(source).file_name()?.to_str()?;
        let image = fs::read_to_string(format!("/sys/block/{device}/loop/backing_file")).ok()?;
        let (_, pid) = image.trim_end().strip_suffix(IMAGE)?.strip_suffix('.')?.rsplit_once('.')?;
        Some(pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
    };
    let mut taken = Vec::new();
    for mount in mounts.into_iter().flatten() {
        if mount.mount_source.as_deref().and_then(abandoned) == Some(true) {
            let disk = Disk { root: mount.mount_point, image: Some(PathBuf::new()) };
            disk.release();
            match disk.detach() {
                Ok(()) => taken.push(disk.root),
                Err(error) => tracing::warn!(%error, "a file system of a dead run stays mounted"),
            }
        }
    }
    taken
}

/// Why disks that can fail are not to be had; `None` where they are.
pub(super) fn missing() -> Option<String> {
    let probe = std::env::temp_dir().join(format!("seriatim-chaos-probe-{}", std::process::id()));
    let made = Disk::with_file_system(&probe.join("disk")).and_then(|disk| {
        let cut = disk.cut_power();
        disk.detach().and(cut)
    });
    if let Err(error) = fs::remove_dir_all(&probe) {
        tracing::debug!(%error, "the probe's directory stays");
    }
    made.err().map(|error| error.to_string())
}

impl Disk {
    /// A plain directory.
    pub(super) fn plain(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self { root: root.to_owned(), image: None })
    }

    /// A file system of its own in an image beside the place where it is mounted.
    pub(super) fn with_file_system(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let image = root.with_extension(format!("{}.{IMAGE}", std::process::id()));
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_os_str()])?;
        let disk = Self { root: root.to_owned(), image: Some(image) };
        disk.attach()?;
        Ok(disk)
    }

    fn attach(&self) -> io::Result<()> {
        match &self.image {
            Some(image) => run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), self.root.as_os_str()]),
            None => Ok(()),
        }
    }

    /// Unmounts it; nothing may use it.
    pub(super) fn detach(&self) -> io::Result<()> {
        if self.image.is_none() {
            return Ok(());
        }
        run("umount", &[self.root.as_os_str()])
    }

    /// Lets go whoever waits for it, where it is stalled: until then not even a killed process ends.
    pub(super) fn release(&self) {
        if self.image.is_some()
            && let Err(error) = self.thaw()
        {
            tracing::trace!(%error, "it was not stalled");
        }
    }

    /// The node's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Cuts the power: from now on every call on it fails, and what was not synced is lost.
    pub(super) fn cut_power(&self) -> io::Result<()> {
        run("python3", &["-c".as_ref(), SHUTDOWN.as_ref(), self.root.as_os_str()])
    }

    /// Brings it back after a power cut; nothing may use it.
    pub(super) fn restore_power(&self) -> io::Result<()> {
        self.detach()?;
        self.attach()
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }

    /// Leaves hardly any space.
    pub(super) fn fill(&self) -> io::Result<()> {
        let free = statvfs(&self.root)?;
        let bytes = (free.f_bavail * free.f_frsize).saturating_sub(LEFT_BYTES);
        let file = File::create(self.filler())?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?)
    }

    /// Gives the space back.
    pub(super) fn free(&self) -> io::Result<()> {
        fs::remove_file(self.filler())
    }

    /// Nothing is written or synced until it is thawed: whoever tries waits.
    pub(super) fn freeze(&self) -> io::Result<()> {
        run("fsfreeze", &["-f".as_ref(), self.root.as_os_str()])
    }

    /// Writes go on.
    pub(super) fn thaw(&self) -> io::Result<()> {
        run("fsfreeze", &["-u".as_ref(), self.root.as_os_str()])
    }

    /// Throws everything away.
    pub(super) fn wipe(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.data()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Flips a bit of some file of the ledger or the log; tells which. Nothing may use it.
    pub(super) fn flip_bit(&self, dice: &Dice) -> io::Result<Option<String>> {
        let files: Vec<PathBuf> = files(&self.data())?.into_iter().filter(|file| length(file) > 0).collect();
        let Some(file) = dice.pick(&files) else { return Ok(None) };
        let mut content = fs::read(file)?;
        let place = dice.between(0..=length(file).saturating_sub(1));
        if let Some(byte) = usize::try_from(place).ok().and_then(|place| content.get_mut(place)) {
            *byte ^= 1 << dice.between(0..=7);
        }
        fs::write(file, content)?;
        let name = file.strip_prefix(self.data()).unwrap_or(file).display();
        Ok(Some(format!("{name} at byte {place}")))
    }
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |found| found.len())
}

/// Files of the data directories, the lock and the key left out: those are not the ledger's.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if name != "LOCK" && !name.ends_with(".key") && !name.starts_with("LOG") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
