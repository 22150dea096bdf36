//! The canonical encoding and the identifiers, pinned to bytes. A difference here is a change of the protocol: what
//! is in the log, what was signed and what auditors hold stops fitting.

use std::fmt::Debug;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::certificate::{Attested, Certificate, ValidatorSet, VerdictBitmap};
use ledger::digest::UnspentDigest;
use ledger::entry::{CertifiedBundle, Configuration, ConfigurationChange, LogEntry, LogPayload};
use ledger::identifier::{BundleDigest, canonical_bytes};
use ledger::protocol::Protocol;
use ledger::rejection::{Counted, Part};
use ledger::transaction::{ReceivedTransaction, SeenHead};
use ledger::{
    Allocation, AssetType, AtomicGroupId, Body, ClusterId, Command, Contract, Grant, Hash, Head, Input, Intent, Leg,
    Limits, LogTime, Movements, Origin, Outcome, OutcomeRecord, OutputId, Party, Position, Quantity, Receipt,
    Reference, Rejection, Sequence, Signature, SignedHead, SupplyChange, Terms, TermsAction, TermsEntry, Transaction,
    TransactionId, Unlock,
};

use crate::support::key;

/// The pinned lines, `name hex` each; in the order of [`encodings`].
const GOLDEN: &str = include_str!("golden.txt");

fn party(number: u8) -> Party {
    Party::from_bytes([number; 32])
}

fn usd() -> AssetType {
    AssetType { issuer: party(1), symbol: "USD".parse().unwrap() }
}

fn position() -> Contract {
    Contract::Position(Position { asset: usd(), owner: party(2), quantity: Quantity::new(-2) })
}

fn allocation() -> Contract {
    Contract::Allocation(Allocation {
        terms: terms().id(),
        leg: 1,
        asset: usd(),
        quantity: Quantity::new(258),
        payer: party(2),
        return_to: party(3),
        expires_at: LogTime::from_unix_millis(77),
    })
}

fn grant() -> Contract {
    Contract::Grant(Grant { asset: usd(), owner: party(2) })
}

fn terms() -> Terms {
    let leg = |payer, receiver| Leg {
        payer: party(payer),
        receiver: party(receiver),
        asset: usd(),
        quantity: Quantity::new(5),
    };
    Terms { legs: vec![leg(2, 3), leg(3, 2)], nonce: 9 }
}

fn origin() -> Origin {
    Origin { transaction: TransactionId::from_bytes([4; 32]), index: 515 }
}

fn movements() -> Movements {
    Movements {
        inputs: vec![
            Input { origin: origin(), contract: position(), unlock: Unlock::Owner },
            Input { origin: origin(), contract: allocation(), unlock: Unlock::Expire },
        ],
        references: vec![Reference { origin: origin(), contract: grant() }],
        outputs: vec![position(), grant(), allocation()],
        supply: vec![SupplyChange { asset: usd(), quantity: Quantity::new(i128::MIN) }],
        terms: vec![TermsEntry { action: TermsAction::Reject, terms: terms() }],
    }
}

fn body(intent: Intent) -> Body {
    Body {
        cluster: ClusterId::of_name("golden"),
        group: 3,
        valid_until: LogTime::from_unix_millis(1_000),
        nonce: 7,
        atomic: None,
        seen_head: None,
        signers: vec![party(1), party(2)],
        intent,
    }
}

fn member() -> Body {
    let seen_head = Some(SeenHead { size: Sequence::new(12), log_root: Hash::from_bytes([6; 32]) });
    let plain = Body { seen_head, ..body(Intent::Command(Command::Settle { terms: terms() })) };
    Body { atomic: Some(AtomicGroupId::of(&[plain.id()])), ..plain }
}

fn transfer() -> Body {
    let command = Command::Transfer { asset: usd(), from: party(2), to: party(3), quantity: Quantity::new(5) };
    body(Intent::Command(command))
}

fn transaction() -> Transaction {
    Transaction { body: body(Intent::Movements(movements())), signatures: vec![Signature::from_bytes([8; 64]); 2] }
}

fn bundle() -> Vec<u8> {
    let mut builder = BundleBuilder::new();
    builder.push(Sequence::new(5), &[vec![1_u8, 2, 3]]);
    builder.push(Sequence::new(6), &[vec![4_u8], vec![]]);
    builder.finish()
}

fn certificate() -> Certificate {
    let verdicts = VerdictBitmap::of(&[true, false, true, true, false, false, false, true, true, false, true]);
    Attested { bundle: BundleDigest::of(&bundle()), verdicts, epoch: 2 }.certify(&key("golden validator"))
}

