//! Turns: who hands submissions to the gateway while many want to.
//!
//! The gateway answers in the order in which it is given work. So it is given no more at once than keeps it busy, and
//! whoever has more to give waits for a turn. Turns go round and are short. A client that sends little and waits for the
//! answer does not wait for a turn at all, while there are few such clients: it takes the gateway's light lane.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meters::Counter;
use proto::{Problem, wire};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use traces::Parent;

use crate::gateway::{GatewayOptions, Lane};

/// What a submission weighs is counted in pieces: one per transaction, or per so many bytes, which cost about as much.
const PIECE_BYTES: usize = 4 * 1_024;
/// Pieces with the gateway at once: with few validators the two bundles that it has under way (of 256 transactions or 1 MiB
/// each), and one that fills up meanwhile; with many, smaller bundles for twelve of them. A quarter of a larger room's wait for a turn, and the same throughput (docs/performance.md).
const PIECES_MAX: u32 = 3 * 256;
/// Pieces of one turn, one submission more than fits excepted.
const TURN_PIECES_MAX: u32 = 64;
/// Pieces in the light lane at once.
const LIGHT_PIECES_MAX: u32 = 128;
/// What a client may send at once to be called light.
const LIGHT_TURN_PIECES_MAX: u32 = 16;
/// Pieces that may wait for their turn, each in a request of its own; more are refused.
const WAITING_PIECES_MAX: u32 = 16 * 1_024;
/// A submission may take this long unless its sender says otherwise, and at most.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Those whose turn did not come in time come back after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The room at the gateway. Whoever waits for it is served in the order of asking.
#[derive(Debug)]
pub(super) struct Turns {
    bulk: Arc<Semaphore>,
    light: Arc<Semaphore>,
    /// Places to wait in, for requests by themselves.
    waiting: Semaphore,
    /// Submissions that found no room.
    refused: Counter,
}

fn room_for(pieces: u32) -> Semaphore {
    Semaphore::new(usize::try_from(pieces).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS))
}

/// Who asks for a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A request by itself, or the first of a pipeline that has nothing under way.
    Idle,
    /// A pipeline that waits for answers already.
    Busy,
}

/// A part of a request that is handed over at once.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) submissions: Vec<wire::Submission>,
    /// When its request was there.
    pub(super) arrived: Instant,
    /// What its request is a part of.
    pub(super) trace: Parent,
    /// When all of it has to be answered.
    pub(super) deadline: Instant,
}

/// Room at the gateway, given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    permit: OwnedSemaphorePermit,
    lane: Lane,
}

impl Room {
    /// The part of the room that this submission takes: what is left, where the whole turn weighs more than all the
    /// room there is.
    pub(super) fn part_for(&mut self, submission: &wire::Submission) -> Option<Self> {
        let pieces = usize::try_from(pieces(submission)).unwrap_or(usize::MAX);
        Some(Self { permit: self.permit.split(pieces.min(self.permit.num_permits()))?, lane: self.lane })
    }

    /// Which way it is.
    pub(super) fn lane(&self) -> Lane {
        self.lane
    }
}

impl Turns {
    /// Room enough to keep this gateway busy.
    pub(super) fn new(gateway: &GatewayOptions) -> Self {
        // one that keeps transactions back by a clock is busy with none of them meanwhile
        let bulk = if gateway.cost_model.is_some() { u32::MAX } else { PIECES_MAX };
        Self {
            bulk: Arc::new(room_for(bulk)),
            light: Arc::new(room_for(LIGHT_PIECES_MAX)),
            waiting: room_for(WAITING_PIECES_MAX),
            refused: Counter::default(),
        }
    }

    /// Pieces of requests by themselves that wait for their turn.
    pub(super) fn waiting_pieces(&self) -> u64 {
        let free = u64::try_from(self.waiting.available_permits()).unwrap_or(u64::MAX);
        u64::from(WAITING_PIECES_MAX).saturating_sub(free)
    }

