//! The generated messages, clients and servers of `proto/seriatim.proto`.

#[allow(
    missing_docs,
    clippy::as_conversions,
    clippy::allow_attributes_without_reason,
    clippy::doc_markdown,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    clippy::missing_errors_doc,
    unreachable_pub,
    reason = "generated"
)]
mod generated {
    tonic::include_proto!("seriatim.v1");
}

pub use generated::*;

/// The encoded `FileDescriptorSet` of these messages, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/seriatim.descriptors"));
