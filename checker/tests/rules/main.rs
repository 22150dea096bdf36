//! The ledger's own rule tables, row by row, through the checker: every order-free reason is a rule here too, and what
//! each row does in the order is accepted.
//!
//! The tables run on [`support::TestLedger`], which is the ledger's with the checker at its side.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

#[allow(dead_code, reason = "shared with the checker's other tests")]
#[path = "../suite/fixture.rs"]
mod fixture;
#[allow(dead_code, reason = "shared with the ledger's own tests")]
#[path = "../../../ledger/tests/suite/history.rs"]
mod history;
#[allow(dead_code, reason = "shared with the ledger's own tests")]
#[path = "../../../ledger/tests/suite/scenario.rs"]
mod scenario;
mod support;

use scenario::Table;

const TABLES: [&str; 3] = [
    include_str!("../../../ledger/tests/suite/rules/order_free.txt"),
    include_str!("../../../ledger/tests/suite/rules/order_bound.txt"),
    include_str!("../../../ledger/tests/suite/rules/precedence.txt"),
];

#[test]
fn every_row_of_the_ledgers_tables_is_judged_alike() {
    for text in TABLES {
        let table = Table::parse(text);
        for row in &table.rows {
            let (differences, _) = table.run(row);
            assert_eq!(differences, Vec::<String>::new(), "{}", row.words);
        }
    }
    let seen = support::seen();
    assert!(seen.refused > 100, "{seen:?}");
    assert!(seen.accepted > 200, "{seen:?}");
}
