//! All processes on this machine's loopback: needs no privilege, and the kernel cannot part them.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

use procfs::process::{FDTarget, Process};

use super::{Place, Site};
use crate::dice::lock;

/// Who runs where.
#[derive(Debug, Default)]
pub(in crate::live) struct Loopback {
    pids: Mutex<BTreeMap<u32, Place>>,
}

/// Free ports.
pub(super) fn site() -> io::Result<Site> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // both are held until both are known
    let (grpc, http) = (TcpListener::bind(any)?, TcpListener::bind(any)?);
    Ok(Site { grpc: grpc.local_addr()?, http: http.local_addr()?, face: any })
}

impl Loopback {
    pub(super) fn is_at(&self, pid: u32, place: Place) {
        let mut pids = lock(&self.pids);
        pids.retain(|_, other| *other != place);
        pids.insert(pid, place);
    }

    /// Whose connection it is: the kernel knows the socket, and which process holds it.
    pub(super) fn owner(&self, peer: SocketAddr, here: SocketAddr) -> Place {
        let sockets = procfs::net::tcp().unwrap_or_default();
        let socket = sockets.iter().find(|socket| socket.local_address == peer && socket.remote_address == here);
        let Some(inode) = socket.map(|socket| socket.inode) else { return Place::Clients };
        let holds = |pid: u32| {
            let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok());
            let sockets = process.and_then(|process| process.fd().ok()).into_iter().flatten().flatten();
            sockets.into_iter().any(|found| matches!(found.target, FDTarget::Socket(found) if found == inode))
        };
        let pids = lock(&self.pids).clone();
        pids.into_iter().find(|(pid, _)| holds(*pid)).map_or(Place::Clients, |(_, place)| place)
    }
}