fn head() -> Head {
    let mut unspent = UnspentDigest::default();
    unspent.insert(&OutputId::from_bytes([0x81; 32]));
    Head {
        cluster: ClusterId::of_name("golden"),
        group: 3,
        batch: 4,
        size: Sequence::new(1),
        log_root: record().leaf(),
        unspent,
        log_time: LogTime::from_unix_millis(1_000),
        epoch: 2,
    }
}

fn record() -> OutcomeRecord {
    OutcomeRecord {
        sequence: Sequence::default(),
        transaction: transaction().id(),
        stamp: Sequence::new(0),
        log_time: LogTime::from_unix_millis(1_000),
        outcome: Outcome::Committed { chosen: vec![OutputId::from_bytes([5; 32])] },
    }
}

pub(crate) fn receipt() -> Receipt {
    let head = head();
    let signatures = vec![head.sign(&key("golden node"))];
    Receipt { record: record(), inclusion: vec![], head: SignedHead { head, signatures } }
}

pub(crate) fn entries() -> Vec<LogEntry> {
    let log_time = LogTime::from_unix_millis(1_000);
    let payloads = [
        LogPayload::Bundle(CertifiedBundle { bundle: bundle(), certificates: vec![certificate()] }),
        LogPayload::Configure(ConfigurationChange::AddValidators(vec![party(1), party(2)])),
        LogPayload::Configure(ConfigurationChange::RemoveValidators(vec![party(1)])),
        LogPayload::Configure(ConfigurationChange::RequireCertificates(2)),
        LogPayload::Configure(ConfigurationChange::RegisterNode { node: 3, key: party(4) }),
        LogPayload::Configure(ConfigurationChange::KeepHistory(Some(86_400_000))),
        LogPayload::Configure(ConfigurationChange::RaiseProtocol(Protocol::NEWEST)),
    ];
    payloads.into_iter().map(|payload| LogEntry { log_time, payload }).collect()
}

pub(crate) fn transactions() -> Vec<Transaction> {
    let command = |body| Transaction { body, signatures: vec![] };
    vec![transaction(), command(member()), command(transfer())]
}

pub(crate) fn bundles() -> Vec<Vec<u8>> {
    vec![bundle(), BundleBuilder::new().finish()]
}

pub(crate) fn certificates() -> Vec<Certificate> {
    vec![certificate()]
}

/// One of every reason, with evidence.
pub(crate) fn rejections() -> Vec<Rejection> {
    let (asset, output, winner) = (usd(), OutputId::from_bytes([5; 32]), TransactionId::from_bytes([6; 32]));
    let (log_time, terms, party) = (LogTime::from_unix_millis(9), terms().id(), party(2));
    let (input, reference, part, index) = (1, 2, Part::Supply, 3);
    let (one, two) = (Quantity::new(1), Quantity::new(2));
    vec![
        Rejection::Malformed {},
        Rejection::TooLarge { bytes: 2, bytes_max: 1 },
        Rejection::WrongCluster {},
        Rejection::WrongGroup { group: 1 },
        Rejection::TooMany { counted: Counted::GroupMembers, count: 2, count_max: 1 },
        Rejection::Empty {},
        Rejection::SignersUnsorted { signer: 1 },
        Rejection::SignatureCount { signatures: 1, signers: 2 },
        Rejection::DuplicateInput { output },
        Rejection::QuantityOutOfRange { part: Part::Output, index },
        Rejection::TermsMalformed { terms },
        Rejection::DuplicateTerms { terms },
        Rejection::WrongUnlock { input },
        Rejection::WrongReference { reference },
        Rejection::AllocationMismatch { part: Part::Input, index },
        Rejection::TermsUnused { terms },
        Rejection::MissingSigner { party, part, index },
        Rejection::LegFundedTwice { terms, leg: 1 },
        Rejection::LegUnfunded { terms, leg: 1 },
        Rejection::Underpaid { party, asset, due: two, paid: one },
        Rejection::Overflow { asset },
        Rejection::NotConserved { asset, inflow: one, outflow: two },
        Rejection::GrantMissing { output: 1 },
        Rejection::SupplyMalformed { index },
        Rejection::CommandMalformed {},
        Rejection::GroupIncomplete {},
        Rejection::SignatureInvalid { signer: 1 },
        Rejection::Expired { log_time },
        Rejection::ValidityTooLong { latest: log_time },
        Rejection::HeadUnknown { size: Sequence::new(1) },
        Rejection::NotYetExpired { input, expires_at: log_time },
        Rejection::AllocationExpired { input, expires_at: log_time },
        Rejection::InputUnknown { input, output },
        Rejection::InputSpent { input, output, winner },
        Rejection::ReferenceUnknown { reference, output },
        Rejection::ReferenceSpent { reference, output, winner },
        Rejection::GroupMemberRejected { member: 1, code: 206 },
        Rejection::InsufficientFunds { party, asset, available: one },
        Rejection::TooFragmented { party, asset },
        Rejection::GroupMemberSequenced { member: 2 },
    ]
}

