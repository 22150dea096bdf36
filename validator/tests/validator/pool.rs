use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use ledger::certificate::{Attested, VerdictBitmap};
use ledger::{Rejection, Signature};
use proptest::prelude::*;
use seams::{Inline, Method, Service, TaskGroup};
use tokio::time::{Instant, sleep};
use validator::message::{ValidateReply, ValidateRequest};
use validator::{
    Certified, PoolFault, PoolOptions, Room, ServiceOptions, ValidatorPool, ValidatorService, ValidatorState,
};

use crate::support::{
    Network, address, announce, identity, key, local_key, network, options, party, pool, pool_with, service, set,
    small_bundle,
};

async fn certify(pool: &ValidatorPool, set: &ledger::certificate::ValidatorSet) -> Result<Certified, PoolFault> {
    let (bundle, layout) = small_bundle();
    let certified = pool.certify(bundle, Arc::clone(&layout), set).await?;
    // whatever the pool gives away, every replica takes
    let verdicts = set.admit(&layout.digest(), 3, &certified.certificates).unwrap();
    assert_eq!([0, 1, 2].map(|index| verdicts.passed(index).unwrap()), [true, false, true]);
    assert_eq!(certified.rejections, [(1, Rejection::SignatureInvalid { signer: 0 })]);
    assert_eq!(certified.certificates.len(), usize::from(set.required));
    Ok(certified)
}

fn state(pool: &ValidatorPool, number: u8) -> ValidatorState {
    let status = pool.status();
    status.iter().find(|status| status.key == Some(party(number))).unwrap().state.clone()
}

fn reason(pool: &ValidatorPool, number: u8) -> String {
    let ValidatorState::Faulty { reason } = state(pool, number) else { panic!("validator {number} is not faulty") };
    reason
}

fn is_on_probation(pool: &ValidatorPool, number: u8) -> bool {
    matches!(state(pool, number), ValidatorState::Probation { .. })
}

/// Makes the validator rewrite its replies.
fn tamper(network: &Network, number: u8, change: impl Fn(&mut ValidateReply) + Send + Sync + 'static) {
    network.change(&address(number), |station| {
        station.tamper = Some(Arc::new(move |bytes: Bytes| {
            let Ok(mut reply) = ValidateReply::decode(&bytes) else { return bytes };
            change(&mut reply);
            reply.encode()
        }));
    });
}

/// Says with a true signature that everything is fine.
fn lie(network: &Network, number: u8) {
    tamper(network, number, move |reply| {
        let attested = reply.certificate.attested.clone();
        let verdicts = VerdictBitmap::of(&vec![true; attested.verdicts.len()]);
        reply.certificate = Attested { verdicts, ..attested }.certify(&key(number));
        reply.rejections.clear();
    });
}

