//! Real peers: Debian's docker-registry, images pushed and converted by skopeo and made by umoci.
//! In: an OCI layout made here. Out: what the store pulls of it, against what umoci unpacks.
//! Needs docker-registry, skopeo, umoci.
//! Never: leaves the registry running: it is killed by its own pid.

use crate::fixture::{
    Fixture, Image, Layer, Served, assert_nothing_half_made, chain, large_layer, layer_dir, options, pull,
};
use crate::registry::FakeRegistry;
use lighter_image::{Digest, InUse, RegistryHost};
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct DockerRegistry {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A CA and a certificate of 127.0.0.1 signed by it: (ca, certificate, key) as PEM.
fn certificates() -> (String, String, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    (ca_certificate.pem(), certificate.pem(), key.serialize_pem())
}

impl DockerRegistry {
    /// With `tls`, certificate and key as PEM; with `htpasswd`, the line of a user.
    fn start(tls: Option<(&str, &str)>, htpasswd: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut http = json!({"addr": format!("127.0.0.1:{port}")});
        if let Some((certificate, key)) = tls {
            std::fs::write(path("cert.pem"), certificate).unwrap();
            std::fs::write(path("key.pem"), key).unwrap();
            http["tls"] = json!({"certificate": path("cert.pem"), "key": path("key.pem")});
        }
        let mut config = json!({"version": "0.1", "log": {"level": "error"}, "http": http,
            "storage": {"filesystem": {"rootdirectory": path("data")}}});
        if let Some(line) = htpasswd {
            std::fs::write(path("htpasswd"), line).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": path("htpasswd")}});
        }
        // JSON is YAML.
        std::fs::write(path("config.yml"), config.to_string()).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &path("config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's docker-registry is needed");
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, dir }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `skopeo copy` of an OCI layout to this registry.
    fn push(&self, layout: &Path, name: &str, extra: &[&str]) -> String {
        let reference = format!("{}/test/{name}", self.host());
        run(Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
            .args(extra)
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(format!("docker://{reference}")));
        reference
    }
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes an image as an OCI layout.
fn layout(dir: &Path, image: &Served) -> PathBuf {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    image.blobs.iter().for_each(|b| put(b));
    put(&image.config);
    put(&image.manifest);
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": image.media_type, "digest": image.digest,
        "size": image.manifest.len(), "annotations": {"org.opencontainers.image.ref.name": "latest"}}]});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    dir.to_owned()
}

fn sample() -> Served {
    let base = Layer::new()
        .dir("bin", 0o755, 0)
        .entry(tar::EntryType::Regular, "bin/su", 0o4755, 0, b"program")
        .dir("home", 0o2775, 1000)
        .entry(tar::EntryType::Regular, "home/f", 0o600, 1000, b"mine")
        .link(tar::EntryType::Link, "home/g", "home/f")
        .link(tar::EntryType::Symlink, "sbin", "bin")
        .entry(tar::EntryType::Fifo, "run/fifo", 0o620, 3, b"")
        .tar();
    Image::of(vec![base, large_layer(4, 77)]).serve()
}

