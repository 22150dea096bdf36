use bytes::Bytes;
use ledger::Rejection;
use ledger::certificate::{Attested, VerdictBitmap};
use ledger::check::LedgerIdentity;
use ledger::identifier::BundleDigest;
use validator::message::{Announcement, AnnouncementFault, MessageFault, ValidateReply, ValidateRequest};

use crate::support::{address, identity, key};

fn reply(verdicts: &[bool], rejected: &[u32]) -> ValidateReply {
    let attested =
        Attested { bundle: BundleDigest::from_bytes([3; 32]), verdicts: VerdictBitmap::of(verdicts), epoch: 5 };
    let rejections = rejected.iter().map(|index| (*index, Rejection::Malformed {})).collect();
    ValidateReply { certificate: attested.certify(&key(1)), rejections }
}

#[test]
fn the_wire_forms_do_not_change() {
    let request = ValidateRequest { epoch: 0x0102, bundle: Bytes::from_static(b"\xaa\xbb") };
    assert_eq!(hex::encode(request.encode()), "010201000000000000aabb");
    let reply = hex::encode(reply(&[true, false, true], &[1]).encode());
    assert!(reply.starts_with(&format!("01{}{}0300000001000000050500000000000000", key(1).party(), "03".repeat(32))));
    assert!(reply.ends_with("01000000010000006400"));
    let announcement = hex::encode(Announcement::new(&identity(), &address(1), 0x0304, &key(1)).encode());
    let name = hex::encode("validator-1:7000");
    let fields = format!("01{}000010000000{name}{}0403000000000000", identity().cluster, key(1).party());
    assert!(announcement.starts_with(&fields), "{announcement}");
    assert_eq!(announcement.len(), fields.len() + 128);
}

#[test]
fn messages_round_trip() {
    let request = ValidateRequest { epoch: 7, bundle: Bytes::from_static(b"bundle") };
    assert_eq!(ValidateRequest::decode(&request.encode()).unwrap(), request);
    let reply = reply(&[true, false], &[1]);
    assert_eq!(ValidateReply::decode(&reply.encode()).unwrap(), reply);
    let announcement = Announcement::new(&identity(), &address(1), 1, &key(1));
    assert_eq!(Announcement::decode(&announcement.encode(), &identity()).unwrap(), announcement);
}

#[test]
fn doubtful_messages_are_refused() {
    assert!(matches!(ValidateRequest::decode(&Bytes::new()), Err(MessageFault::Empty)));
    assert!(matches!(ValidateRequest::decode(&Bytes::from_static(&[2, 0])), Err(MessageFault::Version(2))));
    assert!(matches!(ValidateRequest::decode(&Bytes::from_static(&[1, 0])), Err(MessageFault::Malformed(_))));
    let mut bytes = reply(&[true], &[]).encode().to_vec();
    bytes.push(0);
    assert!(matches!(ValidateReply::decode(&bytes), Err(MessageFault::Malformed(_))));
}

#[test]
fn reasons_must_match_the_bitmap_exactly() {
    let rows: [(&[bool], &[u32], bool); 8] = [
        (&[true, true], &[], true),
        (&[true, false], &[1], true),
        (&[false, false], &[0, 1], true),
        (&[true, false], &[], false),
        (&[true, false], &[0], false),
        (&[true, false], &[1, 1], false),
        (&[false, false], &[1, 0], false),
        (&[true, true], &[2], false),
    ];
    for (verdicts, rejected, consistent) in rows {
        assert_eq!(reply(verdicts, rejected).is_consistent(), consistent, "{verdicts:?} {rejected:?}");
    }
}

#[test]
fn an_announcement_is_believed_only_of_its_key_and_for_its_ledger() {
    let bytes = Announcement::new(&identity(), &address(1), 1, &key(1)).encode().to_vec();
    for place in 1..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert!(Announcement::decode(&changed, &identity()).is_err(), "byte {place}");
    }
    let other = LedgerIdentity { group: 1, ..identity() };
    assert!(matches!(Announcement::decode(&bytes, &other), Err(AnnouncementFault::OtherLedger)));
    let nowhere = Announcement::new(&identity(), &seams::Address::new(""), 1, &key(1)).encode();
    assert!(matches!(Announcement::decode(&nowhere, &identity()), Err(AnnouncementFault::Address)));
}
