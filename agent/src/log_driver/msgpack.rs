//! The few types of MessagePack that fluentd's protocol needs, written, never read. Some thirty lines
//! do not justify a crate. In: values. Out: bytes. Pure. Source: the MessagePack specification.

pub(super) fn array(to: &mut Vec<u8>, items: usize) {
    match u16::try_from(items) {
        Ok(few @ 0..16) => to.push(0x90 | few as u8),
        Ok(many) => {
            to.push(0xdc);
            to.extend_from_slice(&many.to_be_bytes());
        }
        Err(_) => {
            to.push(0xdd);
            to.extend_from_slice(&(items as u32).to_be_bytes());
        }
    }
}

pub(super) fn map(to: &mut Vec<u8>, pairs: usize) {
    match u16::try_from(pairs) {
        Ok(few @ 0..16) => to.push(0x80 | few as u8),
        Ok(many) => {
            to.push(0xde);
            to.extend_from_slice(&many.to_be_bytes());
        }
        Err(_) => {
            to.push(0xdf);
            to.extend_from_slice(&(pairs as u32).to_be_bytes());
        }
    }
}

pub(super) fn text(to: &mut Vec<u8>, text: &str) {
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(short @ 0..32), _) => to.push(0xa0 | short),
        (Ok(length), _) => to.extend_from_slice(&[0xd9, length]),
        (_, Ok(length)) => {
            to.push(0xda);
            to.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            to.push(0xdb);
            to.extend_from_slice(&(text.len() as u32).to_be_bytes());
        }
    }
    to.extend_from_slice(text.as_bytes());
}

pub(super) fn number(to: &mut Vec<u8>, number: u64) {
    to.push(0xcf);
    to.extend_from_slice(&number.to_be_bytes());
}

/// fluentd's EventTime: extension type 0, seconds and nanoseconds.
pub(super) fn event_time(to: &mut Vec<u8>, unix_ns: u64) {
    to.extend_from_slice(&[0xd7, 0x00]);
    to.extend_from_slice(&((unix_ns / 1_000_000_000) as u32).to_be_bytes());
    to.extend_from_slice(&((unix_ns % 1_000_000_000) as u32).to_be_bytes());
}