/// Path, kind, mode, owner, links, time and content of everything below a directory.
fn describe(top: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut lines = Vec::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        let content = match (meta.is_file(), meta.is_symlink()) {
            (true, _) => Digest::of(&std::fs::read(&path).unwrap()).to_string(),
            (_, true) => std::fs::read_link(&path).unwrap().display().to_string(),
            _ => String::new(),
        };
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let name = path.strip_prefix(top).unwrap().display().to_string();
        // The root and directories without entries of their own have no time in the archive.
        let time = if name.is_empty() || name == "run" || name == "big" { 0 } else { meta.mtime() };
        lines.push(format!(
            "{name} {:o} {}:{} {links} {time} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid()
        ));
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn a_real_registry_over_http_with_every_format_skopeo_writes() {
    let registry = DockerRegistry::start(None, None);
    let image = sample();
    let layout = layout(&registry.dir.path().join("layout"), &image);
    let mut fixture = Fixture::new(&[]);
    fixture.config.timeouts.inactivity_ms = 10_000;
    fixture
        .config
        .registries
        .hosts
        .insert(registry.host(), RegistryHost { http_allowed: true, ..Default::default() });
    let store = fixture.open();
    let oci = pull(&store, &registry.push(&layout, "oci:1", &[])).await.unwrap();
    assert_eq!(oci.manifest_digest, image.digest);
    for (name, extra) in [
        ("v2s2:1", &["--format", "v2s2"][..]),
        ("zstd:1", &["--dest-compress-format", "zstd", "--dest-compress"][..]),
    ] {
        let pulled = pull(&store, &registry.push(&layout, name, extra)).await.unwrap();
        assert_eq!((&pulled.layers, &pulled.config), (&oci.layers, &oci.config), "{name}");
    }
    let error = pull(&store, &format!("{}/test/oci:none", registry.host())).await.unwrap_err();
    assert!(chain(&error).contains("knows no image test/oci:none"), "{}", chain(&error));
    assert_eq!(store.usage(&InUse::default()).await.unwrap().images, 3);
    assert_nothing_half_made(&fixture.root());

    // What umoci makes of the same layout.
    let bundle = registry.dir.path().join("bundle");
    run(Command::new("umoci")
        .args(["raw", "unpack", "--image"])
        .arg(format!("{}:latest", layout.display()))
        .arg(&bundle));
    let merged = fixture.dir.path().join("merged");
    std::fs::create_dir(&merged).unwrap();
    for index in 0..oci.layers.len() {
        run(Command::new("cp").args(["-a", "-T"]).arg(layer_dir(&fixture.root(), &oci, index)).arg(&merged));
    }
    assert_eq!(describe(&merged)[1..], describe(&bundle)[1..]);
}

#[tokio::test]
async fn a_real_registry_over_tls_with_its_own_ca_and_a_login() {
    let (ca, certificate, key) = certificates();
    // bcrypt of "secret": docker-registry takes no other kind.
    let line = "tester:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    let registry = DockerRegistry::start(Some((&certificate, &key)), Some(line));
    let layout = layout(&registry.dir.path().join("layout"), &sample());
    let reference = registry.push(&layout, "app:1", &["--dest-creds", "tester:secret"]);
    let mut fixture = Fixture::new(&[]);
    fixture.config.timeouts.inactivity_ms = 10_000;
    let error = pull(&fixture.open(), &reference).await.unwrap_err();
    assert!(chain(&error).contains("is not trusted; name the file of its CA"), "{}", chain(&error));
    assert!(!error.retriable());
    let ca_pem = fixture.dir.path().join("ca.pem");
    std::fs::write(&ca_pem, "no certificate").unwrap();
    let host = RegistryHost { ca_pem: Some(ca_pem.clone()), ..Default::default() };
    fixture.config.registries.hosts.insert(registry.host(), host);
    let error = pull(&fixture.open(), &reference).await.unwrap_err();
    assert!(chain(&error).contains("it has no certificate"), "{}", chain(&error));
    std::fs::write(&ca_pem, ca).unwrap();
    let error = pull(&fixture.open(), &reference).await.unwrap_err();
    assert!(chain(&error).contains("there is no login for it"), "{}", chain(&error));
    let login = fixture.dir.path().join("config.json");
    run(Command::new("skopeo")
        .args(["login", "--tls-verify=false", "-u", "tester", "-p", "secret", "--authfile"])
        .arg(&login)
        .arg(registry.host()));
    fixture.config.docker_config = Some(login);
    let store = fixture.open();
    let image = store.resolve_and_pull(&reference, &options(), |_| {}).await.unwrap();
    assert!(layer_dir(&fixture.root(), &image, 1).join("big/77-3").is_file());
}

#[tokio::test]
async fn a_mirror_over_tls_stands_in_for_a_registry() {
    let (ca, certificate, key) = certificates();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let server = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let mirror = FakeRegistry::start_tls(server).await;
    let served = sample();
    mirror.put("1", &served);
    let mut fixture = Fixture::new(&[]);
    let ca_pem = fixture.dir.path().join("ca.pem");
    std::fs::write(&ca_pem, ca).unwrap();
    let hosts = &mut fixture.config.registries.hosts;
    hosts.insert(mirror.host(), RegistryHost { ca_pem: Some(ca_pem), ..Default::default() });
    // Nothing listens at the registry itself.
    hosts.insert("127.0.0.1:1".into(), RegistryHost { mirrors: vec![mirror.host()], ..Default::default() });
    let image = pull(&fixture.open(), "127.0.0.1:1/test/app:1").await.unwrap();
    assert_eq!(image.manifest_digest, served.digest);
}
