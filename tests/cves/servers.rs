//! The same where the server is the hostile one.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::ONE;
use crate::harness::gate::Gate;
use crate::harness::messages::{frame, ready, transcript};
use crate::harness::server::welcome;
use crate::harness::tenants::{Estate, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};

/// A server that answers the start of every connection by these steps: after each thing it reads
/// it sends one of them, then closes. Returns its port.
async fn hostile(steps: Vec<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let steps = steps.clone();
            tokio::spawn(async move {
                let mut heard = vec![0; 64 * 1024];
                for step in steps {
                    // A gate that has gone is what is wanted.
                    if socket.read(&mut heard).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let _ = socket.write_all(&step).await;
                }
            });
        }
    });
    port
}

/// What a tenant hears whose own server is hostile in this way; nobody else notices.
async fn with_server(steps: Vec<Vec<u8>>, options: &str) -> String {
    let port = hostile(steps).await;
    let estate = Estate::new().await;
    let id = format!("hostile_{}", estate.acme.id);
    let server = format!("postgresql://x:secret@127.0.0.1:{port}/hostile?{options}");
    let more = format!(
        "[tenants.{id}]\nisolation = \"silo\"\ncluster = \"main\"\n\
         connection_string = \"{server}&connect_timeout=10\"\n"
    );
    let gate = Gate::start(&estate.settings(&Tweaks { more: &more, ..Tweaks::default() })).await;
    let token = jwt(&id, 600);
    let login = Login { user: "app", dbname: "hostile", password: &token, more: &[] };
    let mut wire = Wire::connect(gate.port).await;
    let said = transcript(&wire.authenticate(&login).await);
    assert_eq!(gate.wire(&estate.stark).await.query("SELECT 1").await, ONE);
    said
}

#[tokio::test]
async fn cve_2021_23222_and_43767_a_server_says_nothing_ahead_of_the_handshake() {
    let planted = [&b"S"[..], &welcome()].concat();
    assert_eq!(with_server(vec![planted], "sslmode=require").await, "R E(08001)");
    // Behind a refusal of TLS its words are those of a stranger, who must ask for a proof.
    let planted = [&b"N"[..], &welcome()].concat();
    assert_eq!(with_server(vec![planted], "sslmode=prefer").await, "R E(08001)");
    // Nor may it skip the handshake where TLS is required.
    let declined = vec![b"N".to_vec(), welcome()];
    assert_eq!(with_server(declined, "sslmode=require").await, "R E(08001)");
}

/// SASL's continuation (11) with this text, asked for by a server that offers SCRAM.
fn scram(first: &str) -> Vec<Vec<u8>> {
    let offer = frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let first = frame(b'R', &[b"\0\0\0\x0b", first.as_bytes()].concat());
    vec![offer, first]
}

#[tokio::test]
async fn cve_2026_6665_a_servers_nonce_is_bounded() {
    let long = format!("r={},s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096", "x".repeat(2_000_000));
    assert_eq!(with_server(scram(&long), "sslmode=disable").await, "R E(08001)");
    // Nor is one taken that does not begin with ours.
    let other = "r=other,s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096";
    assert_eq!(with_server(scram(other), "sslmode=disable").await, "R E(08001)");
}

#[tokio::test]
async fn cve_2026_6666_an_error_of_a_server_without_a_sqlstate_is_an_error() {
    for body in [&b"\0"[..], b"", b"SFATAL\0\0", b"SFATAL\0Mno state\0\0", b"C"] {
        let said = with_server(vec![frame(b'E', body)], "sslmode=disable").await;
        assert_eq!(said, "R E(08001)", "{body:?}");
    }
}

#[tokio::test]
async fn cve_2026_6669_a_server_cannot_order_endless_hashing() {
    for count in ["2147483647", "4294967295", "99999999999999999999", "-1", "0"] {
        let port = hostile(echo_nonce(count)).await;
        let said = through_echo(port).await;
        assert_eq!(said, "R E(08001)", "{count}");
    }
}

/// The offer, and a first message whose nonce is not the client's; the count is read before.
fn echo_nonce(count: &str) -> Vec<Vec<u8>> {
    scram(&format!("r=x,s=c2FsdHNhbHRzYWx0c2FsdA==,i={count}"))
}

async fn through_echo(port: u16) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let mut nonce = String::new();
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    let read = client.read(&mut buffer).await.unwrap_or(0);
                    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    if let Some((_, own)) = text.split_once(",r=") {
                        nonce = own.to_owned();
                    }
                    if read == 0 || server.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                    let read = server.read(&mut buffer).await.unwrap_or(0);
                    let Some(text) = buffer.get(9..read).filter(|_| !nonce.is_empty()) else {
                        let _ = client.write_all(&buffer[..read]).await;
                        continue;
                    };
                    // The client's own nonce in front, so that only the count is wrong.
                    let text =
                        String::from_utf8_lossy(text).replacen("r=", &format!("r={nonce}"), 1);
                    let body = [b"\0\0\0\x0b", text.as_bytes()].concat();
                    let _ = client.write_all(&frame(b'R', &body)).await;
                }
            });
        }
    });
    let estate = Estate::new().await;
    let id = format!("slow_{}", estate.acme.id);
    let more = format!(
        "[tenants.{id}]\nisolation = \"silo\"\ncluster = \"main\"\nconnection_string = \
         \"postgresql://x:secret@127.0.0.1:{own}/slow?sslmode=disable&connect_timeout=10\"\n"
    );
    let gate = Gate::start(&estate.settings(&Tweaks { more: &more, ..Tweaks::default() })).await;
    let token = jwt(&id, 600);
    let login = Login { user: "app", dbname: "slow", password: &token, more: &[] };
    let mut wire = Wire::connect(gate.port).await;
    let mut bystander = gate.wire(&estate.stark).await;
    let (frames, one) = tokio::join!(wire.authenticate(&login), bystander.query("SELECT 1"));
    assert_eq!(one, ONE);
    transcript(&frames)
}

#[tokio::test]
async fn cve_2024_10976_and_10978_a_server_that_still_has_them_is_not_used() {
    for version in ["15.8", "16.4", "17.0", "14.13"] {
        let old = String::from_utf8_lossy(&welcome()).replace("15.9", version);
        // The length of that message changes with the text.
        let told = frame(b'S', format!("server_version\0{version}\0").as_bytes());
        assert!(old.contains(version));
        let begin = frame(b'R', &[0, 0, 0, 0]);
        let key = frame(b'K', &[0, 0, 0, 7, 0, 0, 0, 8]);
        let steps = vec![[begin, told, key, ready(b'I')].concat()];
        let said = with_server(steps, "sslmode=disable&require_auth=none").await;
        assert_eq!(said, "R E(08001)", "{version}");
    }
}
