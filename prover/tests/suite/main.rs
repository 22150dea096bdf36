//! The prover against evidence of the real ledger, honest and not.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

#[allow(dead_code, reason = "shared with the ledger's own tests")]
#[path = "../../../ledger/tests/suite/history.rs"]
mod history;
#[allow(dead_code, reason = "shared with the ledger's own tests")]
#[path = "../../../ledger/tests/suite/support.rs"]
mod support;

#[allow(dead_code, reason = "shared with the checker's tests")]
#[path = "../../../checker/tests/suite/fixture.rs"]
mod fixture;

#[allow(dead_code, reason = "shared with the checker's tests")]
#[path = "../../../checker/tests/suite/liar.rs"]
mod liar;
#[allow(dead_code, reason = "shared with the ledger's own tests")]
#[path = "../../../ledger/tests/suite/model.rs"]
mod model;

#[allow(dead_code, reason = "shared with the checker's tests")]
#[path = "../../../checker/tests/suite/scene.rs"]
mod scene;

mod bounds;
mod exported;
mod honest;
mod lies;
mod pictures;
mod table;
