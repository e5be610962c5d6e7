//! Joining by token, and who can pretend what.

use crate::fake_node::{certificate_request, join, joined};
use crate::support::{reason, start, start_with};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use lighter_control::identity::caller::Caller;
use lighter_proto::v1;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tonic::Code;

#[tokio::test]
async fn a_token_buys_one_identity_that_the_control_plane_chose() {
    let running = start().await;
    let token = running.handle.create_join_token().await.unwrap();
    let node = join(&running, &token, "worker-1").await.unwrap();
    let der = CertificateDer::from_pem_slice(node.certificate.as_bytes()).unwrap();
    let expected = Caller::Node { cluster: "default".parse().unwrap(), id: node.id.parse().unwrap() };
    assert_eq!(Caller::from_certificate(&der), expected);
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    let names = certificate.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names.len(), 1, "the request's own names are not taken over");

    let again = join(&running, &token, "worker-2").await.err().expect("a token is spent once");
    assert_eq!((again.code(), reason(&again).as_str()), (Code::Unauthenticated, "JOIN_TOKEN_USED"));
}

#[tokio::test]
async fn the_same_key_may_ask_again_for_a_lost_answer() {
    let running = start().await;
    let token = running.handle.create_join_token().await.unwrap();
    let (certificate_request_pem, _) = certificate_request();
    let request = v1::JoinRequest { token, certificate_request_pem, name: "n".to_owned() };
    let mut client = running.anonymous_node().await;
    let first = client.join(request.clone()).await.unwrap().into_inner();
    let second = client.join(request).await.unwrap().into_inner();
    assert_eq!(first.container_instance_id, second.container_instance_id);
}

#[tokio::test]
async fn wrong_foreign_and_expired_tokens_are_refused() {
    let running = start().await;
    let token = running.handle.create_join_token().await.unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts[0], "lighter1");
    let wrong = [
        String::new(),
        "lighter1.x.y".to_owned(),
        format!("lighter1.{}.{}.{}", parts[1], parts[2], "A".repeat(43)),
        format!("lighter1.{}.{}.{}", "A".repeat(43), parts[2], parts[3]),
        format!("lighter1.{}.{}.{}", parts[1], "0".repeat(32), parts[3]),
        format!("lighter2.{}.{}.{}", parts[1], parts[2], parts[3]),
    ];
    for text in wrong {
        let refused = join(&running, &text, "n").await.err().expect("a wrong token");
        assert_eq!(reason(&refused), "JOIN_TOKEN_INVALID", "{text}");
    }
    // An hour, and the five minutes that clocks may differ by.
    running.clock_ahead_ms.store(64 * 60_000, Ordering::Relaxed);
    let spare = running.handle.create_join_token().await.unwrap();
    running.clock_ahead_ms.store(66 * 60_000, Ordering::Relaxed);
    let refused = join(&running, &token, "n").await.err().expect("an expired token");
    assert_eq!(reason(&refused), "JOIN_TOKEN_EXPIRED");
    join(&running, &spare, "n").await.unwrap();
}

#[tokio::test]
async fn a_token_is_stored_only_as_a_hash_and_outlives_a_restart() {
    let running = start().await;
    let token = running.handle.create_join_token().await.unwrap();
    let secret = token.rsplit('.').next().unwrap().to_owned();
    let running = running.restart().await;
    let store = std::fs::read(running.dir.path().join("data/control.redb")).unwrap();
    assert!(!store.windows(secret.len()).any(|window| window == secret.as_bytes()));
    join(&running, &token, "n").await.unwrap();
}

#[tokio::test]
async fn attributes_of_the_token_stick_and_the_node_cannot_change_them() {
    let running = start().await;
    let mut admin = running.admin().await;
    let attribute = |name: &str, value: &str| v1::Attribute {
        name: name.into(),
        value: value.into(),
        ..Default::default()
    };
    let request =
        v1::CreateJoinTokenRequest { attributes: vec![attribute("zone", "a")], ..Default::default() };
    let token = admin.create_join_token(request).await.unwrap().into_inner().token;
    let node = join(&running, &token, "n").await.unwrap();
    let mut hello = node.hello();
    hello.state.as_mut().unwrap().attributes = vec![attribute("zone", "b"), attribute("os", "linux")];
    let _session = node.connect_saying(&running, hello).await.unwrap();
    let shown = crate::support::describe_instance(&mut admin, "n").await;
    let said = |name, value, source: v1::AttributeSource| v1::Attribute {
        source: source.into(),
        ..attribute(name, value)
    };
    let expected =
        [said("os", "linux", v1::AttributeSource::Node), said("zone", "a", v1::AttributeSource::Token)];
    assert_eq!(shown.attributes, expected);
}

