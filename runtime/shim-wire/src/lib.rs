//! The words that agent, shim and helper exchange, as values and as bytes.
//! In: bytes of a frame, or text of a record file. Out: typed messages, and back.
//! Owns nothing: no socket, no file, no clock. Two peers of different age agree on a version in
//! the first frame (`Request::Hello`), because a shim lives through upgrades of the agent.
//! Never: tokio, I/O, a dependency.

pub mod codec;
pub mod exec;
pub mod frame;
pub mod helper;
pub mod lease;
pub mod limits;
pub mod message;
pub mod record;

pub use codec::{DecodeError, Wire};
pub use frame::{FRAME_BYTES_MAX, FrameBuffer, FrameError, encode_frame};
pub use helper::{FailureKind, HelperReport, HelperRequest};
pub use limits::{CgroupPaths, CgroupVersion, Limits};
pub use message::{
    ContainerPhase, ContainerState, Event, HelloRange, LogPolicy, PortBind, PortProtocol, Reply, Request,
    ShimMessage, ShimStatus, StartContainer, WireExit, WireExitStatus,
};
pub use record::{RecordError, ShimRecord};

/// Where the first process of a container that asks for one is (`lighter-shim init`): on the container's
/// own /dev, so that the image is not touched.
pub const INIT_PROGRAM: &str = "/dev/lighter-init";

/// The newest version of the protocol that this build speaks.
pub const VERSION_MAX: u16 = 3;
/// The oldest version that this build still speaks.
pub const VERSION_MIN: u16 = 1;

/// From this version on there are probes, exec, attach, terminals and open standard inputs.
pub const VERSION_SESSIONS: u16 = 2;

/// From this version on a shim keeps the lease of its task.
pub const VERSION_LEASES: u16 = 3;

/// The version two peers use: the newest both speak. `None` when there is none.
pub fn agree(ours: HelloRange, theirs: HelloRange) -> Option<u16> {
    let version = ours.max.min(theirs.max);
    (version >= ours.min && version >= theirs.min).then_some(version)
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_v2;
#[cfg(test)]
mod golden_v3;

#[cfg(test)]
mod tests {
    use super::{HelloRange, agree};

    #[test]
    fn peers_agree_on_the_newest_common_version() {
        let range = |min, max| HelloRange { min, max };
        assert_eq!(agree(range(1, 3), range(2, 5)), Some(3));
        assert_eq!(agree(range(1, 1), range(1, 9)), Some(1));
        assert_eq!(agree(range(4, 6), range(1, 3)), None);
        assert_eq!(agree(range(1, 3), range(4, 6)), None);
    }
}
