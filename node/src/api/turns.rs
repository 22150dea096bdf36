//! Turns: who hands submissions to the gateway while many want to.
//!
//! The gateway answers in the order in which it is given work. So it is given no more at once than keeps it busy, and
//! whoever has more to give waits for a turn. Turns go round and are short: a client that sends little is served among
//! those who send much, not behind them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::{Problem, wire};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// What a submission weighs is counted in pieces of so many bytes: about one settlement.
const PIECE_BYTES: usize = 1_024;
/// Pieces with the gateway at once: the four bundles that it has under way (of 1,024 transactions or 1 MiB each), and
/// two that fill up meanwhile.
const PIECES_MAX: u32 = 6 * 1_024;
/// Pieces of one turn, one submission more than fits excepted.
const TURN_PIECES_MAX: u32 = 64;
/// A submission may take this long unless its sender says otherwise, and at most.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Those whose turn did not come in time come back after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The room at the gateway. Whoever waits for it is served in the order of asking.
#[derive(Debug)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(PIECES_MAX).unwrap_or(usize::MAX))))
    }
}

/// A part of a request that is handed over at once.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) submissions: Vec<wire::Submission>,
    /// When all of it has to be answered.
    pub(super) deadline: Instant,
}

/// Room at the gateway, given back when dropped.
#[derive(Debug)]
pub(super) struct Room(OwnedSemaphorePermit);

impl Room {
    /// The part of the room that this submission takes.
    pub(super) fn part_for(&mut self, submission: &wire::Submission) -> Option<Self> {
        let pieces = usize::try_from(pieces(submission)).unwrap_or(usize::MAX);
        self.0.split(pieces).map(Self)
    }
}

impl Turns {
    /// Waits for room for this turn.
    ///
    /// # Errors
    /// Where there was none by its deadline.
    pub(super) fn wait(&self, turn: &Turn) -> impl Future<Output = Result<Room, Problem>> + Send + use<> {
        let pieces = turn.submissions.iter().map(pieces).fold(0, u32::saturating_add).min(PIECES_MAX);
        let (room, deadline) = (Arc::clone(&self.0), turn.deadline);
        async move {
            match timeout_at(deadline, room.acquire_many_owned(pieces)).await {
                Ok(Ok(permit)) => Ok(Room(permit)),
                Ok(Err(_)) | Err(_) => Err(Problem::overloaded(RETRY_AFTER)),
            }
        }
    }
}

/// A request's turns, in order. The time that it allows counts from now.
pub(super) fn turns_of(request: wire::SubmitRequest) -> VecDeque<Turn> {
    let asked = Duration::from_millis(u64::from(request.timeout_ms));
    let patience = if asked.is_zero() { TIMEOUT_DEFAULT } else { asked.min(TIMEOUT_MAX) };
    let deadline = Instant::now() + patience;
    let mut turns: VecDeque<Turn> = VecDeque::new();
    let mut taken = TURN_PIECES_MAX;
    for submission in request.submissions {
        if taken >= TURN_PIECES_MAX {
            turns.push_back(Turn { submissions: Vec::new(), deadline });
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
        for (submissions, bytes, turns, largest) in [(1, 10, 1, 1), (64, 10, 1, 64), (65, 10, 2, 64), (3, 40_000, 2, 2)]
        {
            let cut = turns_of(request(submissions, bytes));
            let sizes: Vec<usize> = cut.iter().map(|turn| turn.submissions.len()).collect();
            assert_eq!((sizes.len(), sizes.iter().max(), sizes.iter().sum()), (turns, Some(&largest), submissions));
        }
        assert!(turns_of(request(0, 0)).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn room_goes_to_those_who_wait_in_their_order_and_time_ends_the_waiting() {
        let turns = Turns::default();
        let all = turns_of(request(1, 100 * 1024 * 1024)).pop_front().unwrap();
        let little = turns_of(request(1, 10)).pop_front().unwrap();
        let mut held = turns.wait(&all).await.unwrap();
        let mut first = turns.wait(&little).boxed();
        assert!((&mut first).now_or_never().is_none());
        let late = turns.wait(&all).boxed();
        drop(held.part_for(&little.submissions[0]).unwrap());
        drop(first.await.unwrap());
        assert_eq!(late.await.unwrap_err().kind, proto::ProblemKind::Overloaded);
        drop(held);
        turns.wait(&turns_of(request(1, 100 * 1024 * 1024)).pop_front().unwrap()).await.unwrap();
    }
}
