//! Spans of OpenTelemetry: how one begins and ends, and how its context goes from task to task and from process to process.
//!
//! Off until [`turn_on`]: then everything here is one look at an atomic flag, or at an `Option` that is empty. What is not
//! sampled costs no more than that either, behind the span that decided it. Spans are handed to whatever tracer provider
//! the process has set; this crate knows no exporter and never waits for one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures::future::Either;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{FutureExt, SpanBuilder, SpanContext, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, ContextGuard, KeyValue, Value, global};
use tokio::time::Instant;

pub use opentelemetry::trace::SpanKind;

/// What the spans are said to come from.
const SCOPE: &str = "seriatim";

static ON: AtomicBool = AtomicBool::new(false);

/// Spans are made from now on. Call it once the process has set a tracer provider and a propagator.
pub fn turn_on() {
    ON.store(true, Ordering::Relaxed);
}

/// Whether spans are made.
#[must_use]
pub fn are_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// What a span may be a child of. Empty where traces are off, or nobody asked for one.
#[derive(Debug, Clone, Default)]
pub struct Parent(Option<Context>);

impl Parent {
    /// The span that the running task works for.
    #[must_use]
    pub fn current() -> Self {
        Self(are_on().then(Context::current).filter(Context::has_active_span))
    }

    /// The span that a request's headers name, in the form that the process's propagator reads (W3C trace context).
    #[must_use]
    pub fn of_headers(headers: &HeaderMap) -> Self {
        if !are_on() {
            return Self::default();
        }
        let extracted =
            global::get_text_map_propagator(|it| it.extract_with_context(&Context::new(), &Headers(headers)));
        Self(Some(extracted).filter(Context::has_active_span))
    }

    /// Names the span in a request's headers.
    pub fn name_in(&self, headers: &mut HeaderMap) {
        if let Some(context) = &self.0 {
            global::get_text_map_propagator(|it| it.inject_context(context, &mut HeadersMut(headers)));
        }
    }

    /// Whether somebody will see the spans behind it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        is_sampled(self.0.as_ref())
    }

    /// The future, which works for this span.
    pub fn carry<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            Some(context) => Either::Left(future.with_context(context.clone())),
            None => Either::Right(future),
        }
    }

    /// What this thread does works for this span, until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> Option<ContextGuard> {
        self.0.clone().map(Context::attach)
    }

    fn span_context(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|context| context.span().span_context().clone())
    }
}

/// A span that ends when this is dropped. Nothing where traces are off.
#[derive(Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// A span that began then, with which a process begins to work for somebody; without a parent it is the first of its
    /// trace, and the sampler decides about all of it.
    #[must_use]
    pub fn entry(name: &'static str, kind: SpanKind, parent: &Parent, began: Instant) -> Self {
        if !are_on() {
            return Self::default();
        }
        Self::begin(name, kind, parent, system_time(began))
    }

    /// A span that begins now, as a part of another; nothing where that one is not sampled.
    #[must_use]
    pub fn child(name: &'static str, kind: SpanKind, parent: &Parent) -> Self {
        if !parent.is_sampled() {
            return Self::default();
        }
        Self::begin(name, kind, parent, SystemTime::now())
    }

    /// A part of this one that is over.
    pub fn past(&self, name: &'static str, began: Instant, ended: Instant) {
        if self.is_sampled() {
            Self::begin(name, SpanKind::Internal, &self.parent(), system_time(began)).end_at(ended);
        }
    }

    /// A part of this one that is over now; nobody looks at a clock where there is no span.
    pub fn past_until_now(&self, name: &'static str, began: Instant) {
        if self.is_sampled() {
            drop(Self::begin(name, SpanKind::Internal, &self.parent(), system_time(began)));
        }
    }

    fn begin(name: &'static str, kind: SpanKind, parent: &Parent, began: SystemTime) -> Self {
        let parent = parent.0.clone().unwrap_or_default();
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(began);
        let span = global::tracer(SCOPE).build_with_context(builder, &parent);
        Self(Some(parent.with_span(span)))
    }

    /// Whether somebody will see it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        is_sampled(self.0.as_ref())
    }

    /// For those that are a part of this one.
    #[must_use]
    pub fn parent(&self) -> Parent {
        Parent(self.0.clone())
    }

    /// Says something about it; what, is asked only where there is a span.
    pub fn set<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value()));
        }
    }

    /// Says that what it is about failed, and how: one of few names.
    pub fn fail(&self, how: &'static str) {
        if let Some(context) = &self.0 {
            let span = context.span();
            span.set_attribute(KeyValue::new("error.type", how));
            span.set_status(Status::error(how));
        }
    }

    /// Says that it has to do with another span, of its own trace or of another.
    pub fn link(&self, other: &Parent) {
        if let (Some(context), Some(other)) = (&self.0, other.span_context()) {
            context.span().add_link(other, Vec::new());
        }
    }

    /// Ends it then, not now.
    pub fn end_at(self, ended: Instant) {
        if let Some(context) = &self.0 {
            context.span().end_with_timestamp(system_time(ended));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

fn is_sampled(context: Option<&Context>) -> bool {
    context.is_some_and(|context| context.span().span_context().is_sampled())
}

/// The time of day at an instant of the past.
fn system_time(instant: Instant) -> SystemTime {
    let ago: Duration = instant.elapsed();
    let now = SystemTime::now();
    now.checked_sub(ago).unwrap_or(now)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        // a propagator's keys and values are those of headers
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
