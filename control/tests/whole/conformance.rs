//! One suite that holds every store to the words of its trait, alone and behind injected faults.

use lighter_control::store::etcd::{EtcdSettings, EtcdStore};
use lighter_control::store::faulty::Faulty;
use lighter_control::store::memory::{Fault, MemoryStore};
use lighter_control::store::redb::RedbStore;
use lighter_control::store::{Batch, Campaign, CommitOutcome, Followed, Loaded, Store};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn batch(entries: &[(&str, Option<&str>)]) -> Batch {
    let value = |value: &Option<&str>| value.map(|text| text.as_bytes().to_vec());
    entries.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect()
}

fn elected(store: &mut impl Store, floor: u64) -> u64 {
    match store.campaign(floor).unwrap() {
        Campaign::Elected { term } => term,
        Campaign::Standby(leader) => panic!("{leader:?} leads"),
    }
}

fn records(loaded: &Loaded) -> Vec<(&str, &str)> {
    loaded.records.iter().map(|(key, value)| (key.as_str(), std::str::from_utf8(value).unwrap())).collect()
}

/// What one owner may rely on.
fn of_one_owner(mut store: impl Store) {
    let empty = store.load("").unwrap();
    assert!(!empty.incarnation.is_empty() && empty.records.is_empty());
    assert_eq!(store.commit(1, empty.sequence + 1, &batch(&[("a", Some("1"))])), CommitOutcome::Fenced);
    let term = elected(&mut store, 1_000);
    assert!(term >= 1_000 && store.lease().is_valid());
    let first = batch(&[("t/1", Some("one")), ("t/2", Some("two")), ("u/1", Some("other"))]);
    assert_eq!(store.commit(term, 1, &first), CommitOutcome::Committed);
    assert_eq!(
        store.commit(term, 2, &batch(&[("t/1", None), ("t/3", Some("three"))])),
        CommitOutcome::Committed
    );
    for (term, sequence) in [(term, 2), (term, 4), (term - 1, 3), (term + 1, 3)] {
        let outcome = store.commit(term, sequence, &batch(&[("t/9", Some("never"))]));
        assert_eq!(outcome, CommitOutcome::Fenced, "term {term}, sequence {sequence}");
    }
    let loaded = store.load("").unwrap();
    assert_eq!((loaded.term, loaded.sequence), (term, 2));
    assert_eq!(records(&loaded), [("t/2", "two"), ("t/3", "three"), ("u/1", "other")]);
    assert_eq!(records(&store.load("t/").unwrap()), [("t/2", "two"), ("t/3", "three")]);
    assert_eq!(loaded.incarnation, empty.incarnation);
    assert_eq!(store.reader().unwrap().load().unwrap(), loaded, "beside the owner");
    let again = elected(&mut store, 0);
    assert!(again > term);
    assert_eq!(store.commit(term, 3, &Batch::new()), CommitOutcome::Fenced, "an earlier term");
    let large: Batch = (0..500).map(|n| (format!("l/{n:03}"), Some(vec![b'x'; 1_000]))).collect();
    assert_eq!(store.commit(again, 3, &large), CommitOutcome::Committed);
    assert_eq!(store.load("l/").unwrap().records.len(), 500);
    // etcd counts what its background writer has written.
    let deadline = Instant::now() + crate::support::PATIENCE;
    while store.size().unwrap().used_bytes < 500_000 {
        assert!(Instant::now() < deadline, "{:?}", store.size());
    }
    let none: Batch = large.into_keys().map(|key| (key, None)).collect();
    assert_eq!(store.commit(again, 4, &none), CommitOutcome::Committed);
    store.compact().unwrap();
    assert_eq!(store.load("l/").unwrap().records, []);
    let other = Loaded {
        incarnation: "another".to_owned(),
        term: again + 7,
        sequence: 40,
        records: vec![("k".to_owned(), b"v".to_vec())],
    };
    store.restore(&other).unwrap();
    assert_eq!(store.commit(again, 41, &Batch::new()), CommitOutcome::Fenced, "of the time before");
    let term = elected(&mut store, 0);
    assert!(term > again + 7);
    let restored = store.load("").unwrap();
    assert_eq!((restored.incarnation.as_str(), restored.sequence), ("another", 40));
    assert_eq!(records(&restored), [("k", "v")]);
    assert_eq!(store.commit(term, 41, &batch(&[("k", None)])), CommitOutcome::Committed);
}

