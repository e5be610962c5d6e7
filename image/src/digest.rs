//! Content digests, chain ids and the running hash of a stream.
//! In: bytes or text. Out: `Digest`, `LayerKey`. Source: OCI image spec, descriptor.md and config.md.
//! Only sha256 is accepted: it is the one every registry must serve. Never: performs I/O.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Why a text is not a digest that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("digest must be sha256: and 64 hex digits, got {text:?}")]
pub struct InvalidDigest {
    pub text: String,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut running = RunningDigest::new();
        running.update(bytes);
        running.finish()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits alone, used as a file name.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let hex_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(hex_digit) => Ok(Self(text.to_owned())),
            _ => Err(InvalidDigest { text: text.chars().take(100).collect() }),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The chain id of a layer: names the layer together with all layers below it, so that one
/// directory stands for one merged history and implicit directories can take their owner from below.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerKey(Digest);

impl LayerKey {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn hex(&self) -> &str {
        self.0.hex()
    }

    /// The chain ids of layers given by their diff ids, bottom first.
    pub fn chain(diff_ids: &[Digest]) -> Vec<LayerKey> {
        let mut chain: Vec<LayerKey> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            let key = match chain.last() {
                None => diff_id.clone(),
                Some(below) => Digest::of(format!("{} {diff_id}", below.as_str()).as_bytes()),
            };
            chain.push(LayerKey(key));
        }
        chain
    }
}

impl fmt::Display for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A sha256 over a stream.
pub(crate) struct RunningDigest(ring::digest::Context);

impl RunningDigest {
    pub(crate) fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in self.0.finish().as_ref() {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        Digest(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digest_and_refusals() {
        let empty = Digest::of(b"");
        assert_eq!(empty.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(empty.as_str().parse::<Digest>().unwrap(), empty);
        for wrong in ["", "sha256:", "sha512:00", "sha256:../../etc", &empty.as_str().to_uppercase()] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = LayerKey::chain(&[a.clone(), b.clone()]);
        assert_eq!(chain[0].as_str(), a.as_str());
        assert_eq!(chain[1].as_str(), Digest::of(format!("{a} {b}").as_bytes()).as_str());
        assert_ne!(LayerKey::chain(&[b, a])[1], chain[1]);
    }
}
