//! A reader of MessagePack, written from its specification and not from our writer. In: bytes. Out: a
//! value and how many bytes it took, or nothing while it is not whole.

use serde_json::{Map, Value, json};

pub(super) fn unpack(bytes: &[u8]) -> Option<(Value, usize)> {
    let first = *bytes.first()?;
    let big = |from: usize, width: usize| -> Option<u64> {
        let part = bytes.get(from..from + width)?;
        Some(part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let text = |from: usize, length: u64| -> Option<(Value, usize)> {
        let part = bytes.get(from..from + length as usize)?;
        Some((Value::from(std::str::from_utf8(part).unwrap()), from + length as usize))
    };
    match first {
        0x00..=0x7f => Some((json!(first), 1)),
        0x80..=0x8f => pairs(bytes, 1, u64::from(first & 0x0f)),
        0x90..=0x9f => items(bytes, 1, u64::from(first & 0x0f)),
        0xa0..=0xbf => text(1, u64::from(first & 0x1f)),
        0xcc => Some((json!(big(1, 1)?), 2)),
        0xcd => Some((json!(big(1, 2)?), 3)),
        0xce => Some((json!(big(1, 4)?), 5)),
        0xcf => Some((json!(big(1, 8)?), 9)),
        0xd7 => Some((json!({ "ext": big(1, 1)?, "seconds": big(2, 4)?, "nanos": big(6, 4)? }), 10)),
        0xd9 => text(2, big(1, 1)?),
        0xda => text(3, big(1, 2)?),
        0xdb => text(5, big(1, 4)?),
        0xdc => items(bytes, 3, big(1, 2)?),
        0xdd => items(bytes, 5, big(1, 4)?),
        0xde => pairs(bytes, 3, big(1, 2)?),
        0xdf => pairs(bytes, 5, big(1, 4)?),
        other => panic!("type {other:#x} is not expected"),
    }
}

fn items(bytes: &[u8], mut at: usize, count: u64) -> Option<(Value, usize)> {
    let mut found = Vec::new();
    for _ in 0..count {
        let (value, taken) = unpack(bytes.get(at..)?)?;
        found.push(value);
        at += taken;
    }
    Some((Value::Array(found), at))
}

fn pairs(bytes: &[u8], mut at: usize, count: u64) -> Option<(Value, usize)> {
    let mut found = Map::new();
    for _ in 0..count {
        let (key, taken) = unpack(bytes.get(at..)?)?;
        let (value, more) = unpack(bytes.get(at + taken..)?)?;
        let twice = found.insert(key.as_str().unwrap().to_owned(), value);
        assert_eq!(twice, None, "a key is there twice");
        at += taken + more;
    }
    Some((Value::Object(found), at))
}
