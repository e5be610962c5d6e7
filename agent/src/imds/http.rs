//! The little HTTP that the instance metadata service needs: HTTP/1.0, one request a connection.
//! In: method, URL, headers. Out: status and body. A crate for this would be the largest of the agent.
//! Never: TLS, redirects, more than 64 KiB, more than two seconds.

use crate::errors::{Cause, words};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The service is on the machine's own link.
const TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 64 << 10;

pub(super) struct Answer {
    pub status: u16,
    pub body: String,
}

/// One request to `http://host[:port]` + `path`.
pub(super) async fn request(
    method: &str,
    base: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, Cause> {
    let authority = base.strip_prefix("http://").ok_or_else(|| words(format!("{base:?} is not http://")))?;
    let authority = authority.trim_end_matches('/');
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let mut text = format!("{method} {path} HTTP/1.0\r\nHost: {authority}\r\n");
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    text.push_str("Content-Length: 0\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(TIMEOUT, exchange).await;
    let answer = answer.map_err(|_| words(format!("{address} did not answer within {TIMEOUT:?}")))??;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| words(format!("{address} does not speak HTTP")))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}
