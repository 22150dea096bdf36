//! The checker against evidence of the real ledger, honest and not.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

#[allow(dead_code, reason = "shared with the ledger's own tests")]
#[path = "../../../ledger/tests/suite/history.rs"]
mod history;
#[allow(dead_code, reason = "shared with the ledger's own tests")]
#[path = "../../../ledger/tests/suite/support.rs"]
mod support;

#[allow(dead_code, reason = "shared with the ledger's own tests")]
#[path = "../../../ledger/tests/suite/model.rs"]
mod model;

mod attested;
mod fixture;
mod honest;
mod liar;
mod lies;
#[allow(dead_code, reason = "shared with the prover's tests")]
mod scene;
mod table;
