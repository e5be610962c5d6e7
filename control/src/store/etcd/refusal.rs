//! Asks an etcd that gave no clear answer whether it refuses our certificate, or we its own.
//! In: the settings. Out: the alert, if there is one. A client's certificate is refused after the handshake,
//! and who has sent a request by then is often told by a reset alone, which sweeps the alert away (RFC 8446,
//! section 4.4.2.4; tcp(7)). So nothing is sent here: it shakes hands and listens.
//! Never: sends a request; takes silence for an answer.

use super::{CALL, CallError, EtcdSettings};
use http::Uri;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A member that takes our certificate is silent after the handshake: it waits for a request.
const LISTENS: Duration = Duration::from_secs(1);

/// Why one of the members and we do not take each other's certificates; `None` while nobody says so.
pub(super) async fn refusal(settings: &EtcdSettings) -> Option<CallError> {
    let members = settings.endpoints.iter().filter(|endpoint| endpoint.starts_with("https://"));
    // What cannot be read or made of the settings, the call itself has said.
    let connector = TlsConnector::from(Arc::new(client_config(settings)?));
    for member in members {
        if let Some(source) = refused_by(member, &connector).await {
            return Some(CallError::Tls { member: member.clone(), source });
        }
    }
    None
}

async fn refused_by(member: &str, connector: &TlsConnector) -> Option<io::Error> {
    let uri: Uri = member.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let connect = TcpStream::connect((host, uri.port_u16().unwrap_or(443)));
    let stream = timeout(CALL, connect).await.ok()?.ok()?;
    let mut stream = match timeout(CALL, connector.connect(name, stream)).await.ok()? {
        Ok(stream) => stream,
        Err(error) => return is_of_tls(&error).then_some(error),
    };
    let heard = timeout(LISTENS, stream.read(&mut [0; 1])).await.ok()?;
    heard.err().filter(is_of_tls)
}

fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn client_config(settings: &EtcdSettings) -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(settings.ca.as_ref()?).ok()? {
        roots.add(certificate.ok()?).ok()?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().ok()?.with_root_certificates(roots);
    let mut config = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).ok()?.collect();
            config.with_client_auth_cert(chain.ok()?, PrivateKeyDer::from_pem_file(key).ok()?).ok()?
        }
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Some(config)
}
