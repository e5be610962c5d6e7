//! Which images go when the disk fills: the least recently used, until enough is free, never one in use.
//! In: what the disk has, the rules, the images with their layers, the time. Out: names in the order in
//! which they go. Pure; `prune` acts. Source of the marks: kubelet, image garbage collection.
//! Never: chooses an image that is in use or too young, or one whose end would free nothing.

use super::space::Space;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// When to clean up, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanUpRules {
    /// Begin when so much of the file system is used …
    pub high_percent: u8,
    /// … and go on until no more than so much is.
    pub low_percent: u8,
    /// At least this is to be free, whatever the percentages say.
    pub min_free_bytes: u64,
    /// Besides, for a pull that waits for room. When it cannot be had, nothing is deleted for it.
    pub wanted_bytes: u64,
    /// Images used more recently than this stay.
    pub minimum_age: Duration,
    /// Images unused for so long go however empty the disk is.
    pub maximum_unused: Option<Duration>,
}

impl CleanUpRules {
    /// Everything that nobody uses, at once.
    pub fn everything() -> Self {
        Self {
            high_percent: 100,
            low_percent: 100,
            min_free_bytes: 0,
            wanted_bytes: 0,
            minimum_age: Duration::ZERO,
            maximum_unused: Some(Duration::ZERO),
        }
    }

    /// Bytes that must be freed now; 0 when all is well.
    pub(crate) fn to_free(&self, space: Space) -> u64 {
        self.over_the_mark(space).max(self.short_of(space, self.wanted_bytes))
    }

    /// The same without the pull that waits.
    pub(crate) fn over_the_mark(&self, space: Space) -> u64 {
        let total = u128::from(space.used_bytes) + u128::from(space.available_bytes);
        let used = u128::from(space.used_bytes);
        let mark = |percent: u8| total * u128::from(percent) / 100;
        let beyond = if total > 0 && used >= mark(self.high_percent) {
            used.saturating_sub(mark(self.low_percent))
        } else {
            0
        };
        u64::try_from(beyond).unwrap_or(u64::MAX).max(self.short_of(space, 0))
    }

    fn short_of(&self, space: Space, wanted: u64) -> u64 {
        self.min_free_bytes.saturating_add(wanted).saturating_sub(space.available_bytes)
    }
}

/// One image, as far as this decision goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate<N, L> {
    pub(crate) name: N,
    pub(crate) layers: Vec<L>,
    pub(crate) last_used_unix_ms: u64,
    pub(crate) in_use: bool,
}

/// What is to go, and what that frees as far as sizes of files tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan<N> {
    pub(crate) images: Vec<N>,
    pub(crate) frees_bytes: u64,
}

/// How many images stand on each layer while some of them go.
struct Standing<'a, L> {
    images: BTreeMap<&'a L, usize>,
    needed: &'a BTreeSet<L>,
    bytes: &'a BTreeMap<L, u64>,
}

impl<'a, L: Ord> Standing<'a, L> {
    /// Bytes of the layers on which nothing stands any more.
    fn remove(&mut self, layers: &'a [L]) -> u64 {
        let mut freed = 0;
        for layer in distinct(layers) {
            let count = self.images.entry(layer).or_insert(1);
            *count -= 1;
            if *count == 0 && !self.needed.contains(layer) {
                freed += self.bytes.get(layer).copied().unwrap_or(0);
            }
        }
        freed
    }

    fn put_back(&mut self, layers: &'a [L]) {
        for layer in distinct(layers) {
            *self.images.entry(layer).or_default() += 1;
        }
    }

    /// Whether one of the layers goes only because this image went.
    fn frees(&self, layers: &[L]) -> bool {
        layers.iter().any(|layer| {
            self.images.get(layer) == Some(&0)
                && !self.needed.contains(layer)
                && self.bytes.contains_key(layer)
        })
    }
}

fn distinct<L: Ord>(layers: &[L]) -> BTreeSet<&L> {
    layers.iter().collect()
}

/// Chooses. `layers` are all layers there are with their bytes, `needed` those that containers and
/// running pulls stand on. Layers on which nothing stands go in any case and are counted first.
pub(crate) fn decide<N: Clone + Ord, L: Ord>(
    images: &[Candidate<N, L>],
    layers: &BTreeMap<L, u64>,
    needed: &BTreeSet<L>,
    rules: &CleanUpRules,
    to_free: u64,
    now_unix_ms: u64,
) -> Plan<N> {
    let mut standing = Standing { images: BTreeMap::new(), needed, bytes: layers };
    images.iter().for_each(|image| standing.put_back(&image.layers));
    let orphan = |layer: &&L| !standing.images.contains_key(*layer) && !needed.contains(*layer);
    let mut frees_bytes: u64 = layers.iter().filter(|(l, _)| orphan(l)).map(|(_, bytes)| bytes).sum();
    let unused =
        |image: &Candidate<N, L>| Duration::from_millis(now_unix_ms.saturating_sub(image.last_used_unix_ms));
    let overdue = |image: &Candidate<N, L>| rules.maximum_unused.is_some_and(|most| unused(image) >= most);
    let mut order: Vec<&Candidate<N, L>> =
        images.iter().filter(|image| !image.in_use && unused(image) >= rules.minimum_age).collect();
    order.sort_by(|a, b| (a.last_used_unix_ms, &a.name).cmp(&(b.last_used_unix_ms, &b.name)));
    let mut chosen = Vec::new();
    for image in order {
        if frees_bytes >= to_free && !overdue(image) {
            break;
        }
        frees_bytes += standing.remove(&image.layers);
        chosen.push(image);
    }
    // Youngest first: what only shares its layers with images that stay would go for nothing.
    let mut kept = BTreeSet::new();
    for image in chosen.iter().rev().filter(|image| !overdue(image)) {
        if !standing.frees(&image.layers) {
            standing.put_back(&image.layers);
            kept.insert(&image.name);
        }
    }
    let images = chosen.iter().filter(|image| !kept.contains(&image.name)).map(|image| image.name.clone());
    Plan { images: images.collect(), frees_bytes }
}

#[cfg(test)]
mod tests;
