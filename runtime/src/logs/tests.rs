//! Reading rotated and growing files.

use super::{LogLine, LogOptions, LogReader, LogStream, Position, RingItem, RingReader, bytes_after, read};
use std::fs;
use std::io::Write;
use std::path::Path;
use tokio::sync::watch;

fn record(number: u32) -> String {
    format!("2026-01-01T00:00:{number:02}.000000000Z stdout F line {number}\n")
}

fn write(path: &Path, numbers: std::ops::Range<u32>) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    for number in numbers {
        file.write_all(record(number).as_bytes()).unwrap();
    }
}

async fn rest(reader: &mut LogReader) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(line) = reader.next().await.unwrap() {
        numbers.push(String::from_utf8(line.text).unwrap().trim_start_matches("line ").parse().unwrap());
    }
    numbers
}

#[tokio::test]
async fn files_are_read_oldest_first_and_cut_as_asked() {
    let directory = tempfile::tempdir().unwrap();
    let name = "web".parse().unwrap();
    let path = directory.path().join("web.log");
    write(&directory.path().join("web.log.2"), 0..2);
    write(&directory.path().join("web.log.1"), 2..4);
    write(&path, 4..6);
    let read = |options| super::read(directory.path(), &name, options).unwrap();
    assert_eq!(rest(&mut read(LogOptions::default())).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(rest(&mut read(LogOptions { tail: Some(3), ..LogOptions::default() })).await, [3, 4, 5]);
    let since = Some(1_767_225_600_000 + 4_000);
    assert_eq!(rest(&mut read(LogOptions { since_unix_ms: since, ..LogOptions::default() })).await, [4, 5]);
    let mut none = super::read(directory.path(), &"none".parse().unwrap(), LogOptions::default()).unwrap();
    assert!(rest(&mut none).await.is_empty());
}

#[tokio::test]
async fn following_sees_what_is_added_and_survives_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.log");
    write(&path, 0..2);
    let (ended, follow_until) = watch::channel(false);
    let options = LogOptions { tail: Some(1), follow_until: Some(follow_until), ..LogOptions::default() };
    let mut reader = read(directory.path(), &"web".parse().unwrap(), options).unwrap();
    let mut seen = Vec::new();
    for step in 0..5 {
        seen.push(String::from_utf8(reader.next().await.unwrap().unwrap().text).unwrap());
        match step {
            0 => write(&path, 2..3),
            1 => {
                // Something is added just before the rotation, and only half of the next record.
                write(&path, 3..4);
                fs::rename(&path, directory.path().join("web.log.1")).unwrap();
                fs::write(&path, record(4).split_at(20).0).unwrap();
            }
            2 => {
                let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
                file.write_all(record(4).split_at(20).1.as_bytes()).unwrap();
            }
            3 => {
                write(&path, 5..7);
                ended.send(true).unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(seen, ["line 1", "line 2", "line 3", "line 4", "line 5"]);
    assert_eq!(rest(&mut reader).await, [6]);
}

/// A writer as lighter-shim is one: numbered files, the oldest goes.
struct Files<'a> {
    path: &'a Path,
    written: u32,
    files_max: u32,
}

impl Files<'_> {
    fn write(&mut self, count: u32) {
        if !self.path.exists() {
            let header = format!("2026-01-01T00:00:00.000000000Z lighter H {}\n", self.written);
            fs::write(self.path, header).unwrap();
        }
        let mut file = fs::OpenOptions::new().append(true).open(self.path).unwrap();
        for number in self.written..self.written + count {
            writeln!(file, "2026-01-01T00:00:00.{number:09}Z stdout F line {number}").unwrap();
        }
        self.written += count;
    }

    fn rotate(&self) {
        let numbered = |number: u32| self.path.with_extension(format!("log.{number}"));
        for number in (1..self.files_max - 1).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        fs::rename(self.path, numbered(1)).unwrap();
    }
}

fn numbers(ring: &mut RingReader) -> Vec<Result<u64, u64>> {
    let mut found = Vec::new();
    while let Some(item) = ring.read().unwrap() {
        found.push(match item {
            RingItem::Record { number, line } => {
                assert_eq!(line.text, format!("line {number}").as_bytes());
                Ok(number)
            }
            RingItem::Lost(count) => Err(count),
        });
    }
    found
}

#[test]
fn a_ring_is_read_on_across_several_rotations_and_counts_what_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.log");
    let mut files = Files { path: &path, written: 0, files_max: 4 };
    let mut ring = RingReader::new(directory.path(), "web", 0);
    assert!(numbers(&mut ring).is_empty());
    files.write(3);
    assert_eq!(numbers(&mut ring), [Ok(0), Ok(1), Ok(2)]);
    // Two rotations between two looks: the file in the middle is not skipped.
    files.write(1);
    files.rotate();
    files.write(2);
    files.rotate();
    files.write(2);
    assert_eq!(numbers(&mut ring), (3..8).map(Ok).collect::<Vec<_>>());
    let place = ring.position();
    // Five more: 8 to 11 leave the ring before they are read.
    for _ in 0..5 {
        files.write(2);
        files.rotate();
    }
    files.write(2);
    let expected: Vec<_> = [Ok(8), Ok(9), Err(2)].into_iter().chain((12..20).map(Ok)).collect();
    // The file that is open is read to its end though its name is gone.
    assert_eq!(numbers(&mut ring), expected);
    ring.rewind(place).unwrap();
    let expected: Vec<_> = [Err(4)].into_iter().chain((12..20).map(Ok)).collect();
    assert_eq!(numbers(&mut ring), expected);
    for from in [0, 11, 12, 15, 19, 20] {
        let mut ring = RingReader::new(directory.path(), "web", from);
        let lost = (from < 12).then(|| Err(12 - from));
        let expected: Vec<_> = lost.into_iter().chain((from.max(12)..20).map(Ok)).collect();
        assert_eq!(numbers(&mut ring), expected, "from {from}");
    }
}

