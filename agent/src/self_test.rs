//! Proves at start that this machine can run containers as promised, and keeps what it found for
//! `lighter system` and the local socket. In: the facilities' probes. Out: results; a start refused
//! when something vital is missing, with the command that mends it.
//! What somebody else's firewall drops is reported, never changed, and does not stop the agent.
//! Owns nothing. Never: repairs the machine.

use crate::facilities::{Facilities, Probe};
use crate::time::unix_ms;
use lighter_model::ids::TaskId;
use tokio::sync::watch;

/// An id for the self-test's container: created at the epoch, which no task of a cluster is.
pub(crate) fn new_task() -> TaskId {
    TaskId::from_parts(0, u128::from(unix_ms()) << 32 | u128::from(std::process::id()))
}

/// Left by an agent that was killed during its self-test.
pub(crate) fn is_self_test(task: &TaskId) -> bool {
    task.as_str().starts_with("000000000000")
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub(crate) struct SelfTest {
    pub probes: Vec<Probe>,
}

impl SelfTest {
    /// Everything the agent must not run without.
    pub(crate) async fn run(facilities: &Facilities) -> Self {
        let (mut probes, network) =
            tokio::join!(facilities.runtime.self_test(), facilities.network.self_test());
        probes.extend(network);
        let test = Self { probes };
        test.log();
        test
    }

    /// What may take a second when somebody drops packets, and is reported only: the agent is at work
    /// meanwhile. The host's side of the network is made by then.
    pub(crate) async fn go_on(facilities: Facilities, results: watch::Sender<Self>) {
        let forwarding = Self { probes: vec![facilities.network.probe_forwarding().await] };
        forwarding.log();
        results.send_modify(|test| test.probes.extend(forwarding.probes));
    }

    /// The same with more results.
    pub(crate) fn with(mut self, probes: impl Iterator<Item = Probe>) -> Self {
        let more = Self { probes: probes.collect() };
        more.log();
        self.probes.extend(more.probes);
        self
    }

    fn log(&self) {
        for probe in self.probes.iter().filter(|probe| !probe.ok) {
            tracing::warn!(probe = probe.name, detail = %probe.detail, mend = %probe.mend, "self-test");
        }
    }

    /// What keeps the agent from running, in words for a person.
    pub(crate) fn refusal(&self) -> Option<String> {
        let vital = self.probes.iter().filter(|probe| probe.vital && !probe.ok);
        let texts: Vec<String> = vital.map(in_words).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

fn in_words(probe: &Probe) -> String {
    if probe.mend.is_empty() {
        format!("{}: {}", probe.name, probe.detail)
    } else {
        format!("{}: {} (to mend it: {})", probe.name, probe.detail, probe.mend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_self_tests_container_is_told_from_tasks() {
        assert!(is_self_test(&new_task()));
        assert!(!is_self_test(&TaskId::from_parts(unix_ms(), 0)));
    }

    #[test]
    fn only_what_is_vital_refuses_and_the_command_is_named() {
        let probe =
            |name, ok, vital| Probe { name, ok, vital, detail: "broken".into(), mend: "fix it".into() };
        let fine = SelfTest { probes: vec![probe("a", true, true), probe("forwarding", false, false)] };
        assert_eq!(fine.refusal(), None);
        let bad = SelfTest { probes: vec![probe("seccomp", false, true)] };
        assert_eq!(bad.refusal().as_deref(), Some("seccomp: broken (to mend it: fix it)"));
    }
}
