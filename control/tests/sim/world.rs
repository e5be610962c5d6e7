//! What a simulated world shares: time, luck, the trace, the store, the planes and the nodes.
//! In: what happens. Out: a digest of it, and the first promise that was broken.
//! Never: decides what happens.

use crate::executor::{Executor, Handle};
use crate::history::History;
use crate::luck::Luck;
use crate::model::Model;
use crate::node::Node;
use crate::plane::Plane;
use crate::store::SimStore;
use lighter_control::store::Batch;
use std::cell::{Cell, RefCell};
use std::fmt::Arguments;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

/// The wall clock when a world begins, in milliseconds since the Unix epoch.
pub(crate) const BEGIN_UNIX_MS: u64 = 1_800_000_000_000;

/// How large a world is and what happens in it; drawn from the seed.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    pub(crate) planes: usize,
    /// RunTask calls before the trouble begins.
    pub(crate) fill: u32,
    pub(crate) callers: usize,
    pub(crate) heartbeat_ms: u64,
    /// How long faults and calls last.
    pub(crate) trouble_ms: u64,
    pub(crate) faults: Vec<crate::faults::Kind>,
    pub(crate) fault_pause_ms: u64,
    pub(crate) think_ms: u64,
    /// Callers that want the same few things at the same time.
    pub(crate) rivals: usize,
    /// Between the wall clocks of one control plane and the next.
    pub(crate) skew_ms: i64,
    pub(crate) events_kept: usize,
    /// Callers keep services instead of single tasks.
    pub(crate) services: bool,
    /// Somebody brings about races of services on purpose.
    pub(crate) races: bool,
    /// Tasks of services have health checks, and are protected.
    pub(crate) checks: bool,
    /// Tasks of services are exclusive.
    pub(crate) exclusive: bool,
    /// Some calls let their tasks wait for room.
    pub(crate) queue: bool,
}

#[derive(Default)]
struct Trace {
    digest: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) executor: Executor,
    pub(crate) luck: RefCell<Luck>,
    pub(crate) store: SimStore,
    pub(crate) model: RefCell<Model>,
    pub(crate) history: RefCell<History>,
    pub(crate) planes: RefCell<Vec<Rc<Plane>>>,
    pub(crate) nodes: RefCell<Vec<Rc<Node>>>,
    /// Added to the wall clock of the control planes.
    pub(crate) clock_offset_ms: Arc<AtomicI64>,
    /// Nobody reads what the watcher is told.
    pub(crate) watcher_rests: Cell<bool>,
    pub(crate) over: Cell<bool>,
    pub(crate) done: Cell<bool>,
    failure: RefCell<Option<String>>,
    trace: RefCell<Trace>,
}

impl World {
    pub(crate) fn new(seed: u64, shape: Shape, keep_trace: bool) -> Rc<Self> {
        let trace = Trace { digest: 0xcbf2_9ce4_8422_2325, events: 0, lines: keep_trace.then(Vec::new) };
        Rc::new(Self {
            shape,
            executor: Executor::new(seed),
            luck: RefCell::new(Luck::new(seed.wrapping_mul(31))),
            store: SimStore::new(),
            model: RefCell::default(),
            history: RefCell::default(),
            planes: RefCell::default(),
            nodes: RefCell::default(),
            clock_offset_ms: Arc::new(AtomicI64::new(0)),
            watcher_rests: Cell::new(false),
            over: Cell::new(false),
            done: Cell::new(false),
            failure: RefCell::default(),
            trace: RefCell::new(trace),
        })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.executor.now_ms()
    }

    pub(crate) async fn sleep(&self, ms: u64) {
        if ms > 0 {
            lighter_control::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Handle {
        self.executor.spawn(future)
    }

    /// Waits while a plane is paused.
    pub(crate) async fn awake(&self, plane: usize) {
        loop {
            let paused = self.planes.borrow().get(plane).is_some_and(|plane| plane.paused.get());
            if !paused {
                return;
            }
            self.sleep(50).await;
        }
    }

    /// One event of the trace.
    pub(crate) fn say(&self, what: Arguments<'_>) {
        let line = format!("{:>9.3} {what}", self.now_ms() as f64 / 1000.0);
        let mut trace = self.trace.borrow_mut();
        trace.events += 1;
        trace.digest = hash(trace.digest, line.as_bytes());
        if let Some(lines) = &mut trace.lines {
            lines.push(line);
        }
    }

    pub(crate) fn say_batch(&self, sequence: u64, batch: &Batch) {
        let mut digest = 0;
        for (key, value) in batch {
            digest = hash(hash(digest, key.as_bytes()), value.as_deref().unwrap_or_default());
        }
        self.say(format_args!("commit {sequence}: {} records, {digest:016x}", batch.len()));
    }

    /// A promise is broken; the first one counts.
    pub(crate) fn fail(&self, what: String) {
        self.say(format_args!("BROKEN: {what}"));
        self.failure.borrow_mut().get_or_insert(what);
    }

    pub(crate) fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what());
        }
    }

    pub(crate) fn failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    pub(crate) fn digest(&self) -> u64 {
        self.trace.borrow().digest
    }

    pub(crate) fn events(&self) -> u64 {
        self.trace.borrow().events
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.trace.borrow().lines.clone().unwrap_or_default()
    }
}

/// FNV-1a, 64 bits.
pub(crate) fn hash(mut digest: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        digest = (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    digest
}
