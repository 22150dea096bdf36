//! A bundle's part in the traces of its submissions.
//!
//! ```text
//! submit (client) ─► submission ─┬─ admission, queueing
//!                                ├─ bundle ─┬─ validation ─► validate (each validator asked)
//!                                │          ├─ ordering ─► forward ─► commit (the leader)
//!                                │          ├─ apply
//!                                │          └─ attestation
//!                                └─ response
//! ```
//! A bundle carries many submissions, and a span has one parent: the bundle is a part of the first sampled submission, and
//! names all of them by links; the others name it, so that every trace leads to the bundle and the bundle to every trace.
//! What is ordered carries no trace context: it would have to be agreed on, stored and hashed for ever. The gateway that
//! admitted a bundle sees it certified, applied and attested, and tells.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use traces::{Span, SpanKind};

use super::{Answer, Gateway, Pending};

/// How long a trace is kept open for its batch's attestation.
const ATTESTATION_PATIENCE: Duration = Duration::from_secs(60);

/// The span of a bundle that was closed just now.
pub(super) fn bundle(submissions: &[Pending]) -> Span {
    if !traces::are_on() {
        return Span::default();
    }
    let mut sampled = submissions.iter().filter(|pending| pending.span.is_sampled()).peekable();
    let Some(first) = sampled.peek().map(|pending| pending.span.parent()) else { return Span::default() };
    let (bundle, closed) = (Span::child("bundle", SpanKind::Internal, &first), Instant::now());
    for pending in sampled {
        bundle.link(&pending.span.parent());
        pending.span.link(&bundle.parent());
        pending.span.past("queueing", pending.arrived, closed);
    }
    bundle.set("seriatim.submissions", || count(submissions.len()));
    bundle
}

/// Follows a batch until enough provers have proved it, where anybody wants to see that.
pub(super) fn await_attestation(gateway: &Gateway, bundle: &Span, batch: u64) {
    if !bundle.is_sampled() || gateway.0.around.state.proof_status().required == 0 {
        return;
    }
    let Ok(place) = Arc::clone(&gateway.0.awaited_attestations).try_acquire_owned() else { return };
    let span = Span::child("attestation", SpanKind::Internal, &bundle.parent());
    let gateway = gateway.clone();
    drop(seams::tasks::spawn(async move {
        span.set("seriatim.batch", || i64::try_from(batch).unwrap_or(i64::MAX));
        let attested = timeout(ATTESTATION_PATIENCE, attested(&gateway, batch)).await == Ok(true);
        span.set("seriatim.attested", || attested);
        drop(place);
    }));
}

/// True once the batch is attested, false where the node ends.
async fn attested(gateway: &Gateway, batch: u64) -> bool {
    let mut attestations = gateway.0.around.attestations.clone();
    while gateway.0.around.state.proof_status().attested_batch < batch {
        if attestations.changed().await.is_err() {
            return false;
        }
    }
    true
}

/// What became of a submission, in a word: the first that holds of any member.
pub(super) fn outcome(answers: &[Answer]) -> &'static str {
    let is_unknown = |answer: &Answer| matches!(answer, Answer::Unknown(_));
    let is_refused = |answer: &Answer| matches!(answer, Answer::Refused(_));
    let is_committed =
        |answer: &Answer| matches!(answer, Answer::Sequenced { record, .. } if record.outcome.is_committed());
    if answers.iter().any(is_unknown) {
        "unknown"
    } else if answers.iter().any(is_refused) {
        "refused"
    } else if answers.iter().all(is_committed) {
        "committed"
    } else {
        "rejected"
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
