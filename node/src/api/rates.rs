//! Rates: how much one client may submit, where the node's settings bound it.
//!
//! A client is the subject of its certificate, over however many connections; without one it is its address. What it may
//! submit comes back evenly, up to a burst (the generic cell rate algorithm). What is beyond is not lost: a request by
//! itself is refused with the time after which it fits, a stream is read no faster than that.
//!
//! It is accounted by the turn, in pieces of a transaction or 4 KiB: one look-up for up to 64 transactions, and none
//! where nothing is bounded.
//!
//! Invariants: no client takes of another's allowance; what is refused takes nothing of its own; who has all of it again
//! is forgotten.
//!
//! Deliberately absent: reads, and one account over all nodes. Each node counts what is submitted to it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use meters::Counter;
use proto::{Problem, ProblemKind};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Extensions;

use crate::connections::Caller;
use crate::gateway::ClientRate;

/// Nobody is told to come back sooner: an answer says when in whole milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The log names a client that is held back once in this time.
const NAMED_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at who can be forgotten. A client takes about a hundred bytes, and a connection to become one.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);
/// Of an IPv6 address, the part that says whose it is: the rest is its owner's to choose (RFC 4291, section 2.5.4).
const SITE_BITS: u32 = 64;

/// Whose allowance it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Whom the certificate names.
    Certificate(Arc<str>),
    /// Where the connection is from, where nobody was named.
    Address(IpAddr),
}

impl Subject {
    /// Who sent a request that came over a connection.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().map(Self::calling)
    }

    /// Who is at the other end of a connection.
    #[must_use]
    pub fn calling(caller: &Caller) -> Self {
        caller.peer.subject().map_or_else(|| Self::Address(site(caller.address)), Self::Certificate)
    }

    const fn kind(&self) -> Kind {
        match self {
            Self::Certificate(_) => Kind::Certificate,
            Self::Address(_) => Kind::Address,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(subject) => write!(formatter, "certificate {subject:?}"),
            Self::Address(address) => write!(formatter, "address {address}"),
        }
    }
}

/// Who takes one address of a site can take them all.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> SITE_BITS << SITE_BITS)),
        address @ IpAddr::V4(_) => address,
    }
}

/// How a client is known: the only thing that metrics say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Certificate,
    Address,
}

/// Events by how their client is known.
#[derive(Debug, Default)]
struct ByKind {
    certificate: Counter,
    address: Counter,
}

impl ByKind {
    const fn of(&self, kind: Kind) -> &Counter {
        match kind {
            Kind::Certificate => &self.certificate,
            Kind::Address => &self.address,
        }
    }

