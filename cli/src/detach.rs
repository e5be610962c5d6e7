//! The keys that leave an attached container: like `ctrl-p,ctrl-q`, one after the other.
//! In: keys as they are typed. Out: what goes on to the container, and whether the person left.
//! Owns: how much of the sequence was typed. Pure.

/// A sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// `ctrl-p,ctrl-q`, `ctrl-a,d`: letters, and control keys of letters and of `@[\]^_`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys = text.split(',').map(|key| match key.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ (b'a'..=b'z' | b'@' | b'['..=b'_')]) => Ok(letter.to_ascii_uppercase() ^ 0x40),
            Some(_) => Err(format!("{key:?} is no control key")),
            None => match key.as_bytes() {
                [letter] => Ok(*letter),
                _ => Err(format!("{key:?} is neither a letter nor like ctrl-p")),
            },
        });
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, typed: 0 })
    }

    /// What of `data` goes on, and whether the whole sequence was typed. What was held back because
    /// it looked like the sequence goes on with the key that shows it was not.
    pub fn take(&mut self, data: &[u8]) -> (Vec<u8>, bool) {
        let mut through = Vec::with_capacity(data.len());
        for &key in data {
            if key == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (through, true);
                }
                continue;
            }
            through.extend_from_slice(&self.keys[..self.typed]);
            self.typed = usize::from(key == self.keys[0]);
            if self.typed == 0 {
                through.push(key);
            } else if self.keys.len() == 1 {
                return (through, true);
            }
        }
        (through, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_leaves_and_everything_else_goes_through() {
        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(keys.take(b"ab"), (b"ab".to_vec(), false));
        assert_eq!(keys.take(b"\x10"), (Vec::new(), false));
        assert_eq!(keys.take(b"x"), (b"\x10x".to_vec(), false));
        assert_eq!(keys.take(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.take(b"\x11rest"), (Vec::new(), true));
        let mut one = DetachKeys::parse("ctrl-]").unwrap();
        assert_eq!(one.take(b"a\x1d"), (b"a".to_vec(), true));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "ctrl-", "ctrl-1", "esc", "a,,b"] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }
}