#[test]
fn what_is_still_to_be_read_is_known_by_sizes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.log");
    let mut files = Files { path: &path, written: 0, files_max: 4 };
    let after = |place| bytes_after(directory.path(), "web", place);
    let size = |name: &str| fs::metadata(directory.path().join(name)).unwrap().len();
    assert_eq!(after(Position::default()), 0);
    files.write(3);
    assert_eq!(after(Position::default()), size("web.log"));
    let mut ring = RingReader::new(directory.path(), "web", 0);
    ring.read().unwrap().unwrap();
    let place = ring.position();
    let two = after(place);
    assert_eq!(two, 2 * "2026-01-01T00:00:00.000000000Z stdout F line 0\n".len() as u64);
    files.rotate();
    files.write(2);
    assert_eq!(after(place), two + size("web.log"));
    assert!(!numbers(&mut ring).is_empty());
    assert_eq!(after(ring.position()), 0);
}

#[test]
fn going_back_within_a_file_gives_the_same_records_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.log");
    let mut files = Files { path: &path, written: 0, files_max: 4 };
    files.write(4);
    let mut ring = RingReader::new(directory.path(), "web", 1);
    ring.read().unwrap().unwrap();
    let place = ring.position();
    assert_eq!(numbers(&mut ring), [Ok(2), Ok(3)]);
    ring.rewind(place).unwrap();
    assert_eq!(numbers(&mut ring), [Ok(2), Ok(3)]);
    // A file that was cut by a power failure: what is written then is read, under the old numbers.
    let text = fs::read_to_string(&path).unwrap();
    let cut: String = text.split_inclusive('\n').take(3).collect();
    fs::write(&path, cut).unwrap();
    let mut ring = RingReader::new(directory.path(), "web", 4);
    assert!(numbers(&mut ring).is_empty());
    files.written = 2;
    files.write(3);
    assert_eq!(numbers(&mut ring), [Ok(2), Ok(3), Ok(4)]);
}

#[tokio::test]
async fn a_follower_that_is_too_slow_is_told_what_it_missed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.log");
    let mut files = Files { path: &path, written: 0, files_max: 2 };
    files.write(2);
    let (_running, follow_until) = watch::channel(false);
    let options = LogOptions { follow_until: Some(follow_until), ..LogOptions::default() };
    let mut reader = read(directory.path(), &"web".parse().unwrap(), options).unwrap();
    reader.next().await.unwrap().unwrap();
    for _ in 0..3 {
        files.rotate();
        files.write(2);
    }
    let text = |line: LogLine| String::from_utf8(line.text).unwrap();
    assert_eq!(text(reader.next().await.unwrap().unwrap()), "line 1");
    let gap = reader.next().await.unwrap().unwrap();
    assert_eq!(gap.stream, LogStream::Lighter);
    assert!(text(gap).starts_with("2 records are missing here"));
    assert_eq!(text(reader.next().await.unwrap().unwrap()), "line 4");
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever is written, rotated and read in whatever order: each record once, in order, or
        /// counted as gone.
        #[test]
        fn nothing_is_doubled_or_missed(steps in proptest::collection::vec(0..4_u8, 1..40)) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("web.log");
            let mut files = Files { path: &path, written: 0, files_max: 3 };
            files.write(1);
            let mut ring = RingReader::new(directory.path(), "web", 0);
            let mut expected = 0;
            for step in steps {
                match step {
                    0 | 1 => files.write(u32::from(step) * 2 + 1),
                    2 => { files.rotate(); files.write(1) }
                    _ => {
                        for item in numbers(&mut ring) {
                            match item {
                                Ok(number) => { prop_assert_eq!(number, expected); expected += 1 }
                                Err(lost) => expected += lost,
                            }
                        }
                        prop_assert_eq!(expected, u64::from(files.written));
                    }
                }
            }
        }
    }
}
