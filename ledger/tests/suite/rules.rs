//! The rules against their tables in `rules/`: every row is a scenario with its expected outcome.

use std::collections::BTreeSet;

use ledger::rejection::CATALOGUE;

use crate::scenario::Table;

const TABLES: [(&str, &str); 3] = [
    ("order_free.txt", include_str!("rules/order_free.txt")),
    ("order_bound.txt", include_str!("rules/order_bound.txt")),
    ("precedence.txt", include_str!("rules/precedence.txt")),
];

#[test]
fn every_row_of_the_tables_ends_as_it_says_and_every_reason_occurs() {
    let mut differences = Vec::new();
    let mut occurred = BTreeSet::new();
    for (file, text) in TABLES {
        let table = Table::parse(text);
        for row in &table.rows {
            let (found, reasons) = table.run(row);
            differences.extend(
                found.iter().map(|difference| format!("{file}, {}: {}\n    {difference}", row.heading, row.words)),
            );
            let names = reasons.iter().map(|reason| format!("{} {}", reason.code(), reason.name()));
            occurred.extend(names);
        }
    }
    assert!(differences.is_empty(), "\n{}\n", differences.join("\n"));
    let catalogue: BTreeSet<String> = CATALOGUE.iter().map(|entry| format!("{} {}", entry.code, entry.name)).collect();
    assert_eq!(catalogue.difference(&occurred).collect::<Vec<_>>(), Vec::<&String>::new(), "reasons without a row");
}

#[test]
fn every_rule_has_a_section_that_its_rows_reach() {
    let mut sections = BTreeSet::new();
    for (_, text) in &TABLES[..2] {
        let table = Table::parse(text);
        for row in &table.rows {
            let (_, reasons) = table.run(row);
            let reached = reasons.iter().any(|reason| row.heading == format!("{} {}", reason.code(), reason.name()));
            if reached {
                sections.insert(row.heading.clone());
            }
        }
    }
    let catalogue: BTreeSet<String> = CATALOGUE.iter().map(|entry| format!("{} {}", entry.code, entry.name)).collect();
    assert_eq!(sections, catalogue);
}

#[test]
fn the_catalogue_ascends_by_number_and_says_what_to_do() {
    assert!(CATALOGUE.is_sorted_by(|earlier, later| earlier.code < later.code));
    for entry in CATALOGUE {
        assert!((100..300).contains(&entry.code), "{entry:?}");
        assert!(entry.meaning.ends_with('.') && !entry.meaning.starts_with(' '), "{entry:?}");
        assert!(entry.advice.ends_with('.'), "{entry:?}");
    }
}
