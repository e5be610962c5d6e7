//! Typed names, one type for each kind of thing, so that a task id is never passed for a node's.
//! In: text from outside. Out: validated ids. Never: makes an id up; randomness and time are passed in.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

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
        ///
        /// Its 32 digits lie in the value itself: maps of hundreds of thousands hold nothing else.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Makes an id that sorts by creation: 12 hex digits of milliseconds since the Unix
            /// epoch, then 20 of the given randomness.
            pub fn from_parts(unix_ms: u64, random: u128) -> Self {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let number = u128::from(unix_ms & 0xffff_ffff_ffff) << 80 | random & ((1u128 << 80) - 1);
                Self(std::array::from_fn(|at| DIGITS[(number >> (4 * (31 - at)) & 15) as usize]))
            }
            pub fn as_str(&self) -> &str {
                // It is made of ASCII digits only.
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
                match <[u8; 32]>::try_from(text.as_bytes()) {
                    Ok(digits) if digits.iter().all(hex) => Ok(Self(digits)),
                    _ => Err(IdError::NotHex { kind: $kind, text: text.to_owned() }),
                }
            }
        }
        text_id!($name);
    };
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// Clones share one text.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_ecs_name(text) {
                    Ok(Self(text.into()))
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
                id.as_str().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(Error::custom)
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
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

impl Serialize for TaskDefinitionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
