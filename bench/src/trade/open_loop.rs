//! The open loop: one task keeps the schedule and the pool of pairs, one task per settlement does the work.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::desk::{Desk, Pair};
use super::{TradeFault, Traded};
use crate::meter::Meter;
use crate::pool::Pool;
use crate::schedule::Schedule;

/// How long an arrival waits for an idle pair before it counts as pushed back: a client that gets no turn for a second
/// would not call the ledger available.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A pair at the desk that it always goes to, so that one connection carries all its settlements.
struct Seat {
    pair: Pair,
    desk: Arc<Desk>,
}

type Finished = (Seat, Instant, Result<(), TradeFault>);

/// Runs until everything that was due before `begin + length` is settled or given up.
pub(super) async fn run(
    pairs: Vec<Pair>,
    desks: &[Arc<Desk>],
    schedule: Schedule,
    begin: Instant,
    length: Duration,
    traded: &mut Traded,
) {
    let Some(first) = desks.first() else { return };
    let seats = pairs.into_iter().zip(desks.iter().cycle()).map(|(pair, desk)| Seat { pair, desk: Arc::clone(desk) });
    let settlements = u64::try_from(first.settlements).unwrap_or(u64::MAX);
    let pool = Pool::new(seats, WAIT_MAX);
    let mut office = Office { pool, at_work: JoinSet::new(), meter: Arc::clone(&first.meter), settlements, traded };
    let arrivals = schedule.arrivals_before(length);
    let mut arrived = 0;
    while arrived < arrivals || !office.at_work.is_empty() || office.pool.has_waiting() {
        let next = if arrived < arrivals { begin + schedule.due(arrived) } else { Instant::now() + WAIT_MAX };
        tokio::select! {
            // cancelling loses nothing: a finished task stays in the set until it is taken
            Some(finished) = office.at_work.join_next() => office.take_back(finished),
            // a timer
            () = sleep_until(next) => {}
        }
        let now = Instant::now();
        while arrived < arrivals && begin + schedule.due(arrived) <= now {
            office.arrive(begin + schedule.due(arrived));
            arrived += 1;
        }
        office.serve();
    }
    office.close();
}

/// Everything that is idle, waits or is under way.
struct Office<'a> {
    pool: Pool<Seat>,
    at_work: JoinSet<Finished>,
    meter: Arc<Meter>,
    /// Settlements of one arrival.
    settlements: u64,
    traded: &'a mut Traded,
}

impl Office<'_> {
    fn arrive(&mut self, due: Instant) {
        self.meter.offer(self.settlements, due);
        self.pool.arrive(due);
    }

    /// Starts what can start and gives up what has waited too long.
    fn serve(&mut self) {
        let now = Instant::now();
        while let Some(due) = self.pool.give_up(now) {
            self.meter.push_back(self.settlements, due);
        }
        while let Some((mut seat, due)) = self.pool.start() {
            self.at_work.spawn(async move {
                let settled = seat.desk.settle_once(&mut seat.pair, due, Duration::ZERO).await;
                (seat, due, settled)
            });
        }
    }

    /// A pair that was refused goes on; one that failed is left half done and retires.
    fn take_back(&mut self, finished: Result<Finished, JoinError>) {
        match finished {
            Ok((seat, _, Ok(()))) => self.pool.release(seat),
            Ok((seat, due, Err(TradeFault::Refused(_)))) => {
                self.meter.push_back(self.settlements, due);
                self.pool.release(seat);
            }
            Ok((mut seat, _, Err(fault))) => {
                self.traded.note(&fault);
                self.traded.acknowledged.append(&mut seat.pair.acknowledged);
            }
            Err(panic) => self.traded.note(&panic),
        }
    }

    fn close(self) {
        for mut seat in self.pool.into_idle() {
            self.traded.acknowledged.append(&mut seat.pair.acknowledged);
        }
    }
}
