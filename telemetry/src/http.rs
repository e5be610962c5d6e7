//! A small HTTP/1.1 server for questions without a body: metrics, task metadata, introspection.
//! In: a listener and a handler. Out: answers. Owns: its connections, each one tokio task; they end
//! when `leaving` does.
//! Bounds: connections at a time, the size of a request's head, the time it may take to come.
//! Never: reads a body, keeps an idle connection for long, speaks anything but GET and HEAD.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// ECS's agent gives a request and its answer five seconds each.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The smallest buffer hyper takes; a longer head is refused (431).
const HEAD_BYTES_MAX: usize = 8192;
/// After an error of accept (no descriptor is free) the next try waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// As sent, without the query; not decoded.
    pub path: String,
    /// After the `?`; empty when there is none.
    pub query: String,
    pub peer: SocketAddr,
}

impl Question {
    /// The value of a query parameter, percent-decoded; `None` when it is absent.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| decoded(value))
        })
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type: "application/json", body: body.into() }
    }

    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// Serves until `leaving`. `connections_max` at a time; more wait in the kernel's queue.
pub async fn serve<H, F>(
    listener: TcpListener,
    connections_max: usize,
    handler: H,
    leaving: CancellationToken,
) where
    H: Fn(Question) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(connections_max));
    loop {
        let place = tokio::select! {
            // Neither holds anything when it is dropped.
            () = leaving.cancelled() => return,
            place = room.clone().acquire_owned() => place,
        };
        // The semaphore is never closed.
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            () = leaving.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(cause = %error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (handler, leaving) = (handler.clone(), leaving.clone());
        // Ends with its connection, at the latest after CONNECTION_TIMEOUT.
        tokio::spawn(async move {
            tokio::select! {
                () = leaving.cancelled() => {}
                () = connection(stream, peer, handler) => {}
                () = tokio::time::sleep(CONNECTION_TIMEOUT) => {}
            }
            drop(place);
        });
    }
}

async fn connection<H, F>(stream: TcpStream, peer: SocketAddr, handler: H)
where
    H: Fn(Question) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let question = question(&request, peer);
        let allowed = matches!(*request.method(), Method::GET | Method::HEAD);
        let handler = handler.clone();
        async move {
            let answer = if allowed {
                handler(question).await
            } else {
                Answer::text(405, "only GET is answered here\n")
            };
            Ok::<_, Infallible>(response(answer))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::trace!(%peer, cause = %error, "a connection ended");
    }
}

fn question(request: &Request<Incoming>, peer: SocketAddr) -> Question {
    let uri = request.uri();
    Question { path: uri.path().to_owned(), query: uri.query().unwrap_or_default().to_owned(), peer }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = hyper::header::HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, value);
    response
}

/// Percent decoding; what is no valid escape stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
