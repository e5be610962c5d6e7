//! One thread, one clock, one order: runs futures in an order that the seed decides, and moves the
//! clock on when nothing is left to do.
//! In: futures. Out: their effects. Owns: the ready queue and the timers.
//! Never: waits for anything real; the same futures and the same luck give the same run.

use crate::luck::Luck;
use lighter_control::time::{Instant, SimulatedClock};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Ready = Arc<Mutex<Vec<Arc<Woken>>>>;

struct Woken {
    id: u64,
    queued: AtomicBool,
    ready: Ready,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap().push(self.clone());
        }
    }
}

/// Why the run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// `done` said so.
    Done,
    /// Nothing is left to wait for.
    Stalled,
    Panicked(String),
}

/// Runs futures; clones share it.
#[derive(Clone)]
pub(crate) struct Executor(Rc<Inner>);

/// A task is out of its place while it is polled.
type Place = (Option<Task>, Arc<Woken>);

struct Inner {
    base: Instant,
    now: Cell<Duration>,
    tasks: RefCell<BTreeMap<u64, Place>>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    serial: Cell<u64>,
    ready: Ready,
    luck: RefCell<Luck>,
    polls: Cell<u64>,
}

/// The clock that the control plane's code sees; given to `time::install`.
pub(crate) struct Clock(Rc<Inner>);

impl SimulatedClock for Clock {
    fn now(&self) -> Instant {
        self.0.base + self.0.now.get()
    }

    fn boot_ms(&self) -> u64 {
        // Never near the beginning: a lease that was never granted ended long ago.
        1_000_000_000 + u64::try_from(self.0.now.get().as_millis()).unwrap()
    }

    fn wake_at(&self, at: Instant, waker: Waker) -> u64 {
        let key = self.0.next_serial();
        self.0.timers.borrow_mut().insert((at - self.0.base, key), waker);
        key
    }

    fn forget(&self, at: Instant, key: u64) {
        self.0.timers.borrow_mut().remove(&(at - self.0.base, key));
    }
}

impl Inner {
    fn next_serial(&self) -> u64 {
        self.serial.set(self.serial.get() + 1);
        self.serial.get()
    }
}

/// A running task.
#[derive(Clone)]
pub(crate) struct Handle {
    id: u64,
    executor: std::rc::Weak<Inner>,
}

impl Handle {
    /// Drops the task wherever it is, as the end of its process would.
    pub(crate) fn kill(&self) {
        let Some(inner) = self.executor.upgrade() else { return };
        let task = inner.tasks.borrow_mut().remove(&self.id);
        drop(task);
    }
}

impl Executor {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(Inner {
            base: Instant::now(),
            now: Cell::default(),
            tasks: RefCell::default(),
            timers: RefCell::default(),
            serial: Cell::default(),
            ready: Ready::default(),
            luck: RefCell::new(Luck::new(seed)),
            polls: Cell::default(),
        }))
    }

    pub(crate) fn clock(&self) -> Rc<Clock> {
        Rc::new(Clock(self.0.clone()))
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.0.now.get().as_millis()).unwrap()
    }

    pub(crate) fn polls(&self) -> u64 {
        self.0.polls.get()
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Handle {
        let id = self.0.next_serial();
        let woken = Arc::new(Woken { id, queued: AtomicBool::new(false), ready: self.0.ready.clone() });
        self.0.tasks.borrow_mut().insert(id, (Some(Box::pin(future)), woken.clone()));
        woken.wake();
        Handle { id, executor: Rc::downgrade(&self.0) }
    }

    /// Runs until `done`, or until nothing is left to do.
    pub(crate) fn run(&self, done: impl Fn() -> bool) -> Ended {
        loop {
            while let Some(woken) = self.next_ready() {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.poll(&woken))) {
                    let words = panic.downcast_ref::<String>().cloned();
                    let words = words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                    return Ended::Panicked(words.unwrap_or_default());
                }
                if done() {
                    return Ended::Done;
                }
            }
            if !self.advance() {
                return Ended::Stalled;
            }
        }
    }

    /// One of the first few that are ready: which one goes first is luck, as on real machines.
    fn next_ready(&self) -> Option<Arc<Woken>> {
        let mut ready = self.0.ready.lock().unwrap();
        let some = ready.len().min(4) as u64;
        (some > 0).then(|| ready.remove(usize::try_from(self.0.luck.borrow_mut().below(some)).unwrap()))
    }

    fn poll(&self, woken: &Arc<Woken>) {
        woken.queued.store(false, Ordering::Relaxed);
        let task = self.0.tasks.borrow_mut().get_mut(&woken.id).and_then(|(task, _)| task.take());
        let Some(mut task) = task else { return };
        self.0.polls.set(self.0.polls.get() + 1);
        let waker = Waker::from(woken.clone());
        if task.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Ready(()) {
            self.0.tasks.borrow_mut().remove(&woken.id);
            return;
        }
        // Killed meanwhile: it is dropped here.
        if let Some((place, _)) = self.0.tasks.borrow_mut().get_mut(&woken.id) {
            *place = Some(task);
        }
    }

    fn advance(&self) -> bool {
        let first = self.0.timers.borrow().keys().next().copied();
        let Some((at, _)) = first else { return false };
        self.0.now.set(at.max(self.0.now.get()));
        loop {
            let due = {
                let mut timers = self.0.timers.borrow_mut();
                let entry = timers.first_entry().filter(|entry| entry.key().0 <= at);
                entry.map(|entry| entry.remove())
            };
            match due {
                Some(waker) => waker.wake(),
                None => return true,
            }
        }
    }

    /// Drops every task; one that is dropped may wake or spawn others.
    pub(crate) fn clear(&self) {
        loop {
            let first = self.0.tasks.borrow_mut().pop_first();
            if first.is_none() {
                return;
            }
        }
    }
}