    /// Submissions that found no room.
    pub(super) const fn refused(&self) -> &Counter {
        &self.refused
    }

    /// Waits for room for this turn.
    ///
    /// # Errors
    /// Where there was none by its deadline.
    pub(super) fn wait(&self, turn: &Turn, asker: Asker) -> impl Future<Output = Result<Room, Problem>> + Send + use<> {
        let (pieces, deadline) = (turn.pieces(), turn.deadline);
        let is_light = asker == Asker::Idle && pieces <= LIGHT_TURN_PIECES_MAX;
        let light = is_light.then(|| Arc::clone(&self.light));
        let bulk = Arc::clone(&self.bulk);
        async move {
            if let Some(permit) = light.and_then(|light| light.try_acquire_many_owned(pieces).ok()) {
                return Ok(Room { permit, lane: Lane::Light });
            }
            match timeout_at(deadline, bulk.acquire_many_owned(pieces)).await {
                Ok(Ok(permit)) => Ok(Room { permit, lane: Lane::Bulk }),
                Ok(Err(_)) | Err(_) => Err(Problem::overloaded(RETRY_AFTER)),
            }
        }
    }

    /// The same for a request by itself, of which there may be any number at once.
    ///
    /// # Errors
    /// Where too many wait already, and where there was no room by the deadline.
    pub(super) async fn wait_among_many(&self, turn: &Turn) -> Result<Room, Problem> {
        let _place = self.waiting.try_acquire_many(turn.pieces()).map_err(|_full| Problem::overloaded(RETRY_AFTER))?;
        self.wait(turn, Asker::Idle).await
    }
}

impl Turn {
    /// What it weighs. Nothing weighs more than all the room there is.
    pub(super) fn pieces(&self) -> u32 {
        self.submissions.iter().map(pieces).fold(0, u32::saturating_add).min(PIECES_MAX)
    }
}

/// A request's turns, in order. The time that it allows counts from now.
pub(super) fn turns_of(request: wire::SubmitRequest, trace: &Parent) -> VecDeque<Turn> {
    let asked = Duration::from_millis(u64::from(request.timeout_ms));
    let patience = if asked.is_zero() { TIMEOUT_DEFAULT } else { asked.min(TIMEOUT_MAX) };
    let arrived = Instant::now();
    let deadline = arrived + patience;
    let mut turns: VecDeque<Turn> = VecDeque::new();
    let mut taken = TURN_PIECES_MAX;
    for submission in request.submissions {
        if taken >= TURN_PIECES_MAX {
            turns.push_back(Turn { submissions: Vec::new(), arrived, trace: trace.clone(), deadline });
            taken = 0;
        }
        taken = taken.saturating_add(pieces(&submission));
        turns.back_mut().expect("the first submission begins a turn").submissions.push(submission);
    }
    turns
}

