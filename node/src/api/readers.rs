//! Streams to readers: each at its own pace, none waited for without a bound.

use std::future::Future;
use std::time::Duration;

use proto::{Problem, ProblemKind};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A reader that takes nothing for this long is let go; it resumes where it was.
const READER_PATIENCE: Duration = Duration::from_secs(60);

/// Sends until the reader leaves. What stops it before is the last that the reader is told, if it takes it in time.
pub(super) async fn until_left<T: Send, F>(
    sender: mpsc::Sender<Result<T, Problem>>,
    sending: impl FnOnce(mpsc::Sender<Result<T, Problem>>) -> F,
) where
    F: Future<Output = Result<(), Problem>>,
{
    let told = async {
        if let Err(problem) = sending(sender.clone()).await {
            // the reader may have left, or take nothing
            drop(timeout(READER_PATIENCE, sender.send(Err(problem))).await);
        }
    };
    tokio::select! {
        () = told => {}
        () = sender.closed() => {}
    }
}

/// Sends one item.
///
/// # Errors
/// Where the reader has left, or takes nothing for too long.
pub(super) async fn send<T>(sender: &mpsc::Sender<Result<T, Problem>>, item: T) -> Result<(), Problem> {
    match timeout(READER_PATIENCE, sender.send(Ok(item))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Problem::new(ProblemKind::Cancelled, "the reader has left")),
        Err(_) => Err(Problem::new(ProblemKind::Overloaded, format!("nothing was read for {READER_PATIENCE:?}"))),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const AT_MOST: Duration = Duration::from_secs(600);

    type Sender = mpsc::Sender<Result<u8, Problem>>;

    fn over() -> Problem {
        Problem::new(ProblemKind::ShuttingDown, "over")
    }

    async fn for_ever(sender: Sender) -> Result<(), Problem> {
        loop {
            send(&sender, 7).await?;
        }
    }

    async fn once(sender: Sender) -> Result<(), Problem> {
        send(&sender, 7).await?;
        Err(over())
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_let_go() {
        let (sender, mut reader) = mpsc::channel(1);
        timeout(AT_MOST, until_left(sender, for_ever)).await.expect("it ends");
        assert_eq!(reader.recv().await.unwrap(), Ok(7));
        assert_eq!(reader.recv().await, None, "and finds no more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_stops_a_stream_is_told_to_whoever_reads_and_waited_for_no_longer_than_an_item() {
        for reads in [true, false] {
            let (sender, mut reader) = mpsc::channel(1);
            let reading = async {
                let mut read = Vec::new();
                while reads && let Some(item) = reader.recv().await {
                    read.push(item);
                }
                read
            };
            let (ended, read) = tokio::join!(timeout(AT_MOST, until_left(sender, once)), reading);
            ended.expect("it ends");
            assert_eq!(read, if reads { vec![Ok(7), Err(over())] } else { Vec::new() });
        }
    }
}
