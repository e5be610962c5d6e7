//! The store of a simulated cluster: shared by all control planes, led by one, slow and failing on
//! order.
//! In: requests of writers, faults. Out: outcomes, in simulated time. Owns: what is durable, its
//! history since the last restore, the lead with its lease.
//! Never: commits for who does not lead in its own term: this is the etcd of the simulation.

use crate::world::World;
use lighter_control::store::{Batch, CommitOutcome, Leader, Lease, Level, Loaded, Room, StoreError};
use lighter_control::time;
use lighter_control::writer::{CommitRequest, Request, StoreEnd};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// How long a lead lasts without renewal, in milliseconds.
pub(crate) const LEASE_MS: u64 = 10_000;

pub(crate) type Records = BTreeMap<String, Vec<u8>>;

/// A copy that can be restored.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) records: Records,
    pub(crate) sequence: u64,
    pub(crate) term: u64,
}

#[derive(Default)]
pub(crate) struct SimStore {
    pub(crate) records: RefCell<Records>,
    pub(crate) incarnation: RefCell<String>,
    pub(crate) sequence: Cell<u64>,
    pub(crate) term: Cell<u64>,
    /// Plane, and until when.
    leader: Cell<Option<(usize, u64)>>,
    /// Whose term it is.
    led_last: Cell<usize>,
    /// Batches since the last restore; the first one has sequence `log_from` + 1.
    pub(crate) log: RefCell<Vec<Batch>>,
    pub(crate) log_from: Cell<u64>,
    /// Percent of commits whose outcome is lost.
    pub(crate) unknown_percent: Cell<u64>,
    level: Cell<Option<Level>>,
    /// Grows whenever the level changes.
    pub(crate) level_changes: Cell<u64>,
    /// Of every writer there was.
    rooms: RefCell<Vec<Room>>,
    /// The slowest commit, in milliseconds.
    pub(crate) slowest_ms: Cell<u64>,
}

impl SimStore {
    pub(crate) fn new() -> Self {
        let store = Self::default();
        *store.incarnation.borrow_mut() = "first".to_owned();
        store.slowest_ms.set(5);
        store
    }

    /// Who leads with a valid lease.
    pub(crate) fn leader(&self, now_ms: u64) -> Option<usize> {
        self.leader.get().filter(|(_, until)| now_ms < *until).map(|(plane, _)| plane)
    }

    /// Whether it was renewed.
    pub(crate) fn renew(&self, plane: usize, now_ms: u64) -> bool {
        // Whose batches are still taken has lost nothing by a lead that nobody else took.
        let still = self.leader(now_ms).is_none_or(|leader| leader == plane) && self.led_last.get() == plane;
        if still {
            self.grant(plane, now_ms);
        }
        still
    }

    /// The store's clock may run faster than that of who leads.
    fn grant(&self, plane: usize, now_ms: u64) {
        self.leader.set(Some((plane, now_ms + LEASE_MS * 9 / 10)));
    }

    /// Nobody leads from now on.
    pub(crate) fn vacate(&self) {
        self.leader.set(None);
    }

    pub(crate) fn level(&self) -> Level {
        self.level.get().unwrap_or(Level::Free)
    }

    /// Every writer knows at once: what was given to it before may still be done.
    pub(crate) fn set_level(&self, level: Level) {
        self.level.set(Some(level));
        self.level_changes.set(self.level_changes.get() + 1);
        self.rooms.borrow().iter().for_each(|room| room.set(level));
    }

    fn measured_by(&self, room: Room) {
        room.set(self.level());
        self.rooms.borrow_mut().push(room);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let records = self.records.borrow().clone();
        Snapshot { records, sequence: self.sequence.get(), term: self.term.get() }
    }

    /// Everything as it was, but the incarnation.
    pub(crate) fn restore(&self, snapshot: &Snapshot, incarnation: String) {
        *self.records.borrow_mut() = snapshot.records.clone();
        self.sequence.set(snapshot.sequence);
        self.term.set(snapshot.term);
        self.log.borrow_mut().clear();
        self.log_from.set(snapshot.sequence);
        self.leader.set(None);
        *self.incarnation.borrow_mut() = incarnation;
    }

