use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::poll;
use ledger::Limits;
use seams::{CallError, Compute, Inline, Method, Service};
use validator::message::{REFUSED_MALFORMED, REFUSED_METHOD, REFUSED_OVERLOADED, ValidateReply, ValidateRequest};
use validator::{ServiceOptions, ValidatorService};

use crate::support::{identity, key, service, set, small_bundle};

fn refusal(answer: Result<Bytes, CallError>) -> (u16, String, Option<Duration>) {
    let CallError::Refused { code, message, retry_after } = answer.unwrap_err() else { panic!("not refused") };
    (code, message, retry_after)
}

#[tokio::test]
async fn a_certificate_is_admitted_by_the_set_of_its_epoch() {
    let (bundle, layout) = small_bundle();
    let service = service(1);
    let request = ValidateRequest { epoch: 4, bundle }.encode();
    let reply = ValidateReply::decode(&service.handle(Method::Validate, request).await.unwrap()).unwrap();
    let certificates = [reply.certificate.clone()];
    let verdicts = set(4, 1, &[1]).admit(&layout.digest(), 3, &certificates).unwrap();
    assert_eq!([0, 1, 2].map(|index| verdicts.passed(index).unwrap()), [true, false, true]);
    assert!(reply.is_consistent());
    assert_eq!(reply.rejections[0].1.name(), "SignatureInvalid");
    let counters = service.counters();
    assert_eq!((counters.bundles, counters.transactions, counters.rejected, counters.busy), (1, 3, 1, 0));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_reason() {
    let service = service(1);
    let (code, message, retry_after) = refusal(service.validate(Bytes::from_static(&[9])).await);
    assert_eq!((code, retry_after), (REFUSED_MALFORMED, None));
    assert!(message.contains("version 9"), "{message}");
    let request = ValidateRequest { epoch: 0, bundle: Bytes::from_static(&[1, 1, 0]) }.encode();
    let (code, message, _) = refusal(service.validate(request).await);
    assert_eq!(code, REFUSED_MALFORMED);
    assert!(message.contains("the bytes end early"), "{message}");
    let (code, ..) = refusal(service.handle(Method::Forward, Bytes::new()).await);
    assert_eq!(code, REFUSED_METHOD);
    assert_eq!(service.counters().malformed, 2);
}

type Job = Box<dyn FnOnce() + Send>;

/// Keeps jobs until told to run them.
#[derive(Default)]
struct Held(Mutex<Vec<Job>>);

impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Held")
    }
}

impl Compute for Held {
    fn execute(&self, job: Job) {
        self.0.lock().unwrap().push(job);
    }

    fn for_each(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(job);
    }
}

#[tokio::test]
async fn more_than_its_share_is_refused_until_a_place_is_free() {
    let compute = Arc::new(Held::default());
    let options =
        ServiceOptions { concurrent_max: 2, retry_after: Duration::from_millis(30), ..ServiceOptions::default() };
    let service = ValidatorService::new(options, identity(), Limits::V1, key(1), compute.clone());
    let request = ValidateRequest { epoch: 0, bundle: small_bundle().0 }.encode();
    let mut first = Box::pin(service.validate(request.clone()));
    let mut second = Box::pin(service.validate(request.clone()));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    // nobody waits for the first any more, and it is still in work
    drop(first);
    assert_eq!(service.counters().busy, 2);
    let (code, _, retry_after) = refusal(service.validate(request.clone()).await);
    assert_eq!((code, retry_after), (REFUSED_OVERLOADED, Some(Duration::from_millis(30))));
    let jobs = std::mem::take(&mut *compute.0.lock().unwrap());
    jobs.into_iter().for_each(|job| job());
    second.await.unwrap();
    let counters = service.counters();
    assert_eq!((counters.busy, counters.refused, counters.bundles), (0, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn for_benchmarks_answers_are_kept_back_one_after_another() {
    let wait_per_transaction = Duration::from_millis(2);
    let options = ServiceOptions { wait_per_transaction, ..ServiceOptions::default() };
    let service = ValidatorService::new(options, identity(), Limits::V1, key(1), Arc::new(Inline));
    let (bundle, layout) = small_bundle();
    let request = ValidateRequest { epoch: 0, bundle }.encode();
    let began = tokio::time::Instant::now();
    let both = tokio::join!(service.validate(request.clone()), service.validate(request));
    assert_eq!((both.0.is_ok(), both.1), (true, both.0));
    assert_eq!(began.elapsed(), wait_per_transaction * 2 * u32::try_from(layout.members().len()).unwrap());
}
