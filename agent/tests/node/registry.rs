//! A registry that serves one image, made of the host's busybox, over HTTP on the loopback address.
//! In: requests of the distribution API. Out: manifest, config and one layer.
//! Owns: a thread. Never: more of HTTP than the image crate's client needs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Content by path, with its media type.
type Content = BTreeMap<String, (String, Vec<u8>)>;

pub(super) struct Registry {
    /// `127.0.0.1:port`.
    pub host: String,
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    /// `busybox:busybox`, with a page at /www/index.html that volumes are filled with.
    pub(super) fn start(dir: &Path) -> Self {
        let content = Arc::new(content(dir));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = content.clone();
                std::thread::spawn(move || serve(stream, &content));
            }
        });
        Self { host }
    }
}

fn layer(dir: &Path) -> Vec<u8> {
    let root = dir.join("image");
    for name in ["bin", "www", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
    std::fs::copy(busybox.expect("this test needs Debian's busybox-static"), root.join("bin/busybox"))
        .unwrap();
    for applet in ["sh", "sleep", "httpd", "echo"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("www/index.html"), "from the volume\n").unwrap();
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
    let tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().unwrap();
    assert!(tar.status.success());
    tar.stdout
}

fn content(dir: &Path) -> Content {
    let layer = layer(dir);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(&layer), "size": layer.len() }],
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let blob = |bytes: Vec<u8>| {
        (format!("/v2/busybox/blobs/{}", digest(&bytes)), ("application/octet-stream".to_owned(), bytes))
    };
    let mut content: Content = [blob(layer), blob(config)].into();
    for reference in ["busybox".to_owned(), digest(&manifest)] {
        content.insert(
            format!("/v2/busybox/manifests/{reference}"),
            (manifest_type.to_owned(), manifest.clone()),
        );
    }
    content.insert("/v2/".to_owned(), ("application/json".to_owned(), b"{}".to_vec()));
    content
}

fn serve(stream: TcpStream, content: &Content) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut header = String::from("-");
        while !header.trim().is_empty() {
            header.clear();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
        }
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (status, kind, body) = match content.get(path) {
            Some((kind, body)) => ("200 OK", kind.as_str(), body.clone()),
            None => (
                "404 Not Found",
                "application/json",
                br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec(),
            ),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\n\r\n",
            body.len(),
            digest(&body)
        );
        let sent = stream.write_all(head.as_bytes());
        let sent = if method == "HEAD" { sent } else { sent.and_then(|()| stream.write_all(&body)) };
        if sent.is_err() {
            return;
        }
    }
}
