//! Where a node keeps its data: a file system of its own that can fail, or a plain directory that cannot.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::dice::Dice;

/// Size of a node's file system; its image is sparse.
const IMAGE_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// The end of an image's name; before it is the runner's pid.
const IMAGE: &str = "image";
/// The least that a filler takes: a block of the file system.
const BLOCK_BYTES: u64 = 4096;
/// Where the log's segments lie in a node's data directory.
const LOG: &str = "log";
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

fn run(program: &str, arguments: &[&OsStr]) -> io::Result<()> {
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
        // nothing is kept back for root, who the nodes run as: what is full is full for them too
        let options = ["-q", "-F", "-m", "0"].map(OsStr::new);
        run("mkfs.ext4", &[&options[..], &[image.as_os_str()]].concat())?;
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

    /// Leaves no space. Done again, it takes what became free since.
    pub(super) fn fill(&self) -> io::Result<()> {
        let file = File::options().append(true).create(true).open(self.filler())?;
        let free = statvfs(&self.root)?;
        let mut bytes = (free.f_bavail * free.f_frsize).max(BLOCK_BYTES);
        while bytes >= BLOCK_BYTES {
            match fallocate(&file, FallocateFlags::empty(), file.metadata()?.len(), bytes) {
                Ok(()) => {}
                Err(Errno::NOSPC) => bytes /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
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

    /// Flips a bit of the log or of the tables, as often of the one as of the other, in a byte that is not zero: what
    /// files have in reserve is zeros. Tells which. Nothing may use it.
    pub(super) fn flip_bit(&self, dice: &Dice) -> io::Result<Option<Flipped>> {
        let root = self.data();
        let filled = files(&root)?.into_iter().filter(|file| fs::metadata(file).is_ok_and(|found| found.len() > 0));
        let (in_log, elsewhere): (Vec<PathBuf>, Vec<PathBuf>) =
            filled.partition(|file| file.starts_with(root.join(LOG)));
        let of_log = dice.chance(500);
        let Some(file) = dice.pick(if of_log { &in_log } else { &elsewhere }) else { return Ok(None) };
        let mut content = fs::read(file)?;
        let length = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let drawn = usize::try_from(dice.number()).unwrap_or_default() % length.max(1);
        let mut written = content.iter_mut().enumerate().skip(drawn).filter(|(_, byte)| **byte != 0);
        let Some((place, byte)) = written.next() else { return Ok(None) };
        *byte ^= 1 << dice.between(0..=7);
        fs::write(file, content)?;
        let name = file.strip_prefix(&root).unwrap_or(file).display();
        Ok(Some(Flipped { what: format!("{name} at byte {place}"), of_log }))
    }
}

/// Where a bit was flipped.
#[derive(Debug)]
pub(super) struct Flipped {
    /// The file and the place, for people.
    pub(super) what: String,
    /// Whether it is the log, all of which a node reads when it starts.
    pub(super) of_log: bool,
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
