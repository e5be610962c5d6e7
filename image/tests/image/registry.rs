//! A registry that fails on demand: raw HTTP/1.1 over TCP or TLS, one answer a connection.
//! In: images, faults. Out: answers, and a log of what was asked. Dropping it ends its tasks.
//! Never: listens anywhere but on loopback.

use crate::fixture::{OCI_INDEX, Served};
use lighter_image::Digest;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// Who may pull.
#[derive(Clone)]
pub(crate) enum Auth {
    Basic(&'static str, &'static str),
    /// Tokens from this registry's own `/token`; with a login when one is given.
    Bearer(Option<(&'static str, &'static str)>),
}

/// What the registry does wrong. Queues are used up front to back, one a request.
#[derive(Default)]
pub(crate) struct Behaviour {
    pub(crate) auth: Option<Auth>,
    pub(crate) token_realm: Option<String>,
    /// Answered to any request below /v2/ instead of what was asked for.
    pub(crate) statuses: VecDeque<u16>,
    /// After so many bytes of a blob the connection is closed.
    pub(crate) cut_blobs_at: VecDeque<usize>,
    /// After so many bytes of a blob nothing more is sent until the connection is closed.
    pub(crate) hold_blobs_at: Option<usize>,
    pub(crate) silent: bool,
    pub(crate) ignore_range: bool,
    /// One byte of every layer is another.
    pub(crate) corrupt: bool,
    /// Blobs are announced and sent with so many bytes less.
    pub(crate) short_by: usize,
    /// Blobs are sent in chunks of unknown number with so many bytes more.
    pub(crate) extra: usize,
    pub(crate) redirect_blobs_to: Option<String>,
    pub(crate) no_head: bool,
}

#[derive(Default)]
struct Content {
    manifests: HashMap<String, (String, Vec<u8>)>,
    blobs: HashMap<String, Vec<u8>>,
    /// Config blobs are small and asked for first: faults of blobs spare them.
    spared: Vec<String>,
}

#[derive(Default)]
struct State {
    content: Mutex<Content>,
    behaviour: Mutex<Behaviour>,
    log: Mutex<Vec<String>>,
}

pub(crate) struct FakeRegistry {
    state: Arc<State>,
    port: u16,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl FakeRegistry {
    pub(crate) async fn start() -> Self {
        Self::serve(None).await
    }

    pub(crate) async fn start_tls(config: tokio_rustls::rustls::ServerConfig) -> Self {
        Self::serve(Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        let server = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (state, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    // Clients that go away are part of the tests.
                    let _ = match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => answer(&state, port, stream).await,
                            Err(error) => Err(error),
                        },
                        None => answer(&state, port, stream).await,
                    };
                });
            }
        });
        Self { state, port, server }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn behave(&self) -> MutexGuard<'_, Behaviour> {
        self.state.behaviour.lock().unwrap()
    }

    /// What was asked, like `GET /v2/a/manifests/t` with the range after it.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.log.lock().unwrap())
    }

    pub(crate) fn put(&self, name: &str, image: &Served) -> String {
        let mut content = self.state.content.lock().unwrap();
        let manifest = (image.media_type.to_owned(), image.manifest.clone());
        content.manifests.insert(image.digest.to_string(), manifest.clone());
        content.manifests.insert(name.to_owned(), manifest);
        let config = Digest::of(&image.config).to_string();
        content.spared.push(config.clone());
        content.blobs.insert(config, image.config.clone());
        for blob in &image.blobs {
            content.blobs.insert(Digest::of(blob).to_string(), blob.clone());
        }
        format!("{}/test/app:{name}", self.host())
    }

    pub(crate) fn put_raw_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> String {
        let mut content = self.state.content.lock().unwrap();
        content.manifests.insert(name.to_owned(), (media_type.to_owned(), bytes.to_vec()));
        format!("{}/test/app:{name}", self.host())
    }

    /// An index of (os, architecture, variant, image).
    pub(crate) fn put_index(&self, name: &str, images: &[(&str, &str, Option<&str>, &Served)]) -> String {
        let manifests: Vec<_> = images
            .iter()
            .map(|(os, architecture, variant, image)| {
                self.put(&format!("{name}-{architecture}-{variant:?}"), image);
                serde_json::json!({"mediaType": image.media_type, "digest": image.digest, "size": image.manifest.len(),
                    "platform": {"os": os, "architecture": architecture, "variant": variant}})
            })
            .collect();
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        self.put_raw_manifest(name, OCI_INDEX, index.to_string().as_bytes())
    }
}

