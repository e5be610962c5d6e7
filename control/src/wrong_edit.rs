//! Named wrong edits of core, writer and session, to test that the simulation finds them.
//! In: the edit that a test switches on for its own thread. Out: whether an edit is on.
//! Never: in a release: without debug assertions nothing can be switched on, and `is` is a constant.

macro_rules! wrong_edits {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One wrong edit; the variant's place in the code asks `is`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum WrongEdit {
            $($(#[$doc])* $name,)*
        }

        impl WrongEdit {
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

wrong_edits! {
    /// Callers are answered when their group is handed over, not when it is durable.
    ReplyBeforeCommit,
    /// A fenced group counts as committed.
    NoFence,
    /// A group of unknown outcome counts as lost, and memory is kept.
    UnknownTakenForLost,
    /// The stop of a task is stored, but its node's session is not told.
    LostIntent,
    /// What a task took stays reserved when it is STOPPED.
    LedgerNotReleased,
    /// A stop does not raise the task's generation.
    GenerationNotRaised,
    /// Reports are applied whatever their sequence.
    SequenceNotCompared,
    /// What a client token was used for is not stored.
    ClientTokenForgotten,
    /// A store that was set back is trusted: tasks it does not know are stopped.
    OrphanStopped,
    /// After a store was set back, its tasks may run a second time.
    SetBackTaskRunAgain,
    /// A term may be one that nodes have seen surpassed.
    TermFloorIgnored,
    /// Host ports that tasks hold are given again.
    PortGivenTwice,
    /// A node may report on another node's tasks.
    ForeignReportTaken,
    /// The first event of each group is not published.
    EventNotPublished,
    /// A leader answers for as long as nobody has told it that another leads.
    LeaseNotLookedAt,
    /// Tasks are placed on nodes that are DRAINING.
    DrainingIgnored,
    /// A second agent of the same identity takes the place of the first.
    CloneAccepted,
    /// Reports are acknowledged also when they could not be stored.
    LostReportAnswered,
    /// A watch goes on one event after the one that it should.
    ResumedOneLater,
    /// Cluster time follows a wall clock that goes back.
    ClusterTimeFalls,
    /// A full store keeps nobody from bringing new work.
    FullStoreIgnored,
    /// What a group did stays in memory when the store did not take it.
    NotTakenKept,
    /// The first of the queue is never placed.
    QueueHeadStarves,
    /// The queue is looked at from its end.
    QueueOvertaken,
    /// A queue of before the store was set back is placed again.
    SetBackQueueRunAgain,
    /// The minimum of healthy tasks is rounded down.
    MinimumRoundedDown,
    /// The maximum of tasks is rounded up.
    MaximumRoundedUp,
    /// Tasks on nodes that are away count as healthy.
    AwayCountsAsHealthy,
    /// Tasks that are not yet RUNNING do not count against the maximum.
    PendingNotCounted,
    /// A task counts as healthy as soon as it is RUNNING.
    WarmingCountsAsHealthy,
    /// A DAEMON task is started where the one before has not ended.
    SecondDaemon,
    /// The deployment that another takes the place of is left in progress.
    DeploymentLeftInProgress,
    /// A deployment is completed while tasks of the one before run.
    CompletedTooEarly,
    /// A deployment whose tasks fail is never given up.
    BreakerNeverTrips,
    /// A rollback goes to the deployment before, whatever became of it.
    RolledBackToFailed,
    /// Tasks are started as soon as others have failed.
    ThrottleIgnored,
    /// Tasks are stopped before everybody has heard that they leave.
    DeregistrationSkipped,
    /// A deleted service is INACTIVE while it has tasks.
    InactiveWithTasks,
    /// A task is moved for a skew of one.
    MovedForNothing,
    /// A rollback in progress lets no other deployment take its place.
    UpdateIgnoredInRollback,
    /// Tasks stay on nodes that drain.
    DrainingCountsAsKept,
    /// The deployment of a deleted service is left in progress.
    DeletedDeploymentGoesOn,
    /// Unhealthy tasks count as healthy.
    UnhealthyCountsAsHealthy,
    /// A task counts as healthy 40 s after it RUNS, whatever its health check says.
    HealthCheckIgnored,
    /// Unhealthy tasks are replaced also while their service is to be patient with them.
    GraceIgnored,
    /// A task that ran for 40 s and was never HEALTHY does not count for the circuit breaker.
    OldCountsAsTried,
    /// Protected tasks are stopped when fewer are wanted.
    ProtectedScaledIn,
    /// Protected tasks are stopped when a deployment or a drain has others in their place.
    ProtectedReplaced,
    /// Protected tasks are moved.
    ProtectedMoved,
    /// The same of a DAEMON.
    ProtectedDaemonStopped,
    /// A protection never ends.
    ProtectionNeverEnds,
    /// All tasks of a deployment start at once, whatever their tags may mean.
    DigestNotAwaited,
    /// Tasks start by the tags also when it is known what these mean.
    DigestNotGiven,
    /// Lost tasks are replaced also while the brake is on.
    BrakeIgnored,
    /// An exclusive task is replaced before its lease has run out.
    LeaseNotAwaited,
    /// A service starts another beside an exclusive task that was given up and still has its lease.
    ServiceLeaseNotAwaited,
}

#[cfg(debug_assertions)]
thread_local! {
    static ON: std::cell::Cell<Option<WrongEdit>> = const { std::cell::Cell::new(None) };
}

/// Switches one edit on, or all off, for what this thread runs.
#[cfg(debug_assertions)]
pub fn switch(edit: Option<WrongEdit>) {
    ON.set(edit);
}

/// Whether this edit is on.
#[cfg(debug_assertions)]
pub(crate) fn is(edit: WrongEdit) -> bool {
    ON.get() == Some(edit)
}

/// Whether this edit is on: never.
#[cfg(not(debug_assertions))]
pub(crate) const fn is(_: WrongEdit) -> bool {
    false
}
