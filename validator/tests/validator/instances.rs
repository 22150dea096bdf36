//! Several processes that hold the key of one validator.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use seams::Address;
use tokio::time::{Instant, sleep};
use validator::message::{Announcement, ValidateReply};
use validator::{PoolFault, ValidatorPool, ValidatorState};

use crate::support::{
    Network, announce, identity, key, network, options, party, pool_with, service, set, small_bundle,
};

fn instance(number: u8, place: u8) -> Address {
    Address::new(format!("validator-{number}-{place}:7000"))
}

/// So many instances of each of these validators.
fn running(validators: &[u8], instances: u8) -> (Arc<Network>, ValidatorPool) {
    let network = network(&[]);
    let pool = pool_with(options(), &network);
    for (number, place) in validators.iter().flat_map(|number| (0..instances).map(move |place| (*number, place))) {
        let address = instance(number, place);
        network.place(&address, Arc::new(service(number)));
        pool.handle_announcement(&Announcement::new(&identity(), &address, 1, &key(number)).encode()).unwrap();
    }
    (network, pool)
}

fn calls(network: &Network, number: u8) -> Vec<u64> {
    (0..3).map(|place| network.calls(&instance(number, place))).collect()
}

/// The makers of the certificates.
async fn certify(pool: &ValidatorPool, required: u16, keys: &[u8]) -> Result<Vec<ledger::Party>, PoolFault> {
    let (bundle, layout) = small_bundle();
    let set = set(1, required, keys);
    let certified = pool.certify(bundle, Arc::clone(&layout), &set).await?;
    // of different validators, or no replica takes them
    set.admit(&layout.digest(), 3, &certified.certificates).unwrap();
    Ok(certified.certificates.iter().map(|certificate| certificate.validator).collect())
}

#[tokio::test(start_paused = true)]
async fn they_share_its_work() {
    let (network, pool) = running(&[1], 3);
    for _ in 0..10 {
        for makers in join_all((0..12).map(|_| certify(&pool, 1, &[1]))).await {
            assert_eq!(makers.unwrap(), [party(1)]);
        }
    }
    assert_eq!(calls(&network, 1), [40, 40, 40]);
    assert_eq!(pool.status().iter().map(|status| status.served).collect::<Vec<_>>(), [40, 40, 40]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_slow_or_gone_is_replaced_by_another() {
    let (network, pool) = running(&[1], 3);
    for _ in 0..60 {
        certify(&pool, 1, &[1]).await.unwrap();
    }
    network.change(&instance(1, 0), |station| station.delay = Duration::from_secs(2));
    let mut longest = Duration::ZERO;
    for _ in 0..60 {
        let began = Instant::now();
        assert_eq!(certify(&pool, 1, &[1]).await.unwrap(), [party(1)]);
        longest = longest.max(began.elapsed());
    }
    // 3 × the usual 10 ms, then another instance's 10 ms
    assert_eq!(longest, Duration::from_millis(40));
    assert!(pool.counters().hedges > 0);
    network.remove(&instance(1, 1));
    for _ in 0..20 {
        certify(&pool, 1, &[1]).await.unwrap();
    }
    let probation = pool.status().into_iter().filter(|it| matches!(it.state, ValidatorState::Probation { .. }));
    assert_eq!(probation.map(|it| it.address).collect::<Vec<_>>(), [instance(1, 1)]);
    sleep(Duration::from_secs(5)).await;
    assert!(pool.status().iter().all(|status| status.in_flight == 0));
    assert_eq!(pool.counters().fallback_bundles, 0);
}

#[tokio::test(start_paused = true)]
async fn they_are_one_voice() {
    let (network, pool) = running(&[1, 2], 3);
    let both = [party(1).min(party(2)), party(1).max(party(2))];
    for _ in 0..30 {
        assert_eq!(certify(&pool, 2, &[1, 2]).await.unwrap(), both);
    }
    let asked: u64 = calls(&network, 1).iter().chain(&calls(&network, 2)).sum();
    assert_eq!(asked, 60, "nobody is asked in vain");
    let too_few = certify(&pool, 3, &[1, 2, 3]).await;
    assert_eq!(too_few, Err(PoolFault::TooFewValidators { found: 2, required: 3 }));
    // one slow instance of each: the other's twin answers for it, and a late answer of it changes nothing
    for number in [1, 2] {
        network.change(&instance(number, 0), |station| station.delay = Duration::from_secs(2));
    }
    for _ in 0..30 {
        assert_eq!(certify(&pool, 2, &[1, 2]).await.unwrap(), both);
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(pool.counters().disagreements, 0);
}

#[tokio::test(start_paused = true)]
async fn what_one_signs_falsely_all_are_guilty_of() {
    let (network, pool) = running(&[1], 3);
    announce(&pool, 2, 1);
    network.place(&crate::support::address(2), Arc::new(service(2)));
    network.change(&instance(1, 2), |station| {
        station.tamper = Some(Arc::new(|bytes| {
            let mut reply = ValidateReply::decode(&bytes).unwrap();
            reply.certificate.signature = ledger::Signature::from_bytes([9; 64]);
            reply.encode()
        }));
    });
    while pool.counters().convictions == 0 {
        certify(&pool, 1, &[1, 2]).await.unwrap();
    }
    let before = calls(&network, 1);
    for _ in 0..10 {
        assert_eq!(certify(&pool, 1, &[1, 2]).await.unwrap(), [party(2)]);
    }
    assert_eq!(calls(&network, 1), before);
    let faulty = pool.status().into_iter().filter(|it| matches!(it.state, ValidatorState::Faulty { .. })).count();
    assert_eq!(faulty, 3);
}
