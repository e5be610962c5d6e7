//! How much room a store has left, as its owner and the writer see it.
//! In: measurements of the store. Out: `level`, and words for who is refused. Owns: the last measurement.
//! Three levels: `Free`; `Reserve`, where no new work is accepted and what runs goes on from what was
//! kept back; `Exhausted`, where the last commit found no room at all. Free ⇄ Reserve ⇄ Exhausted, in
//! any order, by measurement alone: room that returns is found without anybody's word.
//! Never: decides what new work is: `core::work` does.

use super::Size;
use crate::error::ApiError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// How full a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything is accepted.
    Free,
    /// Only the reserve is left: for what runs, is reported and is stopped.
    Reserve,
    /// The reserve is used up as well.
    Exhausted,
}

/// A store's room. Clones share it.
#[derive(Debug, Clone)]
pub struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    level: AtomicU8,
    used_bytes: AtomicU64,
    limit_bytes: AtomicU64,
    advice: &'static str,
}

impl Room {
    /// Of a store whose words for "make room" are these: a sentence without its end.
    pub fn new(advice: &'static str) -> Self {
        let (used_bytes, limit_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Shared { level: AtomicU8::new(0), used_bytes, limit_bytes, advice }))
    }

    pub fn level(&self) -> Level {
        match self.0.level.load(Ordering::Acquire) {
            0 => Level::Free,
            1 => Level::Reserve,
            _ => Level::Exhausted,
        }
    }

    /// As measured; says so in the log when it changes.
    pub fn set(&self, level: Level) {
        let before = self.level();
        self.0.level.store(level as u8, Ordering::Release);
        match (before, level) {
            (before, now) if before == now => {}
            (_, Level::Free) => tracing::info!("the store has room again; new work is accepted"),
            (_, Level::Reserve) => {
                tracing::warn!(advice = self.0.advice, "the store is full: no new work is accepted");
            }
            (_, Level::Exhausted) => {
                tracing::error!(advice = self.0.advice, "the store is full to the last byte of its reserve");
            }
        }
    }

    /// Bytes used and allowed, as last measured; 0 allowed: no limit is known.
    pub fn size(&self) -> Size {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Size { used_bytes: load(&self.0.used_bytes), limit_bytes: load(&self.0.limit_bytes) }
    }

    pub(super) fn set_size(&self, size: Size) {
        self.0.used_bytes.store(size.used_bytes, Ordering::Relaxed);
        self.0.limit_bytes.store(size.limit_bytes, Ordering::Relaxed);
    }

    /// What new work is refused with.
    pub fn refusal(&self) -> ApiError {
        ApiError::StoreFull { advice: self.0.advice }
    }
}

/// The level of what has `free_bytes` left, of which the last `low_bytes` are kept back. Back to
/// `Free` only a quarter above that, so that a few bytes do not turn it to and fro.
pub(super) fn level(before: Level, free_bytes: u64, low_bytes: u64) -> Level {
    let needed = if before == Level::Free { low_bytes } else { low_bytes + low_bytes / 4 };
    if free_bytes >= needed { Level::Free } else { Level::Reserve }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_free_again_only_well_above_where_it_became_low() {
        assert_eq!(level(Level::Free, 100, 100), Level::Free);
        assert_eq!(level(Level::Free, 99, 100), Level::Reserve);
        assert_eq!(level(Level::Reserve, 124, 100), Level::Reserve);
        assert_eq!(level(Level::Exhausted, 124, 100), Level::Reserve);
        assert_eq!(level(Level::Reserve, 125, 100), Level::Free);
        assert_eq!(level(Level::Reserve, 0, 0), Level::Free, "nothing is kept back");
    }
}
