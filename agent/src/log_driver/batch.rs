//! One batch: what is read from the ring and given to a sink at once. In: a ring. Out: records with
//! their places. Bounded by bytes and by number. Never: waits.

use lighter_runtime::logs::{LogLine, LogStream, Position, RingItem, RingReader};
use std::io;

/// 256 KiB is 16 of the longest records, and a hundred containers whose sinks hang hold 25 MiB.
pub(super) const BATCH_BYTES_MAX: usize = 256 * 1024;
/// So that short lines do not make a batch of ten thousand objects; at 1,000 a batch the cost of a
/// round trip no longer shows.
pub(super) const BATCH_RECORDS_MAX: usize = 1000;

/// A record on its way to a sink.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Where the ring goes on when this one has to be sent again.
    pub(super) place: Position,
    pub(super) number: u64,
    pub(super) line: LogLine,
    /// This is no record of the container but the mark that so many before it are gone.
    pub(super) lost: u64,
}

/// Reads at most `limit` records.
pub(super) fn take(ring: &mut RingReader, limit: usize) -> io::Result<Vec<Record>> {
    let (mut records, mut bytes) = (Vec::<Record>::new(), 0);
    let mut gap: Option<(Position, u64)> = None;
    while records.len() < limit && bytes < BATCH_BYTES_MAX {
        let place = ring.position();
        match ring.read()? {
            None => break,
            Some(RingItem::Lost(count)) => gap = Some((place, count)),
            Some(RingItem::Record { number, line }) => {
                // The mark has the time of what comes after it.
                if let Some((place, lost)) = gap.take() {
                    records.push(Record { place, number, line: mark(&line, lost), lost });
                }
                bytes += line.text.len();
                records.push(Record { place, number, line, lost: 0 });
            }
        }
    }
    if let Some((place, _)) = gap {
        // Nothing is behind the gap yet, or in the next batch only; it is found again.
        ring.rewind(place)?;
    }
    Ok(records)
}

fn mark(next: &LogLine, lost: u64) -> LogLine {
    let text =
        format!("{lost} records are missing here: they left the node's ring before they could be sent");
    LogLine {
        time: next.time.clone(),
        unix_ns: next.unix_ns,
        stream: LogStream::Lighter,
        partial: false,
        text: text.into_bytes(),
    }
}

/// The name of a stream, as sinks show it.
pub(super) fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
        LogStream::Lighter => "lighter",
    }
}
