//! A validator as others call it: a bundle comes in, signed verdicts go out. Nothing is kept between requests.

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use ledger::Limits;
use ledger::bundle::BundleLayout;
use ledger::check::LedgerIdentity;
use ledger::signature::SigningKey;
use meters::{Distribution, Durations};
use seams::{BoxFuture, CallError, Compute, Duplex, Method, Service, offload};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use traces::{Parent, Span, SpanKind};

use crate::check::{BundleVerdicts, validate_bundle};
use crate::message::{REFUSED_MALFORMED, REFUSED_METHOD, REFUSED_OVERLOADED, ValidateReply, ValidateRequest};

/// How much a validator takes on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceOptions {
    /// Bundles in work at once. Each may hold the largest bundle in memory, and more than keep the cores busy
    /// only wait for each other.
    pub concurrent_max: usize,
    /// When a refused pool may come back.
    pub retry_after: Duration,
    /// For benchmarks of how work is spread: every answer is kept back so long for each of its transactions, one bundle
    /// after another, as if one core needed that time for them. Zero in earnest.
    pub wait_per_transaction: Duration,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self { concurrent_max: 16, retry_after: Duration::from_millis(20), wait_per_transaction: Duration::ZERO }
    }
}

/// What a validator has done since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceCounters {
    /// Bundles answered with a certificate.
    pub bundles: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Those that did not pass.
    pub rejected: u64,
    /// Bundles in work now.
    pub busy: u64,
    /// Requests refused for lack of room.
    pub refused: u64,
    /// Requests refused because they could not be read.
    pub malformed: u64,
}

/// A stateless validator. Clones are the same validator.
#[derive(Clone)]
pub struct ValidatorService {
    shared: Arc<Shared>,
}

struct Shared {
    options: ServiceOptions,
    identity: LedgerIdentity,
    limits: Limits,
    key: SigningKey,
    compute: Arc<dyn Compute>,
    places: Arc<Semaphore>,
    /// Held by the answer that is kept back.
    waiting: tokio::sync::Mutex<()>,
    counters: Mutex<ServiceCounters>,
    check_times: Durations,
}

impl Debug for ValidatorService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ValidatorService({})", self.shared.key.party())
    }
}

impl ValidatorService {
    /// The validator with this key for this ledger.
    #[must_use]
    pub fn new(
        options: ServiceOptions,
        identity: LedgerIdentity,
        limits: Limits,
        key: SigningKey,
        compute: Arc<dyn Compute>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(options.concurrent_max));
        let (waiting, counters) = (tokio::sync::Mutex::default(), Mutex::default());
        let check_times = Durations::default();
        let shared = Shared { options, identity, limits, key, compute, places, waiting, counters, check_times };
        Self { shared: Arc::new(shared) }
    }

    /// The counters so far.
    #[must_use]
    pub fn counters(&self) -> ServiceCounters {
        let places_taken = self.shared.options.concurrent_max.saturating_sub(self.shared.places.available_permits());
        ServiceCounters { busy: count(places_taken), ..*self.shared.counters() }
    }

    /// How long each bundle took to be checked.
    #[must_use]
    pub fn check_times(&self) -> Distribution {
        self.shared.check_times.distribution()
    }

    /// Answers a [`ValidateRequest`] with a [`ValidateReply`].
    ///
    /// # Errors
    /// Refuses what cannot be read, and everything while too many bundles are in work.
    pub async fn validate(&self, body: Bytes) -> Result<Bytes, CallError> {
        let shared = Arc::clone(&self.shared);
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
            shared.counters().refused += 1;
            return Err(CallError::Refused {
                code: REFUSED_OVERLOADED,
                message: format!("{} bundles are in work already", shared.options.concurrent_max),
                retry_after: Some(shared.options.retry_after),
            });
        };
        let job = Arc::clone(&shared);
        let span = Span::child("check", SpanKind::Internal, &Parent::current());
        span.set("seriatim.validator", || shared.key.party().to_string());
        // the job keeps the place: it runs to its end also when nobody waits for it any more
        let (answer, transactions, place) =
            offload(&*shared.compute, move || job.answer(&body).map(|(answer, count)| (answer, count, place))).await?;
        span.set("seriatim.transactions", || i64::from(transactions));
        shared.keep_back(transactions).await;
        drop(place);
        Ok(answer)
    }
}

impl Shared {
    async fn keep_back(&self, transactions: u32) {
        let wait = self.options.wait_per_transaction;
        if !wait.is_zero() {
            let _one_after_another = self.waiting.lock().await;
            sleep(wait * transactions).await;
        }
    }

    /// The answer, and how many transactions it is about.
    fn answer(&self, body: &Bytes) -> Result<(Bytes, u32), CallError> {
        let request = ValidateRequest::decode(body).map_err(|fault| self.malformed(&fault.to_string()))?;
        let layout = BundleLayout::read(&request.bundle, &self.limits)
            .map_err(|fault| self.malformed(&format!("the bundle cannot be read: {fault}")))?;
        let began = Instant::now();
        let verdicts = validate_bundle(&request.bundle, &layout, &self.identity, &self.limits, &*self.compute);
        self.check_times.record(began.elapsed());
        let reply = self.reply(&layout, &verdicts, request.epoch);
        let transactions = layout.members().len();
        let mut counters = self.counters();
        counters.bundles += 1;
        counters.transactions += count(transactions);
        counters.rejected += count(reply.rejections.len());
        Ok((reply.encode(), u32::try_from(transactions).expect("the limits keep bundles small")))
    }

    fn reply(&self, layout: &BundleLayout, verdicts: &BundleVerdicts, epoch: u64) -> ValidateReply {
        let numbered = |(index, reason)| (u32::try_from(index).expect("the limits keep bundles small"), reason);
        ValidateReply {
            certificate: verdicts.certify(layout.digest(), epoch, &self.key),
            rejections: verdicts.rejections().into_iter().map(numbered).collect(),
        }
    }

    fn malformed(&self, message: &str) -> CallError {
        self.counters().malformed += 1;
        CallError::Refused { code: REFUSED_MALFORMED, message: message.to_owned(), retry_after: None }
    }

    fn counters(&self) -> MutexGuard<'_, ServiceCounters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for ValidatorService {
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let service = self.clone();
        async move {
            if method != Method::Validate {
                let message = format!("a validator does not answer {method:?}");
                return Err(CallError::Refused { code: REFUSED_METHOD, message, retry_after: None });
            }
            service.validate(body).await
        }
        .boxed()
    }

    fn accept(&self, _method: Method, duplex: Duplex) {
        // validators serve no streams: the other side sees this one end at once
        drop(duplex);
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
