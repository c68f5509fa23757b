//! A request to the gate's HTTP address, as a scraper or a browser sends it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::PATIENCE;

/// Status and body of `GET path` at a port of 127.0.0.1.
pub async fn get(port: u16, path: &str) -> (u16, String) {
    let (status, _, body) = answer(port, path).await;
    (status, body)
}

/// Status, head and body.
pub async fn answer(port: u16, path: &str) -> (u16, String, String) {
    let asking = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(PATIENCE, asking).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}
