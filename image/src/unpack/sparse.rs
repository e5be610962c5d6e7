//! Sparse files in archives: which parts of a file the archive has, and that its map is possible.
//! In: GNU.sparse records (formats 0.0, 0.1, 1.0), headers of type S, the map before the data (1.0).
//! Out: `Sparse`: parts in order, that do not overlap, within the file, as long as the data is.
//! Source: GNU tar manual, "Storing Sparse Files". Pure. Never: holds more than `MAX_EXTENTS` parts,
//! whatever a map claims.

use super::UnpackError;
use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

/// Parts of one file; a map of more is refused.
pub(crate) const MAX_EXTENTS: usize = 1 << 16;

/// Where so many of the stored bytes belong in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// A file with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    /// Of the file, holes and all.
    pub real_bytes: u64,
    /// In ascending order, none of them empty; together as long as what the archive has.
    pub extents: Vec<Extent>,
}

/// Where the map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// In the records.
    Listed,
    /// Before the data.
    InData,
}

/// GNU.sparse records of one entry.
#[derive(Debug, Default)]
pub(crate) struct Records {
    seen: bool,
    version: (u64, u64),
    pub(crate) name: Option<Vec<u8>>,
    real_bytes: Option<u64>,
    /// Waits for its length.
    offset: Option<u64>,
    pub(crate) extents: Vec<Extent>,
}

fn wrong(problem: &str) -> UnpackError {
    UnpackError::format(format!("the map of a sparse file {problem}"))
}

fn number(digits: &[u8]) -> Result<u64, UnpackError> {
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| wrong("has a value that is no number"))
}

fn push(extents: &mut Vec<Extent>, offset: u64, length: u64) -> Result<(), UnpackError> {
    if extents.len() >= MAX_EXTENTS {
        return Err(UnpackError::Limit { what: "parts of a sparse file", limit: MAX_EXTENTS as u64 });
    }
    extents.push(Extent { offset, length });
    Ok(())
}

impl Records {
    /// Takes one record; `key` without `GNU.sparse.`.
    pub(crate) fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        self.seen = true;
        match key {
            b"major" => self.version.0 = number(value)?,
            b"minor" => self.version.1 = number(value)?,
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.real_bytes = Some(number(value)?),
            // The parts are counted as they come.
            b"numblocks" => drop(number(value)?),
            b"offset" => self.offset = Some(number(value)?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or_else(|| wrong("has a length without an offset"))?;
                push(&mut self.extents, offset, number(value)?)?;
            }
            b"map" => {
                let mut numbers = value.split(|byte| *byte == b',').filter(|digits| !digits.is_empty());
                while let Some(offset) = numbers.next() {
                    let length = numbers.next().ok_or_else(|| wrong("has an offset without a length"))?;
                    push(&mut self.extents, number(offset)?, number(length)?)?;
                }
            }
            other => {
                let name = String::from_utf8_lossy(other);
                return Err(UnpackError::format(format!(
                    "an attribute GNU.sparse.{name}, which is not known"
                )));
            }
        }
        Ok(())
    }

    /// `None` for a file that is not sparse.
    pub(crate) fn format(&self) -> Result<Option<Format>, UnpackError> {
        match self.version {
            _ if !self.seen => Ok(None),
            (0, 0 | 1) => Ok(Some(Format::Listed)),
            (1, 0) => Ok(Some(Format::InData)),
            (major, minor) => Err(UnpackError::format(format!(
                "a sparse file of format {major}.{minor}, which is not known"
            ))),
        }
    }

    pub(crate) fn real_bytes(&self) -> Result<u64, UnpackError> {
        self.real_bytes.ok_or_else(|| wrong("does not say how large the file is"))
    }
}

/// The parts of a header of type S, whether blocks with more follow, and the size of the file.
pub(crate) fn of_header(header: &Header) -> Result<(Vec<Extent>, bool, u64), UnpackError> {
    let gnu = header.as_gnu().ok_or_else(|| wrong("is in a header that is not GNU tar's"))?;
    let mut extents = Vec::new();
    add(&gnu.sparse, &mut extents)?;
    let real_bytes = gnu.real_size().map_err(|_| wrong("does not say how large the file is"))?;
    Ok((extents, gnu.is_extended(), real_bytes))
}

/// Adds the parts of a block that follows such a header; whether another one does.
pub(crate) fn of_block(block: &[u8; 512], extents: &mut Vec<Extent>) -> Result<bool, UnpackError> {
    let mut header = GnuExtSparseHeader::new();
    header.as_mut_bytes().copy_from_slice(block);
    add(header.sparse(), extents)?;
    Ok(header.is_extended())
}

fn add(parts: &[GnuSparseHeader], extents: &mut Vec<Extent>) -> Result<(), UnpackError> {
    let no_number = |_| wrong("has a value that is no number");
    for part in parts.iter().take_while(|part| !part.is_empty()) {
        push(extents, part.offset().map_err(no_number)?, part.length().map_err(no_number)?)?;
    }
    Ok(())
}