/// A line of the golden file; on the way the value is decoded again.
fn line<T: BorshSerialize + BorshDeserialize + PartialEq + Debug>(name: &str, value: &T) -> String {
    let bytes = canonical_bytes(value);
    assert_eq!(&T::try_from_slice(&bytes).unwrap(), value, "{name}");
    format!("{name} {}", hex::encode(bytes))
}

fn encodings() -> Vec<String> {
    let mut lines = vec![
        line("quantity", &Quantity::new(-2)),
        line("log-time", &LogTime::from_unix_millis(258)),
        line("sequence", &Sequence::new(258)),
        line("symbol", &usd().symbol),
        line("asset", &usd()),
        line("position", &position()),
        line("grant", &grant()),
        line("allocation", &allocation()),
        line("terms", &terms()),
        line("origin", &origin()),
        line("supply-change", &movements().supply[0]),
        line("terms-entry", &movements().terms[0]),
        line("reference", &movements().references[0]),
    ];
    for unlock in [Unlock::Owner, Unlock::Settle, Unlock::Withdraw, Unlock::Reject, Unlock::Expire] {
        lines.push(line("unlock", &unlock));
    }
    for action in [TermsAction::Propose, TermsAction::Settle, TermsAction::Reject] {
        lines.push(line("terms-action", &action));
    }
    for counted in [
        Counted::Signers,
        Counted::Inputs,
        Counted::References,
        Counted::Outputs,
        Counted::SupplyChanges,
        Counted::Terms,
        Counted::Legs,
        Counted::GroupMembers,
    ] {
        lines.push(line("counted", &counted));
    }
    for part in [Part::Input, Part::Output, Part::Supply, Part::Terms, Part::Command] {
        lines.push(line("part", &part));
    }
    lines.extend(transactions().iter().map(|transaction| line("transaction", transaction)));
    lines.extend(rejections().iter().map(|reason| line("rejection", reason)));
    lines.push(line("outcome-committed", &record().outcome));
    lines.push(line(
        "outcome-rejected",
        &Outcome::Rejected(Rejection::GroupMemberRejected { member: 1, code: 206 }),
    ));
    lines.push(line("record", &record()));
    lines.push(line("certificate", &certificate()));
    lines.push(line("validator-set", &ValidatorSet { epoch: 1, required: 2, keys: [party(2), party(1)].into() }));
    lines.push(line("head", &head()));
    lines.push(line("receipt", &receipt()));
    lines.extend(entries().iter().map(|entry| format!("log-entry {}", hex::encode(entry.encode()))));
    lines.push(format!("bundle {}", hex::encode(bundle())));
    lines
}

fn identifiers() -> Vec<String> {
    vec![
        format!("id-cluster {}", ClusterId::of_name("golden")),
        format!("id-terms {}", terms().id()),
        format!("id-output {}", origin().output_id(&position())),
        format!("id-transaction {}", transaction().id()),
        format!("id-command {}", transfer().id()),
        format!("id-member {}", member().id()),
        format!("id-group {}", member().atomic.unwrap()),
        format!("id-bundle {}", BundleDigest::of(&bundle())),
        format!("leaf {}", record().leaf()),
        format!("head-hash {}", head().hash()),
        format!("key {}", key("golden node").party()),
        format!("signature {}", hex::encode(key("golden node").sign_transaction(&transaction().body).as_bytes())),
    ]
}

#[test]
fn encodings_and_identifiers_are_fixed() {
    let found = [encodings(), identifiers()].concat();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/golden.txt");
        std::fs::write(path, found.join("\n") + "\n").unwrap();
    }
    let pinned: Vec<&str> = GOLDEN.lines().collect();
    for (found, pinned) in found.iter().zip(&pinned) {
        assert_eq!(found, pinned);
    }
    assert_eq!(found.len(), pinned.len());
}

