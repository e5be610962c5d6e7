//! Where a task goes on after a restart of the agent. Pure.
//! In: the last step recorded, the boot, what the shim says. Out: a verdict. The shim's word goes
//! before the record's: a container it does not know was never started by it.
//! Owns nothing. Never: lets a container start a second time.

use crate::store::records::Step;

/// What is known of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Situation {
    /// Last step recorded; `None`: no record but perhaps an assignment.
    pub step: Option<Step>,
    /// The record is of this boot.
    pub same_boot: bool,
    pub shim_alive: bool,
    /// Containers the shim was told to start.
    pub begun: usize,
    /// Containers of the task.
    pub containers: usize,
}

/// Where it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was started: what was begun is cleared, and it waits for admission like a new one.
    Fresh,
    /// Goes on being prepared with what is there; starts only what the shim does not know.
    Resume,
    Running,
    Stopping,
    TearDown,
    Stopped,
}

pub(super) fn classify(situation: &Situation) -> Verdict {
    let Situation { step, same_boot, shim_alive, begun, containers } = *situation;
    match step {
        Some(Step::Stopped) => Verdict::Stopped,
        Some(Step::TearingDown) => Verdict::TearDown,
        // Containers may have run, and who knows of them is gone.
        Some(Step::Launching | Step::Running | Step::Stopping) if !(same_boot && shim_alive) => {
            Verdict::TearDown
        }
        Some(Step::Stopping) => Verdict::Stopping,
        Some(Step::Running) => Verdict::Running,
        Some(Step::Launching) if begun < containers => Verdict::Resume,
        Some(Step::Launching) => Verdict::Running,
        // The shim knows more than a record that was lost.
        Some(Step::Preparing) | None if shim_alive && begun > 0 => {
            if begun < containers {
                Verdict::Resume
            } else {
                Verdict::Running
            }
        }
        Some(Step::Preparing) if same_boot && shim_alive => Verdict::Resume,
        Some(Step::Preparing) | None => Verdict::Fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Option<Step>; 7] = [
        None,
        Some(Step::Preparing),
        Some(Step::Launching),
        Some(Step::Running),
        Some(Step::Stopping),
        Some(Step::TearingDown),
        Some(Step::Stopped),
    ];

    fn all() -> Vec<Situation> {
        let mut all = Vec::new();
        for step in STEPS {
            for same_boot in [true, false] {
                for shim_alive in [true, false] {
                    for begun in 0..=2 {
                        // Nothing survives a reboot, and a dead shim says nothing.
                        let begun = if same_boot && shim_alive { begun } else { 0 };
                        all.push(Situation {
                            step,
                            same_boot,
                            shim_alive: same_boot && shim_alive,
                            begun,
                            containers: 2,
                        });
                    }
                }
            }
        }
        all
    }

    #[test]
    fn nothing_that_may_have_run_is_started_anew() {
        for situation in all() {
            let verdict = classify(&situation);
            let may_have_run =
                situation.begun > 0 || (!situation.shim_alive && situation.step >= Some(Step::Launching));
            if may_have_run {
                assert_ne!(verdict, Verdict::Fresh, "{situation:?}");
            }
            if verdict == Verdict::Resume {
                assert!(situation.shim_alive && situation.begun < situation.containers, "{situation:?}");
            }
            if verdict == Verdict::Running {
                assert!(situation.shim_alive, "{situation:?}");
            }
        }
    }

    #[test]
    fn each_place_has_its_verdict() {
        let base = Situation { step: None, same_boot: true, shim_alive: true, begun: 0, containers: 2 };
        let verdict = |step, begun, shim_alive, same_boot| {
            classify(&Situation { step: Some(step), begun, shim_alive, same_boot, ..base })
        };
        assert_eq!(classify(&base), Verdict::Fresh);
        assert_eq!(verdict(Step::Preparing, 0, true, true), Verdict::Resume);
        assert_eq!(verdict(Step::Preparing, 0, false, false), Verdict::Fresh);
        assert_eq!(verdict(Step::Launching, 1, true, true), Verdict::Resume);
        assert_eq!(verdict(Step::Launching, 2, true, true), Verdict::Running);
        assert_eq!(verdict(Step::Launching, 0, false, true), Verdict::TearDown);
        assert_eq!(verdict(Step::Running, 2, true, true), Verdict::Running);
        assert_eq!(verdict(Step::Running, 0, false, false), Verdict::TearDown);
        assert_eq!(verdict(Step::Stopping, 2, true, true), Verdict::Stopping);
        assert_eq!(verdict(Step::Stopped, 0, false, false), Verdict::Stopped);
    }
}
