//! The certificate authority of one control plane: made at the first start, kept under the data
//! directory, asked for the server's own certificate, the administrator's and the nodes'.
//! In: public keys. Out: certificates, each for one use. Owns: ca/ca.pem, ca/ca-key.pem, admin.pem.
//! Never: takes a name from a certificate request; a client certificate never serves, and back.

use super::caller::{ADMINISTRATOR, Caller};
use super::files::{make_private_dir, read_if_there, write_private};
use super::{SERVER_NAME, join_token};
use crate::core::join::CLOCK_TOLERANCE_MS;
use crate::error::ApiError;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the CA and the certificates of users last.
const LONG: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The server's certificate is made anew at every start.
const SERVER: Duration = Duration::from_secs(2 * 365 * 86_400);

/// Why there is no usable CA.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot read or write {path:?}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{present:?} is there but {missing:?} is not: restore it, or move both away for a new CA, with which every node has to join again"
    )]
    HalfThere { present: PathBuf, missing: PathBuf },
    #[error("{path:?} is damaged")]
    Damaged {
        path: PathBuf,
        #[source]
        source: rcgen::Error,
    },
    #[error("{path:?} has no certificate in it")]
    NoCertificate {
        path: PathBuf,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("cannot make a certificate for {name}")]
    Sign {
        name: String,
        #[source]
        source: rcgen::Error,
    },
}

/// The CA.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
    hash: String,
    /// How long the certificates of nodes last; each node renews its own long before. What ends a
    /// node's access at once is that its instance becomes INACTIVE, which is looked at for every
    /// session and every renewal.
    node_life: Duration,
}

/// How long the certificate of a node lasts when nothing else is set.
pub const NODE_LIFE: Duration = Duration::from_secs(90 * 86_400);

/// The server's chain, leaf first, CA last (nodes that join compare its hash), with its key.
pub struct ServerIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Ca {
    /// Opens the CA under `data_dir`, or makes it.
    pub fn open(data_dir: &Path, wall_unix_ms: u64) -> Result<Self, CaError> {
        let dir = data_dir.join("ca");
        let (certificate_path, key_path) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
        make_private_dir(&dir).map_err(file_error(&dir))?;
        let certificate = read_if_there(&certificate_path).map_err(file_error(&certificate_path))?;
        let key = read_if_there(&key_path).map_err(file_error(&key_path))?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => Self::read(certificate, &key, &certificate_path, &key_path),
            // Without the certificate nothing was ever signed that somebody could have: the key is
            // written first, and a crash in between leaves it alone.
            (None, _) => Self::make(&certificate_path, &key_path, wall_unix_ms),
            (Some(_), None) => Err(CaError::HalfThere { present: certificate_path, missing: key_path }),
        }
    }

    fn read(pem: String, key: &str, path: &Path, key_path: &Path) -> Result<Self, CaError> {
        let damaged = |path: &Path| {
            let path = path.to_owned();
            move |source| CaError::Damaged { path, source }
        };
        let key = KeyPair::from_pem(key).map_err(damaged(key_path))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|source| CaError::NoCertificate { path: path.to_owned(), source })?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(damaged(path))?;
        Ok(Self { hash: join_token::ca_hash(&der), issuer, der, pem, node_life: NODE_LIFE })
    }

    fn make(path: &Path, key_path: &Path, wall_unix_ms: u64) -> Result<Self, CaError> {
        let sign_error = |source| CaError::Sign { name: "the CA".to_owned(), source };
        let key = KeyPair::generate().map_err(sign_error)?;
        let mut params = parameters("Lighter CA", LONG, wall_unix_ms);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(sign_error)?;
        write_private(key_path, &key.serialize_pem()).map_err(file_error(key_path))?;
        write_private(path, &certificate.pem()).map_err(file_error(path))?;
        let der = certificate.der().clone();
        let hash = join_token::ca_hash(&der);
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, pem: certificate.pem(), der, hash, node_life: NODE_LIFE })
    }

    /// The same, with another life of the certificates of nodes.
    pub fn with_node_life(self, node_life: Duration) -> Self {
        Self { node_life, ..self }
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
    /// Tells this authority from others: the first eight bytes of its certificate's SHA-256.
    pub fn mark(&self) -> u64 {
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.der);
        hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }
    /// The hash in join tokens.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The control plane's own certificate: serverAuth only, `control.lighter.internal` and the
    /// names given. Nobody else ever gets that name.
    pub fn server_identity(&self, names: &[String], wall_unix_ms: u64) -> Result<ServerIdentity, CaError> {
        let sign_error = |source| CaError::Sign { name: SERVER_NAME.to_owned(), source };
        let key = KeyPair::generate().map_err(sign_error)?;
        let mut params = parameters(SERVER_NAME, SERVER, wall_unix_ms);
        for name in [SERVER_NAME].into_iter().chain(names.iter().map(String::as_str)) {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into().map_err(sign_error)?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).map_err(sign_error)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(ServerIdentity { chain: vec![leaf.der().clone(), self.der.clone()], key })
    }

    /// Makes admin.pem if it is not there: certificate, private key and CA in one file.
    pub fn ensure_admin_key(&self, data_dir: &Path, wall_unix_ms: u64) -> Result<PathBuf, CaError> {
        let path = data_dir.join("admin.pem");
        if path.exists() {
            return Ok(path);
        }
        let sign_error = |source| CaError::Sign { name: ADMINISTRATOR.to_owned(), source };
        let key = KeyPair::generate().map_err(sign_error)?;
        let admin = Caller::User { name: ADMINISTRATOR.to_owned() };
        let params = client_parameters(&admin, LONG, wall_unix_ms).map_err(sign_error)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(sign_error)?;
        let text = format!("{}{}{}", certificate.pem(), key.serialize_pem(), self.pem);
        write_private(&path, &text).map_err(file_error(&path))?;
        Ok(path)
    }

    /// Certifies the public key of a request for a node; nothing else of the request is used.
    pub fn sign_node(
        &self,
        request: &NodeRequest,
        node: &Caller,
        wall_unix_ms: u64,
    ) -> Result<String, CaError> {
        let sign_error = |source| CaError::Sign { name: node.to_string(), source };
        let params = client_parameters(node, self.node_life, wall_unix_ms).map_err(sign_error)?;
        let certificate = params.signed_by(&request.0.public_key, &self.issuer).map_err(sign_error)?;
        Ok(certificate.pem())
    }
}

