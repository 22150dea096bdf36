//! The network in production: opaque calls and streams as the gRPC service `Internal`.
//!
//! [`GrpcTransport`] is the calling side, [`InternalServer`] the called one; what lies between is tonic. Both know
//! bytes and [`seams::Method`] only. Nothing here repeats a call: who calls knows whether that is safe.

mod channels;
mod refusal;
mod server;
mod transport;

use seams::Method;
use traces::{Parent, Span, SpanKind};

pub use channels::Channels;
pub use server::InternalServer;
pub use transport::GrpcTransport;

/// Largest message between roles, in bytes. A snapshot piece or a log entry (17 MiB) fits with room for larger limits.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// HTTP/2 windows: several entries on their way over any distance, without one stream starving the others.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes of an HTTP/2 frame that servers take. Bundles travel in megabytes, and every frame costs its own reading;
/// a connection can make a server hold one unfinished frame.
pub(crate) const FRAME_BYTES_MAX: u32 = 256 * 1024;
/// The same for all streams of a connection together.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;

/// The span of a call that is a part of somebody's transaction. All calls are of one method of gRPC: the span is named for
/// what is asked.
fn span(method: Method, kind: SpanKind, trace: &Parent) -> Span {
    let span = match method {
        Method::Validate => Span::child("validate", kind, trace),
        Method::Forward => Span::child("forward", kind, trace),
        Method::RaftAppend
        | Method::RaftVote
        | Method::RaftSnapshotChunk
        | Method::RaftTransferLeader
        | Method::ReadIndex
        | Method::ExchangeHead
        | Method::AnnounceValidator
        | Method::Status => Span::default(),
    };
    span.set("rpc.system.name", || "grpc");
    span.set("rpc.method", || "seriatim.v1.Internal/Call");
    span
}
