//! The server over real sockets, spoken to by hand.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn server(connections_max: usize) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let leaving = CancellationToken::new();
    let handler = |question: Question| async move {
        Answer::text(200, format!("{} {:?} {}", question.path, question.parameter("q"), question.peer.ip()))
    };
    tokio::spawn(serve(listener, connections_max, handler, leaving.clone()));
    (address, leaving)
}

async fn say(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().ok();
    answer
}

#[tokio::test]
async fn get_is_answered_and_nothing_else() {
    let (address, _leaving) = server(4).await;
    let answer =
        say(address, "GET /v4/x?a=1&q=a%2Fb+c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("/v4/x Some(\"a/b c\") 127.0.0.1"), "{answer}");
    let answer =
        say(address, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "y".repeat(20_000));
    assert!(!say(address, &long).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_and_leaving_ends_all() {
    let (address, leaving) = server(1).await;
    let idle = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let early = tokio::time::timeout(Duration::from_millis(100), second.read_to_string(&mut text)).await;
    assert!(early.is_err(), "answered while the only place was taken: {text}");
    drop(idle);
    let read = second.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(b"GET / HT").await.unwrap();
    leaving.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), third.read_to_string(&mut String::new())).await;
    assert!(ended.is_ok());
}