    fn load(&self, world: &World, plane: usize, term_floor: u64) -> Result<Loaded, StoreError> {
        let now = world.now_ms();
        if self.leader(now).is_some_and(|leader| leader != plane) {
            let leader = Leader { endpoint: "another".to_owned(), term: self.term.get() };
            return Err(StoreError::Led { leader });
        }
        self.grant(plane, now);
        self.led_last.set(plane);
        self.term.set(term_floor.max(self.term.get() + 1));
        world.say(format_args!("plane {plane} leads in term {}", self.term.get()));
        world.model.borrow_mut().led(world, self.term.get());
        Ok(Loaded {
            incarnation: self.incarnation.borrow().clone(),
            term: self.term.get(),
            sequence: self.sequence.get(),
            records: self.records.borrow().iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }

    fn commit(&self, world: &World, plane: usize, request: &CommitRequest) -> CommitOutcome {
        let CommitRequest { term, sequence, batch } = request;
        if *term != self.term.get() || *sequence != self.sequence.get() + 1 {
            world.say(format_args!("plane {plane} is fenced at {term}/{sequence}"));
            return CommitOutcome::Fenced;
        }
        if self.level() == Level::Exhausted {
            world.say(format_args!("commit {sequence} finds no room"));
            return CommitOutcome::NotTaken { full: true };
        }
        let lost = world.luck.borrow_mut().percent(self.unknown_percent.get());
        if lost && world.luck.borrow_mut().percent(20) {
            world.say(format_args!("commit {sequence} is refused"));
            return CommitOutcome::NotTaken { full: false };
        }
        if lost && world.luck.borrow_mut().percent(50) {
            world.say(format_args!("commit {sequence} is lost"));
            return CommitOutcome::Unknown;
        }
        let mut records = self.records.borrow_mut();
        for (key, value) in batch {
            match value {
                Some(value) => records.insert(key.clone(), value.clone()),
                None => records.remove(key),
            };
        }
        drop(records);
        self.sequence.set(*sequence);
        self.log.borrow_mut().push(batch.clone());
        world.say_batch(*sequence, batch);
        world.model.borrow_mut().committed(world, *sequence, batch);
        if lost { CommitOutcome::Unknown } else { CommitOutcome::Committed }
    }
}

/// Serves one plane's writer until it is killed.
pub(crate) async fn serve(world: Rc<World>, plane: usize, mut end: StoreEnd, lease: Lease) {
    let mut told = false;
    world.store.measured_by(end.room.clone());
    while let Some(request) = end.requests.recv().await {
        world.awake(plane).await;
        let slowest = world.store.slowest_ms.get();
        let way = world.luck.borrow_mut().between(0, slowest);
        let sent = time::boot_ms();
        world.sleep(way / 2).await;
        match request {
            Request::Load { term_floor, reply } => {
                // Who was told that another leads waits for the lead.
                let mut sent = sent;
                while told && world.store.leader(world.now_ms()).is_some_and(|leader| leader != plane) {
                    world.sleep(200).await;
                    world.awake(plane).await;
                    sent = time::boot_ms();
                }
                let loaded = world.store.load(&world, plane, term_floor);
                told = loaded.is_err();
                world.sleep(way / 2).await;
                world.awake(plane).await;
                if loaded.is_ok() {
                    lease.extend(sent, Duration::from_millis(LEASE_MS));
                }
                let _ = reply.send(loaded);
            }
            Request::Commit(commit) => {
                let outcome = world.store.commit(&world, plane, &commit);
                if outcome == CommitOutcome::Unknown {
                    // Nobody knows before the answer is given up.
                    let ms = world.luck.borrow_mut().between(200, 1_000);
                    world.sleep(ms).await;
                }
                world.sleep(way / 2).await;
                world.awake(plane).await;
                let _ = end.outcomes.send(outcome).await;
            }
        }
    }
}
