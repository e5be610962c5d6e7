//! CreateJoinToken, Node.Join which spends one, and Node.RenewCertificate.
//! In: what a token is for; a token or a node's old certificate with a certificate request. Out: the
//! token's text; a certificate. Never: keeps a secret, signs before the token is durably spent, or
//! signs for an instance that is not in the cluster any more.

use super::Context;
use crate::core::audit::Asker;
use crate::core::join::{CreateJoinToken, DEFAULT_TTL_S, Join};
use crate::core::record::InstanceRecord;
use crate::error::{ApiError, SocketAddrText};
use crate::identity::ca::NodeRequest;
use crate::identity::caller::Caller;
use crate::identity::{join_token, sha256_hex};
use crate::session::run::{Identity, instance_of};
use crate::writer::Chain;
use lighter_model::ids::ClusterName;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a token is for.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    pub cluster: ClusterName,
    /// 0 means an hour.
    pub time_to_live_s: u32,
    pub attributes: BTreeMap<String, String>,
}

/// A token, shown once.
#[derive(Clone)]
pub struct NewToken {
    pub text: String,
    pub expires_at_unix_ms: u64,
}

/// Makes a token.
pub async fn create_token(
    context: &Context,
    asker: Asker,
    request: TokenRequest,
) -> Result<NewToken, ApiError> {
    let secret = join_token::secret(&context.environment.random_bytes());
    let time_to_live_s = if request.time_to_live_s == 0 { DEFAULT_TTL_S } else { request.time_to_live_s };
    let command = CreateJoinToken {
        cluster: request.cluster,
        time_to_live_s,
        attributes: request.attributes,
        secret_sha256: sha256_hex(secret.as_bytes()),
    };
    let record = context.change(asker, command).await?;
    let text = join_token::text(context.ca.hash(), &record.id, &secret);
    Ok(NewToken { text, expires_at_unix_ms: record.expires_at_unix_ms })
}

/// A node that has joined.
pub struct Joined {
    pub instance: Arc<InstanceRecord>,
    pub certificate_pem: String,
    pub ca_certificate_pem: String,
}

/// Spends a token on a certificate for the key of the request.
pub async fn join(
    context: &Context,
    address: SocketAddrText,
    token: &str,
    request_pem: &str,
    name: String,
) -> Result<Joined, ApiError> {
    let (token_id, secret) = join_token::parse(token, context.ca.hash())?;
    let request = NodeRequest::parse(request_pem)?;
    let asker = Asker { user: format!("join token {token_id}"), address: address.to_string() };
    let command = Join {
        token_id: token_id.to_owned(),
        secret_sha256: sha256_hex(secret.as_bytes()),
        public_key_sha256: request.public_key_sha256(),
        name,
    };
    let instance = context.change(asker, command).await?;
    let certificate_pem = sign(context, &request, &instance)?;
    tracing::info!(instance = %instance.id, name = %instance.name, cluster = %instance.cluster, "a node joined");
    Ok(Joined { instance, certificate_pem, ca_certificate_pem: context.ca.pem().to_owned() })
}

/// A certificate for a new key of a node that is still one.
pub fn renew(context: &Context, me: &Identity, request_pem: &str) -> Result<String, ApiError> {
    let request = NodeRequest::parse(request_pem)?;
    let instance = context.view.read(|shown| instance_of(&shown.state, me))?;
    let certificate_pem = sign(context, &request, &instance)?;
    tracing::info!(instance = %instance.id, address = %me.address, "a node renewed its certificate");
    Ok(certificate_pem)
}

fn sign(context: &Context, request: &NodeRequest, instance: &InstanceRecord) -> Result<String, ApiError> {
    let node = Caller::Node { cluster: instance.cluster.clone(), id: instance.id.clone() };
    let signed = context.ca.sign_node(request, &node, context.environment.wall_unix_ms());
    signed.map_err(|error| {
        tracing::error!(error = %Chain(&error), "a node's certificate could not be signed");
        ApiError::Internal { message: "the certificate could not be signed".to_owned() }
    })
}
