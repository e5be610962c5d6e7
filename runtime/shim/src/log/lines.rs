//! Cuts a stream of bytes into lines of at most 16 KiB. In: bytes as read. Out: each line, or part
//! of one, with whether the line ends there. Pure. Never: keeps more than one part.

/// The longest text of one record; what CRI and Docker use.
pub(crate) const PART_BYTES_MAX: usize = 16 * 1024;

/// The unfinished line of one stream.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    rest: Vec<u8>,
}

impl LineSplitter {
    /// Calls `record(text, line_ends_here)` for each line or part that is now complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], record: &mut dyn FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let room = PART_BYTES_MAX - self.rest.len();
            // One byte beyond the room: a newline right after a full part still ends the line.
            let window = &bytes[..bytes.len().min(room + 1)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.emit(&bytes[..end], true, record);
                bytes = &bytes[end + 1..];
            } else if window.len() > room {
                self.emit(&bytes[..room], false, record);
                bytes = &bytes[room..];
            } else {
                self.rest.extend_from_slice(bytes);
                return;
            }
        }
    }

    /// The stream has ended: what is left is a line, though nothing ended it.
    pub(crate) fn finish(&mut self, record: &mut dyn FnMut(&[u8], bool)) {
        if !self.rest.is_empty() {
            self.emit(&[], true, record);
        }
    }

    fn emit(&mut self, tail: &[u8], whole: bool, record: &mut dyn FnMut(&[u8], bool)) {
        if self.rest.is_empty() {
            record(tail, whole);
        } else {
            self.rest.extend_from_slice(tail);
            record(&self.rest, whole);
            // Gives the memory back: a shim is resident and most containers rarely write.
            self.rest = Vec::new();
        }
    }
}
