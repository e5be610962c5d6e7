//! Connections to the control plane over TLS, with a certificate or without one.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::Path;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(crate) fn endpoint(address: SocketAddr, ca: &str, identity: Option<(&str, &str)>) -> Result<Endpoint> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .domain_name("control.lighter.internal");
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    Ok(Endpoint::from_shared(format!("https://{address}"))?.tcp_nodelay(true).tls_config(tls)?)
}

/// The administrator's certificate, key and CA.
pub(crate) struct Admin {
    certificate: String,
    key: String,
    pub ca: String,
}

impl Admin {
    /// Reads an admin.pem.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let pem = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let ends: Vec<usize> = pem.match_indices("-----BEGIN").map(|(at, _)| at).collect();
        let [_, key, ca] = ends.as_slice() else { anyhow::bail!("{} has not three parts", path.display()) };
        Ok(Self {
            certificate: pem[..*key].to_owned(),
            key: pem[*key..*ca].to_owned(),
            ca: pem[*ca..].to_owned(),
        })
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Channel> {
        Ok(endpoint(address, &self.ca, Some((&self.certificate, &self.key)))?.connect().await?)
    }
}