#[tokio::test(start_paused = true)]
async fn bundles_are_spread_over_the_validators() {
    let network = network(&[1, 2, 3]);
    let pool = pool(&network, &[1, 2, 3]);
    let set = set(1, 1, &[1, 2, 3]);
    for _ in 0..10 {
        for result in join_all((0..12).map(|_| certify(&pool, &set))).await {
            result.unwrap();
        }
    }
    assert_eq!([1, 2, 3].map(|number| network.calls(&address(number))), [40, 40, 40]);
    assert_eq!((pool.counters().bundles, pool.counters().hedges, pool.counters().fallback_bundles), (120, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_validators_have_room_for_is_counted_by_as_many_as_a_bundle_needs() {
    let network = network(&[1, 2, 3, 4]);
    let pool = pool(&network, &[1, 2, 3, 4]);
    let room = |required: u16, keys: &[u8]| pool.room(&set(1, required, keys));
    assert_eq!(room(1, &[1, 2, 3, 4]), Room { at_once: 4, idle: 4 });
    assert_eq!(room(2, &[1, 2, 3]), Room { at_once: 1, idle: 1 });
    assert_eq!(room(1, &[9]), Room { at_once: 0, idle: 0 });
    let all = set(1, 1, &[1, 2, 3, 4]);
    let busy = async {
        sleep(Duration::from_millis(5)).await;
        assert_eq!(room(1, &[1, 2, 3, 4]), Room { at_once: 4, idle: 1 });
    };
    futures::join!(join_all((0..3).map(|_| certify(&pool, &all))), busy);
    assert_eq!(room(1, &[1, 2, 3, 4]), Room { at_once: 4, idle: 4 });
}

#[tokio::test(start_paused = true)]
async fn a_bundle_waits_for_room_rather_than_overload_a_validator() {
    let network = network(&[1]);
    let pool = pool_with(PoolOptions { in_flight_max: 2, ..options() }, &network);
    announce(&pool, 1, 1);
    let set = set(1, 1, &[1, 200]);
    let began = Instant::now();
    let all = join_all((0..10).map(|_| certify(&pool, &set)));
    let watch = async {
        sleep(Duration::from_millis(5)).await;
        pool.status()[0].in_flight
    };
    let (results, in_flight) = futures::join!(all, watch);
    results.into_iter().for_each(|result| drop(result.unwrap()));
    assert_eq!(in_flight, 2);
    assert_eq!(began.elapsed(), Duration::from_millis(50));
    assert_eq!(pool.counters().fallback_bundles, 0, "a saturated validator is not replaced by this node");
}

#[tokio::test(start_paused = true)]
async fn a_straggler_is_hedged_and_its_late_answer_is_harmless() {
    let network = network(&[1, 2, 3]);
    let pool = pool(&network, &[1, 2, 3]);
    let set = set(1, 1, &[1, 2, 3]);
    for _ in 0..60 {
        certify(&pool, &set).await.unwrap();
    }
    network.change(&address(2), |station| station.delay = Duration::from_secs(2));
    let mut longest = Duration::ZERO;
    for _ in 0..60 {
        let began = Instant::now();
        certify(&pool, &set).await.unwrap();
        longest = longest.max(began.elapsed());
    }
    // 3 × the usual 10 ms, then another validator's 10 ms
    assert_eq!(longest, Duration::from_millis(40));
    assert!(pool.counters().hedges > 0);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(state(&pool, 2), ValidatorState::Healthy);
    assert!(pool.status().iter().all(|status| status.in_flight == 0));
    assert_eq!(pool.counters().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_validator_is_dropped_and_its_bundles_are_certified_elsewhere() {
    let network = network(&[1, 2]);
    let pool = pool(&network, &[1, 2]);
    let set = set(1, 1, &[1, 2]);
    network.change(&address(1), |station| station.hangs = true);
    for _ in 0..20 {
        certify(&pool, &set).await.unwrap();
    }
    sleep(options().call_timeout).await;
    assert!(is_on_probation(&pool, 1));
    assert_eq!(pool.counters().fallback_bundles, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_validator_is_dropped_and_taken_back() {
    let network = network(&[1, 2]);
    let pool = pool(&network, &[1, 2]);
    let set = set(1, 1, &[1, 2]);
    let dead = network.remove(&address(1));
    for _ in 0..20 {
        certify(&pool, &set).await.unwrap();
    }
    assert!(is_on_probation(&pool, 1));
    // probes become rare: about 0.25, 0.5, 1, 2, … seconds apart
    let before = network.calls(&address(1));
    sleep(Duration::from_secs(30)).await;
    let probes = network.calls(&address(1)) - before;
    assert!((5..=9).contains(&probes), "{probes} probes in 30 s");
    network.restore(&address(1), dead);
    sleep(options().probation_max).await;
    assert_eq!(state(&pool, 1), ValidatorState::Healthy);
    let before = network.calls(&address(1));
    for _ in 0..20 {
        certify(&pool, &set).await.unwrap();
    }
    assert!(network.calls(&address(1)) > before);
    assert_eq!(pool.counters().fallback_bundles, 0);
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_together_are_one_failure() {
    let network = network(&[1]);
    let pool = pool(&network, &[1]);
    network.change(&address(1), |station| station.hangs = true);
    let set = set(1, 1, &[1, 200]);
    join_all((0..8).map(|_| certify(&pool, &set))).await.into_iter().for_each(|result| drop(result.unwrap()));
    assert!(matches!(state(&pool, 1), ValidatorState::Probation { failures: 1, .. }));
    assert_eq!((pool.counters().failures, pool.counters().fallback_bundles), (8, 8));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_certificate_is_never_accepted_and_its_validator_is_named() {
    type Lie = (&'static str, fn(&mut ValidateReply), &'static str);
    let lies: [Lie; 6] = [
        (
            "a signature that is not its own",
            |reply| reply.certificate.signature = Signature::from_bytes([9; 64]),
            "false signature",
        ),
        (
            "a bitmap that it did not sign",
            |reply| reply.certificate.attested.verdicts = VerdictBitmap::of(&[true; 3]),
            "false signature",
        ),
        (
            "an old epoch",
            |reply| {
                reply.certificate = Attested { epoch: 6, ..reply.certificate.attested.clone() }.certify(&key(1));
            },
            "epoch 6",
        ),
        (
            "another bundle",
            |reply| {
                let bundle = ledger::identifier::BundleDigest::from_bytes([1; 32]);
                reply.certificate = Attested { bundle, ..reply.certificate.attested.clone() }.certify(&key(1));
            },
            "another bundle",
        ),
        (
            "a verdict too many",
            |reply| {
                let verdicts = VerdictBitmap::of(&[true, false, true, true]);
                reply.certificate = Attested { verdicts, ..reply.certificate.attested.clone() }.certify(&key(1));
            },
            "another bundle",
        ),
        ("no reason for a rejection", |reply| reply.rejections.clear(), "reasons"),
    ];
    for (what, change, named_as) in lies {
        let network = network(&[1, 2]);
        let pool = pool(&network, &[1, 2]);
        tamper(&network, 1, change);
        let set = set(7, 1, &[1, 2]);
        for _ in 0..20 {
            let certified = certify(&pool, &set).await.unwrap();
            assert_eq!(certified.certificates[0].validator, party(2), "{what}");
        }
        assert!(reason(&pool, 1).contains(named_as), "{what}: {}", reason(&pool, 1));
        assert_eq!(network.calls(&address(1)), 1, "{what}: a faulty validator is not asked again");
        assert_eq!(pool.counters().convictions, 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_validator_that_signs_a_false_bitmap_is_found_out_by_another() {
    let network = network(&[1, 2, 3]);
    let pool = pool(&network, &[1, 2, 3]);
    lie(&network, 1);
    let set = set(1, 2, &[1, 2, 3]);
    for _ in 0..20 {
        certify(&pool, &set).await.unwrap();
    }
    assert!(reason(&pool, 1).contains("false"));
    assert_eq!((pool.counters().disagreements, pool.counters().convictions), (1, 1));
    assert_eq!([2, 3].map(|number| state(&pool, number)), [ValidatorState::Healthy, ValidatorState::Healthy]);
}

#[tokio::test(start_paused = true)]
async fn a_majority_of_liars_does_not_outvote_the_check_in_process() {
    let network = network(&[1, 2, 3, 4, 5]);
    let pool = pool(&network, &[1, 2, 3, 4, 5]);
    [1, 2, 3].iter().for_each(|liar| lie(&network, *liar));
    network.change(&address(1), |station| station.delay = Duration::from_millis(1));
    network.change(&address(2), |station| station.delay = Duration::from_millis(2));
    let set = set(1, 4, &[1, 2, 3, 4, 5, 200]);
    // two honest validators and this node make three of four
    assert_eq!(certify(&pool, &set).await, Err(PoolFault::TooFewValidators { found: 3, required: 4 }));
    [1, 2, 3].iter().for_each(|liar| assert!(reason(&pool, *liar).contains("false")));
    assert_eq!(
        certify(&pool, &crate::support::set(2, 3, &[1, 2, 3, 4, 5, 200])).await.unwrap().certificates.len(),
        3
    );
}

#[tokio::test(start_paused = true)]
async fn a_pardoned_validator_serves_again() {
    let network = network(&[1]);
    let pool = pool(&network, &[1]);
    tamper(&network, 1, |reply| reply.certificate.signature = Signature::from_bytes([9; 64]));
    let set = set(1, 1, &[1, 200]);
    certify(&pool, &set).await.unwrap();
    assert_eq!(pool.counters().fallback_bundles, 1);
    network.change(&address(1), |station| station.tamper = None);
    assert!(pool.pardon(&party(1)));
    assert!(!pool.pardon(&party(1)));
    assert_eq!(certify(&pool, &set).await.unwrap().certificates[0].validator, party(1));
}

#[tokio::test(start_paused = true)]
async fn k_of_n_certificates_are_of_k_validators() {
    let network = network(&[1, 2, 3, 4]);
    let pool = pool(&network, &[1, 2, 3, 4]);
    for (epoch, required) in [(1, 1), (2, 2), (3, 3), (4, 4)] {
        let before: u64 = (1..=4).map(|number| network.calls(&address(number))).sum();
        certify(&pool, &set(epoch, required, &[1, 2, 3, 4])).await.unwrap();
        let after: u64 = (1..=4).map(|number| network.calls(&address(number))).sum();
        assert_eq!(after - before, u64::from(required), "nobody is asked in vain");
    }
    let too_few = certify(&pool, &set(5, 5, &[1, 2, 3, 4])).await;
    assert_eq!(too_few, Err(PoolFault::TooFewValidators { found: 4, required: 5 }));
    assert_eq!(pool.counters().uncertified_bundles, 1);
}

#[tokio::test(start_paused = true)]
async fn without_validators_the_node_stands_in_if_its_key_is_in_the_set() {
    let pool = pool(&network(&[]), &[]);
    let certified = certify(&pool, &set(1, 1, &[1, 200])).await.unwrap();
    assert_eq!(certified.certificates[0].validator, local_key().party());
    assert_eq!(pool.counters().fallback_bundles, 1);
    let faults = [(set(2, 1, &[1]), 0, 1), (set(3, 2, &[1, 200]), 1, 2)];
    for (set, found, required) in faults {
        assert_eq!(certify(&pool, &set).await, Err(PoolFault::TooFewValidators { found, required }));
    }
    assert_eq!(pool.counters().fallback_bundles, 1);
}

#[tokio::test(start_paused = true)]
async fn the_node_completes_what_too_few_validators_began() {
    let network = network(&[1]);
    let pool = pool(&network, &[1]);
    let certified = certify(&pool, &set(1, 2, &[1, 200])).await.unwrap();
    let mut makers: Vec<_> = certified.certificates.iter().map(|certificate| certificate.validator).collect();
    makers.sort_unstable();
    let mut expected = [party(1), local_key().party()];
    expected.sort_unstable();
    assert_eq!(makers, expected);
    lie(&network, 1);
    let alone = certify(&pool, &set(1, 2, &[1, 200])).await;
    assert_eq!(alone, Err(PoolFault::TooFewValidators { found: 1, required: 2 }));
    assert!(reason(&pool, 1).contains("false"));
}

#[tokio::test(start_paused = true)]
async fn keys_outside_the_set_are_never_used() {
    let network = network(&[1, 2]);
    let pool = pool(&network, &[1, 2]);
    certify(&pool, &set(1, 1, &[2])).await.unwrap();
    assert_eq!(state(&pool, 1), ValidatorState::UnknownKey);
    assert_eq!(network.calls(&address(1)), 0);
    for _ in 0..10 {
        certify(&pool, &set(2, 1, &[1])).await.unwrap();
    }
    assert_eq!((network.calls(&address(1)), network.calls(&address(2))), (10, 1));
}

#[tokio::test(start_paused = true)]
async fn a_configured_address_tells_its_key_when_probed() {
    let network = network(&[1]);
    let addresses = vec![address(1), address(2)];
    let pool = pool_with(PoolOptions { addresses, ..options() }, &network);
    pool.observe(&set(1, 1, &[1, 2]));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(state(&pool, 1), ValidatorState::Healthy);
    let unknown = pool.status().into_iter().find(|status| status.key.is_none()).unwrap();
    assert_eq!((unknown.address, unknown.state), (address(2), ValidatorState::UnknownKey));
    // it comes, and is found
    network.place(&address(2), Arc::new(service(2)));
    sleep(options().probation_max).await;
    assert_eq!(state(&pool, 2), ValidatorState::Healthy);
    // another validator takes over the address: no lie, and it is found as well
    network.place(&address(2), Arc::new(service(3)));
    let set = set(2, 1, &[1, 2, 3]);
    for _ in 0..10 {
        certify(&pool, &set).await.unwrap();
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(state(&pool, 3), ValidatorState::Healthy);
    assert!(pool.status().iter().all(|status| status.key != Some(party(2))));
    assert_eq!(pool.counters().convictions, 0);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_validator_is_left_alone_for_as_long_as_it_asks() {
    let network = Arc::new(Network::default());
    let options_of_service =
        ServiceOptions { concurrent_max: 0, retry_after: Duration::from_millis(100), ..ServiceOptions::default() };
    let refusing = ValidatorService::new(options_of_service, identity(), ledger::Limits::V1, key(1), Arc::new(Inline));
    network.place(&address(1), Arc::new(refusing));
    network.place(&address(2), Arc::new(service(2)));
    let pool = pool(&network, &[1, 2]);
    let set = set(1, 1, &[1, 2]);
    for _ in 0..10 {
        certify(&pool, &set).await.unwrap();
    }
    assert!(network.calls(&address(1)) <= 2);
    assert_eq!((pool.counters().failures, state(&pool, 1)), (0, ValidatorState::Healthy));
    // alone it is waited for, and counts as failed only because it never serves anybody
    let alone = crate::support::set(2, 1, &[1, 200]);
    let began = Instant::now();
    certify(&pool, &alone).await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(500));
    assert_eq!(pool.counters().fallback_bundles, 1);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_takes_too_long_is_given_back() {
    let network = network(&[1, 2]);
    let certify_timeout = Duration::from_secs(1);
    let pool = pool_with(PoolOptions { certify_timeout, ..options() }, &network);
    [1, 2].iter().for_each(|number| announce(&pool, *number, 1));
    network.change(&address(1), |station| station.hangs = true);
    let began = Instant::now();
    let late = certify(&pool, &set(1, 2, &[1, 2, 200])).await;
    assert_eq!(late, Err(PoolFault::Late { found: 1, required: 2, waited: certify_timeout }));
    assert_eq!(began.elapsed(), certify_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_bundle_leaves_no_place_taken() {
    let network = network(&[1]);
    let pool = pool(&network, &[1]);
    let set = set(1, 1, &[1]);
    for _ in 0..20 {
        let cancelled = tokio::time::timeout(Duration::from_millis(5), certify(&pool, &set)).await;
        assert!(cancelled.is_err());
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(pool.status()[0].in_flight, 0);
    certify(&pool, &set).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pool_and_a_crashed_node_leave_no_task_behind() {
    let group = TaskGroup::new();
    let network = network(&[1]);
    let scoped = group.scope(async {
        let pool = pool(&network, &[1]);
        certify(&pool, &set(1, 1, &[1])).await.unwrap();
    });
    scoped.await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(group.running(), 0);
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Join(u8),
    Leave(u8),
    Hang(u8),
    Lie(u8),
    Bundles(u8),
    Wait(u16),
}

fn any_event() -> impl Strategy<Value = Event> {
    let validator = || 1_u8..6;
    prop_oneof![
        3 => validator().prop_map(Event::Join),
        2 => validator().prop_map(Event::Leave),
        1 => validator().prop_map(Event::Hang),
        1 => validator().prop_map(Event::Lie),
        6 => (1_u8..20).prop_map(Event::Bundles),
        2 => (1_u16..3_000).prop_map(Event::Wait),
    ]
}

async fn live_through(events: Vec<Event>, required: u16) {
    let network = network(&[1, 2, 3, 4, 5]);
    let pool = pool(&network, &[1, 2, 3]);
    let mut liars = BTreeSet::new();
    let mut certifying = Vec::new();
    for (unix_ms, event) in (2_u64..).zip(events) {
        match event {
            Event::Join(number) => {
                network.place(&address(number), Arc::new(service(number)));
                announce(&pool, number, unix_ms);
            }
            Event::Leave(number) => network.place(&address(number), Arc::new(Gone)),
            Event::Hang(number) => network.change(&address(number), |station| station.hangs = true),
            Event::Lie(number) => {
                // as many liars as certificates required could certify anything
                if liars.contains(&number) || liars.len() + 1 < usize::from(required) {
                    liars.insert(number);
                    lie(&network, number);
                }
            }
            Event::Bundles(count) => {
                for _ in 0..count {
                    let pool = pool.clone();
                    let set = set(unix_ms, required, &[1, 2, 3, 4, 5, 200]);
                    certifying.push(tokio::spawn(async move { certify(&pool, &set).await }));
                }
            }
            Event::Wait(millis) => sleep(Duration::from_millis(u64::from(millis))).await,
        }
    }
    for bundle in certifying {
        match bundle.await.unwrap() {
            Ok(_) | Err(PoolFault::TooFewValidators { .. }) => {}
            Err(late @ PoolFault::Late { .. }) => panic!("{late}"),
        }
    }
    sleep(Duration::from_secs(10)).await;
    assert!(pool.status().iter().all(|status| status.in_flight == 0));
}

/// A process that listens and answers nothing sensible.
struct Gone;

impl Service for Gone {
    fn handle(&self, _method: Method, body: Bytes) -> seams::BoxFuture<'static, Result<Bytes, seams::CallError>> {
        // the request itself: a message, and no reply
        assert!(ValidateRequest::decode(&body).is_ok());
        Box::pin(async move { Ok(body) })
    }

    fn accept(&self, _method: Method, _duplex: seams::Duplex) {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn validators_come_go_hang_and_lie_under_load(
        events in prop::collection::vec(any_event(), 1..40),
        required in 1_u16..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live_through(events, required));
    }
}
