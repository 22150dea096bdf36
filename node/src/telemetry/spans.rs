//! Sending spans: by OTLP over gRPC, where the environment names an endpoint, and never in anybody's way.
//!
//! A span that ends is put into a queue, which a thread of its own sends in batches; a full queue drops it. Everything is
//! set by OpenTelemetry's own environment variables (docs/observability.md). Deliberately absent: other protocols, and
//! metrics or logs by OTLP; those have their own ways out.

use std::env;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use meters::Counter;
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};

/// How long what is still to be sent may take when the process ends.
const SENDING_PATIENCE: Duration = Duration::from_secs(2);
/// Spans that wait or are being sent, where the environment does not say how many: OpenTelemetry's own default.
const QUEUED_MAX_DEFAULT: usize = 2_048;
/// Says how many else.
const QUEUED_MAX_VARIABLE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";

static SENDING: OnceLock<Sending> = OnceLock::new();

#[derive(Debug)]
struct Sending {
    provider: SdkTracerProvider,
    fates: Arc<Fates>,
}

/// What became of spans.
#[derive(Debug, Default)]
struct Fates {
    /// They wait or are being sent.
    queued: AtomicUsize,
    sent: Counter,
    failed: Counter,
    dropped: Counter,
}

/// What became of the spans that ended in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// They wait or are being sent.
    pub queued: usize,
    /// The collector took them.
    pub sent: u64,
    /// Sending them failed; they are gone.
    pub failed: u64,
    /// There was no room for them.
    pub dropped: u64,
}

/// What became of the spans of this process so far; nothing but zeros where traces are off.
#[must_use]
pub fn span_counts() -> SpanCounts {
    let Some(Sending { fates, .. }) = SENDING.get() else { return SpanCounts::default() };
    SpanCounts {
        queued: fates.queued.load(Ordering::Relaxed),
        sent: fates.sent.get(),
        failed: fates.failed.get(),
        dropped: fates.dropped.get(),
    }
}

/// A variable's value; an empty one is none.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Sends spans from now on where the environment names an endpoint for them; else there are none. Call it on the runtime,
/// once per process.
pub fn init_traces(role: &str) {
    let is = |name: &str, value: &str| variable(name).is_some_and(|found| found.eq_ignore_ascii_case(value));
    let endpoint = variable(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT).or_else(|| variable(OTEL_EXPORTER_OTLP_ENDPOINT));
    let Some(endpoint) = endpoint else { return };
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return;
    }
    let protocol = variable(OTEL_EXPORTER_OTLP_TRACES_PROTOCOL).or_else(|| variable(OTEL_EXPORTER_OTLP_PROTOCOL));
    if let Some(protocol) = protocol.filter(|protocol| protocol != "grpc") {
        return tracing::warn!(protocol, endpoint, "there are no traces: they are sent by the protocol grpc only");
    }
    let exporter = match opentelemetry_otlp::SpanExporter::builder().with_tonic().build() {
        Ok(exporter) => exporter,
        Err(fault) => return tracing::warn!(%fault, endpoint, "there are no traces"),
    };
    let fates = Arc::new(Fates::default());
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(role))
        .with_span_processor(Bounded::new(exporter, &fates))
        .build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_tracer_provider(provider.clone());
    if SENDING.set(Sending { provider, fates }).is_ok() {
        traces::turn_on();
        tracing::info!(endpoint, "traces are sent");
    }
}

/// What all spans of this process come from; the environment may say more, or name the service differently.
fn resource(role: &str) -> Resource {
    let resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())));
    let is_named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| attributes.contains("service.name="));
    let resource = if is_named { resource } else { resource.with_service_name(format!("seriatim-{role}")) };
    resource.build()
}

/// Sends the spans that are still queued, for a while. Blocks while the runtime works for it: call it on a thread of its own,
/// before the runtime ends.
pub fn shut_down_traces() {
    if let Some(Sending { provider, .. }) = SENDING.get()
        && let Err(fault) = provider.shutdown_with_timeout(SENDING_PATIENCE)
    {
        tracing::warn!(%fault, "the last spans may be missing");
    }
}

/// OpenTelemetry's queue and its thread, with a count of what is dropped: what it drops itself it tells nobody. So it is
/// never given more than it has room for.
#[derive(Debug)]
struct Bounded {
    queue: BatchSpanProcessor,
    queued_max: usize,
    ended: AtomicBool,
    fates: Arc<Fates>,
}

impl Bounded {
    fn new(exporter: opentelemetry_otlp::SpanExporter, fates: &Arc<Fates>) -> Self {
        let queued_max = variable(QUEUED_MAX_VARIABLE)
            .and_then(|value| value.parse().ok())
            .filter(|most| *most > 0)
            .unwrap_or(QUEUED_MAX_DEFAULT);
        let exporter = Counted { exporter, fates: Arc::clone(fates) };
        let config = BatchConfigBuilder::default().with_max_queue_size(queued_max).build();
        let queue = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        Self { queue, queued_max, ended: AtomicBool::new(false), fates: Arc::clone(fates) }
    }

    fn has_room(&self) -> bool {
        let one_more = |queued: usize| (queued < self.queued_max).then_some(queued + 1);
        !self.ended.load(Ordering::Relaxed)
            && self.fates.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.has_room() {
            self.queue.on_end(span);
        } else {
            self.fates.dropped.add(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.ended.store(true, Ordering::Relaxed);
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// The exporter, which makes room once it is done with spans.
#[derive(Debug)]
struct Counted {
    exporter: opentelemetry_otlp::SpanExporter,
    fates: Arc<Fates>,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.exporter.export(batch).await;
        self.fates.queued.fetch_sub(count, Ordering::Relaxed);
        let fate = if sent.is_ok() { &self.fates.sent } else { &self.fates.failed };
        fate.add(u64::try_from(count).unwrap_or(u64::MAX));
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