/// A certificate request whose signature proves that its sender has the private key.
pub struct NodeRequest(CertificateSigningRequestParams);

impl NodeRequest {
    /// Reads a PKCS#10 request.
    pub fn parse(pem: &str) -> Result<Self, ApiError> {
        let parsed = CertificateSigningRequestParams::from_pem(pem);
        parsed.map(Self).map_err(|error| ApiError::invalid("certificateRequestPem", error.to_string()))
    }

    /// SHA-256 of the public key, in hex.
    pub fn public_key_sha256(&self) -> String {
        super::sha256_hex(self.0.public_key.der_bytes())
    }
}

fn parameters(common_name: &str, life: Duration, wall_unix_ms: u64) -> CertificateParams {
    let now = UNIX_EPOCH + Duration::from_millis(wall_unix_ms);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let tolerated: SystemTime = now - Duration::from_millis(CLOCK_TOLERANCE_MS);
    params.not_before = tolerated.into();
    params.not_after = (now + life).into();
    params.use_authority_key_identifier_extension = true;
    params
}

fn client_parameters(
    caller: &Caller,
    life: Duration,
    wall_unix_ms: u64,
) -> Result<CertificateParams, rcgen::Error> {
    let spiffe_id = caller.spiffe_id().unwrap_or_default();
    let mut params = parameters("", life, wall_unix_ms);
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(spiffe_id.as_str().try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> CaError + use<> {
    let path = path.to_owned();
    move |source| CaError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn the_ca_stays_and_half_a_ca_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let first = Ca::open(dir.path(), NOW).unwrap();
        assert_eq!(Ca::open(dir.path(), NOW).unwrap().hash(), first.hash());
        std::fs::remove_file(dir.path().join("ca/ca-key.pem")).unwrap();
        assert!(matches!(Ca::open(dir.path(), NOW), Err(CaError::HalfThere { .. })));
        std::fs::write(dir.path().join("ca/ca-key.pem"), "nonsense").unwrap();
        assert!(matches!(Ca::open(dir.path(), NOW), Err(CaError::Damaged { .. })));
    }

    #[test]
    fn a_certificate_names_its_caller_and_a_ca_or_a_server_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::open(dir.path(), NOW).unwrap();
        let path = ca.ensure_admin_key(dir.path(), NOW).unwrap();
        let admin = CertificateDer::from_pem_file(path).unwrap();
        assert_eq!(Caller::from_certificate(&admin), Caller::User { name: "admin".to_owned() });
        assert_eq!(Caller::from_certificate(ca.der()), Caller::Anonymous);
        let server = ca.server_identity(&["spiffe://lighter/user/admin".to_owned()], NOW);
        let chain = server.unwrap().chain;
        assert_eq!(Caller::from_certificate(&chain[0]), Caller::Anonymous);
        assert_eq!(Caller::from_certificate(b"no certificate"), Caller::Anonymous);
    }

    #[test]
    fn a_request_that_is_none_or_is_not_signed_by_its_key_is_refused() {
        let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let request = CertificateParams::default().serialize_request(&one).unwrap();
        assert!(NodeRequest::parse(&request.pem().unwrap()).is_ok());
        // The other's public key in a request that the first key signed.
        let der = request.der().to_vec();
        let own = one.der_bytes();
        let at = der.windows(own.len()).position(|window| window == own).unwrap();
        let mut forged = der.clone();
        forged[at..at + own.len()].copy_from_slice(other.der_bytes());
        let forged = CertificateSigningRequestParams::from_der(&forged.into());
        assert!(forged.is_err());
        assert!(NodeRequest::parse("-----BEGIN CERTIFICATE REQUEST-----").is_err());
    }
}
