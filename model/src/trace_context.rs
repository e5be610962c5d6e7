//! Where a request of somebody else belongs in their traces: W3C Trace Context's `traceparent`.
//! In: the header's text. Out: a value, and the text again. Never: makes an id up.
//! Source: W3C Recommendation "Trace Context", 3.2 (traceparent header).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The name of the header, in gRPC's metadata as in HTTP.
pub const TRACEPARENT: &str = "traceparent";

/// The caller's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent {
    /// Never all zeros.
    pub trace_id: [u8; 16],
    /// Never all zeros.
    pub span_id: [u8; 8],
    /// The caller records its trace.
    pub sampled: bool,
}

/// A text that is no `traceparent`. The caller's trace is then not gone on with, as W3C has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("traceparent must be 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, got {text:?}")]
pub struct TraceParentError {
    pub text: String,
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        parse(text).ok_or_else(|| TraceParentError { text: text.chars().take(128).collect() })
    }
}

fn parse(text: &str) -> Option<TraceParent> {
    let mut parts = text.split('-');
    let [version] = bytes::<1>(parts.next()?)?;
    let (trace_id, span_id) = (bytes::<16>(parts.next()?)?, bytes::<8>(parts.next()?)?);
    let [flags] = bytes::<1>(parts.next()?)?;
    // Later versions may have more after these; version 255 is none.
    let ended = version > 0 || parts.next().is_none();
    let valid = version != 0xff && ended && trace_id != [0; 16] && span_id != [0; 8];
    valid.then_some(TraceParent { trace_id, span_id, sampled: flags & 1 == 1 })
}

/// Lower-case hex digits, exactly so many.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if text.len() != 2 * N || !text.as_bytes().iter().all(hex) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.sampled))
    }
}

impl TryFrom<String> for TraceParent {
    type Error = TraceParentError;

    fn try_from(text: String) -> Result<Self, TraceParentError> {
        text.parse()
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// W3C's own example.
    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_example_is_read_and_written_again() {
        let parent: TraceParent = EXAMPLE.parse().unwrap();
        assert_eq!((parent.trace_id[0], parent.span_id[7], parent.sampled), (0x0a, 0x31, true));
        assert_eq!(parent.to_string(), EXAMPLE);
        let later = EXAMPLE.replacen("00", "cc", 1) + "-what-the-future-will-be-like";
        assert_eq!(later.parse(), Ok(parent), "a later version");
    }

    #[test]
    fn what_w3c_forbids_is_refused() {
        let zeros = |digits: usize| "0".repeat(digits);
        for wrong in [
            String::new(),
            EXAMPLE.to_uppercase(),
            EXAMPLE.replacen("00", "ff", 1),
            format!("{EXAMPLE}-more"),
            EXAMPLE.replace("0af7651916cd43dd8448eb211c80319c", &zeros(32)),
            EXAMPLE.replace("b7ad6b7169203331", &zeros(16)),
            EXAMPLE[..54].to_owned(),
            EXAMPLE.replace("-01", "-+1"),
        ] {
            assert!(wrong.parse::<TraceParent>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            let _ = text.parse::<TraceParent>();
        }

        #[test]
        fn all_parents_come_back(trace_id in any::<[u8; 16]>(), span_id in any::<[u8; 8]>(), sampled: bool) {
            prop_assume!(trace_id != [0; 16] && span_id != [0; 8]);
            let parent = TraceParent { trace_id, span_id, sampled };
            prop_assert_eq!(parent.to_string().parse(), Ok(parent));
        }
    }
}
