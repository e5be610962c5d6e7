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

    /// Takes a row out.
    pub fn take(&mut self, row: usize) {
        if let Some(word) = self.words.get_mut(row / 64) {
            *word &= !(1 << (row % 64));
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

    /// Keeps the rows that something holds for.
    pub fn retain(&mut self, mut holds: impl FnMut(usize) -> bool) {
        for (index, word) in self.words.iter_mut().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                if !holds(index * 64 + bit) {
                    *word &= !(1 << bit);
                }
            }
        }
    }

    /// Keeps the rows that have at least so much in a column.
    pub fn keep_at_least(&mut self, column: &[i64], least: i64) {
        self.keep_where(column, |number| number >= least);
    }

    /// Keeps the rows that have the lowest number of all of them in a column.
    pub fn keep_lowest_in(&mut self, column: &[i64]) {
        let blocks = self.words.iter().zip(column.chunks(64)).filter(|(word, _)| **word != 0);
        if let Some(lowest) = blocks.map(|(word, numbers)| lowest_in(*word, numbers)).min() {
            self.keep_where(column, |number| number == lowest);
        }
    }

    /// Word by word and without a branch for each row, which is several times as fast.
    fn keep_where(&mut self, column: &[i64], holds: impl Fn(i64) -> bool) {
        let mut blocks = column.chunks(64);
        for word in &mut self.words {
            let numbers = blocks.next().unwrap_or_default();
            if *word != 0 {
                let flags = numbers.iter().enumerate();
                *word &= flags.fold(0, |all, (bit, number)| all | u64::from(holds(*number)) << bit);
            }
        }
    }

    /// Keeps the rows with the lowest key, and none without a key. Keys are asked for in the order of rows.
    pub fn keep_lowest(&mut self, mut key: impl FnMut(usize) -> Option<i64>) {
        // The lowest so far, and the first row that has it.
        let mut lowest: Option<(i64, usize)> = None;
        for index in 0..self.words.len() {
            let (mut rest, mut kept) = (self.words[index], 0);
            while rest != 0 {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let Some(key) = key(index * 64 + bit) else { continue };
                if lowest.is_none_or(|(lowest, _)| key < lowest) {
                    (lowest, kept) = (Some((key, index * 64 + bit)), 0);
                }
                if lowest.is_some_and(|(lowest, _)| key == lowest) {
                    kept |= 1 << bit;
                }
            }
            self.words[index] = kept;
        }
        if let Some((_, first)) = lowest {
            self.words[..first / 64].fill(0);
        }
    }

    /// The row that so many rows of the set come before.
    pub fn nth(&self, mut before: usize) -> Option<usize> {
        for (index, word) in self.words.iter().enumerate() {
            let here = word.count_ones() as usize;
            if before >= here {
                before -= here;
                continue;
            }
            let rest = (0..before).fold(*word, |rest, _| rest & (rest - 1));
            return Some(index * 64 + rest.trailing_zeros() as usize);
        }
        None
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

/// The lowest number of those that have a bit.
fn lowest_in(word: u64, numbers: &[i64]) -> i64 {
    let numbers = numbers.iter().enumerate();
    let numbers = numbers.map(|(bit, number)| if word >> bit & 1 == 1 { *number } else { i64::MAX });
    numbers.min().unwrap_or(i64::MAX)
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
    proptest! {
        #[test]
        fn what_is_kept_is_what_a_list_keeps(
            rows in proptest::collection::vec((any::<bool>(), -2i64..3, any::<bool>()), 1..300),
            all in any::<bool>(), least in -2i64..4, extreme in any::<bool>(),
        ) {
            let set = bits(&rows.iter().map(|(there, ..)| *there || all).collect::<Vec<_>>());
            let number = |n: i64| if extreme && n > 0 { i64::MAX } else { n };
            let column: Vec<i64> = rows.iter().map(|(_, n, _)| number(*n)).collect();
            let kept = |bits: &Bits| bits.iter().collect::<Vec<_>>();
            let listed = |holds: &dyn Fn(usize) -> bool| set.iter().filter(|row| holds(*row)).collect::<Vec<_>>();

            let mut some = set.clone();
            some.retain(|row| rows[row].2);
            prop_assert_eq!(kept(&some), listed(&|row| rows[row].2));
            let mut enough = set.clone();
            enough.keep_at_least(&column, least);
            prop_assert_eq!(kept(&enough), listed(&|row| column[row] >= least));
            let mut lowest = set.clone();
            lowest.keep_lowest_in(&column);
            let best = set.iter().map(|row| column[row]).min();
            prop_assert_eq!(kept(&lowest), listed(&|row| Some(column[row]) == best));
            let key = |row: usize| rows[row].2.then_some(column[row]);
            let mut keyed = set.clone();
            keyed.keep_lowest(key);
            let best = set.iter().filter_map(key).min();
            prop_assert_eq!(kept(&keyed), listed(&|row| key(row).is_some() && key(row) == best));
            let all = kept(&set);
            for before in 0..=all.len() {
                prop_assert_eq!(set.nth(before), all.get(before).copied());
            }
        }
    }
}
