//! Timers of the control plane: tokio's, or those of a simulation that runs on this thread.
//! In: durations. Out: instants and waits. Owns: which clock this thread has.
//! Never: the wall clock (that is `environment`); in a release there is only tokio's.

use rustix::time::{ClockId, clock_gettime};
use std::future::Future;
use std::time::Duration;
pub use tokio::time::Instant;

/// A clock that somebody else moves on.
#[cfg(debug_assertions)]
pub trait SimulatedClock {
    fn now(&self) -> Instant;
    /// The boot-time clock, in milliseconds.
    fn boot_ms(&self) -> u64;
    /// Wakes at that time; the key takes it back.
    fn wake_at(&self, at: Instant, waker: std::task::Waker) -> u64;
    fn forget(&self, at: Instant, key: u64);
}

#[cfg(debug_assertions)]
mod simulated {
    use super::{Instant, SimulatedClock};
    use std::cell::RefCell;
    use std::future::Future;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Poll};

    thread_local! {
        static CLOCK: RefCell<Option<Rc<dyn SimulatedClock>>> = const { RefCell::new(None) };
    }

    pub(super) fn install(clock: Option<Rc<dyn SimulatedClock>>) {
        CLOCK.set(clock);
    }

    pub(super) fn clock() -> Option<Rc<dyn SimulatedClock>> {
        CLOCK.with_borrow(Clone::clone)
    }

    /// Waits on this thread's clock; holds no reference to it, so that it may be part of a `Send` future.
    pub(super) struct Until {
        pub(super) at: Instant,
        pub(super) key: Option<u64>,
    }

    impl Future for Until {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            let Some(clock) = clock() else { return Poll::Ready(()) };
            if clock.now() >= self.at {
                return Poll::Ready(());
            }
            if let Some(key) = self.key.take() {
                clock.forget(self.at, key);
            }
            self.key = Some(clock.wake_at(self.at, context.waker().clone()));
            Poll::Pending
        }
    }

    impl Drop for Until {
        fn drop(&mut self) {
            if let (Some(key), Some(clock)) = (self.key, clock()) {
                clock.forget(self.at, key);
            }
        }
    }
}

/// Gives this thread a simulated clock, or takes it away.
#[cfg(debug_assertions)]
pub fn install(clock: Option<std::rc::Rc<dyn SimulatedClock>>) {
    simulated::install(clock);
}

/// Now.
pub fn now() -> Instant {
    #[cfg(debug_assertions)]
    if let Some(clock) = simulated::clock() {
        return clock.now();
    }
    Instant::now()
}

/// Milliseconds on the boot-time clock, which also runs while the process or the machine is stopped.
pub fn boot_ms() -> u64 {
    #[cfg(debug_assertions)]
    if let Some(clock) = simulated::clock() {
        return clock.boot_ms();
    }
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or_default() * 1_000 + nanos.unwrap_or_default() / 1_000_000
}

/// Waits until then. May be dropped at any time.
pub async fn sleep_until(at: Instant) {
    #[cfg(debug_assertions)]
    if simulated::clock().is_some() {
        return simulated::Until { at, key: None }.await;
    }
    tokio::time::sleep_until(at).await;
}

/// Waits so long. May be dropped at any time.
pub async fn sleep(duration: Duration) {
    sleep_until(now() + duration).await;
}

/// What the future gives, or `None` when the time is over first; then the future is dropped.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = sleep(limit) => None,
    }
}

/// Ticks with this much time between the end of one round and the next; the first at once.
#[derive(Debug)]
pub struct Ticks {
    next: Instant,
    period: Duration,
}

impl Ticks {
    pub fn new(period: Duration) -> Self {
        Self { next: now(), period }
    }

    /// How late it comes. May be dropped at any time: a tick not taken is the next one.
    pub async fn tick(&mut self) -> Duration {
        sleep_until(self.next).await;
        let late = now() - self.next;
        self.next = now() + self.period;
        late
    }
}