    fn named(&self) -> [(&'static str, u64); 2] {
        [("certificate", self.certificate.get()), ("address", self.address.get())]
    }
}

/// What the bounds did since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RatesMeasured {
    /// Clients that have not all of their allowance.
    pub(crate) clients: usize,
    /// Submissions refused, by how the client is known.
    pub(crate) refused: [(&'static str, u64); 2],
    /// Turns of streams that waited, by how the client is known.
    pub(crate) waited: [(&'static str, u64); 2],
}

/// Tokio's time, which tests and simulations pause.
#[derive(Debug, Clone)]
struct Since(Instant);

impl Clock for Since {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type Limiter = RateLimiter<Subject, DashMapStateStore<Subject>, Since, NoOpMiddleware<Duration>>;

/// What clients may submit. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    bounded: Option<Arc<Bounded>>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Bounded {
    rate: ClientRate,
    clock: Since,
    allowances: Limiter,
    /// Whom the log has named lately.
    named: Limiter,
}

#[derive(Debug, Default)]
struct Counts {
    refused: ByKind,
    waited: ByKind,
}

impl Rates {
    /// Without a bound everybody may submit what the node takes.
    pub(super) fn new(rate: Option<ClientRate>) -> Self {
        Self { bounded: rate.map(|rate| Arc::new(Bounded::new(rate))), counts: Arc::default() }
    }

    /// Takes so many pieces of a client's allowance. Who submits from within the process has no bound.
    ///
    /// # Errors
    /// Where it is used up, with the time after which there is enough.
    pub(super) fn take(&self, client: Option<&Subject>, pieces: u32) -> Result<(), Problem> {
        let (Some(bounded), Some(client)) = (&self.bounded, client) else { return Ok(()) };
        bounded.take(client, pieces).map_err(|pause| bounded.problem(client, pause))
    }

    /// The same for a stream, which waits as long as its deadline allows.
    ///
    /// # Errors
    /// Where the allowance does not come back in time.
    pub(super) fn wait(
        &self,
        client: Option<&Subject>,
        pieces: u32,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
        let held = self.bounded.clone().zip(client.cloned());
        let counts = Arc::clone(&self.counts);
        async move {
            let Some((bounded, client)) = held else { return Ok(()) };
            let mut is_first = true;
            // another stream of the same client may be faster
            while let Err(pause) = bounded.take(&client, pieces) {
                let until = Instant::now() + pause;
                if until > deadline {
                    return Err(bounded.problem(&client, pause));
                }
                if is_first {
                    bounded.name(&client);
                    counts.waited.of(client.kind()).add(1);
                }
                is_first = false;
                sleep_until(until).await;
            }
            Ok(())
        }
    }

    /// Counts submissions that were refused.
    pub(super) fn count_refused(&self, client: Option<&Subject>, submissions: u64) {
        if let Some(client) = client {
            self.counts.refused.of(client.kind()).add(submissions);
        }
    }

    /// What the bounds did.
    pub(super) fn measured(&self) -> RatesMeasured {
        RatesMeasured {
            clients: self.bounded.as_ref().map_or(0, |bounded| bounded.allowances.len()),
            refused: self.counts.refused.named(),
            waited: self.counts.waited.named(),
        }
    }

    /// Forgets, for ever, who has all of its allowance again.
    pub(super) async fn forget_the_quiet(self) {
        let Some(bounded) = self.bounded else { return };
        loop {
            sleep(FORGET_INTERVAL).await;
            for limiter in [&bounded.allowances, &bounded.named] {
                limiter.retain_recent();
                limiter.shrink_to_fit();
            }
        }
    }
}

impl Bounded {
    fn new(rate: ClientRate) -> Self {
        let clock = Since(Instant::now());
        let allowance = Quota::per_second(rate.per_second_max).allow_burst(rate.burst_max);
        let naming = Quota::with_period(NAMED_EVERY).expect("a minute is some time");
        Self {
            rate,
            allowances: RateLimiter::dashmap_with_clock(allowance, clock.clone()),
            named: RateLimiter::dashmap_with_clock(naming, clock.clone()),
            clock,
        }
    }

    /// What weighs more than a burst takes all of one.
    fn take(&self, client: &Subject, pieces: u32) -> Result<(), Duration> {
        let pieces = NonZeroU32::new(pieces).unwrap_or(NonZeroU32::MIN).min(self.rate.burst_max);
        let taken = self.allowances.check_key_n(client, pieces).expect("it is no more than a burst");
        taken.map_err(|until| until.wait_time_from(self.clock.now()).max(PAUSE_MIN))
    }

    fn problem(&self, client: &Subject, pause: Duration) -> Problem {
        self.name(client);
        let ClientRate { per_second_max, burst_max } = self.rate;
        let message =
            format!("a client may submit {per_second_max} transactions a second, {burst_max} of them at once");
        Problem::new(ProblemKind::RateLimited, message).after(pause)
    }

    fn name(&self, client: &Subject) {
        if self.named.check_key(client).is_ok() {
            let ClientRate { per_second_max, burst_max } = self.rate;
            tracing::info!(%client, per_second_max, burst_max, "a client is held back: it sends more than its rate");
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;

    fn rates(per_second: u32, burst: u32) -> Rates {
        let number = |count| NonZeroU32::new(count).unwrap();
        Rates::new(Some(ClientRate { per_second_max: number(per_second), burst_max: number(burst) }))
    }

    fn desk(name: &str) -> Subject {
        Subject::Certificate(name.into())
    }

    fn at(address: &str) -> Subject {
        Subject::Address(site(address.parse().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_its_burst_and_then_its_rate_and_no_other_is_concerned() {
        let rates = rates(10, 64);
        let (one, other) = (desk("one"), desk("other"));
        for _ in 0..4 {
            rates.take(Some(&one), 16).unwrap();
        }
        let refused = rates.take(Some(&one), 16).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after), (ProblemKind::RateLimited, Some(Duration::from_millis(1_600))));
        rates.take(Some(&other), 64).unwrap();
        // what was refused took nothing: after the time that was told there is enough
        advance(Duration::from_millis(1_599)).await;
        assert_eq!(rates.take(Some(&one), 16).unwrap_err().retry_after, Some(PAUSE_MIN));
        advance(PAUSE_MIN).await;
        rates.take(Some(&one), 16).unwrap();
        rates.take(Some(&one), 1).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn what_weighs_more_than_a_burst_takes_all_of_one() {
        let rates = rates(10, 64);
        let client = at("192.0.2.7");
        rates.take(Some(&client), 768).unwrap();
        let refused = rates.take(Some(&client), 768).unwrap_err();
        assert_eq!(refused.retry_after, Some(Duration::from_millis(6_400)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_and_is_refused_where_its_time_is_too_short() {
        let rates = rates(10, 64);
        let client = desk("one");
        let soon = Instant::now() + Duration::from_secs(10);
        rates.wait(Some(&client), 64, soon).now_or_never().unwrap().unwrap();
        let started = Instant::now();
        rates.wait(Some(&client), 20, soon).await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(2));
        let refused = rates.wait(Some(&client), 64, Instant::now() + Duration::from_secs(6)).await.unwrap_err();
        assert_eq!((refused.kind, refused.retry_after), (ProblemKind::RateLimited, Some(Duration::from_millis(6_400))));
        assert_eq!(started.elapsed(), Duration::from_secs(2), "it is told at once");
        assert_eq!(rates.measured().waited, [("certificate", 1), ("address", 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_one_client_share_its_rate() {
        let rates = rates(10, 10);
        let client = desk("one");
        let later = Instant::now() + Duration::from_secs(100);
        rates.take(Some(&client), 10).unwrap();
        let started = Instant::now();
        let waits = (0..3).map(|_| rates.wait(Some(&client), 10, later));
        let ended = futures::future::join_all(waits).await;
        assert!(ended.iter().all(Result::is_ok));
        assert!(started.elapsed() >= Duration::from_secs(3), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_held_back_without_a_bound_nor_within_the_process() {
        let (free, bound) = (Rates::new(None), rates(1, 1));
        for _ in 0..1_000 {
            free.take(Some(&desk("one")), 768).unwrap();
            bound.take(None, 768).unwrap();
        }
        assert_eq!((free.measured().clients, bound.measured().clients), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_site_are_one_client() {
        let rates = rates(1, 1);
        rates.take(Some(&at("2001:db8:0:1::1")), 1).unwrap();
        rates.take(Some(&at("2001:db8:0:1:ffff::2")), 1).unwrap_err();
        rates.take(Some(&at("2001:db8:0:2::1")), 1).unwrap();
        rates.take(Some(&at("192.0.2.7")), 1).unwrap();
        rates.take(Some(&at("::ffff:192.0.2.7")), 1).unwrap_err();
        rates.take(Some(&at("192.0.2.8")), 1).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_all_of_its_allowance_again_is_forgotten_and_who_has_not_is_not() {
        let rates = rates(10, 600);
        let (quiet, busy) = (desk("quiet"), desk("busy"));
        rates.take(Some(&quiet), 10).unwrap();
        rates.take(Some(&busy), 600).unwrap();
        let forgetting = tokio::spawn(rates.clone().forget_the_quiet());
        tokio::time::sleep(FORGET_INTERVAL + PAUSE_MIN).await;
        assert_eq!(rates.measured().clients, 1);
        rates.take(Some(&busy), 600).unwrap_err();
        forgetting.abort();
    }
}
