//! Debian's docker-registry on the host's loopback, and the image the scenarios run.
//! In: nothing. Out: addresses that the guests reach at 10.0.2.2. Owns: two registry processes and their folder.
//! Never: a registry of our own; skopeo pushes, docker-registry serves.

use crate::host;
use anyhow::{Context, Result, bail};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name and password of the registry that wants them.
pub const USER: &str = "lighter";
pub const PASSWORD: &str = "anchor";
/// bcrypt of the password above, as htpasswd writes it.
const HTPASSWD: &str = "lighter:$2b$04$VyEgzhCPBuFW/niwLu5F/uL7dmAOKTNkCufBj9LC2d.BDoCk2QSqe\n";

/// What Docker allows, and Lighter.
pub const LAYERS: usize = 127;

/// The host as a guest sees it through QEMU's user network.
const HOST_SEEN_FROM_GUEST: &str = "10.0.2.2";

pub struct Registries {
    open: Registry,
    closed: Registry,
    /// A port where nothing listens.
    pub dead_port: u16,
}

struct Registry {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Registries {
    /// Starts both, makes the test image and pushes it under the names the scenarios use.
    pub fn start() -> Result<Self> {
        host::require(&["docker-registry", "skopeo", "busybox", "jq", "rustc"])?;
        let registries =
            Self { open: Registry::start(false)?, closed: Registry::start(true)?, dead_port: free_port()? };
        let layout = tempfile::tempdir()?;
        test_image(layout.path(), "box")?;
        registries.open.push(layout.path(), "box:1", "")?;
        // Blobs are kept once for all repositories, so what is spoiled must be of its own.
        let spoiled = tempfile::tempdir()?;
        test_image(spoiled.path(), "spoiled")?;
        registries.open.push(spoiled.path(), "spoiled:1", "")?;
        registries.open.spoil("spoiled")?;
        let layered = tempfile::tempdir()?;
        layered_image(layered.path())?;
        registries.open.push(layered.path(), "layered:1", "")?;
        registries.closed.push(layout.path(), "box:1", &format!("--dest-creds {USER}:{PASSWORD}"))?;
        Ok(registries)
    }

    /// `host:port` of the open registry, as the guests say it.
    pub fn open(&self) -> String {
        format!("{HOST_SEEN_FROM_GUEST}:{}", self.open.port)
    }

    /// `host:port` of the one that wants a name and a password.
    pub fn closed(&self) -> String {
        format!("{HOST_SEEN_FROM_GUEST}:{}", self.closed.port)
    }

    /// `host:port` where no registry is.
    pub fn dead(&self) -> String {
        format!("{HOST_SEEN_FROM_GUEST}:{}", self.dead_port)
    }

    /// An image of as many layers as an image may have ([`LAYERS`]).
    pub fn layered(&self) -> String {
        format!("{}/layered:1", self.open())
    }

    /// The test image.
    pub fn image(&self) -> String {
        format!("{}/box:1", self.open())
    }
}

impl Registry {
    fn start(with_password: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&host::temporary("registry")).tempdir()?;
        let port = free_port()?;
        let at = folder.path().display();
        let mut settings = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        );
        if with_password {
            std::fs::write(folder.path().join("htpasswd"), HTPASSWD)?;
            settings.push_str(&format!("auth: {{htpasswd: {{realm: vm-test, path: {at}/htpasswd}}}}\n"));
        }
        let file = folder.path().join("config.yml");
        std::fs::write(&file, settings)?;
        let child = host::bound_to_us("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start docker-registry")?;
        let registry = Self { child, port, folder };
        registry.wait_up()?;
        Ok(registry)
    }

    fn wait_up(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if Instant::now() > deadline {
                bail!("docker-registry did not open 127.0.0.1:{} within 20 s", self.port);
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }

    fn push(&self, layout: &Path, name: &str, credentials: &str) -> Result<()> {
        host::sh(&format!(
            "skopeo --insecure-policy copy --quiet --dest-tls-verify=false {credentials} oci:{}:latest docker://127.0.0.1:{}/{name}",
            layout.display(),
            self.port
        ))
        .map(drop)
    }

    /// Gives a repository's layer other bytes of the same length under the same digest.
    /// The registry serves blobs as they lie on disk.
    fn spoil(&self, repository: &str) -> Result<()> {
        host::sh(&format!(
            "cd {}/data/docker/registry/v2; \
             big=$(for link in repositories/{repository}/_layers/sha256/*/link; do \
               d=$(cut -d: -f2 $link); f=blobs/sha256/${{d:0:2}}/$d/data; echo \"$(stat -c %s $f) $f\"; done | sort -n | tail -1 | cut -d' ' -f2); \
             printf spoiled | dd of=$big bs=1 seek=5000 conv=notrunc status=none",
            self.folder.path().display()
        ))
        .map(drop)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `docker login` writes for the registry that wants a password.
pub fn docker_login(host: &str) -> String {
    // base64 of the user and password above.
    serde_json::json!({ "auths": { host: { "auth": "bGlnaHRlcjphbmNob3I=" } } }).to_string()
}

/// A port of the loopback interface that is free now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// An OCI layout with Debian's static busybox, a user, a volume with files in it, and a web page.
fn test_image(layout: &Path, mark: &str) -> Result<()> {
    let tree = tempfile::tempdir()?;
    let script: PathBuf = host::workspace().join("packaging/demo/oci-layout.sh");
    let config = serde_json::json!({
        "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
        "Cmd": ["sh", "-c", "echo started; exec httpd -f -p 80 -h /www"],
        "WorkingDir": "/www",
        "Volumes": { "/seeded": {} },
        "ExposedPorts": { "80/tcp": {} },
    });
    host::sh(&format!(
        "cd {}; mkdir -p bin etc www seeded tmp; chmod 1777 tmp; cp $(command -v busybox) bin/busybox; \
         for name in $(bin/busybox --list); do [ $name = busybox ] || ln -s busybox bin/$name; done; \
         rustc --edition 2024 -O -C strip=symbols -C target-feature=+crt-static -o bin/deckhand {}; \
         printf 'root:x:0:0::/:/bin/sh\\nsailor:x:1000:1000::/:/bin/sh\\n' > etc/passwd; \
         printf 'root:x:0:\\nsailor:x:1000:\\n' > etc/group; \
         echo 'cargo from the image' > www/index.html; echo {} > www/mark; \
         echo 'from the image' > seeded/file; chown 1000:1000 seeded/file; chmod 640 seeded/file; \
         {} {} {} .",
        tree.path().display(),
        host::workspace().join("vm-test/guest/deckhand.rs").display(),
        mark,
        script.display(),
        layout.display(),
        host::quoted(&config.to_string())
    ))
    .map(drop)
}

/// An OCI layout of [`LAYERS`] layers: a shell in the first, a file of its own and the same `top` in each other.
fn layered_image(layout: &Path) -> Result<()> {
    let trees = tempfile::tempdir()?;
    let script: PathBuf = host::workspace().join("packaging/demo/oci-layout.sh");
    host::sh(&format!(
        "cd {}; mkdir -p 1/bin; cp $(command -v busybox) 1/bin/sh; \
         for n in $(seq 2 {LAYERS}); do mkdir $n; echo $n | tee $n/layer-$n > $n/top; done; \
         {} {} '{{}}' $(seq 1 {LAYERS})",
        trees.path().display(),
        script.display(),
        layout.display(),
    ))
    .map(drop)
}