#[tokio::test]
async fn a_name_belongs_to_a_connected_node_and_passes_from_one_that_is_away() {
    let running = start_with(|config| config.heartbeat_interval_ms = 400).await;
    let mut admin = running.admin().await;
    let first = joined(&running, "web").await;
    let session = first.connect(&running).await.unwrap();
    let token = running.handle.create_join_token().await.unwrap();
    let refused = join(&running, &token, "web").await.err().expect("the name is taken");
    assert_eq!(reason(&refused), "INSTANCE_NAME_TAKEN");
    drop(session);
    crate::support::until("the node is away", async || {
        !crate::support::describe_instance(&mut admin.clone(), "web").await.agent_connected
    })
    .await;
    let second = join(&running, &token, "web").await.expect("a refused join does not spend the token");
    assert_eq!(crate::support::describe_instance(&mut admin, "web").await.container_instance_id, second.id);
    let refused = first.connect(&running).await.err().expect("the old identity is INACTIVE");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "INSTANCE_NOT_ACTIVE"));
    let (certificate_request_pem, _) = certificate_request();
    let request = v1::RenewCertificateRequest { certificate_request_pem };
    let refused = first.client(&running).await.renew_certificate(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "INSTANCE_NOT_ACTIVE"));
}

#[tokio::test]
async fn a_node_renews_its_certificate_with_the_one_it_has() {
    let running = start_with(|config| config.node_certificate_life_s = 3_600).await;
    let mut node = joined(&running, "n").await;
    let (certificate_request_pem, key) = certificate_request();
    let request = v1::RenewCertificateRequest { certificate_request_pem };
    let renewed = node.client(&running).await.renew_certificate(request).await.unwrap().into_inner();
    let old = std::mem::replace(&mut node.certificate, renewed.certificate_pem);
    node.key = key;
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert_eq!(Caller::from_certificate(&der(&node.certificate)), Caller::from_certificate(&der(&old)));
    let new = der(&node.certificate);
    let (_, parsed) = x509_parser::parse_x509_certificate(&new).unwrap();
    let life = parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp();
    assert_eq!(life, 3_600 + 300, "what is set, and what clocks may differ by");
    node.connect(&running).await.unwrap();
    let request = v1::RenewCertificateRequest { certificate_request_pem: "nonsense".to_owned() };
    let refused = node.client(&running).await.renew_certificate(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn keys_are_private_files_and_stay_the_same_over_a_restart() {
    let running = start().await;
    let data = running.dir.path().join("data");
    let mode = |path: &str| std::fs::metadata(data.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(running.handle.admin_key_path(), data.join("admin.pem"));
    for file in ["admin.pem", "ca/ca.pem", "ca/ca-key.pem", "control.redb"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    assert_eq!((mode("."), mode("ca")), (0o700, 0o700));
    let before = std::fs::read(data.join("admin.pem")).unwrap();
    let running = running.restart().await;
    assert_eq!(std::fs::read(running.handle.admin_key_path()).unwrap(), before);
    let mut admin = lighter_proto::v1::lighter_client::LighterClient::new(running.admin_tls().await);
    admin.list_tasks(v1::ListTasksRequest::default()).await.unwrap();
}

/// Takes any chain and remembers it.
#[derive(Debug, Default)]
struct Remember(Mutex<Vec<Vec<u8>>>);

impl ServerCertVerifier for Remember {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = [end_entity].into_iter().chain(intermediates);
        *self.0.lock().unwrap() = chain.map(|der| der.to_vec()).collect();
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn the_server_shows_the_ca_that_the_token_pins() {
    let running =
        start_with(|config| config.server_names = vec!["10.1.2.3".into(), "c.example".into()]).await;
    let token = running.handle.create_join_token().await.unwrap();
    let seen = Arc::new(Remember::default());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(running.handle.addresses()[0]).await.unwrap();
    let name = ServerName::try_from("control.lighter.internal").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
    let chain = seen.0.lock().unwrap().clone();
    assert_eq!(chain.len(), 2, "leaf and CA");
    let hash = BASE64_URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, &chain[1]));
    assert_eq!(token.split('.').nth(1).unwrap(), hash);
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    let names: Vec<String> = names.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(Caller::from_certificate(&chain[0]), Caller::Anonymous);
}

#[tokio::test]
async fn a_stranger_s_certificate_does_not_get_through_the_handshake() {
    let running = start().await;
    let other = start().await;
    let stranger = joined(&other, "stranger").await;
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(running.ca_pem()))
        .domain_name("control.lighter.internal")
        .identity(tonic::transport::Identity::from_pem(&stranger.certificate, &stranger.key));
    let url = format!("https://{}", running.handle.addresses()[0]);
    let endpoint = tonic::transport::Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap();
    let failed = match endpoint.connect().await {
        Err(_) => true,
        // TLS 1.3 tells the client of the refusal with the first answer.
        Ok(channel) => {
            let mut client = v1::node_client::NodeClient::new(channel);
            client.session(tokio_stream::empty()).await.is_err()
        }
    };
    assert!(failed);
}
