//! Messages on their way in: bounded in memory and in time.
//!
//! A message is collected before anyone can judge it. So what is collected of all messages together is bounded here,
//! and a message that has begun has to be complete in time. A short message passes in any case: whoever sends little
//! is not shut out by those who send much.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::LengthLimitError;
use proto::{Problem, ProblemKind};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// Largest request of a client, in bytes: a bundle of submissions (4 MiB), with room for hexadecimal.
pub const REQUEST_BYTES_MAX: usize = 9 * 1024 * 1024;
/// Incomplete messages may hold so many bytes together.
const INCOMPLETE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// So much of a message is free, in bytes: a few settlements.
const FREE_BYTES: usize = 16 * 1024;
/// A message that has begun is complete within this time: 9 MiB at 8 Mbit/s.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(10);
/// Those who find no room come back after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// A message of gRPC begins with a flag and its length in 4 bytes.
const PREFIX_BYTES: usize = 5;

/// What the incomplete messages of a process hold together. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Intake {
    held: Arc<AtomicUsize>,
}

impl Intake {
    /// A body that is one message.
    pub fn whole<B>(&self, body: B) -> Metered<B> {
        self.meter(body, None)
    }

    /// A body that is a stream of messages, in the framing of gRPC.
    pub fn framed<B>(&self, body: B) -> Metered<B> {
        self.meter(body, Some(Framing::default()))
    }

    /// Bytes of incomplete messages, those that are free aside.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    fn meter<B>(&self, body: B, framing: Option<Framing>) -> Metered<B> {
        Metered { body, framing, incomplete: 0, charged: 0, deadline: None, intake: self.clone() }
    }
}

/// Where a stream of messages stands.
#[derive(Debug, Default)]
struct Framing {
    prefix: Vec<u8>,
    /// Bytes that the current message still lacks.
    lacking: usize,
}

impl Framing {
    /// Reads on, and gives how much of the last message is there, where that one is incomplete.
    fn read(&mut self, mut incomplete: usize, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            let wanted = if self.lacking > 0 { self.lacking } else { PREFIX_BYTES - self.prefix.len() };
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            incomplete += now.len();
            if self.lacking > 0 {
                self.lacking -= now.len();
            } else {
                self.prefix.extend_from_slice(now);
                if let [_, length @ ..] = self.prefix.as_slice()
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    self.lacking = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    self.prefix.clear();
                }
            }
            if self.lacking == 0 && self.prefix.is_empty() {
                incomplete = 0;
            }
        }
        incomplete
    }
}

/// A body that keeps the bounds.
#[derive(Debug)]
pub struct Metered<B> {
    body: B,
    framing: Option<Framing>,
    /// Bytes of the message that is being collected.
    incomplete: usize,
    /// What of them is counted in the intake.
    charged: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    intake: Intake,
}

impl<B> Metered<B> {
    /// Counts what came in.
    fn count(&mut self, bytes: &[u8]) -> Result<(), Status> {
        self.incomplete = match &mut self.framing {
            Some(framing) => framing.read(self.incomplete, bytes),
            None => self.incomplete + bytes.len(),
        };
        if self.incomplete == 0 {
            self.deadline = None;
        }
        let charge = self.incomplete.saturating_sub(FREE_BYTES);
        if charge <= self.charged {
            self.intake.held.fetch_sub(self.charged - charge, Ordering::AcqRel);
            self.charged = charge;
            return Ok(());
        }
        let more = charge - self.charged;
        if self.intake.held.fetch_add(more, Ordering::AcqRel) + more > INCOMPLETE_BYTES_MAX {
            self.intake.held.fetch_sub(more, Ordering::AcqRel);
            let message = "too many large messages are on their way in".to_owned();
            return Err(Problem { message, ..Problem::overloaded(RETRY_AFTER) }.into());
        }
        self.charged = charge;
        Ok(())
    }
}

