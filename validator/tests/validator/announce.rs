use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use seams::{Address, BoxFuture, CallError, Clock, Duplex, Method, Service, tasks};
use tokio::time::sleep;
use validator::message::AnnouncementFault;
use validator::{Announcer, PoolOptions, ValidatorPool, ValidatorState};

use crate::support::{Network, address, announce, identity, key, network, options, party, pool_with, set};

/// A node that hands announcements to its pool, as the binary does.
struct Node(ValidatorPool);

impl Service for Node {
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        assert_eq!(method, Method::AnnounceValidator);
        let answer = self.0.handle_announcement(&body).map(|()| Bytes::new()).map_err(CallError::from);
        async { answer }.boxed()
    }

    fn accept(&self, _method: Method, _duplex: Duplex) {}
}

#[derive(Debug, Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn unix_millis(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn announcer(network: &Arc<Network>, nodes: &[Address]) -> Announcer {
    Announcer {
        identity: identity(),
        key: key(1),
        address: address(1),
        nodes: nodes.to_vec(),
        transport: network.clone(),
        clock: Arc::new(Ticking::default()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_validator_is_known_while_it_announces_itself_and_no_longer() {
    let network = network(&[1]);
    let pool = pool_with(PoolOptions::default(), &network);
    pool.observe(&set(1, 1, &[1]));
    let (node, deaf) = (Address::new("node-0:1"), Address::new("node-1:1"));
    network.place(&node, Arc::new(Node(pool.clone())));
    network.place(&deaf, Arc::new(Node(pool.clone())));
    network.change(&deaf, |station| station.hangs = true);
    let announcing = tasks::spawn(announcer(&network, &[deaf, node.clone()]).run());
    sleep(Duration::from_secs(60)).await;
    let status = pool.status();
    assert_eq!(status.len(), 1);
    assert_eq!(status[0].key, Some(party(1)));
    assert_eq!(status[0].address, address(1));
    assert_eq!(status[0].state, ValidatorState::Healthy);
    assert!((30..=31).contains(&network.calls(&node)), "{} announcements in 60 s", network.calls(&node));
    announcing.abort();
    sleep(Duration::from_secs(11)).await;
    assert_eq!(pool.status(), []);
}

#[tokio::test(start_paused = true)]
async fn a_validator_that_moves_is_known_where_it_is_now_and_an_old_announcement_does_not_bring_it_back() {
    let pool = pool_with(PoolOptions::default(), &network(&[]));
    let said_at = |address: &Address, unix_ms| {
        let said = validator::message::Announcement::new(&identity(), address, unix_ms, &key(1)).encode();
        pool.handle_announcement(&said)
    };
    let (here, there) = (address(1), Address::new("new:1"));
    said_at(&here, 1_000).unwrap();
    for second in 1..=6 {
        sleep(Duration::from_secs(2)).await;
        said_at(&there, 1_000 + 2_000 * second).unwrap();
    }
    // what it said before it moved is repeated by somebody
    assert!(matches!(said_at(&here, 1_000), Err(AnnouncementFault::Overtaken(_))));
    assert_eq!(pool.status().iter().map(|status| &status.address).collect::<Vec<_>>(), [&there]);
    said_at(&here, 14_000).unwrap();
    assert_eq!(pool.status().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_key_at_addresses_without_end_does_not_fill_the_memory() {
    let pool = pool_with(options(), &network(&[]));
    pool.observe(&set(1, 1, &[1]));
    let said_at = |number: usize| {
        let address = Address::new(format!("instance-{number}:1"));
        let said = validator::message::Announcement::new(&identity(), &address, 1, &key(1)).encode();
        pool.handle_announcement(&said)
    };
    (0..256).for_each(|number| said_at(number).unwrap());
    assert!(matches!(said_at(256), Err(AnnouncementFault::TooManyInstances(_))));
    said_at(0).unwrap();
    assert_eq!(pool.status().len(), 256);
}

#[tokio::test(start_paused = true)]
async fn keys_without_end_do_not_fill_the_memory() {
    let pool = pool_with(options(), &network(&[]));
    pool.observe(&set(1, 1, &[250]));
    for number in 0..64 {
        announce(&pool, number, 1);
    }
    let stranger = validator::message::Announcement::new(&identity(), &address(90), 1, &key(90)).encode();
    assert!(pool.handle_announcement(&stranger).is_err());
    // a validator of the set is heard all the same, and known ones are renewed
    announce(&pool, 250, 1);
    announce(&pool, 3, 2);
    assert_eq!(pool.status().len(), 65);
    assert_eq!(pool.status().iter().filter(|status| status.state == ValidatorState::UnknownKey).count(), 64);
}
