//! Typed names, one type for each kind of thing, so that a task id is never passed for a node's.
//! In: text from outside. Out: validated ids. Never: makes an id up; randomness and time are passed in.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{kind} must be 32 lower-case hex digits, got {text:?}")]
    NotHex { kind: &'static str, text: String },
    #[error("{kind} must be 1 to 255 letters, digits, hyphens or underscores, got {text:?}")]
    NotAName { kind: &'static str, text: String },
    #[error("a task definition is named family:revision with a revision of at least 1, got {text:?}")]
    NotARevision { text: String },
}

/// ECS's rule for names: up to 255 letters, digits, hyphens and underscores.
fn is_ecs_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes an id that sorts by creation: 12 hex digits of milliseconds since the Unix
            /// epoch, then 20 of the given randomness.
            pub fn from_parts(unix_ms: u64, random: u128) -> Self {
                Self(format!("{:012x}{:020x}", unix_ms & 0xffff_ffff_ffff, random & ((1u128 << 80) - 1)))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if text.len() == 32 && text.bytes().all(hex) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError::NotHex { kind: $kind, text: text.to_owned() })
                }
            }
        }
        text_id!($name);
    };
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_ecs_name(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError::NotAName { kind: $kind, text: text.to_owned() })
                }
            }
        }
        text_id!($name);
    };
}

macro_rules! text_id {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

hex_id!(
    /// One run of a task definition; never used again.
    TaskId, "task id"
);
hex_id!(
    /// A node of a cluster, chosen by the control plane when the node joins.
    ContainerInstanceId, "container instance id"
);
name_id!(
    /// A cluster's name; `default` exists from the start.
    ClusterName, "cluster name"
);
name_id!(
    /// The `name` of a container definition, unique within its task definition.
    ContainerName, "container name"
);
name_id!(
    /// The `family` of a task definition.
    Family, "family"
);
name_id!(
    /// A service's name, unique within its cluster.
    ServiceName, "service name"
);
name_id!(
    /// The `name` of a volume within its task definition, or of a shared named volume on a node.
    VolumeName, "volume name"
);

/// `family:revision`; revisions start at 1 and are never used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskDefinitionId {
    pub family: Family,
    pub revision: u32,
}

impl fmt::Display for TaskDefinitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.family, self.revision)
    }
}

impl FromStr for TaskDefinitionId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::NotARevision { text: text.to_owned() };
        let (family, revision) = text.rsplit_once(':').ok_or_else(wrong)?;
        let revision: u32 = revision.parse().map_err(|_| wrong())?;
        if revision == 0 {
            return Err(wrong());
        }
        Ok(Self { family: family.parse()?, revision })
    }
}

impl TryFrom<String> for TaskDefinitionId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<TaskDefinitionId> for String {
    fn from(id: TaskDefinitionId) -> String {
        id.to_string()
    }
}

/// Grows with every change of an assignment; a node drops what it has already seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// Names everything a node makes for one container: netns, veth, snapshot, bundle.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentKey {
    pub task: TaskId,
    pub container: ContainerName,
}

impl AttachmentKey {
    /// Puts a key together from its two names.
    pub fn new(task: TaskId, container: ContainerName) -> Self {
        Self { task, container }
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.task, self.container)
    }
}