impl<B> Drop for Metered<B> {
    fn drop(&mut self) {
        self.intake.held.fetch_sub(self.charged, Ordering::AcqRel);
    }
}

impl<B: Body<Data = Bytes, Error: fmt::Display> + Unpin> Body for Metered<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let counted = frame.data_ref().map_or(Ok(()), |bytes| self.count(bytes));
                Poll::Ready(Some(counted.map(|()| frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Status::cancelled(error.to_string())))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if self.incomplete == 0 && self.framing.is_some() => Poll::Pending,
            Poll::Pending => {
                let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(MESSAGE_PATIENCE)));
                deadline.as_mut().poll(context).map(|()| Some(Err(slow())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn slow() -> Status {
    Problem::bad_request("message", format!("was not complete {MESSAGE_PATIENCE:?} after it had begun")).into()
}

/// What the failure to collect a message means, wherever in the chain of reasons it is said.
#[must_use]
pub fn problem(fault: &(dyn Error + 'static)) -> Problem {
    let mut next = Some(fault);
    while let Some(reason) = next {
        if let Some(status) = reason.downcast_ref::<Status>() {
            return Problem::from(status);
        }
        if reason.is::<LengthLimitError>() {
            let message = format!("the request is larger than {REQUEST_BYTES_MAX} bytes");
            return Problem::new(ProblemKind::MessageTooLarge, message);
        }
        next = reason.source();
    }
    Problem::bad_request("body", fault.to_string())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// A body in pieces of this size, that then stays open where `open` says so.
    fn body(bytes: &[u8], piece: usize, open: bool) -> impl Body<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        let rest = if open { stream::pending().boxed() } else { stream::empty().boxed() };
        StreamBody::new(stream::iter(pieces).chain(rest))
    }

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.resize(PREFIX_BYTES + usize::try_from(length).unwrap(), 7);
        bytes
    }

    #[tokio::test]
    async fn whole_messages_are_charged_to_nobody_however_they_are_cut() {
        let stream = [message(0), message(100_000), message(3)].concat();
        for piece in [1, 7, 4_096, 1 << 20] {
            let intake = Intake::default();
            let mut metered = intake.framed(body(&stream, piece, false));
            let mut most = 0;
            while let Some(frame) = metered.frame().await {
                frame.unwrap();
                most = most.max(intake.held.load(Ordering::Acquire));
            }
            assert_eq!(intake.held.load(Ordering::Acquire), 0);
            assert!(most < 100_000 - FREE_BYTES + PREFIX_BYTES, "{most}");
            assert_eq!(most > 0, piece < 1 << 20);
        }
    }

    #[tokio::test]
    async fn what_is_given_up_is_not_charged_any_longer() {
        let intake = Intake::default();
        let mut metered = intake.whole(body(&[1; 50_000], 50_000, true));
        metered.frame().await.unwrap().unwrap();
        assert_eq!(intake.held.load(Ordering::Acquire), 50_000 - FREE_BYTES);
        drop(metered);
        assert_eq!(intake.held.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn beyond_the_bound_large_messages_are_refused_and_short_ones_pass() {
        let intake = Intake { held: Arc::new(AtomicUsize::new(INCOMPLETE_BYTES_MAX)) };
        let refused = intake.framed(body(&message(30_000), 8_000, false)).collect().await.unwrap_err();
        assert_eq!(Problem::from(refused).kind, ProblemKind::Overloaded);
        intake.framed(body(&message(10_000), 1_000, false)).collect().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_stops_in_the_middle_ends_and_silence_between_messages_does_not() {
        let half = message(10);
        let cut = Intake::default().framed(body(&half[..9], 3, true)).collect().await.unwrap_err();
        assert_eq!(Problem::from(cut).kind, ProblemKind::BadRequest);
        let mut quiet = Intake::default().framed(body(&half, 3, true));
        let ended = tokio::time::timeout(MESSAGE_PATIENCE * 10, async { while quiet.frame().await.is_some() {} }).await;
        assert!(ended.is_err());
    }
}
