//! Where a follower of a log is, so that it can ask again after a break and print each line once.
//! In: lines as they come. Out: what to ask for, and which of the answer's lines are new. Pure.
//! Owns the last time of each container and how many lines had it: a node stamps what it reads at
//! once with one time. Never: drops a line that was not printed.

use lighter_proto::v1;
use std::collections::BTreeMap;

/// The last lines of a container that were printed: their time, and how many had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    time_unix_ns: i64,
    lines: u64,
}

/// See the header.
#[derive(Debug, Default)]
pub struct Place {
    printed: BTreeMap<String, Last>,
    /// What the answer after a break may repeat; a container leaves it with its first new line.
    repeats: BTreeMap<String, Last>,
}

impl Place {
    /// Whether this line is new. It is taken for printed.
    pub fn is_new(&mut self, line: &v1::LogLine) -> bool {
        if let Some(last) = self.repeats.get_mut(&line.container) {
            let same = line.time_unix_ns == last.time_unix_ns && last.lines > 0;
            if same {
                last.lines -= 1;
            }
            if same || line.time_unix_ns < last.time_unix_ns {
                return false;
            }
            self.repeats.remove(&line.container);
        }
        let fresh = Last { time_unix_ns: line.time_unix_ns, lines: 0 };
        let last = self.printed.entry(line.container.clone()).or_insert(fresh);
        if last.time_unix_ns != line.time_unix_ns {
            *last = fresh;
        }
        last.lines += 1;
        true
    }

    /// The question that goes on from here: `first` is how it was asked at the beginning, `containers`
    /// how many there are to hear of.
    pub fn resume(
        &mut self,
        first: &v1::StreamTaskLogsRequest,
        containers: usize,
    ) -> v1::StreamTaskLogsRequest {
        self.repeats = self.printed.clone();
        let oldest = self.printed.values().map(|last| last.time_unix_ns / 1_000_000).min();
        let Some(oldest) = oldest else { return first.clone() };
        // One that has not been heard of may have lines older than the others', unless none of the
        // past was asked for.
        let all_known = self.printed.len() >= containers || first.tail_lines == Some(0);
        let since_unix_ms = if all_known { oldest.max(first.since_unix_ms) } else { first.since_unix_ms };
        v1::StreamTaskLogsRequest { since_unix_ms, tail_lines: None, ..first.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(container: &str, time_unix_ns: i64) -> v1::LogLine {
        v1::LogLine { container: container.to_owned(), time_unix_ns, ..Default::default() }
    }

    #[test]
    fn after_a_break_each_line_is_new_once() {
        const MS: i64 = 1_000_000;
        let mut place = Place::default();
        let first = v1::StreamTaskLogsRequest { tail_lines: Some(5), follow: true, ..Default::default() };
        assert_eq!(place.resume(&first, 2), first, "nothing was heard");
        let before = [line("a", 7 * MS), line("a", 9 * MS + 1), line("a", 9 * MS + 1), line("b", 8 * MS)];
        assert!(before.iter().all(|line| place.is_new(line)));
        let again = place.resume(&first, 2);
        assert_eq!((again.since_unix_ms, again.tail_lines, again.follow), (8, None, true));
        assert_eq!(place.resume(&first, 3).since_unix_ms, 0, "a third one may have older lines");
        let none = v1::StreamTaskLogsRequest { tail_lines: Some(0), ..first.clone() };
        assert_eq!(place.resume(&none, 3).since_unix_ms, 8);
        let answer = [
            (line("b", 8 * MS), false),
            (line("a", 9 * MS), false),
            (line("a", 9 * MS + 1), false),
            (line("a", 9 * MS + 1), false),
            // A third line of the same time was cut off by the break.
            (line("a", 9 * MS + 1), true),
            (line("a", 10 * MS), true),
            // From here on a clock that was set back hides nothing.
            (line("a", 3 * MS), true),
            (line("c", MS), true),
        ];
        for (number, (line, expected)) in answer.iter().enumerate() {
            assert_eq!(place.is_new(line), *expected, "line {number}");
        }
        place.resume(&first, 3);
        assert!(!place.is_new(&line("a", 3 * MS)) && place.is_new(&line("a", 4 * MS)));
    }
}