#[test]
fn the_encoding_of_a_position_is_what_the_documentation_says() {
    // variant 0, issuer, length and text of the symbol, owner, 16 bytes of two's complement, all little-endian
    let expected = format!("00{}03555344{}fe{}", "01".repeat(32), "02".repeat(32), "ff".repeat(15));
    assert_eq!(hex::encode(canonical_bytes(&position())), expected);
}

#[test]
fn every_reason_is_encoded_by_its_number() {
    for reason in rejections() {
        assert!(canonical_bytes(&reason).starts_with(&reason.code().to_le_bytes()), "{reason:?}");
    }
    let codes: Vec<u16> = rejections().iter().map(Rejection::code).collect();
    assert_eq!(codes, ledger::rejection::CATALOGUE.iter().map(|entry| entry.code).collect::<Vec<_>>());
}

#[test]
fn changing_signatures_never_changes_an_identifier() {
    let signed = transaction();
    let forged = Transaction { signatures: vec![Signature::from_bytes([9; 64])], ..signed.clone() };
    assert_eq!(signed.id(), forged.id());
    let received = |transaction: &Transaction| ReceivedTransaction::decode(&transaction.encode()).unwrap();
    assert_eq!(received(&signed).id(), received(&forged).id());
    assert_eq!(received(&signed).id(), signed.id());
    assert_ne!(received(&signed), received(&forged));
}

#[test]
fn every_field_of_a_body_but_its_group_changes_its_identifier() {
    let plain = body(Intent::Movements(movements()));
    let changed = [
        Body { cluster: ClusterId::of_name("other"), ..plain.clone() },
        Body { group: 4, ..plain.clone() },
        Body { valid_until: LogTime::from_unix_millis(1_001), ..plain.clone() },
        Body { nonce: 8, ..plain.clone() },
        Body { seen_head: member().seen_head, ..plain.clone() },
        Body { signers: vec![party(1)], ..plain.clone() },
        transfer(),
    ];
    for (position, other) in changed.iter().enumerate() {
        assert_ne!(other.id(), plain.id(), "{position}");
    }
    let grouped = Body { atomic: Some(AtomicGroupId::of(&[plain.id()])), ..plain.clone() };
    assert_eq!(grouped.id(), plain.id());
    let unsigned = Transaction { body: grouped.clone(), signatures: Vec::new() };
    assert_eq!(ReceivedTransaction::decode(&unsigned.encode()).unwrap().id(), plain.id());
    assert_ne!(grouped.signed_message(), plain.signed_message(), "a signature for the group is none outside");
}

#[test]
fn an_output_is_named_by_its_creator_its_index_and_its_content() {
    let name = origin().output_id(&position());
    assert_ne!(name, origin().output_id(&grant()));
    assert_ne!(name, Origin { index: 516, ..origin() }.output_id(&position()));
    assert_ne!(name, Origin { transaction: transfer().id(), ..origin() }.output_id(&position()));
}

#[test]
fn the_verdict_bitmap_keeps_every_verdict_whatever_the_length() {
    for length in 0..40_usize {
        let verdicts: Vec<bool> = (0..length).map(|index| index % 3 == 0 || index % 7 == 2).collect();
        let bitmap = VerdictBitmap::of(&verdicts);
        let read: Vec<bool> = (0..length).map(|index| bitmap.passed(index).unwrap()).collect();
        assert_eq!(read, verdicts);
        assert_eq!((bitmap.len(), bitmap.is_empty(), bitmap.passed(length)), (length, length == 0, None));
        assert_eq!(bitmap.none_passed(), !verdicts.contains(&true));
        assert_eq!(VerdictBitmap::try_from_slice(&canonical_bytes(&bitmap)).unwrap(), bitmap);
    }
}

#[test]
fn a_verdict_bitmap_of_the_wrong_length_or_with_bits_beyond_its_end_does_not_decode() {
    let encoded = |transactions: u32, bits: &[u8]| canonical_bytes(&(transactions, bits.to_vec()));
    assert!(VerdictBitmap::try_from_slice(&encoded(9, &[0xff, 0x01])).is_ok());
    for (transactions, bits) in [(9, vec![0xff]), (9, vec![0xff, 0x01, 0]), (9, vec![0xff, 0x02]), (0, vec![0])] {
        assert!(VerdictBitmap::try_from_slice(&encoded(transactions, &bits)).is_err(), "{transactions} {bits:?}");
    }
}

