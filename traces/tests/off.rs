//! Before traces are turned on.

use allocation_counter::measure;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use traces::{Parent, Span, SpanKind, are_on};

/// Everything that a transaction does about spans on its way through a cluster.
fn transaction(asking: &HeaderMap, asked: &mut HeaderMap, began: Instant) {
    let submission = Span::entry("submission", SpanKind::Server, &Parent::of_headers(asking), began);
    submission.set("seriatim.node", || -> String { unreachable!("nobody is asked") });
    submission.past_until_now("admission", began);
    let bundle = Span::child("bundle", SpanKind::Internal, &submission.parent());
    bundle.link(&submission.parent());
    bundle.past("queueing", began, began);
    bundle.parent().name_in(asked);
    let _within = bundle.parent().enter();
    assert!(!bundle.is_sampled() && !Parent::current().is_sampled());
    assert_eq!(bundle.parent().carry(async { 7 }).now_or_never(), Some(7));
    bundle.fail("timeout");
    bundle.end_at(began);
}

#[test]
fn a_transaction_allocates_nothing_for_spans_that_nobody_wants() {
    let (mut asking, mut asked, began) = (HeaderMap::new(), HeaderMap::new(), Instant::now());
    let sampled = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    asking.insert("traceparent", sampled);
    let spans = measure(|| transaction(&asking, &mut asked, began));
    assert_eq!((spans.count_total, spans.bytes_total), (0, 0));
    assert!(asked.is_empty() && !are_on());
    let counted = measure(|| drop(std::hint::black_box("a string".to_owned())));
    assert_eq!(counted.count_total, 1, "allocations are counted");
}
