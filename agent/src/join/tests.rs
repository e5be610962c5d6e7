//! Tests of joining against a TLS server in this process: the right CA is trusted by its hash alone,
//! any other server is refused before the token is sent, and the identity is kept whole.
//! In: certificates made here. Out: assertions. Never: a file outside a temporary directory.

use super::{CONTROL_SERVER_NAME, Credentials, Identity, JoinError, JoinOptions, Joined, join};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lighter_proto::v1;
use lighter_proto::v1::node_server::{Node, NodeServer};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity as ServerIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

const ID: &str = "0123456789abcdef0123456789abcdef";

pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn token(&self) -> String {
        let pin = ring::digest::digest(&ring::digest::SHA256, self.0.der());
        format!("lighter1.{}.one.secret", URL_SAFE_NO_PAD.encode(pin))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key, good for hundreds of years.
    fn leaf(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        self.lasting_leaf(name, usage, CertificateParams::default().not_after.into())
    }

    /// The same, good from a second ago until then.
    pub(crate) fn lasting_leaf(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        until: SystemTime,
    ) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = (SystemTime::now() - Duration::from_secs(1)).into();
        params.not_after = until.into();
        params.extended_key_usages = vec![usage];
        let issuer: &Issuer<'static, KeyPair> = &self.0;
        (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
    }
}

struct ControlPlane {
    ca: Arc<Ca>,
    joins: Arc<AtomicU32>,
    renewals: Renewals,
}

/// Certificates with which somebody asked for a new one, in order; the first is refused.
pub(crate) type Renewals = Arc<Mutex<Vec<Vec<u8>>>>;

#[tonic::async_trait]
impl Node for ControlPlane {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let request = request.into_inner();
        if self.joins.fetch_add(1, Ordering::Relaxed) > 0 {
            return Err(Status::unauthenticated("the token is used up"));
        }
        assert!(request.token.ends_with(".one.secret") && request.name == "a-node");
        let csr = rcgen::CertificateSigningRequestParams::from_pem(&request.certificate_request_pem).unwrap();
        let issuer: &Issuer<'static, KeyPair> = &self.ca.0;
        Ok(Response::new(v1::JoinResponse {
            container_instance_id: ID.into(),
            cluster: "default".into(),
            certificate_pem: csr.signed_by(issuer).unwrap().pem(),
            ca_certificate_pem: self.ca.0.pem(),
        }))
    }
    async fn renew_certificate(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateResponse>, Status> {
        let peer = request.peer_certs().ok_or(Status::unauthenticated("no certificate"))?[0].to_vec();
        self.renewals.lock().unwrap().push(peer);
        if self.renewals.lock().unwrap().len() == 1 {
            return Err(Status::unavailable("not now"));
        }
        let pem = request.into_inner().certificate_request_pem;
        let mut csr = rcgen::CertificateSigningRequestParams::from_pem(&pem).unwrap();
        csr.params.not_before = (SystemTime::now() - Duration::from_secs(1)).into();
        csr.params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let issuer: &Issuer<'static, KeyPair> = &self.ca.0;
        Ok(Response::new(v1::RenewCertificateResponse {
            certificate_pem: csr.signed_by(issuer).unwrap().pem(),
        }))
    }
    type SessionStream = ReceiverStream<Result<v1::ControlMessage, Status>>;
    async fn session(
        &self,
        _: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented(""))
    }
    type StreamStream = ReceiverStream<Result<v1::ControlFrame, Status>>;
    async fn stream(
        &self,
        _: Request<Streaming<v1::NodeFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn send_logs(
        &self,
        _: Request<Streaming<v1::SendLogsRequest>>,
    ) -> Result<Response<v1::SendLogsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A server with this leaf, whose chain ends in `ca`. Gives its endpoint and how often it was asked.
async fn serve(ca: &Arc<Ca>, leaf: (String, String)) -> (String, Arc<AtomicU32>) {
    let (endpoint, joins, _) = serve_all(ca, leaf).await;
    (endpoint, joins)
}

/// A control plane as it should be; its endpoint, and who asked for a new certificate.
pub(crate) async fn serve_well(ca: &Arc<Ca>) -> (String, Renewals) {
    let leaf = ca.leaf(CONTROL_SERVER_NAME, ExtendedKeyUsagePurpose::ServerAuth);
    let (endpoint, _, renewals) = serve_all(ca, leaf).await;
    (endpoint, renewals)
}

async fn serve_all(ca: &Arc<Ca>, leaf: (String, String)) -> (String, Arc<AtomicU32>, Renewals) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let joins = Arc::new(AtomicU32::new(0));
    let chain = format!("{}{}", leaf.0, ca.0.pem());
    let tls = ServerTlsConfig::new()
        .identity(ServerIdentity::from_pem(chain, leaf.1))
        .client_ca_root(Certificate::from_pem(ca.pem()))
        .client_auth_optional(true);
    let renewals = Renewals::default();
    let plane = ControlPlane { ca: ca.clone(), joins: joins.clone(), renewals: renewals.clone() };
    let server = Server::builder().tls_config(tls).unwrap().add_service(NodeServer::new(plane));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (endpoint, joins, renewals)
}