async fn answer(
    state: &State,
    port: u16,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let Some(request) = read_request(&mut stream).await? else {
        return send(&mut stream, 400, &[], b"not HTTP").await;
    };
    let range = request.headers.get("range").map(|r| format!(" {r}")).unwrap_or_default();
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    state.log.lock().unwrap().push(format!("{} {}{query}{range}", request.method, request.path));
    if state.behaviour.lock().unwrap().silent {
        // Until the client gives up.
        let mut nothing = [0; 1];
        let _ = stream.read(&mut nothing).await;
        return Ok(());
    }
    if request.path == "/token" {
        return token(state, &request, &mut stream).await;
    }
    if let Some(challenge) = refused(state, port, &request) {
        let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        return send(&mut stream, 401, &[("www-authenticate", &challenge)], body).await;
    }
    let status = state.behaviour.lock().unwrap().statuses.pop_front();
    if let Some(status) = status {
        let body = format!(r#"{{"errors":[{{"code":"TEST","message":"made to fail with {status}"}}]}}"#);
        return send(&mut stream, status, &[], body.as_bytes()).await;
    }
    match request.path.rsplit_once("/manifests/") {
        Some((_, name)) => manifest(state, &request, name, &mut stream).await,
        None => match request.path.rsplit_once("/blobs/") {
            Some((_, digest)) => blob(state, &request, digest, &mut stream).await,
            None => send(&mut stream, 404, &[], b"").await,
        },
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        let mut part = [0; 4096];
        match stream.read(&mut part).await? {
            0 => return Ok(None),
            length => bytes.extend_from_slice(&part[..length]),
        }
        // The start of a TLS handshake: what every HTTP server does with it.
        if bytes[0] == 0x16 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = bytes[end..].to_vec();
    let length: usize = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    while body.len() < length {
        let mut part = [0; 4096];
        match stream.read(&mut part).await? {
            0 => return Ok(None),
            length => body.extend_from_slice(&part[..length]),
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request { method: method.into(), path: path.into(), query: query.into(), headers, body }))
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// The challenge, if the request may not pass.
fn refused(state: &State, port: u16, request: &Request) -> Option<String> {
    let behaviour = state.behaviour.lock().unwrap();
    let given = request.headers.get("authorization").map(String::as_str);
    match behaviour.auth.as_ref()? {
        Auth::Basic(user, password) => {
            (given != Some(&basic(user, password))).then(|| "Basic realm=\"test\"".to_owned())
        }
        Auth::Bearer(_) => (given != Some("Bearer good-token")).then(|| {
            let realm = behaviour.token_realm.clone().unwrap_or(format!("http://127.0.0.1:{port}/token"));
            format!("Bearer realm=\"{realm}\",service=\"test-service\",scope=\"repository:test/app:pull\"")
        }),
    }
}

async fn token(
    state: &State,
    request: &Request,
    stream: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let wanted = match &state.behaviour.lock().unwrap().auth {
        Some(Auth::Bearer(login)) => *login,
        _ => None,
    };
    let form = String::from_utf8_lossy(&request.body);
    let allowed = match wanted {
        None => true,
        Some((_, password)) if request.method == "POST" => {
            form.contains(&format!("refresh_token={password}"))
        }
        Some((user, password)) => request.headers.get("authorization") == Some(&basic(user, password)),
    };
    match allowed {
        true => send(stream, 200, &[], br#"{"token":"good-token","expires_in":300}"#).await,
        false => {
            send(stream, 401, &[], br#"{"errors":[{"code":"UNAUTHORIZED","message":"bad login"}]}"#).await
        }
    }
}

async fn manifest(
    state: &State,
    request: &Request,
    name: &str,
    stream: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let no_head = state.behaviour.lock().unwrap().no_head;
    let found = state.content.lock().unwrap().manifests.get(name).cloned();
    match found {
        _ if no_head && request.method == "HEAD" => send(stream, 405, &[], b"").await,
        None => {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            send(stream, 404, &[], body).await
        }
        Some((media_type, bytes)) => {
            let digest = Digest::of(&bytes).to_string();
            let headers = [("content-type", media_type.as_str()), ("docker-content-digest", &digest)];
            let body = if request.method == "HEAD" { &[] } else { bytes.as_slice() };
            send(stream, 200, &headers, body).await
        }
    }
}

async fn blob(
    state: &State,
    request: &Request,
    digest: &str,
    stream: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let (bytes, spared) = {
        let content = state.content.lock().unwrap();
        (content.blobs.get(digest).cloned(), content.spared.iter().any(|d| d == digest))
    };
    let Some(mut bytes) = bytes else {
        return send(stream, 404, &[], br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#)
            .await;
    };
    if spared {
        return send(stream, 200, &[], &bytes).await;
    }
    let (cut, hold, extra, redirect, ignore_range) = {
        let mut behaviour = state.behaviour.lock().unwrap();
        if behaviour.corrupt {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        bytes.truncate(bytes.len() - behaviour.short_by.min(bytes.len()));
        let redirect = behaviour.redirect_blobs_to.clone();
        (
            behaviour.cut_blobs_at.pop_front(),
            behaviour.hold_blobs_at,
            behaviour.extra,
            redirect,
            behaviour.ignore_range,
        )
    };
    if let Some(base) = redirect {
        return send(stream, 307, &[("location", &format!("{base}{}", request.path))], b"").await;
    }
    if extra > 0 {
        bytes.extend(std::iter::repeat_n(b'x', extra));
        return send_chunked(stream, &bytes).await;
    }
    let start = request
        .headers
        .get("range")
        .filter(|_| !ignore_range)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let total = bytes.len();
    let from = start.unwrap_or(0).min(total);
    let mut head = match start {
        Some(_) => {
            format!("HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{}/{total}\r\n", total - 1)
        }
        None => "HTTP/1.1 200 OK\r\n".to_owned(),
    };
    head.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", total - from));
    stream.write_all(head.as_bytes()).await?;
    let until = cut.or(hold).map_or(total, |n| (from + n).min(total));
    stream.write_all(&bytes[from..until]).await?;
    stream.flush().await?;
    if hold.is_some() && cut.is_none() {
        std::future::pending::<()>().await;
    }
    stream.shutdown().await
}

async fn send_chunked(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n").await?;
    for part in bytes.chunks(1000) {
        stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await?;
        stream.write_all(part).await?;
        stream.write_all(b"\r\n").await?;
    }
    stream.write_all(b"0\r\n\r\n").await?;
    stream.shutdown().await
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<()> {
    let mut head =
        format!("HTTP/1.1 {status} Test\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.shutdown().await
}
