//! The allocator of the program, jemalloc, and what threads keep of it.
//! In: whether an agent runs here. Out: the runtime, whose threads are set. Owns the global allocator; what concerns all
//! of it is compiled in (`.cargo/config.toml`). Never: knows what a daemon does.

use std::io;
use tikv_jemalloc_ctl::{Access, AsName};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc(3), `thread.tcache.enabled`: whether the calling thread keeps what it frees for itself.
const CACHES: &[u8] = b"thread.tcache.enabled\0";

/// The runtime of a command. The threads of an agent keep no free memory for themselves: a burst of starts makes more
/// than a hundred that sleep afterwards, with 0.3 MiB each. A control plane has few and lives from these caches
/// (docs/performance.md, "Memory of a node").
///
/// # Errors
/// Those of making threads.
pub fn runtime(of_agent: bool) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if of_agent {
        keep_nothing();
        builder.on_thread_start(keep_nothing);
    }
    builder.enable_all().build()
}

/// Empties and ends the cache of the calling thread. Without it the thread is as right, and takes more memory.
fn keep_nothing() {
    if let Err(error) = CACHES.name().write(false) {
        tracing::warn!(%error, "a thread keeps free memory for itself");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn caches() -> bool {
        CACHES.name().read().unwrap()
    }

    /// Of a blocking thread and of a worker of such a runtime.
    fn caches_in(runtime: &Runtime) -> (bool, bool) {
        runtime.block_on(async {
            (
                tokio::task::spawn_blocking(caches).await.unwrap(),
                tokio::spawn(async { caches() }).await.unwrap(),
            )
        })
    }

    #[test]
    fn threads_of_an_agent_keep_nothing() {
        // On a thread of its own, for it stays set.
        let seen = std::thread::spawn(|| {
            let before = caches();
            let runtime = runtime(true).unwrap();
            (before, caches(), caches_in(&runtime))
        });
        assert_eq!(seen.join().unwrap(), (true, false, (false, false)));
    }

    #[test]
    fn threads_of_other_commands_have_caches() {
        assert_eq!(caches_in(&runtime(false).unwrap()), (true, true));
    }

    #[test]
    fn free_memory_is_given_back_by_a_thread_of_jemalloc() {
        assert!(tikv_jemalloc_ctl::background_thread::read().unwrap(), "built without .cargo/config.toml");
        let option: isize = b"opt.dirty_decay_ms\0".name().read().unwrap();
        assert_eq!(option, 200);
    }
}
