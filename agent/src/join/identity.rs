//! Who this node is, on disk: `identity.json` (names, endpoint) and `node.pem` (certificate, key,
//! CA; 0600). In: values. Out: files, whole or absent (temporary name, fsync, rename, fsync of the
//! directory). Owns nothing. Never: sends the key anywhere.

use lighter_model::ids::{ClusterName, ContainerInstanceId};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The names the control plane gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub container_instance_id: ContainerInstanceId,
    pub cluster: ClusterName,
    /// Where it was when the node joined; the configuration goes before it.
    pub control_endpoint: String,
}

impl Identity {
    pub(crate) fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("identity.json")
    }

    /// `None` when this node has never joined.
    pub(crate) fn load(data_dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(Self::path(data_dir)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn save(&self, data_dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        write_private(&Self::path(data_dir), &text)
    }
}

/// The three parts of `node.pem`, each as PEM text.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub certificate: String,
    pub key: String,
    pub ca: String,
}

impl Credentials {
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Self::parse(&text).ok_or_else(|| {
            io::Error::other("it must hold a certificate, a private key and a CA certificate, in this order")
        })
    }

    /// The text of `node.pem`.
    pub(crate) fn to_pem(&self) -> String {
        format!("{}\n{}\n{}\n", self.certificate.trim(), self.key.trim(), self.ca.trim())
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let blocks = pem_blocks(text);
        let certificates: Vec<&String> =
            blocks.iter().filter(|b| b.starts_with("-----BEGIN CERTIFICATE-----")).collect();
        let key =
            blocks.iter().find(|b| b.lines().next().is_some_and(|line| line.contains("PRIVATE KEY")))?;
        let [certificate, ca] = certificates.as_slice() else { return None };
        for pem in [certificate, ca] {
            CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        }
        Some(Self { certificate: certificate.to_string(), key: key.clone(), ca: ca.to_string() })
    }
}

fn pem_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block = String::new();
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            block.clear();
        }
        block.push_str(line);
        block.push('\n');
        if line.starts_with("-----END ") {
            blocks.push(std::mem::take(&mut block));
        }
    }
    blocks
}

/// Writes a file that only root reads: whole, or as it was before.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("a path without a directory"))?;
    let temporary = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(dir)?.sync_all()
}

/// The kernel's node name; never empty.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "node".to_owned() } else { name }
}
