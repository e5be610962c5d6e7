//! Golden frames of what version 3 added. A change here breaks shims that are running: it needs a new
//! protocol version. The messages of the versions before are in `golden` and `golden_v2`.

use crate::golden::{Case, case, compare};
use crate::lease::{LeaseRequest, LeaseState, LeaseStop, ThawFile};
use crate::{Event, Reply, Request, ShimMessage};

fn messages() -> Vec<Case> {
    let stops = vec![LeaseStop { name: "a".into(), signal: 15, timeout_ms: 30_000 }];
    let thaw = Some(ThawFile { path: "f".into(), text: "0".into() });
    let state = |over| ShimMessage::Reply(Reply::Leased(LeaseState { ends_at_boot_ms: 1 << 33, over }));
    vec![
        case("lease", Request::Lease(LeaseRequest { ends_at_boot_ms: 1 << 33, stops, thaw })),
        case(
            "lease-renewed",
            Request::Lease(LeaseRequest { ends_at_boot_ms: 1 << 33, stops: Vec::new(), thaw: None }),
        ),
        case("reply-leased", state(false)),
        case("reply-lease-over", state(true)),
        case("event-lease-over", ShimMessage::Event(Event::LeaseOver)),
    ]
}

#[test]
fn frames_are_as_version_3_sends_them() {
    compare("src/golden-v3.txt", &messages());
}

/// A shim or an agent of version 2 closes the connection on these; both therefore look at the version first.
#[test]
fn every_message_of_version_3_has_a_tag_that_version_2_does_not_know() {
    for (name, _, bytes) in messages() {
        let tags = &bytes[8..];
        let (tag, newest_of_v2) = match name {
            name if name.starts_with("reply") => (tags[1], 14),
            name if name.starts_with("event") => (tags[1], 2),
            _ => (tags[0], 13),
        };
        assert!(tag > newest_of_v2, "{name}");
    }
}
