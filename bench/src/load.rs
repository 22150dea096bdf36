//! One measured run of settlements: parties are endowed, the load warms up, and then the window begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{Access, Client, ConfigurationFault};
use ledger::{AssetType, Quantity, TransactionId};
use tokio::time::{Instant, sleep_until};

use crate::meter::Meter;
use crate::preload::preload;
use crate::processes::{self, Watched};
use crate::report::Report;
use crate::schedule::Schedule;
use crate::trade::{Market, TradeFault, TradeOptions};

/// When settlements begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// Each pair settles again as soon as it has settled.
    ClosedLoop,
    /// At a fixed rate, by whichever pair is idle.
    OpenLoop(Schedule),
}

/// The shape of a run.
#[derive(Debug, Clone)]
pub struct Load {
    /// When settlements begin.
    pub arrivals: Arrivals,
    /// Who settles, and how much at once.
    pub trade: TradeOptions,
    /// Client connections that share the pairs.
    pub connections: usize,
    /// Live outputs that the ledger is filled with before.
    pub live_outputs: u64,
    /// Left out of every figure.
    pub warm_up: Duration,
    /// What is measured.
    pub duration: Duration,
}

/// Why a run does not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// A client cannot be made.
    #[error(transparent)]
    Client(#[from] ConfigurationFault),
    /// The ledger does not take what comes before.
    #[error("before the load: {0}")]
    Trade(#[from] TradeFault),
    /// A bug here.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// What is known from outside about the end state.
#[derive(Debug, Default)]
pub struct Done {
    /// Acknowledged transactions.
    pub acknowledged: Vec<TransactionId>,
    /// Supply by asset.
    pub supply: Vec<(AssetType, Quantity)>,
}

/// Who looks on while a run goes on.
pub trait Onlooker: Sync {
    /// So many live outputs have been issued, of so many.
    fn preloaded(&self, done: u64, of: u64);
    /// So many pairs of parties are given what they settle with.
    fn endowing(&self, pairs: usize);
    /// The load begins.
    fn begun(&self);
}

impl Load {
    /// Runs it against these nodes, and fills in everything but what an audit finds.
    ///
    /// # Errors
    /// Where it cannot begin.
    pub async fn run(
        self,
        nodes: &Access,
        watched: &[Watched],
        meter: &Arc<Meter>,
        onlooker: &dyn Onlooker,
        report: &mut Report,
    ) -> Result<Done, LoadFault> {
        let connect = || nodes.client().connect();
        let connections: Vec<Client> = (0..self.connections.max(1)).map(|_| connect()).collect::<Result<_, _>>()?;
        let mut done = Done::default();
        if self.live_outputs > 0 {
            let progress = |issued| onlooker.preloaded(issued, self.live_outputs);
            let mut preloaded = preload(&connections[0], self.trade.run, self.live_outputs, &progress).await?;
            done.acknowledged.append(&mut preloaded.acknowledged);
            done.supply.push(preloaded.supply);
        }
        onlooker.endowing(self.trade.pairs);
        let market = Market::open(&connections[0], self.trade).await?;
        onlooker.begun();
        let begin = Instant::now();
        let measured_from = begin + self.warm_up;
        let length = self.warm_up + self.duration;
        meter.measure(measured_from, self.duration);
        let trading = tokio::spawn(trade(market, connections, Arc::clone(meter), self.arrivals, begin, length));
        let figures = processes::sample(watched, measured_from, self.duration).await;
        let mut traded = trading.await?;
        meter.fill(report, self.duration.as_secs_f64());
        report.timeline = meter.seconds();
        processes::fill(report, watched, figures);
        report.unknown = traded.unknown;
        report.problems.append(&mut traded.problems);
        done.acknowledged.append(&mut traded.acknowledged);
        done.supply.append(&mut traded.supply);
        Ok(done)
    }
}

async fn trade(
    market: Market,
    connections: Vec<Client>,
    meter: Arc<Meter>,
    arrivals: Arrivals,
    begin: Instant,
    length: Duration,
) -> crate::trade::Traded {
    match arrivals {
        Arrivals::OpenLoop(schedule) => market.trade_at(&connections, meter, schedule, begin, length).await,
        Arrivals::ClosedLoop => {
            let stop = Arc::new(AtomicBool::new(false));
            let trading = market.trade(&connections, meter, Arc::clone(&stop));
            let stopping = async {
                sleep_until(begin + length).await;
                stop.store(true, Ordering::Relaxed);
            };
            tokio::join!(trading, stopping).0
        }
    }
}
