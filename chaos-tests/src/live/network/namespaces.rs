//! A network namespace for each process, joined by cables to a bridge in one more namespace, where the runner is.
//!
//! ```text
//!   namespace of n1          hub: the runner's threads, its clients and proxies           namespace of n2
//!  ┌───────────────┐        ┌─────────────────────────────────────────────────┐        ┌───────────────┐
//!  │ eth0 10.88.1.1 ├─ n1 ──┤ bridge 10.88.0.1 (looks at nodes past proxies)   ├── n2 ──┤ eth0 10.88.1.2 │
//!  └───────────────┘        │        10.88.17.1 face of n1, 10.88.17.2 of n2   │        └───────────────┘
//!                           └─────────────────────────────────────────────────┘
//! ```
//! Nothing of the machine's own network is touched, and nothing has a name outside: a namespace lasts as long as the
//! runner's open file of it and the processes in it. These are killed by the kernel when the runner ends, however it
//! ends and whatever state they are in; so the kernel takes everything down.
//!
//! Done with iproute2 and util-linux, which know the kernel's interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Place, Site};
use crate::dice::lock;

/// Where the runner looks at processes from, past all proxies.
const HUB: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// Length of the network's prefix.
const PREFIX: u8 = 16;
/// What tells faces from the processes' own addresses, in the third byte.
const FACES: u8 = 16;
const GRPC_PORT: u16 = 7_000;
const HTTP_PORT: u16 = 7_001;
const PROXY_PORT: u16 = 7_000;
/// The bridge's hardware address. Without one of its own it has that of some port, another one when a port is added, and
/// does not take what is sent to the last one.
const BRIDGE: &str = "02:00:00:00:00:02";
/// Nobody's hardware address: the bridge carries what is sent to it, and nobody takes it.
const NOBODY: &str = "02:00:00:00:00:01";

/// The namespaces of a run.
#[derive(Debug)]
pub(in crate::live) struct Namespaces {
    hub: File,
    inside: Mutex<BTreeMap<Place, File>>,
    /// What undoes what was done: where (`None` is the hub), and how.
    undo: Mutex<BTreeSet<(Option<Place>, String)>>,
}

/// The last two bytes of a process's own address. Of a kind there are no more than a byte counts.
fn own(place: Place) -> [u8; 2] {
    let nth = |position: usize| u8::try_from(position + 1).unwrap_or(u8::MAX);
    match place {
        Place::Node(position) => [1, nth(position)],
        Place::Validator(position) => [2, nth(position)],
        Place::Prover => [3, 1],
        Place::Clients => [4, 1],
    }
}

/// The address of the process itself.
fn address(place: Place) -> Ipv4Addr {
    let [kind, number] = own(place);
    Ipv4Addr::new(10, 88, kind, number)
}

/// The address that others see it at.
pub(super) fn face(place: Place) -> Ipv4Addr {
    let [kind, number] = own(place);
    Ipv4Addr::new(10, 88, FACES + kind, number)
}

/// A new namespace, which lasts as long as the file is open.
fn namespace() -> io::Result<File> {
    let mut holder = Command::new("unshare")
        .args(["--net", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("unshare: {error}")))?;
    // when it comes back, the holder is where it should be
    let mut echo = [0];
    let (input, output) = (holder.stdin.take(), holder.stdout.take());
    let echoed = input.as_ref().zip(output).map(|(mut input, mut output)| {
        input.write_all(b"!")?;
        output.read_exact(&mut echo)
    });
    let file = match echoed {
        Some(Ok(())) => Some(File::open(format!("/proc/{}/ns/net", holder.id()))?),
        Some(Err(_)) | None => None,
    };
    drop(input);
    let ended = holder.wait_with_output()?;
    file.ok_or_else(|| io::Error::other(String::from_utf8_lossy(&ended.stderr).trim().to_owned()))
}

