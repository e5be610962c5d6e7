//! Words of version 3: the lease of a task that must not run twice.
//! In: fields. Out: messages of a frame. Times are of CLOCK_BOOTTIME, which both sides read on one
//! machine. Never: a duration that would count from when a frame is read.

use crate::codec::wire_struct;

wire_struct!(
    /// How one container is asked to end.
    LeaseStop {
        name: String,
        /// Its STOPSIGNAL.
        signal: i32,
        /// It gets the signal so long before the lease ends.
        timeout_ms: u64,
    }
);

wire_struct!(
    /// A file of the task's freezer, and what is written to it to let a paused task go on.
    ThawFile { path: String, text: String }
);

wire_struct!(
    /// Sets, renews or, with 0, asks for the lease.
    LeaseRequest {
        /// Milliseconds of the clock at which every process gets SIGKILL; an earlier time than the one
        /// known changes nothing.
        ends_at_boot_ms: u64,
        /// Empty: as told before.
        stops: Vec<LeaseStop>,
        /// `None`: as told before.
        thaw: Option<ThawFile>,
    }
);

wire_struct!(
    /// The lease as the shim keeps it.
    #[derive(Copy)]
    LeaseState {
        /// 0: there is none.
        ends_at_boot_ms: u64,
        /// A stop signal was sent because of it, or it has ended: for good.
        over: bool,
    }
);