/// What several owners may rely on: `depose` ends the lease of whoever leads, without its knowing.
fn of_several_owners<S: Store>(mut open: impl FnMut() -> S, depose: impl Fn()) {
    let (mut one, mut two) = (open(), open());
    one.advertise("https://one:7443");
    two.advertise("https://two:7443");
    let first = elected(&mut one, 0);
    let Campaign::Standby(leader) = two.campaign(0).unwrap() else { panic!("two leaders") };
    assert_eq!((leader.endpoint.as_str(), leader.term), ("https://one:7443", first));
    assert!(one.lease().is_valid() && !two.lease().is_valid());
    let start = two.load("").unwrap().sequence;
    for sequence in start + 1..=start + 3 {
        let written = batch(&[("n", Some(&sequence.to_string()))]);
        assert_eq!(one.commit(first, sequence, &written), CommitOutcome::Committed);
    }
    let (mut seen, mut sequences) = (start, Vec::new());
    while seen < start + 3 {
        match two.follow(seen, Duration::from_secs(10)).unwrap() {
            Followed::Batches(batches) => {
                assert!(!batches.is_empty(), "waited in vain");
                for (sequence, written) in batches {
                    assert_eq!(written["n"].as_deref(), Some(sequence.to_string().as_bytes()));
                    sequences.push(sequence);
                    seen = sequence;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sequences, [start + 1, start + 2, start + 3]);
    assert_eq!(two.follow(seen + 1_000, Duration::from_secs(1)).unwrap(), Followed::TooOld);
    assert_eq!(two.follow(seen, Duration::from_millis(50)).unwrap(), Followed::Batches(Vec::new()));
    let mut bystander = open();
    bystander.load("").unwrap();
    assert_eq!(bystander.follow(seen, Duration::from_millis(50)).unwrap(), Followed::Batches(Vec::new()));
    one.resign();
    for standby in [&mut two, &mut bystander] {
        assert_eq!(standby.follow(seen, Duration::from_secs(10)).unwrap(), Followed::Vacant);
    }
    let second = elected(&mut two, 0);
    // Who did not get the lead waits for the next change again.
    let (begun, wait) = (Instant::now(), Duration::from_millis(50));
    assert_eq!(bystander.follow(seen, wait).unwrap(), Followed::Batches(Vec::new()));
    assert!(begun.elapsed() >= wait, "{:?}", begun.elapsed());
    assert!(second > first && two.lease().is_valid() && !one.lease().is_valid());
    assert_eq!(one.commit(first, seen + 1, &Batch::new()), CommitOutcome::Fenced, "it resigned");
    let refused = one.restore(&two.load("").unwrap()).unwrap_err();
    assert!(matches!(refused, lighter_control::store::StoreError::InUse { .. }), "{refused:?}");
    depose();
    assert_eq!(one.follow(seen, Duration::from_secs(10)).unwrap(), Followed::Vacant);
    let third = elected(&mut one, 0);
    assert!(third > second);
    let late = batch(&[("n", Some("of a leader that was"))]);
    assert_eq!(two.commit(second, seen + 1, &late), CommitOutcome::Fenced, "deposed and unaware");
    assert_eq!(one.commit(third, seen + 1, &batch(&[("n", Some("right"))])), CommitOutcome::Committed);
    assert_eq!(records(&one.load("n").unwrap()), [("n", "right")]);
}

/// Whatever fails, campaigning and loading says what is true, and acknowledged is never lost.
fn behind_faults(store: impl Store) {
    let (mut store, faults) = Faulty::new(store);
    let mut model = BTreeMap::new();
    let mut term = elected(&mut store, 0);
    let mut sequence = store.load("").unwrap().sequence;
    for round in 0..60_u32 {
        let fault = match round % 5 {
            1 => Some(Fault::UnknownLost),
            2 => Some(Fault::UnknownApplied),
            4 => Some(Fault::Fenced),
            _ => None,
        };
        faults.plan([fault]);
        let (key, value) = (format!("f/{}", round % 7), round.to_string().into_bytes());
        let value = (round % 3 != 0).then_some(value);
        let outcome = store.commit(term, sequence + 1, &Batch::from([(key.clone(), value.clone())]));
        let applied = match outcome {
            CommitOutcome::Committed => true,
            CommitOutcome::Fenced | CommitOutcome::NotTaken { .. } => false,
            CommitOutcome::Unknown => {
                term = elected(&mut store, 0);
                store.load("").unwrap().sequence == sequence + 1
            }
        };
        assert_eq!(applied, matches!(fault, None | Some(Fault::UnknownApplied)));
        if applied {
            sequence += 1;
            match value {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        let loaded: BTreeMap<_, _> = store.load("f/").unwrap().records.into_iter().collect();
        assert_eq!(loaded, model, "round {round}");
    }
}

#[test]
fn memory_conforms() {
    of_one_owner(MemoryStore::new("one"));
    let store = MemoryStore::with_elections("one");
    of_several_owners(|| store.clone(), || store.depose());
    behind_faults(MemoryStore::new("one"));
}

#[test]
fn redb_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| RedbStore::open(&dir.path().join(name), "one").unwrap();
    of_one_owner(open("one"));
    behind_faults(open("two"));
    let held = open("three");
    assert!(RedbStore::open(&dir.path().join("three"), "one").is_err(), "one owner at a time");
    drop(held);
}

#[test]
fn etcd_conforms() {
    let etcd = crate::etcd::Etcd::start();
    of_one_owner(etcd.open("/one/"));
    of_several_owners(|| etcd.open("/two/"), || etcd.delete("/two/leader"));
    behind_faults(etcd.open("/three/"));
}

#[test]
fn an_etcd_that_dies_in_the_middle_of_commits_loses_and_repeats_nothing() {
    let mut etcd = crate::etcd::Etcd::start();
    let mut store = etcd.open("/");
    let mut term = elected(&mut store, 0);
    let (done, ended) = std::sync::mpsc::channel();
    let committing = std::thread::spawn(move || {
        let (mut sequence, mut unknown) = (0, 0);
        while ended.try_recv().is_err() {
            let next = sequence + 1;
            let written = batch(&[(&format!("n/{next:06}"), Some("x"))]);
            match store.commit(term, next, &written) {
                CommitOutcome::Committed => sequence = next,
                CommitOutcome::Fenced | CommitOutcome::NotTaken { .. } | CommitOutcome::Unknown => {
                    unknown += 1;
                    term = elected(&mut store, 0);
                    sequence = store.load("").unwrap().sequence;
                }
            }
        }
        (store, sequence, unknown)
    });
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        etcd.kill();
        etcd.run();
    }
    done.send(()).unwrap();
    let (mut store, sequence, unknown) = committing.join().unwrap();
    let loaded = store.load("n/").unwrap();
    assert!(sequence > 10, "{sequence} commits");
    assert_eq!((loaded.sequence, loaded.records.len() as u64), (sequence, sequence), "unknown: {unknown}");
}

#[test]
fn a_leader_that_cannot_renew_stops_leading_before_another_may() {
    let mut etcd = crate::etcd::Etcd::start();
    let (mut one, mut two) = (etcd.open("/"), etcd.open("/"));
    let term = elected(&mut one, 0);
    std::thread::sleep(Duration::from_secs(3));
    assert!(one.lease().is_valid(), "it is renewed");
    assert!(matches!(two.campaign(0).unwrap(), Campaign::Standby(_)));
    etcd.kill();
    let deadline = Instant::now() + Duration::from_secs(3);
    while one.lease().is_valid() {
        assert!(Instant::now() < deadline, "valid without renewal");
        std::thread::sleep(Duration::from_millis(10));
    }
    etcd.run();
    // Whoever is quicker leads; in the same term nobody does.
    let again = loop {
        if let Ok(Campaign::Elected { term }) = one.campaign(0) {
            break term;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(again > term);
}

#[test]
fn etcd_over_tls_wants_the_right_authority_and_our_certificate() {
    let (etcd, other) = (crate::etcd::EtcdScript::start(1, true), tempfile::tempdir().unwrap());
    let tls = etcd.tls_dir();
    let settings = EtcdSettings {
        endpoints: vec![etcd.endpoints().to_owned()],
        prefix: "/".to_owned(),
        ca: Some(tls.join("ca.pem")),
        certificate: Some(tls.join("client.pem")),
        key: Some(tls.join("client.key")),
        lease_seconds: 2,
        limit_bytes: 0,
    };
    let open = |settings: &EtcdSettings| EtcdStore::new(settings.clone(), "one", "me").unwrap();
    of_one_owner(open(&settings));

    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let wrong_ca = other.path().join("ca.pem");
    std::fs::write(&wrong_ca, stranger.cert.pem()).unwrap();
    let missing = other.path().join("none.pem");
    for (wrong, words) in [
        (EtcdSettings { ca: Some(wrong_ca), ..settings.clone() }, "certificate"),
        // TLS 1.3: the server says so after the handshake, or just goes away.
        (EtcdSettings { certificate: None, key: None, ..settings.clone() }, "etcd refused"),
        (EtcdSettings { ca: Some(missing), ..settings.clone() }, "none.pem"),
    ] {
        let refused = open(&wrong).campaign(0).unwrap_err();
        let chain = lighter_control::writer::Chain(&refused).to_string();
        assert!(chain.to_lowercase().contains(words), "{chain}");
    }
    // The right one still leads; nobody else has written.
    assert!(matches!(open(&settings).campaign(0).unwrap(), Campaign::Standby(_) | Campaign::Elected { .. }));
}
