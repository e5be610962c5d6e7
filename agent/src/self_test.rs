//! Proves at start that this machine can run containers as promised, and keeps what it found for
//! `lighter system` and the local socket. In: the facilities' probes. Out: results; a start refused
//! when something vital is missing, with the command that mends it.
//! What somebody else's firewall drops is reported, never changed, and does not stop the agent.
//! Owns nothing. Never: repairs the machine.

use crate::facilities::{Facilities, Probe};

/// What was found.
#[derive(Debug, Clone, Default)]
pub(crate) struct SelfTest {
    pub probes: Vec<Probe>,
}

impl SelfTest {
    /// Runs every probe. The network's come after the host's side of it is made.
    pub(crate) async fn run(facilities: &Facilities) -> Self {
        let (mut probes, network) = tokio::join!(facilities.runtime.self_test(), facilities.network.self_test());
        probes.extend(network);
        for probe in probes.iter().filter(|probe| !probe.ok) {
            tracing::warn!(probe = probe.name, detail = %probe.detail, mend = %probe.mend, "self-test");
        }
        Self { probes }
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
    fn only_what_is_vital_refuses_and_the_command_is_named() {
        let probe = |name, ok, vital| Probe { name, ok, vital, detail: "broken".into(), mend: "fix it".into() };
        let fine = SelfTest { probes: vec![probe("a", true, true), probe("forwarding", false, false)] };
        assert_eq!(fine.refusal(), None);
        let bad = SelfTest { probes: vec![probe("seccomp", false, true)] };
        assert_eq!(bad.refusal().as_deref(), Some("seccomp: broken (to mend it: fix it)"));
    }
}
