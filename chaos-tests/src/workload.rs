//! What clients submit: they trade, race each other for positions, group, command, and sign falsely.

mod market;
mod trade;

use bytes::Bytes;
use client::SignedTransaction;
use ledger::Transaction;

pub use market::Market;
pub use trade::Kind;

/// Members of a submission as the client library takes them.
pub(crate) fn signed(members: &[Transaction]) -> Vec<SignedTransaction> {
    decoded(&members.iter().map(|member| Bytes::from(member.encode())).collect::<Vec<_>>())
}

/// The same of their bytes.
///
/// # Panics
/// Where they are not canonical.
pub(crate) fn decoded(members: &[Bytes]) -> Vec<SignedTransaction> {
    let decode = |bytes: &Bytes| SignedTransaction::decode(bytes.clone());
    members.iter().map(decode).collect::<Result<_, _>>().expect("what the market makes is canonical")
}
