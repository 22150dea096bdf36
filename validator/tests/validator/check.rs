use bytes::Bytes;
use ledger::Limits;
use ledger::bundle::BundleLayout;
use ledger::parallel::Serial;
use ledger::rejection::Rejection;
use proptest::prelude::*;
use seams::{Inline, ThreadPool};
use validator::check::{Cores, validate_bundle, validate_in_slices};

use crate::support::{Kind, bundle, identity};

fn codes(submissions: &[Vec<Kind>]) -> Vec<Option<u16>> {
    let (bytes, layout) = bundle(submissions);
    let verdicts = validate_bundle(&bytes, &layout, &identity(), &Limits::V1, &Inline);
    verdicts.verdicts().iter().map(|verdict| verdict.as_ref().err().map(Rejection::code)).collect()
}

#[test]
fn every_member_has_its_own_reason() {
    use Kind::{FalseSignature, Garbage, Good, OtherCluster, Unsigned};
    let submissions =
        [vec![Good], vec![Garbage], vec![FalseSignature], vec![Unsigned], vec![OtherCluster], vec![Good, Good]];
    let (bytes, layout) = bundle(&submissions);
    let verdicts = validate_bundle(&bytes, &layout, &identity(), &Limits::V1, &Inline);
    let names: Vec<&str> =
        verdicts.verdicts().iter().map(|verdict| verdict.as_ref().err().map_or("", Rejection::name)).collect();
    assert_eq!(names, ["", "Malformed", "SignatureInvalid", "SignatureCount", "WrongCluster", "", ""]);
    let bitmap = verdicts.bitmap();
    let passed: Vec<_> = (0..bitmap.len()).filter(|index| bitmap.passed(*index) == Some(true)).collect();
    assert_eq!(passed, [0, 5, 6]);
    assert_eq!(verdicts.rejections().iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn a_group_with_a_malformed_member_falls_as_a_whole() {
    use Kind::{Garbage, Good};
    let (bytes, layout) = bundle(&[vec![Good], vec![Good, Garbage, Good, Garbage], vec![Good]]);
    let verdicts = validate_bundle(&bytes, &layout, &identity(), &Limits::V1, &Inline);
    let fallen = Err(Rejection::GroupMemberRejected { member: 1, code: 100 });
    let malformed = Err(Rejection::Malformed {});
    assert_eq!(verdicts.verdicts(), [Ok(()), fallen.clone(), malformed.clone(), fallen, malformed, Ok(())]);
}

#[test]
fn an_empty_bundle_has_no_verdicts() {
    assert_eq!(codes(&[]), []);
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        20 => Just(Kind::Good),
        2 => Just(Kind::FalseSignature),
        1 => Just(Kind::Unsigned),
        1 => Just(Kind::OtherCluster),
        1 => Just(Kind::Garbage),
    ]
}

/// The bundle's bytes with one byte changed somewhere, where that is still a bundle.
fn damaged(bytes: &Bytes, place: usize, mask: u8) -> Option<(Vec<u8>, BundleLayout)> {
    let mut bytes = bytes.to_vec();
    let place = place % bytes.len();
    bytes[place] ^= mask;
    let layout = BundleLayout::read(&bytes, &Limits::V1).ok()?;
    Some((bytes, layout))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_depend_on_the_bundle_alone(
        submissions in prop::collection::vec(prop::collection::vec(any_kind(), 1..5), 0..40),
        slice in 1_usize..100,
        place in any::<usize>(),
        mask in any::<u8>(),
    ) {
        let (bytes, layout) = bundle(&submissions);
        let (bytes, layout) = damaged(&bytes, place, mask).unwrap_or_else(|| (bytes.to_vec(), (*layout).clone()));
        let (identity, limits) = (identity(), Limits::V1);
        let expected = validate_in_slices(&bytes, &layout, &identity, &limits, &Serial, usize::MAX);
        prop_assert_eq!(expected.verdicts().len(), layout.members().len());
        for threads in [1, 2, 3, 8] {
            let pool = ThreadPool::new(threads).unwrap();
            prop_assert_eq!(&validate_bundle(&bytes, &layout, &identity, &limits, &pool), &expected);
            for slice in [1, 2, slice] {
                let found = validate_in_slices(&bytes, &layout, &identity, &limits, &Cores(&pool), slice);
                prop_assert_eq!(&found, &expected, "{} threads, slices of {}", threads, slice);
            }
        }
    }
}
