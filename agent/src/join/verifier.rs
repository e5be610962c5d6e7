//! Trusts a server by the hash of its CA, which the join token carries (decision 15).
//! In: the chain [leaf, CA] a server presents. Out: yes only if the CA's SHA-256 is the pinned one
//! and the leaf is a server certificate of that CA for the wanted name.
//! Owns nothing. Never: trusts the system's authorities, or a certificate on first use.

use crate::join::CONTROL_SERVER_NAME;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Accepts the one CA whose hash is pinned.
#[derive(Debug)]
pub(super) struct PinnedCa {
    ca_sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    pub(super) fn new(ca_sha256: [u8; 32]) -> Self {
        Self { ca_sha256, provider: Arc::new(default_provider()) }
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        ring::digest::digest(&ring::digest::SHA256, certificate).as_ref() == self.ca_sha256
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let Some(ca) = chain.iter().find(|certificate| self.is_pinned(certificate)) else {
            return Err(unknown);
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        // Checks signature, validity, serverAuth and the name.
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|_| unknown)?;
        let name = ServerName::try_from(CONTROL_SERVER_NAME)
            .map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
        verifier.verify_server_cert(leaf, &[], &name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
