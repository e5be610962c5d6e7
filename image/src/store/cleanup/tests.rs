//! The decision's promises, on random stores. In: images over few layers, so that many share. Out: none.
//! Never: touches a disk.

use super::*;
use proptest::prelude::*;

type Image = Candidate<u8, u8>;

fn rules(minimum_age_ms: u64, maximum_unused_ms: Option<u64>) -> CleanUpRules {
    CleanUpRules {
        high_percent: 85,
        low_percent: 80,
        min_free_bytes: 0,
        wanted_bytes: 0,
        minimum_age: Duration::from_millis(minimum_age_ms),
        maximum_unused: maximum_unused_ms.map(Duration::from_millis),
    }
}

fn image(name: u8, layers: &[u8], last_used_unix_ms: u64) -> Image {
    Candidate { name, layers: layers.to_vec(), last_used_unix_ms, in_use: false }
}

/// Bytes that are gone when these images are.
fn freed(images: &[Image], layers: &BTreeMap<u8, u64>, needed: &BTreeSet<u8>, gone: &[u8]) -> u64 {
    let stay: BTreeSet<u8> =
        images.iter().filter(|i| !gone.contains(&i.name)).flat_map(|i| i.layers.clone()).collect();
    layers
        .iter()
        .filter(|(layer, _)| !stay.contains(layer) && !needed.contains(layer))
        .map(|(_, bytes)| bytes)
        .sum()
}

#[test]
fn the_marks_are_those_of_df() {
    let rules = CleanUpRules { min_free_bytes: 50, ..rules(0, None) };
    let space = |used_bytes, available_bytes| Space { used_bytes, available_bytes };
    assert_eq!(rules.to_free(space(849, 151)), 0);
    assert_eq!(rules.to_free(space(850, 150)), 50);
    assert_eq!(rules.to_free(space(1000, 0)), 200);
    assert_eq!(rules.to_free(space(0, 0)), 50, "an empty file system has not what is to be kept free");
    let small = CleanUpRules { min_free_bytes: 400, ..rules.clone() };
    assert_eq!(small.to_free(space(700, 300)), 100, "beneath the mark, but too little is free");
    let waiting = CleanUpRules { wanted_bytes: 200, ..rules };
    assert_eq!((waiting.to_free(space(840, 160)), waiting.over_the_mark(space(840, 160))), (90, 0));
}

#[test]
fn the_oldest_go_first_and_no_more_than_needed() {
    let layers: BTreeMap<u8, u64> = [(1, 10), (2, 10), (3, 10), (9, 5)].into();
    let images = [image(1, &[1], 300), image(2, &[2], 100), image(3, &[3], 200)];
    let plan = |to_free| decide(&images, &layers, &BTreeSet::new(), &rules(0, None), to_free, 1000);
    // Layer 9 belongs to no image: it goes first, and may be enough.
    assert_eq!(plan(5), Plan { images: vec![], frees_bytes: 5 });
    assert_eq!(plan(6), Plan { images: vec![2], frees_bytes: 15 });
    assert_eq!(plan(16), Plan { images: vec![2, 3], frees_bytes: 25 });
    assert_eq!(plan(1000).images, [2, 3, 1]);
}

#[test]
fn an_image_that_only_shares_layers_with_one_in_use_stays() {
    let layers: BTreeMap<u8, u64> = [(1, 10), (2, 10)].into();
    let images = [image(1, &[1], 1), Candidate { in_use: true, ..image(2, &[1], 1) }, image(3, &[2], 5)];
    let plan = |rules| decide(&images, &layers, &BTreeSet::new(), &rules, 10, 1000).images;
    assert_eq!(plan(rules(0, None)), [3]);
    // Asked for everything, its name goes all the same.
    assert_eq!(plan(CleanUpRules::everything()), [1, 3]);
}

prop_compose! {
    fn any_image()(layers in proptest::collection::vec(0u8..8, 0..4), last_used_unix_ms in 0u64..1000, in_use: bool)
        -> Image {
        Candidate { name: 0, layers, last_used_unix_ms, in_use }
    }
}

proptest! {
    #[test]
    fn plans_hold_their_promises(
        mut images in proptest::collection::vec(any_image(), 0..12),
        layers in proptest::collection::btree_map(0u8..10, 1u64..100, 0..10),
        needed in proptest::collection::btree_set(0u8..10, 0..3),
        to_free in 0u64..600, minimum_age in 0u64..1200, maximum in proptest::option::of(0u64..1200),
    ) {
        images.iter_mut().zip(0..).for_each(|(image, name)| image.name = name);
        let (rules, now) = (rules(minimum_age, maximum), 1000);
        let plan = decide(&images, &layers, &needed, &rules, to_free, now);
        let of = |name: &u8| &images[usize::from(*name)];
        let overdue = |i: &Image| maximum.is_some_and(|most| now - i.last_used_unix_ms >= most);
        // Never what is in use or too young; in the order of use.
        for name in &plan.images {
            prop_assert!(!of(name).in_use && now - of(name).last_used_unix_ms >= minimum_age);
        }
        prop_assert!(plan.images.windows(2).all(|two| of(&two[0]).last_used_unix_ms <= of(&two[1]).last_used_unix_ms));
        // What it says it frees is what is freed.
        prop_assert_eq!(plan.frees_bytes, freed(&images, &layers, &needed, &plan.images));
        // Not one more than needed, and none for nothing.
        let wanted: Vec<u8> = plan.images.iter().copied().filter(|name| !overdue(of(name))).collect();
        if let Some(last) = wanted.last() {
            let without: Vec<u8> = plan.images.iter().copied().filter(|name| name != last).collect();
            prop_assert!(freed(&images, &layers, &needed, &without) < to_free.min(plan.frees_bytes));
        }
        // Not enough only when there is no more.
        if plan.frees_bytes < to_free {
            let able = |i: &&Image| !i.in_use && now - i.last_used_unix_ms >= minimum_age;
            let all: Vec<u8> = images.iter().filter(able).map(|i| i.name).collect();
            prop_assert_eq!(plan.frees_bytes, freed(&images, &layers, &needed, &all));
        }
        // Overdue ones are all gone.
        for image in images.iter().filter(|i| overdue(i) && !i.in_use && now - i.last_used_unix_ms >= minimum_age) {
            prop_assert!(plan.images.contains(&image.name));
        }
    }
}
