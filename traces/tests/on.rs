//! After traces were turned on.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use http::{HeaderMap, HeaderValue};
use opentelemetry::global;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::time::Instant;
use traces::{Parent, Span, SpanKind};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Spans that ended.
#[derive(Debug, Clone, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Ended {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Ended {
    fn named(&self, name: &str) -> SpanData {
        self.0.lock().unwrap().iter().find(|span| span.name == name).unwrap().clone()
    }
}

/// What a caller says whose trace is kept (`01`) or not (`00`).
fn asking(sampled: &str) -> Parent {
    let context = format!("00-{TRACE}-{CALLER}-{sampled}");
    let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), HeaderValue::try_from(context).unwrap())]);
    Parent::of_headers(&headers)
}

#[test]
fn spans_are_parts_of_the_callers_trace_where_it_is_kept() {
    let ended = Ended::default();
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_tracer_provider(SdkTracerProvider::builder().with_simple_exporter(ended.clone()).build());
    traces::turn_on();
    let began = Instant::now();

    // where the caller's trace is not kept, nothing is, and that is handed on
    let submission = Span::entry("submission", SpanKind::Server, &asking("00"), began);
    let bundle = Span::child("bundle", SpanKind::Internal, &submission.parent());
    submission.past_until_now("admission", began);
    let mut asked = HeaderMap::new();
    submission.parent().name_in(&mut asked);
    assert!(!submission.is_sampled() && asked["traceparent"].to_str().unwrap().ends_with("-00"));
    drop((bundle, submission));
    assert!(ended.0.lock().unwrap().is_empty());

    let submission = Span::entry("submission", SpanKind::Server, &asking("01"), began);
    let bundle = Span::child("bundle", SpanKind::Internal, &submission.parent());
    bundle.link(&submission.parent());
    submission.past("admission", began, began);
    let mut asked = HeaderMap::new();
    let calling = async { Parent::current().name_in(&mut asked) };
    bundle.parent().carry(calling).now_or_never().unwrap();
    assert!(!Parent::current().is_sampled(), "the context went with the future");
    bundle.fail("timeout");
    drop(bundle);
    drop(submission);

    let (submission, bundle, admission) = (ended.named("submission"), ended.named("bundle"), ended.named("admission"));
    assert_eq!(submission.span_context.trace_id().to_string(), TRACE);
    assert_eq!(submission.parent_span_id.to_string(), CALLER);
    assert_eq!(admission.parent_span_id, submission.span_context.span_id());
    assert_eq!(bundle.parent_span_id, submission.span_context.span_id());
    assert_eq!(bundle.links.links[0].span_context, submission.span_context);
    assert_eq!(asked["traceparent"], format!("00-{TRACE}-{}-01", bundle.span_context.span_id()));
    assert!(bundle.attributes.iter().any(|it| it.key.as_str() == "error.type" && it.value.as_str() == "timeout"));
}
