//! A collector of spans in this process: what a deployment has between its processes and its trace store.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A span, and the service that it came from.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) service: String,
    pub(crate) span: Span,
}

impl Received {
    pub(crate) fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.span.attributes, key)
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::BoolValue(value) => Some(value.to_string()),
        Value::IntValue(value) => Some(value.to_string()),
        other @ (Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_)) => Some(format!("{other:?}")),
    }
}

/// What came in so far. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collector {
    received: Arc<Mutex<Vec<Received>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = attribute(&attributes, "service.name").unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let received = spans.map(|span| Received { service: service.clone(), span });
            self.received.lock().unwrap().extend(received);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens, on a free port.
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        drop(tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener))));
        (collector, address)
    }

    /// The spans of a trace that came in so far, in the order in which they began.
    pub(crate) fn trace(&self, trace: &[u8]) -> Trace {
        let received = self.received.lock().unwrap();
        let mut spans: Vec<Received> = received.iter().filter(|it| it.span.trace_id == trace).cloned().collect();
        spans.sort_by_key(|received| received.span.start_time_unix_nano);
        Trace { spans }
    }
}

/// One trace.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) spans: Vec<Received>,
}

impl Trace {
    pub(crate) fn named(&self, name: &str) -> Vec<&Received> {
        self.spans.iter().filter(|received| received.span.name == name).collect()
    }

    pub(crate) fn parent(&self, of: &Received) -> Option<&Received> {
        self.spans.iter().find(|received| received.span.span_id == of.span.parent_span_id)
    }

    /// The spans that are a part of none that came in.
    pub(crate) fn roots(&self) -> Vec<&str> {
        let roots = self.spans.iter().filter(|received| self.parent(received).is_none());
        roots.map(|received| received.span.name.as_str()).collect()
    }

    /// The trace as a tree: name, service, when it began, how long it took.
    pub(crate) fn tree(&self) -> String {
        let mut children: BTreeMap<&[u8], Vec<&Received>> = BTreeMap::new();
        for received in &self.spans {
            let parent = self.parent(received).map_or(&[][..], |parent| &parent.span.span_id);
            children.entry(parent).or_default().push(received);
        }
        let begun = self.spans.first().map_or(0, |first| first.span.start_time_unix_nano);
        let mut tree = String::new();
        write_below(&children, &[], 0, begun, &mut tree);
        tree
    }
}

fn write_below(children: &BTreeMap<&[u8], Vec<&Received>>, parent: &[u8], depth: usize, begun: u64, tree: &mut String) {
    for received in children.get(parent).into_iter().flatten() {
        let span = &received.span;
        let millis = |nanos: u64| format!("{}.{:03}", nanos / 1_000_000, nanos / 1_000 % 1_000);
        let kind = match span.kind() {
            SpanKind::Client => ", client",
            SpanKind::Server => ", server",
            SpanKind::Unspecified | SpanKind::Internal | SpanKind::Producer | SpanKind::Consumer => "",
        };
        let name = format!("{}{} ({}{kind})", "  ".repeat(depth), span.name, received.service);
        let (start, took) = (span.start_time_unix_nano - begun, span.end_time_unix_nano - span.start_time_unix_nano);
        let links = if span.links.is_empty() { String::new() } else { format!("  links: {}", span.links.len()) };
        writeln!(tree, "{name:<52} {:>10} {:>10}{links}", millis(start), millis(took)).unwrap();
        write_below(children, &span.span_id, depth + 1, begun, tree);
    }
}
