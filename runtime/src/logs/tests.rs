//! Reading rotated and growing files.

use super::{LogOptions, LogReader, read};
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
