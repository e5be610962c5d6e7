//! Lines, dates, rotation and gaps of the log writer, on plain files.

use super::lines::{LineSplitter, PART_BYTES_MAX};
use super::{LogWriter, Stream, time};
use lighter_shim_wire::LogPolicy;
use std::fs;
use std::path::PathBuf;

fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
    let mut out = Vec::new();
    let mut splitter = LineSplitter::default();
    for chunk in chunks {
        splitter.push(chunk, &mut |text, whole| out.push((text.to_vec(), whole)));
    }
    splitter.finish(&mut |text, whole| out.push((text.to_vec(), whole)));
    out
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("lighter-shim-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn lines_come_out_as_they_went_in() {
    assert_eq!(split(&[b"a\n\nb"]), [(b"a".to_vec(), true), (b"".to_vec(), true), (b"b".to_vec(), true)]);
    assert_eq!(split(&[b"ab", b"c\nd\n"]), [(b"abc".to_vec(), true), (b"d".to_vec(), true)]);
}

#[test]
fn a_long_line_is_split_and_a_line_of_exactly_the_maximum_is_not() {
    let exact = [vec![b'x'; PART_BYTES_MAX], b"\n".to_vec()].concat();
    assert_eq!(split(&[&exact]), [(vec![b'x'; PART_BYTES_MAX], true)]);
    let longer = [vec![b'x'; PART_BYTES_MAX * 2 + 5], b"\n".to_vec()].concat();
    let parts = split(&[&longer]);
    assert_eq!(
        parts.iter().map(|(text, whole)| (text.len(), *whole)).collect::<Vec<_>>(),
        [(PART_BYTES_MAX, false), (PART_BYTES_MAX, false), (5, true)]
    );
}

#[test]
fn cutting_the_stream_elsewhere_changes_nothing() {
    let text = [vec![b'y'; 40_000], b"\nshort\n\nlast".to_vec()].concat();
    let whole = split(&[&text]);
    for size in [1, 7, 4096, 16_384, 16_385] {
        assert_eq!(split(&text.chunks(size).collect::<Vec<_>>()), whole, "chunks of {size}");
    }
}

#[test]
fn dates_are_those_of_the_calendar() {
    assert_eq!(time::stamp(0, 0), "1970-01-01T00:00:00.000000000Z");
    assert_eq!(time::stamp(951_782_400, 1), "2000-02-29T00:00:00.000000001Z");
    assert_eq!(time::stamp(1_767_225_599, 999_999_999), "2025-12-31T23:59:59.999999999Z");
}

#[test]
fn files_rotate_and_the_oldest_goes() {
    let directory = directory("rotate");
    let path = directory.join("c.log");
    // A header takes 43 bytes, a record 54.
    let mut log = LogWriter::new(path.clone(), LogPolicy { file_bytes_max: 175, files_max: 3 });
    let mut splitter = LineSplitter::default();
    for number in 0..10 {
        log.output(Stream::Stdout, &mut splitter, format!("line number {number}\n").as_bytes());
    }
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    assert!(read("c.log").contains("line number 9"));
    assert!(read("c.log.1").contains("line number 7"));
    assert!(read("c.log.2").contains("line number 5"));
    assert!(!directory.join("c.log.3").exists());
    for (name, before) in [("c.log", 8), ("c.log.1", 6), ("c.log.2", 4)] {
        assert!(read(name).lines().next().unwrap().ends_with(&format!(" lighter H {before}")), "{name}");
        assert!(read(name).len() <= 175, "{name}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_gap_is_counted_and_marked_once_writing_works_again() {
    let directory = directory("gap");
    let path = directory.join("missing").join("c.log");
    let mut log = LogWriter::new(path.clone(), LogPolicy { file_bytes_max: 1 << 20, files_max: 2 });
    let mut splitter = LineSplitter::default();
    log.output(Stream::Stderr, &mut splitter, b"lost one\nlost two\n");
    assert_eq!(log.dropped, 2);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    log.output(Stream::Stderr, &mut splitter, b"kept\n");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with(" lighter H 0"), "{text}");
    assert!(lines[1].ends_with("lighter F 2 records of output could not be written here"), "{text}");
    assert!(lines[2].ends_with(" stderr F kept"), "{text}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_container_started_again_numbers_on_and_a_torn_record_is_taken_back() {
    let directory = directory("again");
    let path = directory.join("c.log");
    let policy = LogPolicy { file_bytes_max: 175, files_max: 3 };
    for start in 0..3 {
        let mut log = LogWriter::new(path.clone(), policy);
        log.output(Stream::Stdout, &mut LineSplitter::default(), format!("line number {start}\n").as_bytes());
        let torn = fs::read_to_string(&path).unwrap() + "2026-01-01T00:00:00.0";
        fs::write(&path, torn).unwrap();
    }
    let newer = fs::read_to_string(&path).unwrap();
    let older = fs::read_to_string(directory.join("c.log.1")).unwrap();
    assert!(newer.lines().next().unwrap().ends_with(" lighter H 2"), "{newer}");
    assert_eq!(older.lines().count(), 3, "{older}");
    assert!(older.ends_with("line number 1\n"), "{older}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn with_driver_none_only_a_note_is_kept() {
    let directory = directory("none");
    let path = directory.join("c.log");
    let mut log = LogWriter::new(path.clone(), LogPolicy { file_bytes_max: 0, files_max: 0 });
    for _ in 0..3 {
        log.output(Stream::Stdout, &mut LineSplitter::default(), b"secret\n");
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.ends_with(" lighter F log driver none: output is not kept\n"), "{text}");
    assert_eq!((text.lines().count(), log.dropped), (1, 0));
    fs::remove_dir_all(directory).unwrap();
}