/// What a submission weighs. Nothing weighs more than all the room there is.
fn pieces(submission: &wire::Submission) -> u32 {
    let bytes = submission.transactions.iter().map(Bytes::len).fold(0, usize::saturating_add);
    let by_bytes = u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX);
    let by_count = u32::try_from(submission.transactions.len()).unwrap_or(u32::MAX);
    by_bytes.max(by_count).clamp(1, PIECES_MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn request(submissions: usize, bytes: usize) -> wire::SubmitRequest {
        let submission = wire::Submission { tag: 1, transactions: vec![Bytes::from(vec![0; bytes])] };
        wire::SubmitRequest { submissions: vec![submission; submissions], timeout_ms: 1_000 }
    }

    #[tokio::test]
    async fn a_request_is_cut_into_turns_and_nothing_of_it_is_lost() {
        for (submissions, bytes, turns, largest) in
            [(1, 10, 1, 1), (64, 10, 1, 64), (65, 10, 2, 64), (3, 160_000, 2, 2)]
        {
            let cut = turns_of(request(submissions, bytes), &Parent::default());
            let sizes: Vec<usize> = cut.iter().map(|turn| turn.submissions.len()).collect();
            assert_eq!((sizes.len(), sizes.iter().max(), sizes.iter().sum()), (turns, Some(&largest), submissions));
        }
        assert!(turns_of(request(0, 0), &Parent::default()).is_empty());
    }

    fn turn(bytes: usize) -> Turn {
        turns_of(request(1, bytes), &Parent::default()).pop_front().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn room_goes_to_those_who_wait_in_their_order_and_time_ends_the_waiting() {
        let turns = Turns::new(&GatewayOptions::default());
        let (all, little) = (turn(100 * 1024 * 1024), turn(10));
        let mut held = turns.wait(&all, Asker::Busy).await.unwrap();
        let mut first = turns.wait(&little, Asker::Busy).boxed();
        assert!((&mut first).now_or_never().is_none());
        let late = turns.wait(&all, Asker::Busy).boxed();
        drop(held.part_for(&little.submissions[0]).unwrap());
        drop(first.await.unwrap());
        assert_eq!(late.await.unwrap_err().kind, proto::ProblemKind::Overloaded);
        drop(held);
        turns.wait(&all, Asker::Busy).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heavier_than_all_the_room_holds_all_of_it_until_its_last_part_is_answered() {
        let turns = Turns::new(&GatewayOptions::default());
        let (little, huge) = (request(63, 10), request(1, 100 * 1024 * 1024));
        let submissions = [little.submissions, huge.submissions].concat();
        let heavy =
            turns_of(wire::SubmitRequest { submissions, timeout_ms: 1_000 }, &Parent::default()).pop_front().unwrap();
        let mut room = turns.wait(&heavy, Asker::Busy).await.unwrap();
        let mut parts: Vec<Room> = heavy.submissions.iter().map(|part| room.part_for(part).unwrap()).collect();
        drop(room);
        assert!(turns.wait(&turn(10), Asker::Busy).now_or_never().is_none());
        let last = parts.pop().unwrap();
        drop(parts);
        assert!(turns.wait(&turn(700 * PIECE_BYTES), Asker::Busy).now_or_never().is_none());
        drop(last);
        turns.wait(&heavy, Asker::Busy).now_or_never().unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_little_waits_for_nobody_while_there_are_few_of_them() {
        let turns = Turns::new(&GatewayOptions::default());
        let (all, little) = (turn(100 * 1024 * 1024), turn(10));
        let held = turns.wait(&all, Asker::Idle).await.unwrap();
        assert_eq!(held.lane(), Lane::Bulk);
        let mut light = Vec::new();
        for _ in 0..LIGHT_PIECES_MAX {
            light.push(turns.wait(&little, Asker::Idle).now_or_never().unwrap().unwrap());
        }
        assert!(light.iter().all(|room| room.lane() == Lane::Light));
        assert!(turns.wait(&little, Asker::Idle).now_or_never().is_none());
        light.pop();
        assert!(turns.wait(&little, Asker::Busy).now_or_never().is_none());
        assert!(turns.wait(&turn(100_000), Asker::Idle).now_or_never().is_none());
        turns.wait(&little, Asker::Idle).now_or_never().unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn requests_by_themselves_are_refused_where_too_many_wait() {
        let turns = Turns::new(&GatewayOptions::default());
        let (all, much) = (turn(100 * 1024 * 1024), turn(250_000));
        let held = turns.wait(&all, Asker::Busy).await.unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            let mut wait = turns.wait_among_many(&much).boxed();
            match (&mut wait).now_or_never() {
                None => waiting.push(wait),
                Some(room) => break room.unwrap_err(),
            }
        };
        assert_eq!(refused.kind, proto::ProblemKind::Overloaded);
        assert_eq!(waiting.len(), usize::try_from(WAITING_PIECES_MAX / much.pieces()).unwrap());
        waiting.pop();
        drop(held);
        for wait in waiting {
            wait.await.unwrap();
        }
    }
}