/// Names a namespace for other programs, while its file is open.
fn path(namespace: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

/// Has `ip` carry out these lines in a namespace.
fn ip(namespace: &File, lines: &str) -> io::Result<()> {
    let mut child = Command::new("nsenter")
        .arg(format!("--net={}", path(namespace)))
        .args(["ip", "-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("nsenter: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("ip: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

impl Namespaces {
    /// A network with nobody on it. Fails where this process, or this machine, cannot have one.
    pub(super) fn new() -> io::Result<Self> {
        // everything that a run needs, once, on a network that is thrown away
        let probe = Self::hub()?;
        probe.site(Place::Prover)?;
        let words = probe.command(Place::Prover, Path::new("true"));
        let started = words.split_first().map(|(program, arguments)| Command::new(program).args(arguments).output());
        let output = started.ok_or(io::ErrorKind::Other)??;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Self::hub()
    }

    fn hub() -> io::Result<Self> {
        let hub = namespace()?;
        let clients = face(Place::Clients);
        ip(
            &hub,
            &format!(
                "link set lo up\nlink add hub address {BRIDGE} type bridge\naddr add {HUB}/{PREFIX} dev hub\n\
                 addr add {clients}/32 dev hub\nlink set hub up\n"
            ),
        )?;
        Ok(Self { hub, inside: Mutex::default(), undo: Mutex::default() })
    }

    pub(super) fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.hub.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    pub(super) fn site(&self, place: Place) -> io::Result<Site> {
        let inside = namespace()?;
        let (address, face) = (address(place), face(place));
        ip(
            &self.hub,
            &format!(
                "link add {place} type veth peer name eth0 netns {}\nlink set {place} master hub up\n\
                 addr add {face}/32 dev hub\n",
                path(&inside)
            ),
        )?;
        ip(&inside, &format!("link set lo up\naddr add {address}/{PREFIX} dev eth0\nlink set eth0 up\n"))?;
        lock(&self.inside).insert(place, inside);
        let at = |address: Ipv4Addr, port| SocketAddr::from((address, port));
        Ok(Site { grpc: at(address, GRPC_PORT), http: at(address, HTTP_PORT), face: at(face, PROXY_PORT) })
    }

    /// The process is killed with the thread that starts it, also where it is stopped and would not notice: that thread
    /// has to be the one that lasts as long as the run.
    pub(super) fn command(&self, place: Place, program: &Path) -> Vec<OsString> {
        let namespace = lock(&self.inside).get(&place).map_or_else(|| path(&self.hub), path);
        let entered = format!("--net={namespace}");
        let wrapped = ["nsenter", &entered, "setpriv", "--pdeathsig", "KILL", "--"];
        wrapped.into_iter().map(OsString::from).chain([program.into()]).collect()
    }

    pub(super) fn owner(&self, peer: IpAddr) -> Place {
        lock(&self.inside).keys().copied().find(|place| address(*place) == peer).unwrap_or(Place::Clients)
    }

    fn act(&self, place: Option<Place>, how: &str, undo: String) -> io::Result<bool> {
        let inside = lock(&self.inside);
        let namespace = place.map_or(Some(&self.hub), |place| inside.get(&place));
        let Some(namespace) = namespace else { return Ok(false) };
        lock(&self.undo).insert((place, undo));
        ip(namespace, how).map(|()| true)
    }

    /// The neighbour at the other's face is nobody from now on: packets go out, and nobody takes them. What clients
    /// send cannot be cut here: they have no namespace of their own.
    pub(super) fn cut(&self, from: Place, to: Place) -> io::Result<bool> {
        let face = face(to);
        let how = format!("neigh replace {face} lladdr {NOBODY} nud permanent dev eth0\n");
        self.act(Some(from), &how, format!("neigh del {face} dev eth0\n"))
    }

    /// What others send to its face would be taken there by its proxy: on a network without proxies it goes nowhere.
    fn cut_off(&self, place: Place) -> io::Result<()> {
        let others: Vec<Place> = lock(&self.inside).keys().copied().filter(|other| *other != place).collect();
        others.into_iter().try_for_each(|other| self.cut(other, place).map(drop))
    }

    pub(super) fn unplug(&self, place: Place) -> io::Result<()> {
        self.act(None, &format!("link set {place} down\n"), format!("link set {place} up\n"))?;
        self.cut_off(place)
    }

    pub(super) fn take_address(&self, place: Place) -> io::Result<()> {
        let address = address(place);
        let say = |verb: &str| format!("addr {verb} {address}/{PREFIX} dev eth0\n");
        self.act(Some(place), &say("del"), say("add"))?;
        self.cut_off(place)
    }

    /// Undoes everything that can be undone, and tells of the first thing that cannot.
    pub(super) fn heal(&self) -> io::Result<()> {
        let inside = lock(&self.inside);
        let mut lines: BTreeMap<Option<Place>, String> = BTreeMap::new();
        for (place, line) in std::mem::take(&mut *lock(&self.undo)) {
            lines.entry(place).or_default().push_str(&line);
        }
        let undone: Vec<io::Result<()>> = lines
            .into_iter()
            .filter_map(|(place, lines)| {
                let namespace = place.map_or(Some(&self.hub), |place| inside.get(&place))?;
                Some(ip(namespace, &lines))
            })
            .collect();
        undone.into_iter().collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// How long silence is listened to.
    const SILENCE: Duration = Duration::from_millis(400);

    /// Nodes on a network of their own; `None` where there is none to be had.
    fn nodes(count: usize) -> Option<Namespaces> {
        let network =
            Namespaces::new().map_err(|error| println!("skipped: no network namespaces here: {error}")).ok()?;
        for position in 0..count {
            network.site(Place::Node(position)).unwrap();
        }
        Some(network)
    }

    /// Does something in the namespace of a place, the hub for clients. Sockets stay where they were made.
    fn at<T: Send>(network: &Namespaces, place: Place, make: impl FnOnce() -> T + Send) -> T {
        let inside = lock(&network.inside).get(&place).map_or(&network.hub, |inside| inside).try_clone().unwrap();
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                    make()
                })
                .join()
                .unwrap()
        })
    }

    /// A connection between a node and the runner, with both its ends.
    fn connection(network: &Namespaces, node: usize) -> (TcpStream, TcpStream) {
        let listener =
            at(network, Place::Node(node), || TcpListener::bind((address(Place::Node(node)), GRPC_PORT)).unwrap());
        let near = at(network, Place::Clients, || TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (far, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), HUB);
        (near, far)
    }

    fn carries(from: &mut TcpStream, to: &mut TcpStream, word: u8) {
        from.write_all(&[word]).unwrap();
        arrives(to, word);
    }

    fn arrives(to: &mut TcpStream, word: u8) {
        let mut taken = [0];
        to.read_exact(&mut taken).unwrap();
        assert_eq!(taken, [word]);
    }

    fn is_silent(end: &mut TcpStream) {
        end.set_read_timeout(Some(SILENCE)).unwrap();
        let error = end.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        end.set_read_timeout(None).unwrap();
    }

    #[test]
    fn a_pulled_cable_carries_nothing_closes_nothing_and_comes_back() {
        let Some(network) = nodes(2) else { return };
        let ((mut near, mut far), (mut other, mut other_far)) = (connection(&network, 0), connection(&network, 1));
        carries(&mut near, &mut far, b'a');
        network.unplug(Place::Node(0)).unwrap();
        near.write_all(b"b").unwrap();
        far.write_all(b"c").unwrap();
        is_silent(&mut far);
        is_silent(&mut near);
        // who wants to connect is told nothing either
        let face = SocketAddr::from((face(Place::Node(0)), PROXY_PORT));
        let refused = at(&network, Place::Node(1), || TcpStream::connect_timeout(&face, SILENCE).unwrap_err());
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        carries(&mut other, &mut other_far, b'd');
        network.heal().unwrap();
        arrives(&mut far, b'b');
        arrives(&mut near, b'c');
        let told = at(&network, Place::Node(1), || TcpStream::connect(face).unwrap_err());
        assert_eq!(told.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn the_bridge_stays_where_it_is_when_others_join() {
        let Some(network) = nodes(3) else { return };
        let shown = at(&network, Place::Clients, || Command::new("ip").args(["link", "show", "hub"]).output().unwrap());
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains(&format!("link/ether {BRIDGE}")), "{shown}");
    }

    #[test]
    fn a_connection_outlives_its_address() {
        let Some(network) = nodes(1) else { return };
        let (mut near, mut far) = connection(&network, 0);
        network.take_address(Place::Node(0)).unwrap();
        near.write_all(b"a").unwrap();
        is_silent(&mut far);
        let hub = SocketAddr::from((HUB, GRPC_PORT));
        let told = at(&network, Place::Node(0), || TcpStream::connect(hub).unwrap_err());
        assert_eq!(told.kind(), io::ErrorKind::NetworkUnreachable);
        network.heal().unwrap();
        arrives(&mut far, b'a');
        carries(&mut far, &mut near, b'b');
    }

    #[test]
    fn a_cut_is_of_one_direction_between_two() {
        let Some(network) = nodes(3) else { return };
        let [first, second, third] = [0, 1, 2].map(Place::Node);
        let socket = |place, address: Ipv4Addr| at(&network, place, || UdpSocket::bind((address, GRPC_PORT)).unwrap());
        let [of_second, of_third] = [second, third].map(|place| socket(place, address(place)));
        // the proxies in front of the first and of the second
        let [to_first, to_second] = [first, second].map(|place| socket(Place::Clients, face(place)));
        let send = |from: &UdpSocket, to: Ipv4Addr, word: &[u8]| from.send_to(word, (to, GRPC_PORT)).unwrap();
        let next = |at: &UdpSocket| {
            let mut word = [0; 8];
            let (length, from) = at.recv_from(&mut word).unwrap();
            (String::from_utf8(word[..length].to_vec()).unwrap(), from.ip())
        };
        assert!(network.cut(second, first).unwrap());
        send(&of_second, face(first), b"lost");
        send(&of_second, face(second), b"other");
        assert_eq!(next(&to_second), ("other".to_owned(), address(second).into()));
        send(&of_third, face(first), b"third");
        assert_eq!(next(&to_first), ("third".to_owned(), address(third).into()));
        send(&to_first, address(second), b"back");
        assert_eq!(next(&of_second), ("back".to_owned(), face(first).into()));
        network.heal().unwrap();
        send(&of_second, face(first), b"found");
        assert_eq!(next(&to_first), ("found".to_owned(), address(second).into()));
        // clients have no namespace: what they send is for the proxies to hold
        assert!(!network.cut(Place::Clients, first).unwrap());
        assert_eq!(network.owner(address(third).into()), third);
        assert_eq!(network.owner(HUB.into()), Place::Clients);
    }
}
