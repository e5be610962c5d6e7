//! Clocks: the wall clock for what people read, the boot-time clock for every timer (decision 13),
//! because a timer must also count while the machine sleeps; tokio's do not.
//! In: durations. Out: instants, sleeps. Owns nothing.
//! Never: lets a wall clock decide when something happens.

use ::time::OffsetDateTime;
use ::time::macros::format_description;
use rustix::time::{ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::unix::AsyncFd;

/// Milliseconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A moment of CLOCK_BOOTTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootInstant(Duration);

impl BootInstant {
    pub(crate) fn now() -> Self {
        let now = rustix::time::clock_gettime(ClockId::Boottime);
        Self(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
    }

    /// Since boot.
    pub(crate) fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Milliseconds on the clock.
    pub(crate) fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment of so many milliseconds on the clock.
    pub(crate) fn at_ms(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    pub(crate) fn after(self, time: Duration) -> Self {
        Self(self.0 + time)
    }

    /// The time from an earlier moment to this one.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) fn until(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }
}

/// Sleeps until a moment of the boot-time clock.
pub(crate) async fn sleep_until(deadline: BootInstant) {
    match timer_at(deadline) {
        Ok(timer) => {
            // Readable once it has expired; dropping this future only closes the timer.
            let _ = timer.readable().await;
        }
        // No descriptor is free: the monotonic clock differs only when the machine sleeps.
        Err(_) => tokio::time::sleep(deadline.until()).await,
    }
}

/// Sleeps for a time of the boot-time clock.
pub(crate) async fn sleep(time: Duration) {
    sleep_until(BootInstant::now().after(time)).await;
}

/// One timer for a loop that waits for ever later moments: it is set anew each time, not made anew.
#[derive(Default)]
pub(crate) struct Alarm {
    timer: Option<AsyncFd<OwnedFd>>,
    /// What it is set to and has not told yet.
    set_to: Option<BootInstant>,
}

impl Alarm {
    /// Sleeps until a moment of the boot-time clock. Dropped before, it has only been set.
    pub(crate) async fn sleep_until(&mut self, deadline: BootInstant) {
        if self.ring_at(deadline).await.is_err() {
            // As without an alarm.
            (self.timer, self.set_to) = (None, None);
            sleep_until(deadline).await;
        }
    }

    async fn ring_at(&mut self, deadline: BootInstant) -> std::io::Result<()> {
        let timer = match &mut self.timer {
            Some(timer) => {
                if self.set_to != Some(deadline) {
                    set(timer.get_ref(), deadline)?;
                }
                timer
            }
            none => none.insert(timer_at(deadline)?),
        };
        self.set_to = Some(deadline);
        loop {
            let mut ready = timer.readable().await?;
            // Readable may mean an earlier moment, which was set anew since.
            let mut expirations = [0; 8];
            let read = |timer: &AsyncFd<OwnedFd>| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?);
            if let Ok(read) = ready.try_io(read) {
                self.set_to = None;
                return read.map(drop);
            }
        }
    }
}

#[allow(
    deprecated,
    reason = "the replacement is unsafe for the sake of descriptors that are not owned; this one is"
)]
fn timer_at(deadline: BootInstant) -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)?;
    set(&timer, deadline)?;
    AsyncFd::with_interest(timer, tokio::io::Interest::READABLE)
}

fn set(timer: &OwnedFd, deadline: BootInstant) -> rustix::io::Result<()> {
    // A zero value would disarm the timer.
    let at = deadline.0.max(Duration::from_nanos(1));
    let value = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: at.as_secs() as i64, tv_nsec: i64::from(at.subsec_nanos()) },
    };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &value).map(drop)
}

/// The last millisecond of the year 9999, after which RFC 3339 has no more digits.
const LAST_MS: u64 = 253_402_300_799_999;

/// `2026-01-02T15:04:05.123Z` (RFC 3339).
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let nanoseconds = i128::from(unix_ms.min(LAST_MS)) * 1_000_000;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    moment.format(form).unwrap_or_default()
}

/// The kernel's id of this boot.
pub(crate) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_rings_at_each_moment_it_is_set_to_and_at_no_other() {
        let in_ms = |ms| BootInstant::now().after(Duration::from_millis(ms));
        let mut alarm = Alarm::default();
        for _ in 0..3 {
            let deadline = in_ms(5);
            alarm.sleep_until(deadline).await;
            assert!(BootInstant::now() >= deadline);
        }
        // Given up, then set later, also when the first moment has passed meanwhile.
        let first = in_ms(5);
        tokio::select! {
            biased;
            () = alarm.sleep_until(first) => panic!("it cannot be over"),
            () = std::future::ready(()) => {}
        }
        sleep_until(first).await;
        let second = in_ms(20);
        alarm.sleep_until(second).await;
        assert!(BootInstant::now() >= second);
        // Given up and waited for again, and a moment that is over.
        let third = in_ms(10);
        tokio::select! {
            biased;
            () = alarm.sleep_until(third) => panic!("it cannot be over"),
            () = std::future::ready(()) => {}
        }
        alarm.sleep_until(third).await;
        assert!(BootInstant::now() >= third);
        alarm.sleep_until(third).await;
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_868_799_000, "2000-02-29T23:59:59.000Z"),
            (1_709_251_200_001, "2024-03-01T00:00:00.001Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), text);
        }
    }

    #[tokio::test]
    async fn a_sleep_lasts_as_long_as_asked() {
        let start = BootInstant::now();
        sleep(Duration::from_millis(20)).await;
        let end = BootInstant::now();
        assert!(end >= start.after(Duration::from_millis(20)));
        sleep_until(start).await;
        assert_eq!(boot_id().len(), 36);
        assert!(unix_ms() > 1_700_000_000_000);
    }
}
