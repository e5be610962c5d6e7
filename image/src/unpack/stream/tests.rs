//! Tests of the stream reader: what writers write, what attackers write, and anything at all.
//! In: archives made here by the tar crate and by hand. Out: entries or refusals. Never: disk I/O.

use super::*;
use proptest::prelude::*;

fn entries(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, UnpackError> {
    let mut stream = TarStream::new(archive, None);
    let mut all = Vec::new();
    while let Some(entry) = stream.next_entry()? {
        let mut data = Vec::new();
        stream.content(&entry.path, 0, entry.size, |part| {
            data.extend_from_slice(part);
            Ok(())
        })?;
        all.push((entry, data));
    }
    Ok(all)
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    header.set_path("name").unwrap();
    header.set_cksum();
    header
}

fn block_of(header: &Header, data: &[u8]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

#[test]
fn records_may_hold_newlines_and_long_names() {
    let value = b"a\nb\0c=d\n";
    let long = "d/".repeat(200) + "f";
    let pax = [
        record("path", long.as_bytes()),
        record("SCHILY.xattr.user.x", value),
        record("mtime", b"-1.25"),
        record("uid", b"3000000"),
        record("comment", b"ignored"),
    ]
    .concat();
    let archive = [
        block_of(&header(EntryType::XHeader, pax.len() as u64), &pax),
        block_of(&header(EntryType::Regular, 5), b"hello"),
        vec![0; 1024],
    ]
    .concat();
    let all = entries(&archive).unwrap();
    let (entry, data) = &all[0];
    assert_eq!(entry.path, long.as_bytes());
    assert_eq!(entry.xattrs, [(b"user.x".to_vec(), value.to_vec())]);
    assert_eq!((entry.mtime_s, entry.mtime_ns), (-2, 750_000_000));
    assert_eq!((entry.uid, entry.gid), (3_000_000, 2));
    assert_eq!(data, b"hello");
}

#[test]
fn gnu_long_names_and_links() {
    let mut builder = tar::Builder::new(Vec::new());
    let name = "x/".repeat(120) + "end";
    let mut link = Header::new_gnu();
    link.set_entry_type(EntryType::Symlink);
    link.set_size(0);
    link.set_mode(0o777);
    link.set_uid(0);
    link.set_gid(0);
    link.set_mtime(0);
    builder.append_link(&mut link, &name, "y/".repeat(150)).unwrap();
    let archive = builder.into_inner().unwrap();
    let all = entries(&archive).unwrap();
    assert_eq!(all[0].0.path, name.as_bytes());
    assert_eq!(all[0].0.link, "y/".repeat(150).as_bytes());
    assert_eq!(all[0].0.kind, Kind::Symlink);
}

#[test]
fn what_is_not_an_archive_is_refused_in_words() {
    let huge = header(EntryType::XHeader, 1 << 40);
    let bomb = header(EntryType::GNULongName, 1 << 33);
    let mut wrong_sum = header(EntryType::Regular, 0);
    wrong_sum.set_mode(0o777);
    let records = record("GNU.sparse.major", b"7");
    let sparse = [
        block_of(&header(EntryType::XHeader, records.len() as u64), &records),
        block_of(&header(EntryType::Regular, 0), b""),
    ]
    .concat();
    for (archive, words) in [
        (huge.as_bytes().to_vec(), "record of"),
        (bomb.as_bytes().to_vec(), "record of"),
        (wrong_sum.as_bytes().to_vec(), "checksum"),
        (header(EntryType::Regular, 600).as_bytes().to_vec(), "ends within a file"),
        (vec![1; 100], "ends within a header"),
        (sparse, "sparse file of format 7.0"),
        (header(EntryType::new(b'V'), 0).as_bytes().to_vec(), "unknown type"),
        ([vec![0; 512], header(EntryType::Regular, 0).as_bytes().to_vec()].concat(), "empty block"),
    ] {
        let error = entries(&archive).unwrap_err().to_string();
        assert!(error.contains(words), "{error} / {words}");
    }
}

#[test]
fn an_archive_may_end_with_the_last_byte_of_its_last_file() {
    let archive = [header(EntryType::Regular, 600).as_bytes().as_slice(), &[7; 600]].concat();
    let found = entries(&archive).unwrap();
    assert_eq!((found.len(), found[0].0.file_bytes()), (1, 600));
    assert!(entries(&archive[..archive.len() - 1]).is_err(), "a byte is missing");
}

#[test]
fn times_before_1970_in_binary() {
    let mut old = header(EntryType::Regular, 0);
    old.as_mut_bytes()[136..148].copy_from_slice(&[0xff; 12]);
    old.set_cksum();
    assert_eq!(entries(&block_of(&old, b"")).unwrap()[0].0.mtime_s, -1);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = entries(&bytes);
    }

    #[test]
    fn damaged_archives_are_survived(at in 0usize..4096, byte: u8, cut in 0usize..4096) {
        let pax = [record("path", b"some/path"), record("size", b"5")].concat();
        let mut archive = [
            block_of(&header(EntryType::XHeader, pax.len() as u64), &pax),
            block_of(&header(EntryType::Regular, 5), b"hello"),
            block_of(&header(EntryType::Directory, 0), b""),
        ].concat();
        let length = archive.len();
        archive[at % length] = byte;
        archive.truncate(cut % length);
        let _ = entries(&archive);
    }

    #[test]
    fn data_comes_back_as_it_was(files in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..6)) {
        let mut archive = Vec::new();
        for data in &files {
            archive.extend(block_of(&header(EntryType::Regular, data.len() as u64), data));
        }
        archive.extend([0; 1024]);
        let all = entries(&archive).unwrap();
        prop_assert_eq!(all.into_iter().map(|(_, data)| data).collect::<Vec<_>>(), files);
    }
}

/// Each alone is allowed; they all would be held until the entry comes.
#[test]
fn records_before_one_entry_have_a_size_together() {
    let block = block_of(&header(EntryType::XGlobalHeader, 900 << 10), &vec![b'x'; 900 << 10]);
    let file = block_of(&header(EntryType::Regular, 0), b"");
    let of = |times: usize| [block.repeat(times), file.clone(), vec![0; 1024]].concat();
    assert_eq!(entries(&of(1)).unwrap().len(), 1);
    assert!(matches!(entries(&of(3)), Err(UnpackError::Format { .. })));
    // The next entry has the same again.
    assert_eq!(entries(&[&of(1)[..of(1).len() - 1024], &of(1)].concat()).unwrap().len(), 2);
}