/// Reads the map of format 1.0: lines of decimal numbers, the first of which says how many pairs follow,
/// filled up to a block.
#[derive(Debug, Default)]
pub(crate) struct MapReader {
    number: Option<u64>,
    pairs: Option<usize>,
    offset: Option<u64>,
    pub(crate) extents: Vec<Extent>,
}

impl MapReader {
    /// Takes a block; whether it was the last.
    pub(crate) fn take(&mut self, block: &[u8]) -> Result<bool, UnpackError> {
        for byte in block {
            match byte {
                b'0'..=b'9' => {
                    let longer = self.number.unwrap_or(0).checked_mul(10);
                    let number = longer.and_then(|number| number.checked_add(u64::from(byte - b'0')));
                    self.number = Some(number.ok_or_else(|| wrong("has a number that is too large"))?);
                }
                b'\n' => {
                    let number = self.number.take().ok_or_else(|| wrong("has an empty line"))?;
                    if self.line(number)? {
                        return Ok(true);
                    }
                }
                _ => return Err(wrong("has a value that is no number")),
            }
        }
        Ok(false)
    }

    fn line(&mut self, number: u64) -> Result<bool, UnpackError> {
        match (self.pairs, self.offset.take()) {
            (None, _) => {
                let pairs = usize::try_from(number).ok().filter(|pairs| *pairs <= MAX_EXTENTS);
                let limit = MAX_EXTENTS as u64;
                self.pairs = Some(pairs.ok_or(UnpackError::Limit { what: "parts of a sparse file", limit })?);
            }
            (Some(_), None) => self.offset = Some(number),
            (Some(_), Some(offset)) => push(&mut self.extents, offset, number)?,
        }
        Ok(self.offset.is_none() && self.pairs == Some(self.extents.len()))
    }
}

impl Sparse {
    /// A map that is possible; `stored_bytes` is what the archive has of the file.
    pub(crate) fn checked(
        mut extents: Vec<Extent>,
        real_bytes: u64,
        stored_bytes: u64,
    ) -> Result<Self, UnpackError> {
        if i64::try_from(real_bytes).is_err() {
            return Err(wrong("is of a file of a size that is no size"));
        }
        let (mut end, mut sum) = (0u64, 0u64);
        for extent in &extents {
            if extent.offset < end {
                return Err(wrong("has parts that overlap or are not in order"));
            }
            end = extent.offset.saturating_add(extent.length);
            if end > real_bytes {
                return Err(wrong("leads beyond the end of the file"));
            }
            // Within `real_bytes`, because no part overlaps another.
            sum += extent.length;
        }
        if sum != stored_bytes {
            return Err(wrong("speaks of more or less data than there is"));
        }
        extents.retain(|extent| extent.length > 0);
        Ok(Self { real_bytes, extents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extents(pairs: &[(u64, u64)]) -> Vec<Extent> {
        pairs.iter().map(|&(offset, length)| Extent { offset, length }).collect()
    }

    #[test]
    fn impossible_maps_are_refused_in_words() {
        assert!(Sparse::checked(extents(&[(0, 3), (10, 2), (20, 0)]), 20, 5).is_ok());
        for (pairs, real, stored, words) in [
            (&[(0, 3), (2, 2)][..], 20, 5, "overlap"),
            (&[(10, 2), (0, 3)], 20, 5, "in order"),
            (&[(19, 2)], 20, 2, "beyond the end"),
            (&[(u64::MAX, 2)], 20, 2, "beyond the end"),
            (&[(0, 2)], 20, 3, "more or less"),
            (&[(0, 0)], u64::MAX, 0, "no size"),
        ] {
            let error = Sparse::checked(extents(pairs), real, stored).unwrap_err().to_string();
            assert!(error.contains(words), "{error} / {words}");
        }
        let many = format!("{}\n", MAX_EXTENTS + 1);
        assert!(MapReader::default().take(many.as_bytes()).is_err());
        let mut records = Records::default();
        let map = "0,1,".repeat(MAX_EXTENTS + 1);
        assert!(records.read(b"map", map.as_bytes()).is_err());
        assert!(Records::default().read(b"numbytes", b"1").is_err());
        assert!(Records::default().read(b"map", b"1").is_err());
        assert!(Records::default().read(b"colour", b"1").is_err());
        let mut records = Records::default();
        records.read(b"major", b"2").unwrap();
        assert!(records.format().is_err());
    }

    proptest! {
        #[test]
        fn any_map_is_possible_or_refused(blocks in prop::collection::vec("[0-9\n]{0,40}", 0..6), real: u64, stored in 0u64..99) {
            let mut reader = MapReader::default();
            let mut done = false;
            for block in blocks {
                match reader.take(block.as_bytes()) {
                    Ok(true) => { done = true; break }
                    Ok(false) => {}
                    Err(_) => return Ok(()),
                }
            }
            if done && let Ok(sparse) = Sparse::checked(reader.extents, real, stored) {
                let sum: u64 = sparse.extents.iter().map(|extent| extent.length).sum();
                prop_assert_eq!(sum, stored);
                prop_assert!(sparse.extents.iter().all(|e| e.length > 0 && e.offset + e.length <= sparse.real_bytes));
            }
        }
    }
}
