//! Join tokens and what they are spent on: a new container instance.
//! In: the hash of a secret, never the secret. Out: a token's record, or the instance it bought.
//! Owns: the one use of each token. Never: tells a wrong secret from an unknown token.

use crate::core::Command;
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::{InstanceRecord, JoinTokenRecord, JoinTokenUse};
use crate::core::run_task::require_cluster;
use crate::error::ApiError;
use lighter_model::attribute;
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_model::resources::Resources;
use lighter_model::status::ContainerInstanceStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A token's life when none is asked for, in seconds.
pub const DEFAULT_TTL_S: u32 = 3_600;
/// The longest life of a token, in seconds.
pub const MAX_TTL_S: u32 = 86_400;
/// How far clocks may be apart before a token or a certificate is refused.
pub const CLOCK_TOLERANCE_MS: u64 = 300_000;

/// Makes a token.
#[derive(Debug, Clone)]
pub struct CreateJoinToken {
    pub cluster: ClusterName,
    /// 1 to 86400.
    pub time_to_live_s: u32,
    /// Bound to the node that joins with it.
    pub attributes: BTreeMap<String, String>,
    /// SHA-256 of the secret, in hex.
    pub secret_sha256: String,
}

impl Command for CreateJoinToken {
    type Answer = Arc<JoinTokenRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        require_cluster(changes.state(), &self.cluster)?;
        for (name, value) in &self.attributes {
            attribute::check(name, value).map_err(|why| ApiError::invalid("attributes", why))?;
        }
        if !(1..=MAX_TTL_S).contains(&self.time_to_live_s) {
            return Err(ApiError::invalid("timeToLive", format!("must be 1 to {MAX_TTL_S} seconds")));
        }
        let last = changes.state().join_tokens.last_key_value().map(|(id, _)| id.as_str());
        let (id_ms, digits) = changes.next_id(last);
        let id = ContainerInstanceId::from_parts(id_ms, digits);
        let record = Arc::new(JoinTokenRecord {
            id: id.to_string(),
            secret_sha256: self.secret_sha256,
            cluster: self.cluster,
            attributes: self.attributes,
            expires_at_unix_ms: changes.moment().wall_unix_ms + u64::from(self.time_to_live_s) * 1000,
            used: None,
        });
        changes.record(Mutation::JoinToken(record.clone()));
        Ok(record)
    }
}

/// Spends a token.
#[derive(Debug, Clone)]
pub struct Join {
    pub token_id: String,
    pub secret_sha256: String,
    pub public_key_sha256: String,
    /// Wanted name; the id when empty.
    pub name: String,
}

impl Command for Join {
    type Answer = Arc<InstanceRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let token = self.token(changes)?;
        require_cluster(changes.state(), &token.cluster)?;
        if let Some(used) = &token.used {
            let same_key = used.public_key_sha256 == self.public_key_sha256;
            let instance = changes.state().instances.get(&used.instance);
            return instance.filter(|_| same_key).cloned().ok_or(ApiError::JoinTokenUsed);
        }
        if changes.moment().wall_unix_ms > token.expires_at_unix_ms + CLOCK_TOLERANCE_MS {
            return Err(ApiError::JoinTokenExpired);
        }
        let last = changes.state().instances.last_key_value().map(|(id, _)| id.as_str());
        let (id_ms, digits) = changes.next_id(last);
        let id = ContainerInstanceId::from_parts(id_ms, digits);
        // One without a name has its own id for it.
        check_name(&self.name)?;
        let name = if self.name.is_empty() { id.to_string() } else { self.name };
        free_name(changes, &token.cluster, &name)?;
        room_for_instance(changes, &token.cluster)?;
        let used = JoinTokenUse { instance: id.clone(), public_key_sha256: self.public_key_sha256 };
        let spent = JoinTokenRecord { used: Some(used), ..(*token).clone() };
        changes.record(Mutation::JoinToken(Arc::new(spent)));
        let registered_at_unix_ms = changes.now_ms();
        let attributes = token.attributes.clone();
        let cluster = token.cluster.clone();
        Ok(changes.put_instance(blank_instance(id, cluster, name, attributes, registered_at_unix_ms)))
    }
}

/// An instance of which nothing was heard yet.
pub fn blank_instance(
    id: ContainerInstanceId,
    cluster: ClusterName,
    name: String,
    token_attributes: BTreeMap<String, String>,
    registered_at_unix_ms: u64,
) -> InstanceRecord {
    InstanceRecord {
        id,
        cluster,
        name,
        status: ContainerInstanceStatus::Registering,
        connected: false,
        agent_version: String::new(),
        boot_id: String::new(),
        address: None,
        offered: Resources::default(),
        token_attributes,
        node_attributes: BTreeMap::new(),
        registered_at_unix_ms,
        orphans: BTreeSet::new(),
        orphan_facts: BTreeMap::new(),
        incarnation: String::new(),
        drain: None,
        notices: Vec::new(),
        operator_attributes: BTreeMap::new(),
        tags: BTreeMap::new(),
        deregistered_at_unix_ms: None,
        silent_since_unix_ms: None,
        leases: false,
    }
}

impl Join {
    fn token(&self, changes: &Changes<'_>) -> Result<Arc<JoinTokenRecord>, ApiError> {
        let token = changes.state().join_tokens.get(&self.token_id).ok_or(ApiError::JoinTokenInvalid)?;
        if same(token.secret_sha256.as_bytes(), self.secret_sha256.as_bytes()) {
            Ok(token.clone())
        } else {
            Err(ApiError::JoinTokenInvalid)
        }
    }
}

/// Compares in a time that depends on the length only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |bits, (x, y)| bits | (x ^ y))) == 0
}

/// As RegisterContainerInstance would have it. A name that is an id would be somebody else's address.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    if name.parse::<ContainerInstanceId>().is_ok() {
        return Err(ApiError::invalid("name", "must not be an id"));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.len() <= 255 && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(ApiError::invalid("name", "must be at most 255 letters, digits, dots, hyphens or underscores"))
    }
}

/// A holder that is away gives its name up and becomes INACTIVE: whoever spends a token on this
/// name says that the machine starts anew. Its tasks are given up by the sweep.
fn free_name(changes: &mut Changes<'_>, cluster: &ClusterName, name: &str) -> Result<(), ApiError> {
    let Some(holder) = changes.state().instance_by_name(cluster, name).cloned() else { return Ok(()) };
    if holder.connected {
        return Err(ApiError::InstanceNameTaken { name: name.to_owned(), holder: holder.id.to_string() });
    }
    let deregistered_at_unix_ms = Some(changes.now_ms());
    changes.put_instance(InstanceRecord {
        status: ContainerInstanceStatus::Inactive,
        deregistered_at_unix_ms,
        ..(*holder).clone()
    });
    Ok(())
}

fn room_for_instance(changes: &Changes<'_>, cluster: &ClusterName) -> Result<(), ApiError> {
    let all = changes.state().instances.values();
    let own = all.filter(|i| i.cluster == *cluster && i.status != ContainerInstanceStatus::Inactive);
    changes.settings().quotas.container_instances(own.count())
}
