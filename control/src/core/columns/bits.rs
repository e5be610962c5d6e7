//! A set of rows, one bit each. In: rows. Out: sets of them, and the rows in order.
//! Never: knows how many rows there are; a row beyond its words is not in it, and `invert` is told the number.

use lighter_model::query::Sets;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    /// Of the cluster when the set was made by `upto`, or inverted.
    rows: usize,
}

impl Bits {
    /// All rows below this one, or none of so many.
    pub fn upto(rows: usize, value: bool) -> Self {
        let mut bits = Self { words: vec![if value { u64::MAX } else { 0 }; rows.div_ceil(64)], rows };
        bits.trim();
        bits
    }

    /// Clears what lies behind the last row.
    fn trim(&mut self) {
        let rest = self.rows % 64;
        if let (Some(last), true) = (self.words.last_mut(), rest > 0) {
            *last &= (1 << rest) - 1;
        }
    }

    pub fn get(&self, row: usize) -> bool {
        self.words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// Puts a row in or takes it out; the set grows up to it.
    pub fn set(&mut self, row: usize, value: bool) {
        self.rows = self.rows.max(row + 1);
        if self.words.len() <= row / 64 {
            self.words.resize(row / 64 + 1, 0);
        }
        let bit = 1 << (row % 64);
        match value {
            true => self.words[row / 64] |= bit,
            false => self.words[row / 64] &= !bit,
        }
    }

    /// A row comes in between: the ones from there on move up.
    pub fn insert(&mut self, at: usize, value: bool) {
        for row in (at..self.rows).rev() {
            let moved = self.get(row);
            self.set(row + 1, moved);
        }
        self.set(at, value);
    }

    /// A row goes: the ones behind it move down.
    pub fn remove(&mut self, at: usize) {
        for row in at + 1..self.rows {
            let moved = self.get(row);
            self.set(row - 1, moved);
        }
        if at < self.rows {
            self.rows -= 1;
            self.words.truncate(self.rows.div_ceil(64));
            self.trim();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Takes out what is in the other.
    pub fn subtract(&mut self, other: &Self) {
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine &= !theirs;
        }
    }

    /// The rows in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                (rest != 0).then(|| {
                    rest &= rest - 1;
                    index * 64 + bit
                })
            })
        })
    }
}

impl Sets for Bits {
    fn nothing() -> Self {
        Self::default()
    }
    fn unite(&mut self, other: &Self) {
        self.rows = self.rows.max(other.rows);
        self.words.resize(self.words.len().max(other.words.len()), 0);
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }
    fn intersect(&mut self, other: &Self) {
        for (index, mine) in self.words.iter_mut().enumerate() {
            *mine &= other.words.get(index).copied().unwrap_or(0);
        }
    }
    /// Of the rows that it knows of.
    fn invert(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.trim();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(list: &[bool]) -> Bits {
        let mut bits = Bits::upto(list.len(), false);
        list.iter().enumerate().for_each(|(row, value)| bits.set(row, *value));
        bits
    }

    proptest! {
        #[test]
        fn a_set_is_a_list_of_flags(
            mut list in proptest::collection::vec(any::<bool>(), 1..200),
            other in proptest::collection::vec(any::<bool>(), 1..200),
            at in 0usize..200, value in any::<bool>(),
        ) {
            let mut set = bits(&list);
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), (0..list.len()).filter(|r| list[*r]).collect::<Vec<_>>());
            prop_assert_eq!(set.count(), list.iter().filter(|v| **v).count());
            let there = |row: usize| other.get(row).copied().unwrap_or(false);
            let mut both = set.clone();
            both.intersect(&bits(&other));
            let mut less = set.clone();
            less.subtract(&bits(&other));
            let mut either = set.clone();
            either.unite(&bits(&other));
            for row in 0..210 {
                let here = list.get(row).copied().unwrap_or(false);
                prop_assert_eq!(both.get(row), here && there(row));
                prop_assert_eq!(less.get(row), here && !there(row));
                prop_assert_eq!(either.get(row), here || there(row));
            }
            let at = at % (list.len() + 1);
            list.insert(at, value);
            set.insert(at, value);
            prop_assert_eq!(&set, &bits(&list));
            let at = at % list.len();
            list.remove(at);
            set.remove(at);
            prop_assert_eq!(&set, &bits(&list));
            set.invert();
            prop_assert_eq!(&set, &bits(&list.iter().map(|v| !v).collect::<Vec<_>>()));
        }
    }
}
