//! `lighter agent join`: turns a one-use token into this node's identity.
//! In: endpoint, token, wanted name. Out: `node.pem` (0600) and `identity.json` below the data
//! directory, each whole or absent. The key is made here and never leaves.
//! Owns nothing afterwards. Never: trusts a server whose CA is not the one the token names.

pub(crate) mod identity;
mod token;
mod verifier;

pub(crate) use identity::{Credentials, Identity};
pub use token::{JoinToken, TokenError};

use crate::errors::Cause;
use crate::session::connect::each;
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_proto::v1;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{ClientTlsConfig, Endpoint};
use tonic_types::StatusExt;

/// The name every control plane's certificate carries, whatever its address.
pub(crate) const CONTROL_SERVER_NAME: &str = "control.lighter.internal";

/// Long enough for a distant control plane, short enough for a person who waits.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// What `join` needs.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// `https://host:port` of the control plane.
    pub endpoint: String,
    /// `lighter1.<sha256 of the CA>.<token id>.<secret>`.
    pub token: String,
    /// Wanted container instance name; empty: the host name.
    pub name: String,
    pub data_dir: PathBuf,
    /// Replace an identity that exists.
    pub force: bool,
}

/// Who this node is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub container_instance_id: ContainerInstanceId,
    pub cluster: ClusterName,
    /// The file with certificate, key and CA.
    pub credentials: PathBuf,
}

/// Why this node did not join. The token is used up only if the control plane answered.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the join token is not one; copy the whole output of `lighter token create`")]
    Token(#[source] TokenError),
    #[error(
        "this node is already container instance {id} of cluster {cluster} ({path:?}); give --force to replace that identity"
    )]
    AlreadyJoined { id: String, cluster: String, path: PathBuf },
    #[error("the endpoint {endpoint:?} is not https://host:port")]
    Endpoint { endpoint: String },
    #[error(
        "connect to the control plane at {endpoint}; check the address, and that the token is from this cluster"
    )]
    Connect {
        endpoint: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("that control plane does not lead, {leader:?} does; try again")]
    NotLeader { leader: String },
    #[error("the control plane refused: {message}{hint}")]
    Refused { message: String, hint: &'static str },
    #[error("make a key and a certificate request")]
    Request(#[source] rcgen::Error),
    #[error("the control plane's answer has no valid {what}")]
    Answer { what: &'static str },
    #[error("keep the new identity in {path:?}")]
    Store {
        path: PathBuf,
        #[source]
        source: Cause,
    },
}

/// Joins a cluster. May be repeated with a new token and `force`.
pub async fn join(options: JoinOptions) -> Result<Joined, JoinError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let token: JoinToken = options.token.trim().parse().map_err(JoinError::Token)?;
    if options.endpoint.is_empty() || !each(&options.endpoint).all(|uri| uri.starts_with("https://")) {
        return Err(JoinError::Endpoint { endpoint: options.endpoint });
    }
    refuse_second_identity(&options)?;
    let key = rcgen::KeyPair::generate().map_err(JoinError::Request)?;
    let request = certificate_request(&key).map_err(JoinError::Request)?;
    let name = if options.name.is_empty() { identity::host_name() } else { options.name.clone() };
    let answer = ask_each(&options.endpoint, &token, &request, &name).await?;
    keep(&options, &key, answer)
}

fn refuse_second_identity(options: &JoinOptions) -> Result<(), JoinError> {
    match Identity::load(&options.data_dir) {
        Ok(Some(found)) if !options.force => Err(JoinError::AlreadyJoined {
            id: found.container_instance_id.to_string(),
            cluster: found.cluster.to_string(),
            path: Identity::path(&options.data_dir),
        }),
        _ => Ok(()),
    }
}

/// A request that names nobody.
pub(crate) fn certificate_request(key: &rcgen::KeyPair) -> Result<String, rcgen::Error> {
    let mut params = rcgen::CertificateParams::default();
    // The control plane chooses the name; what stands here is not used.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serialize_request(key)?.pem()
}

/// Asks the control planes one after the other until one of them leads.
async fn ask_each(
    endpoints: &str,
    token: &JoinToken,
    request: &str,
    name: &str,
) -> Result<v1::JoinResponse, JoinError> {
    let mut asked = ask(each(endpoints).next().unwrap_or_default(), token, request, name).await;
    for endpoint in each(endpoints).skip(1) {
        if !matches!(asked, Err(JoinError::Connect { .. } | JoinError::NotLeader { .. })) {
            break;
        }
        asked = ask(endpoint, token, request, name).await;
    }
    // A leader that is named and was not asked; the pinned CA proves what it is.
    match asked {
        Err(JoinError::NotLeader { leader }) if leader.starts_with("https://") => {
            ask(&leader, token, request, name).await
        }
        asked => asked,
    }
}

async fn ask(
    endpoint: &str,
    token: &JoinToken,
    csr: &str,
    name: &str,
) -> Result<v1::JoinResponse, JoinError> {
    let connect = |source| JoinError::Connect { endpoint: endpoint.to_owned(), source };
    let verifier = Arc::new(verifier::PinnedCa::new(token.ca_sha256));
    let channel = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|_| JoinError::Endpoint { endpoint: endpoint.to_owned() })?
        .connect_timeout(JOIN_TIMEOUT)
        .timeout(JOIN_TIMEOUT)
        .tls_config_with_verifier(ClientTlsConfig::new().domain_name(CONTROL_SERVER_NAME), verifier)
        .map_err(connect)?
        .connect()
        .await
        .map_err(connect)?;
    let request = v1::JoinRequest {
        token: token.text.clone(),
        certificate_request_pem: csr.to_owned(),
        name: name.to_owned(),
    };
    let answer = v1::node_client::NodeClient::new(channel).join(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| refused(&status))
}

fn refused(status: &tonic::Status) -> JoinError {
    let details = status.get_error_details();
    if let Some(info) = details.error_info().filter(|info| info.reason == "NOT_LEADER") {
        return JoinError::NotLeader { leader: info.metadata.get("leader").cloned().unwrap_or_default() };
    }
    let hint = match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
            "; tokens are for one use and expire, make a new one with `lighter token create`"
        }
        tonic::Code::AlreadyExists => "; choose another name with --name",
        _ => "",
    };
    JoinError::Refused { message: status.message().to_owned(), hint }
}

fn keep(options: &JoinOptions, key: &rcgen::KeyPair, answer: v1::JoinResponse) -> Result<Joined, JoinError> {
    let id = answer
        .container_instance_id
        .parse()
        .map_err(|_| JoinError::Answer { what: "container instance id" })?;
    let cluster = answer.cluster.parse().map_err(|_| JoinError::Answer { what: "cluster name" })?;
    let pem = Credentials {
        certificate: answer.certificate_pem,
        key: key.serialize_pem(),
        ca: answer.ca_certificate_pem,
    };
    let pem = pem.to_pem();
    Credentials::parse(&pem).ok_or(JoinError::Answer { what: "certificate" })?;
    let identity =
        Identity { container_instance_id: id, cluster, control_endpoint: options.endpoint.clone() };
    let path = options.data_dir.join("node.pem");
    let store =
        |source: std::io::Error| JoinError::Store { path: options.data_dir.clone(), source: source.into() };
    std::fs::create_dir_all(&options.data_dir).map_err(store)?;
    identity::write_private(&path, pem.as_bytes()).map_err(store)?;
    identity.save(&options.data_dir).map_err(store)?;
    Ok(Joined {
        container_instance_id: identity.container_instance_id,
        cluster: identity.cluster,
        credentials: path,
    })
}

#[cfg(test)]
pub(crate) mod tests;