#[test]
fn a_set_out_of_order_or_with_repetitions_does_not_decode() {
    let set = |keys: Vec<Party>| ValidatorSet::try_from_slice(&canonical_bytes(&(1_u64, 1_u16, keys)));
    assert!(set(vec![party(1), party(2)]).is_ok());
    assert!(set(vec![party(2), party(1)]).is_err());
    assert!(set(vec![party(1), party(1)]).is_err());
}

#[test]
fn the_configuration_grows_by_changes_that_alter_something() {
    let change = |configuration: &Configuration, change| configuration.after(&change);
    let one = change(&Configuration::genesis(), ConfigurationChange::RegisterNode { node: 1, key: party(1) }).unwrap();
    assert_eq!(one.validators.epoch, 1);
    assert_eq!(change(&one, ConfigurationChange::RegisterNode { node: 1, key: party(1) }), None);
    assert_eq!(change(&one, ConfigurationChange::RegisterNode { node: 1, key: party(2) }), None);
    assert_eq!(change(&one, ConfigurationChange::RequireCertificates(2)), None);
    assert_eq!(change(&one, ConfigurationChange::RequireCertificates(0)), None);
    assert_eq!(change(&one, ConfigurationChange::RemoveValidators(vec![party(1)])), None);
    let two = change(&one, ConfigurationChange::AddValidators(vec![party(2)])).unwrap();
    assert_eq!(change(&two, ConfigurationChange::RequireCertificates(2)).unwrap().validators.required, 2);
}

#[test]
fn the_version_is_raised_by_one_and_a_program_that_does_not_know_it_reads_no_entry_of_it() {
    let raise = |version: Protocol| ConfigurationChange::RaiseProtocol(version);
    let genesis = Configuration::genesis();
    let second = Protocol::FIRST.next().unwrap();
    let raised = genesis.after(&raise(second)).unwrap();
    assert_eq!((raised.protocol, raised.validators.epoch), (second, 1));
    assert_eq!(raised.after(&raise(second)), None, "it is in force already");
    assert_eq!(genesis.after(&raise(second.next().unwrap())), None, "one version after the other");
    assert_eq!(raised.after(&raise(Protocol::FIRST)), None, "there is no way back");

    let log_time = LogTime::from_unix_millis(1_000);
    let entry = LogEntry { log_time, payload: LogPayload::Configure(raise(second)) };
    assert_eq!(LogEntry::decode(&entry.encode(), second).unwrap(), entry);
    let refused = LogEntry::decode(&entry.encode(), Protocol::FIRST).unwrap_err().to_string();
    assert_eq!(refused, "log entry of version 2; this program knows version 1");
    // nor is such an entry passed off as one of the version before, or an old one as new
    for mut bytes in [entry.encode(), entries()[0].encode()] {
        bytes[0] ^= 3;
        assert!(LogEntry::decode(&bytes, Protocol::NEWEST).is_err());
    }
}

#[test]
fn the_layout_of_a_bundle_is_what_was_put_into_it() {
    let bytes = bundle();
    let layout = BundleLayout::read(&bytes, &Limits::V1).unwrap();
    let members: Vec<&[u8]> = layout.members().iter().map(|range| &bytes[range.clone()]).collect();
    assert_eq!(members, [&[1_u8, 2, 3][..], &[4], &[]]);
    let submissions: Vec<_> = layout.submissions().iter().map(|one| (one.stamp.get(), one.members.clone())).collect();
    assert_eq!(submissions, [(5, 0..1), (6, 1..3)]);
}

#[test]
fn a_receipt_verifies_for_its_ledger_and_nodes_only() {
    let (receipt, cluster) = (receipt(), ClusterId::of_name("golden"));
    let node = key("golden node").party();
    assert_eq!(receipt.verify(&cluster, &[node], 1), Ok(()));
    assert_eq!(receipt.verify(&cluster, &[party(1), node, node], 1), Ok(()));
    assert!(receipt.verify(&cluster, &[node, node], 2).is_err());
    assert!(receipt.verify(&ClusterId::of_name("other"), &[node], 1).is_err());
    assert!(receipt.verify(&cluster, &[party(1)], 0).is_err());
    let mut other = receipt.clone();
    other.record.stamp = Sequence::new(1);
    assert!(other.verify(&cluster, &[node], 1).is_err());
    let mut unsigned = receipt;
    unsigned.head.head.epoch = 3;
    assert!(unsigned.verify(&cluster, &[node], 1).is_err());
}
