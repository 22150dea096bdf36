//! What joins the processes of a run: a network namespace for each, or loopback where those cannot be had.
//!
//! Either way a process is reached at its *face*: the address that its proxy listens at. Between namespaces faces are
//! also where connections come from, so each process sees each other one at one address, and the kernel can be told to
//! let vanish what it sends there: below TCP, which is told of nothing.

mod loopback;
mod namespaces;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use loopback::Loopback;
use namespaces::Namespaces;

/// Who is at an end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// All clients.
    Clients,
    /// A node, by its position.
    Node(usize),
    /// A validator, by its position.
    Validator(usize),
    /// The prover.
    Prover,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients => out.write_str("clients"),
            Self::Node(position) => write!(out, "n{}", position + 1),
            Self::Validator(position) => write!(out, "v{}", position + 1),
            Self::Prover => out.write_str("prover"),
        }
    }
}

/// Which network is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkChoice {
    /// Namespaces where they can be made, else loopback.
    Auto,
    /// Namespaces or nothing.
    Namespaces,
    /// Loopback.
    Loopback,
}

impl NetworkChoice {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Namespaces, Self::Loopback];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Namespaces => "namespaces",
            Self::Loopback => "loopback",
        }
    }
}

impl fmt::Display for NetworkChoice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for NetworkChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
        let found = Self::ALL.into_iter().find(|choice| choice.name() == text);
        found.ok_or_else(|| format!("there is no network {text}: choose of {}", names.join(", ")))
    }
}

/// The addresses of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    /// Where it listens.
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    /// Where its proxy listens; on port 0 wherever there is room.
    pub(super) face: SocketAddr,
}

/// The network of one run.
#[derive(Debug)]
pub(super) enum Network {
    Loopback(Loopback),
    Namespaces(Namespaces),
}

impl Network {
    /// The network that was chosen, and why it is not the better one where it was left to us.
    pub(super) fn choose(choice: NetworkChoice) -> io::Result<(Self, Option<String>)> {
        let loopback = || Self::Loopback(Loopback::default());
        match choice {
            NetworkChoice::Loopback => Ok((loopback(), Some("--network loopback".to_owned()))),
            NetworkChoice::Namespaces => Ok((Self::Namespaces(Namespaces::new()?), None)),
            NetworkChoice::Auto => Ok(match Namespaces::new() {
                Ok(namespaces) => (Self::Namespaces(namespaces), None),
                Err(error) => (loopback(), Some(error.to_string())),
            }),
        }
    }

    /// What it is, in a word.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Loopback(_) => NetworkChoice::Loopback.name(),
            Self::Namespaces(_) => NetworkChoice::Namespaces.name(),
        }
    }

    /// From now on this thread, and every one that it starts, is where all faces are.
    pub(super) fn enter(&self) -> io::Result<()> {
        match self {
            Self::Loopback(_) => Ok(()),
            Self::Namespaces(namespaces) => namespaces.enter(),
        }
    }

    /// Makes room for a process at this place.
    pub(super) fn site(&self, place: Place) -> io::Result<Site> {
        match self {
            Self::Loopback(_) => loopback::site(),
            Self::Namespaces(namespaces) => namespaces.site(place),
        }
    }

    /// The words of a command that starts a program at this place. The process is the program's own.
    pub(super) fn command(&self, place: Place, program: &Path) -> Vec<OsString> {
        match self {
            Self::Loopback(_) => vec![program.into()],
            Self::Namespaces(namespaces) => namespaces.command(place, program),
        }
    }

    /// From now on this process is at this place.
    pub(super) fn is_at(&self, pid: u32, place: Place) {
        match self {
            Self::Loopback(loopback) => loopback.is_at(pid, place),
            Self::Namespaces(_) => {}
        }
    }

    /// Whose end of a connection this is.
    pub(super) fn owner(&self, peer: SocketAddr, here: SocketAddr) -> Place {
        match self {
            Self::Loopback(loopback) => loopback.owner(peer, here),
            Self::Namespaces(namespaces) => namespaces.owner(peer.ip()),
        }
    }

    /// Where connections come from that are carried for this place, if it matters.
    pub(super) fn source(&self, place: Place) -> Option<IpAddr> {
        match self {
            Self::Loopback(_) => None,
            Self::Namespaces(_) => Some(namespaces::face(place).into()),
        }
    }

    /// Whether the kernel can let vanish what is sent.
    pub(super) const fn can_cut(&self) -> bool {
        matches!(self, Self::Namespaces(_))
    }

    /// What is sent from one place to the other vanishes. False where the kernel cannot do it.
    pub(super) fn cut(&self, from: Place, to: Place) -> io::Result<bool> {
        match self {
            Self::Loopback(_) => Ok(false),
            Self::Namespaces(namespaces) => namespaces.cut(from, to),
        }
    }

    /// Pulls the cable of a place.
    pub(super) fn unplug(&self, place: Place) -> io::Result<()> {
        match self {
            Self::Loopback(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Namespaces(namespaces) => namespaces.unplug(place),
        }
    }

    /// Takes a place's address away.
    pub(super) fn take_address(&self, place: Place) -> io::Result<()> {
        match self {
            Self::Loopback(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Namespaces(namespaces) => namespaces.take_address(place),
        }
    }

    /// Undoes all of that.
    pub(super) fn heal(&self) -> io::Result<()> {
        match self {
            Self::Loopback(_) => Ok(()),
            Self::Namespaces(namespaces) => namespaces.heal(),
        }
    }
}