async fn try_join(endpoint: &str, token: String, data_dir: &Path, force: bool) -> Result<Joined, JoinError> {
    join(JoinOptions {
        endpoint: endpoint.into(),
        token,
        name: "a-node".into(),
        data_dir: data_dir.into(),
        force,
    })
    .await
}

#[tokio::test]
async fn the_pinned_ca_is_trusted_and_the_identity_is_kept() {
    let ca = Arc::new(Ca::new());
    let (endpoint, _) = serve(&ca, ca.leaf(CONTROL_SERVER_NAME, ExtendedKeyUsagePurpose::ServerAuth)).await;
    let dir = tempfile::tempdir().unwrap();
    let joined = try_join(&endpoint, ca.token(), dir.path(), false).await.unwrap();
    assert_eq!((joined.container_instance_id.as_str(), joined.cluster.as_str()), (ID, "default"));
    assert_eq!(std::fs::metadata(&joined.credentials).unwrap().permissions().mode() & 0o777, 0o600);
    let credentials = Credentials::load(&joined.credentials).unwrap();
    assert!(credentials.key.contains("PRIVATE KEY") && credentials.ca.trim() == ca.0.pem().trim());
    assert_eq!(Identity::load(dir.path()).unwrap().unwrap().control_endpoint, endpoint);
    let again = try_join(&endpoint, ca.token(), dir.path(), false).await.unwrap_err();
    assert!(matches!(again, JoinError::AlreadyJoined { .. }) && again.to_string().contains("--force"));
    let used_up = try_join(&endpoint, ca.token(), dir.path(), true).await.unwrap_err();
    assert!(
        used_up.to_string().contains("used up") && used_up.to_string().contains("lighter token create"),
        "{used_up}"
    );
}

#[tokio::test]
async fn another_server_never_sees_the_token() {
    let (ca, other) = (Arc::new(Ca::new()), Arc::new(Ca::new()));
    let good = || other.leaf(CONTROL_SERVER_NAME, ExtendedKeyUsagePurpose::ServerAuth);
    let cases = [
        // A server of another CA, which even shows the pinned one in its chain.
        (ca.clone(), good()),
        (other.clone(), good()),
        // The right CA, and a certificate that is none of a control plane's.
        (ca.clone(), ca.leaf("node.lighter.internal", ExtendedKeyUsagePurpose::ServerAuth)),
        (ca.clone(), ca.leaf(CONTROL_SERVER_NAME, ExtendedKeyUsagePurpose::ClientAuth)),
    ];
    for (number, (chain, leaf)) in cases.into_iter().enumerate() {
        let (endpoint, joins) = serve(&chain, leaf).await;
        let dir = tempfile::tempdir().unwrap();
        let refused = try_join(&endpoint, ca.token(), dir.path(), false).await;
        assert!(matches!(refused, Err(JoinError::Connect { .. })), "case {number}: {refused:?}");
        assert_eq!(joins.load(Ordering::Relaxed), 0, "case {number}");
        assert!(!dir.path().join("node.pem").exists());
    }
}

#[tokio::test]
async fn what_cannot_be_a_control_plane_is_said_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let token = Ca::new().token();
    let plain = try_join("http://127.0.0.1:1", token.clone(), dir.path(), false).await;
    assert!(matches!(plain, Err(JoinError::Endpoint { .. })));
    let wrong = try_join("https://127.0.0.1:1", "nonsense".into(), dir.path(), false).await;
    assert!(matches!(wrong, Err(JoinError::Token(_))));
    let nobody = try_join("https://127.0.0.1:1", token, dir.path(), false).await;
    assert!(matches!(nobody, Err(JoinError::Connect { .. })));
}
