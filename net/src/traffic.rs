//! What attachments have sent and received, counted by the kernel at the host's end of their veth
//! pairs. In: the text of /proc/net/dev. Out: counters as the attachment sees them: what its eth0
//! received is what the host's end sent. Pure, but for the thread that reads the file.
//! Source: proc(5), /proc/net/dev. Never: enters the attachment's namespace; one reading serves all.

use crate::netns;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;

/// Counters of one attachment's eth0 since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub received_bytes: u64,
    pub received_packets: u64,
    pub received_errors: u64,
    pub received_dropped: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub sent_errors: u64,
    pub sent_dropped: u64,
}

/// Counters by the name of the host's end, of every link of the namespace `home`. Blocks; for
/// throw-away threads.
pub(crate) fn read(home: &File) -> io::Result<BTreeMap<String, Traffic>> {
    netns::enter(home)?;
    // /proc/net is that of the main thread.
    Ok(parse(&fs::read_to_string("/proc/thread-self/net/dev")?))
}

/// Lines `name: bytes packets errs drop fifo frame compressed multicast bytes packets errs drop …`,
/// received first, below two lines of headings.
fn parse(text: &str) -> BTreeMap<String, Traffic> {
    let rows = text.lines().skip(2).filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let n: Vec<u64> = numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let (from, to) = n.split_at_checked(8)?;
        let mirrored = Traffic {
            received_bytes: *to.first()?,
            received_packets: *to.get(1)?,
            received_errors: *to.get(2)?,
            received_dropped: *to.get(3)?,
            sent_bytes: *from.first()?,
            sent_packets: *from.get(1)?,
            sent_errors: *from.get(2)?,
            sent_dropped: *from.get(3)?,
        };
        Some((name.trim().to_owned(), mirrored))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_end_is_read_the_other_way_round() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 3790528316  318701    0    0    0     0          0         0 3790528316  318701    0    0    0     0       0          0
lv0123456789abc:    1286      17    1    2    0     0          0         0     2572      34    3    4    0     0       0          0
broken: 1 2 3
";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        let expected = Traffic {
            received_bytes: 2572,
            received_packets: 34,
            received_errors: 3,
            received_dropped: 4,
            sent_bytes: 1286,
            sent_packets: 17,
            sent_errors: 1,
            sent_dropped: 2,
        };
        assert_eq!(found["lv0123456789abc"], expected);
    }
}
