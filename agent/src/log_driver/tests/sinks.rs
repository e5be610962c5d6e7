//! Sinks that can be told to misbehave: refuse connections, take and say nothing, die in the middle.
//! In: a mood. Out: lines, in the order they came. Each runs on the test's own tokio runtime and ends
//! with it.

use super::unpack::unpack;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What a sink does with what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// Accepts and reads nothing.
    Stuck,
    /// Takes one message whole and closes without an answer.
    DiesAfterTaking,
    /// Closes in the middle of a message.
    DiesHalfWay,
    /// HTTP: answers 503.
    Unavailable,
}

#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub(super) fn add(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn has(&self, line: &str) -> bool {
        self.0.lock().unwrap().iter().any(|seen| seen == line)
    }

    /// Without repeats: the first time of each. Order is kept if sending again only ever goes back.
    pub(super) fn once(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for line in self.all() {
            if !found.contains(&line) {
                found.push(line);
            }
        }
        found
    }
}

/// One that listens; dropping it closes everything.
pub(super) struct Sink {
    pub(super) address: String,
    serving: JoinHandle<()>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A port that nobody has now and that may be bound again.
pub(super) async fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn serve<F: Future<Output = ()> + Send + 'static>(
    address: &str,
    talk: impl Fn(TcpStream) -> F + Send + 'static,
) -> Sink {
    let deadline = Instant::now() + super::DEADLINE;
    let listener = loop {
        // The last one may still be closing.
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let mut talks = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            talks.spawn(talk(stream));
        }
    });
    Sink { address, serving }
}

/// Speaks fluentd's forward protocol, and acknowledges when asked to.
pub(super) async fn fluentd(address: &str, mood: Mood, seen: &Seen) -> Sink {
    let seen = seen.clone();
    serve(address, move |stream| forward(stream, mood, seen.clone())).await
}

async fn forward(mut stream: TcpStream, mood: Mood, seen: Seen) {
    if mood == Mood::Stuck {
        std::future::pending::<()>().await;
    }
    let mut bytes = Vec::new();
    loop {
        let mut buffer = vec![0; 8192];
        let Ok(count @ 1..) = stream.read(&mut buffer).await else { return };
        bytes.extend_from_slice(&buffer[..count]);
        if mood == Mood::DiesHalfWay {
            return;
        }
        while let Some((message, taken)) = unpack(&bytes) {
            bytes.drain(..taken);
            for entry in message[1].as_array().unwrap() {
                seen.add(entry[1]["log"].as_str().unwrap());
            }
            assert_eq!(message[2]["size"], message[1].as_array().unwrap().len());
            if mood == Mood::DiesAfterTaking {
                return;
            }
            if let Some(chunk) = message[2]["chunk"].as_str() {
                let mut answer = vec![0x81, 0xa3, b'a', b'c', b'k', 0xa0 | chunk.len() as u8];
                answer.extend_from_slice(chunk.as_bytes());
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Takes POSTs of NDJSON; a batch with the word `poison` in it is refused with 413.
pub(super) async fn http(address: &str, mood: Mood, seen: &Seen, heads: &Seen) -> Sink {
    let (seen, heads) = (seen.clone(), heads.clone());
    serve(address, move |stream| requests(stream, mood, seen.clone(), heads.clone())).await
}

/// The same over TLS, with what `acceptor` shows of itself. Who does not trust it is let go.
pub(super) async fn https(acceptor: TlsAcceptor, seen: &Seen, heads: &Seen) -> Sink {
    let (seen, heads) = (seen.clone(), heads.clone());
    serve("127.0.0.1:0", move |stream| {
        let (acceptor, seen, heads) = (acceptor.clone(), seen.clone(), heads.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                requests(stream, Mood::Well, seen, heads).await;
            }
        }
    })
    .await
}

async fn requests(mut stream: impl AsyncRead + AsyncWrite + Unpin, mood: Mood, seen: Seen, heads: Seen) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let mut buffer = vec![0; 8192];
            let Ok(count @ 1..) = stream.read(&mut buffer).await else { return };
            bytes.extend_from_slice(&buffer[..count]);
        };
        let head = String::from_utf8(bytes.drain(..end).collect()).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0) - bytes.len().min(length.unwrap_or(0))];
        if mood == Mood::DiesHalfWay || stream.read_exact(&mut body).await.is_err() {
            return;
        }
        bytes.extend_from_slice(&body);
        let body = String::from_utf8(bytes.drain(..length.unwrap_or(0)).collect()).unwrap();
        heads.add(&head);
        let status = match mood {
            Mood::Unavailable => 503,
            _ if body.contains("poison") => 413,
            _ => 204,
        };
        if status == 204 {
            body.lines().for_each(|line| seen.add(line));
        }
        if mood == Mood::DiesAfterTaking {
            return;
        }
        let answer = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
