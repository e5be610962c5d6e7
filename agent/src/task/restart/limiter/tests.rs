//! The limiter's promises: rates hold over any time, nobody waits for ever, no calm burst is slowed.

use super::*;
use proptest::prelude::*;
use std::path::Path;

fn any_pressure() -> impl Strategy<Value = Pressure> {
    let percent = || prop::option::of(0..100u8);
    (percent(), percent(), percent(), percent()).prop_map(|(cpu, cpu_minute, memory, memory_full)| Pressure {
        cpu,
        cpu_minute,
        memory,
        memory_full,
    })
}

fn full(now_ms: u64) -> Buckets {
    Buckets { restarts: Bucket::new(now_ms), firsts: Bucket::new(now_ms) }
}

proptest! {
    /// Over any time no more restarts than a burst and the rate allow, and never none for ever.
    #[test]
    fn the_rate_holds_over_any_time(
        asks in prop::collection::vec((0..2_000u64, any::<bool>()), 1..200),
        pressure in any_pressure(),
    ) {
        let rate = rate(pressure);
        prop_assert!(rate > 0);
        let mut bucket = Bucket::new(0);
        let (mut now, mut granted) = (0, 0i64);
        for (pause, first) in asks {
            now += pause;
            if first {
                bucket.count(now, rate);
            } else if let Err(wait) = bucket.take(now, rate) {
                let mut later = bucket;
                prop_assert_eq!(later.take(now + wait, rate), Ok(()), "it said when");
                prop_assert!(wait <= 11 * START.unsigned_abs() * 1000 / rate.unsigned_abs() + 1);
            } else {
                granted += 1;
            }
            prop_assert!(granted * START <= BURST + i64::try_from(now).unwrap() * rate / 1000);
            prop_assert!((-DEBT_MAX..=BURST).contains(&bucket.level));
        }
    }

    /// A queue of tasks under any pressure, also one that changes: each begins within what it was
    /// told, in its order, and never faster than the rate allows.
    #[test]
    fn first_starts_keep_their_order_and_their_bound(
        tasks in 1..60usize,
        pressures in prop::collection::vec(any_pressure(), 1..8),
    ) {
        let mut buckets = full(0);
        let mut now = 0u64;
        for place in 0..tasks {
            let mut turns = 0;
            while let Err(wait) = buckets.first(now, pressures[(place + turns) % pressures.len()]) {
                prop_assert!(wait > 0);
                (now, turns) = (now + wait, turns + 1);
                prop_assert!(turns < 10, "asked in vain");
            }
            prop_assert!(Duration::from_millis(now) <= first_within(place), "{place} at {now}");
        }
        let rates: Vec<i64> = pressures.iter().filter_map(|pressure| first_rate(*pressure)).collect();
        if let (true, Some(fastest)) = (rates.len() == pressures.len(), rates.iter().max()) {
            let allowed = BURST + i64::try_from(now).unwrap() * fastest / 1000;
            prop_assert!(i64::try_from(tasks).unwrap() * START <= allowed);
        }
    }

    /// However many first starts come, the next restart gets its turn.
    #[test]
    fn first_starts_never_starve_restarts(every_ms in 1..200u64, pressure in any_pressure()) {
        let mut buckets = full(0);
        let (mut now, mut head_since, mut granted) = (0, 0, 0);
        while granted < 25 {
            now += every_ms;
            buckets.restarts.count(now, rate(pressure));
            if buckets.again(now, pressure, now - head_since).is_ok() {
                prop_assert!(now - head_since <= HEAD_MAX_MS + every_ms);
                (head_since, granted) = (now, granted + 1);
            }
        }
    }
}

#[test]
fn pressure_slows_and_its_absence_does_not() {
    let of = |cpu, memory| rate(Pressure { cpu, memory, ..Pressure::default() });
    assert_eq!(of(None, None), of(Some(10), Some(0)));
    assert!(of(Some(70), None) < of(Some(10), None));
    assert!(of(Some(95), None) < of(Some(70), None));
    assert_eq!(of(Some(0), Some(50)), of(Some(95), Some(0)));
}

#[test]
fn only_heavy_pressure_holds_first_starts_back() {
    let calm = Pressure::default();
    // What a burst of starts makes of two cores within ten seconds is no reason.
    let burst = Pressure { cpu: Some(99), cpu_minute: Some(60), memory: Some(5), ..calm };
    for pressure in [calm, burst] {
        let mut buckets = full(0);
        assert!((0..10_000).all(|start| buckets.first(start / 80, pressure).is_ok()), "{pressure:?}");
    }
    let busy = first_rate(Pressure { cpu_minute: Some(80), ..calm });
    let tight = first_rate(Pressure { memory: Some(20), ..calm });
    let thrashing = first_rate(Pressure { memory_full: Some(20), ..calm });
    assert!(busy > tight && tight > thrashing && thrashing == Some(FIRST_RATE_MIN), "{busy:?} {tight:?}");
}

#[tokio::test]
async fn turns_come_in_order_and_a_dropped_one_keeps_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let limiter = StartLimiter::start(dir.path().to_path_buf());
    limiter.count();
    for _ in 0..10 {
        limiter.turn().await;
    }
    let mut dropped = Box::pin(limiter.turn());
    let _ = futures_util::poll!(&mut dropped);
    drop(dropped);
    for _ in 0..12 {
        limiter.turn().await;
    }
}

/// What the kernel would say while the node thrashes.
fn press(dir: &Path) {
    let text =
        "some avg10=90.00 avg60=90.00 avg300=9.00 total=1\nfull avg10=55.00 avg60=9.00 avg300=9.00 total=1\n";
    std::fs::write(dir.join("memory"), text).unwrap();
}

#[tokio::test]
async fn a_task_waits_under_pressure_and_goes_on_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    press(dir.path());
    let limiter = StartLimiter::start(dir.path().to_path_buf());
    for _ in 0..BURST / START {
        assert!(matches!(limiter.first().await, Turn::Now));
    }
    let Turn::Queued { pressure, ahead, within, go } = limiter.first().await else { panic!("no limit") };
    assert_eq!((pressure.memory_full, ahead, within), (Some(55), 0, Duration::from_secs(2)));
    let Turn::Queued { ahead, within, go: second, .. } = limiter.first().await else { panic!("no limit") };
    assert_eq!((ahead, within), (1, Duration::from_secs(4)));
    // One that goes away keeps nobody waiting.
    drop(go);
    std::fs::remove_file(dir.path().join("memory")).unwrap();
    second.await.unwrap();
    assert!(matches!(limiter.first().await, Turn::Now));
}
