//! The statuses of tasks, containers and nodes, in ECS's words and order.
//! Source: Amazon ECS Developer Guide, "Task lifecycle"; API reference, Task$stopCode.

use serde::{Deserialize, Serialize};

macro_rules! ecs_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }
        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The word ECS uses for it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
            /// The value for ECS's word; `None` for any other.
            pub fn from_ecs(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use ecs_enum;

ecs_enum!(
    /// What the control plane wants of a task; never goes back from Stopped.
    DesiredStatus { Running = "RUNNING", Stopped = "STOPPED" }
);
ecs_enum!(
    /// What the node last said of a task; the order is the order of life and never runs backward.
    TaskStatus {
        Provisioning = "PROVISIONING",
        Pending = "PENDING",
        Activating = "ACTIVATING",
        Running = "RUNNING",
        Deactivating = "DEACTIVATING",
        Stopping = "STOPPING",
        Deprovisioning = "DEPROVISIONING",
        Stopped = "STOPPED",
    }
);
ecs_enum!(
    /// What the node last said of a container.
    ContainerStatus { Pending = "PENDING", Running = "RUNNING", Stopped = "STOPPED" }
);
ecs_enum!(
    /// Why a task stopped, as a machine reads it.
    StopCode {
        TaskFailedToStart = "TaskFailedToStart",
        EssentialContainerExited = "EssentialContainerExited",
        UserInitiated = "UserInitiated",
        ServiceSchedulerInitiated = "ServiceSchedulerInitiated",
        SpotInterruption = "SpotInterruption",
        TerminationNotice = "TerminationNotice",
        InfrastructureHealth = "InfrastructureHealth",
    }
);
ecs_enum!(
    /// The status of a container instance.
    ContainerInstanceStatus {
        Registering = "REGISTERING",
        /// Joined, but its first session was refused; the next may do better.
        RegistrationFailed = "REGISTRATION_FAILED",
        Active = "ACTIVE",
        Draining = "DRAINING",
        Deregistering = "DEREGISTERING",
        Inactive = "INACTIVE",
    }
);
