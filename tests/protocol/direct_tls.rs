//! TLS without asking first (`sslnegotiation=direct`), held against PostgreSQL 17 and 18.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tenantgate::demo::Plan;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::Secured;
use crate::drivers::{Driver, Target};
use crate::harness::PATIENCE;
use crate::harness::certs::{Authority, trusting};
use crate::harness::cluster::{of, versions};
use crate::harness::gate::Gate;
use crate::harness::messages::{cancel_request, query, ssl_request, startup, transcript};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::Wire;

/// A client that trusts this authority and offers these protocols.
fn offering(pem: &str, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut config = (*trusting(pem)).clone();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A handshake as the first thing said.
async fn shake(port: u16, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("gate.test").unwrap();
    let shaking = TlsConnector::from(config).connect(name, socket);
    timeout(PATIENCE, shaking).await.expect("handshake ends")
}

/// What becomes of a client that offers these protocols: `None` if the handshake fails, else what
/// it hears when it says who it is.
async fn heard(port: u16, pem: &str, protocols: &[&str]) -> Option<String> {
    let stream = shake(port, offering(pem, protocols)).await.ok()?;
    let mut wire = Wire::over(stream);
    let packet = startup(&[("user", "nobody_here"), ("database", "nowhere")]);
    if wire.try_send(packet).await.is_err() {
        return Some(String::new());
    }
    let first = wire.maybe_frame().await;
    Some(first.map_or_else(String::new, |frame| char::from(frame.tag).to_string()))
}

#[tokio::test]
async fn a_direct_client_must_name_the_protocol_as_with_postgresql() {
    let offers: [(&[&str], Option<&str>); 5] = [
        (&["postgresql"], Some("R")),
        (&["h2", "postgresql"], Some("R")),
        // The handshake succeeds, and then nobody is there.
        (&[], Some("")),
        (&["h2"], None),
        (&["postgres"], None),
    ];
    let secured = Secured::new("require").await;
    let pem = secured.authority.pem();
    for (protocols, wanted) in offers {
        let said = heard(secured.gate.port, &pem, protocols).await;
        assert_eq!(said.as_deref(), wanted, "gate, {protocols:?}");
    }
    for (major, template) in versions().iter().filter(|(major, _)| *major >= 17) {
        let authority = Authority::new();
        let server = authority.server(&["gate.test"]);
        let tls = Some((server.certificate, server.key));
        let cluster = of(template, &Plan { tls, ..Plan::default() }).await;
        for (protocols, wanted) in offers {
            let said = heard(cluster.port(), &authority.pem(), protocols).await;
            assert_eq!(said.as_deref(), wanted, "PostgreSQL {major}, {protocols:?}");
        }
    }
}

#[tokio::test]
async fn sessions_and_cancels_run_over_direct_tls() {
    let secured = Secured::new("require").await;
    let config = offering(&secured.authority.pem(), &["postgresql"]);
    let stream = shake(secured.gate.port, config.clone()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"postgresql"[..]));
    let mut wire = Wire::over(stream);
    let frames = wire.authenticate(&secured.login()).await;
    assert_eq!(frames.last().unwrap().to_string(), "Z(I)");
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    wire.send(query("SELECT pg_sleep(600)")).await;
    let (pid, secret, port) = (wire.pid, wire.secret, secured.gate.port);
    let canceller = tokio::spawn(async move {
        loop {
            let mut cancel = Wire::over(shake(port, config.clone()).await.unwrap());
            cancel.send(cancel_request(pid, secret)).await;
            assert_eq!(cancel.until_closed().await, "");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(transcript(&wire.until_ready().await).ends_with("E(57014) Z(I)"));
    canceller.abort();
}

#[tokio::test]
async fn inside_direct_tls_nobody_may_ask_for_encryption() {
    let secured = Secured::new("require").await;
    let config = offering(&secured.authority.pem(), &["postgresql"]);
    let mut wire = Wire::over(shake(secured.gate.port, config).await.unwrap());
    wire.send(ssl_request()).await;
    assert_eq!(wire.until_closed().await, "E(08P01)");
}

#[tokio::test]
async fn direct_tls_is_not_there_where_there_is_none() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&Tweaks::default())).await;
    let config = offering(&Authority::new().pem(), &["postgresql"]);
    assert!(shake(gate.port, config).await.is_err());
    gate.connect(&estate.stark).await;
}

#[tokio::test]
async fn a_handshake_may_come_in_pieces_and_what_is_in_front_of_it_is_no_handshake() {
    let secured = Secured::new("require").await;
    // One byte is enough to be taken for a handshake, and then the login's time runs.
    let mut wire = Wire::connect(secured.gate.port).await;
    wire.send([0x16]).await;
    wire.half_close().await.unwrap();
    assert_eq!(wire.until_closed().await, "");
    // A handshake behind a packet in clear is not asked for: it is a packet of wrong length.
    let mut wire = Wire::connect(secured.gate.port).await;
    wire.send([&crate::harness::messages::gss_request()[..], &[0x16, 3, 1, 2, 0]].concat()).await;
    assert_eq!(wire.byte().await, b'N');
    assert_eq!(wire.until_closed().await, "E(08P01)");
}

/// What a client says first in TLS.
fn client_hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("gate.test").unwrap();
    let mut connection = rustls::ClientConnection::new(config.clone(), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// Seeded: a handshake with mistakes, cut short, behind or in front of packets in clear.
fn nearly_a_handshake(seed: u64, hello: &[u8]) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = match random.u8(..8) {
        0 => [&ssl_request()[..], hello].concat(),
        1 => [hello, &startup(&[("user", "app")])[..]].concat(),
        2 => [&[0x16, 3, random.u8(..)][..], &vec![random.u8(..); random.usize(..80)]].concat(),
        3 => [&[random.u8(0x14..0x19)][..], &hello[1..]].concat(),
        _ => hello.to_vec(),
    };
    for _ in 0..random.usize(..6) {
        let at = random.usize(..bytes.len());
        bytes[at] = random.u8(..);
    }
    bytes.truncate(random.usize(1..=bytes.len()));
    bytes
}

#[tokio::test]
async fn handshakes_with_mistakes_in_them_end_alone() {
    let secured = Secured::new("require").await;
    let config = offering(&secured.authority.pem(), &["postgresql"]);
    let hello = client_hello(&config);
    for seed in 0..300 {
        let mut socket = TcpStream::connect(("127.0.0.1", secured.gate.port)).await.unwrap();
        // It may hang up in the middle.
        let _ = socket.write_all(&nearly_a_handshake(seed, &hello)).await;
        let _ = socket.shutdown().await;
        let mut heard = Vec::new();
        let ended = timeout(PATIENCE, socket.read_to_end(&mut heard)).await;
        assert!(ended.is_ok() && heard.len() < 20_000, "seed {seed}: {} bytes", heard.len());
    }
    let mut wire = Wire::over(shake(secured.gate.port, config).await.unwrap());
    let frames = wire.authenticate(&secured.login()).await;
    assert_eq!(frames.last().unwrap().to_string(), "Z(I)");
    let log = secured.gate.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn the_protocol_is_named_also_where_tls_was_asked_for() {
    let secured = Secured::new("require").await;
    let pem = secured.authority.pem();
    let (named, other): (&[&str], &[&str]) = (&["postgresql"], &["h2"]);
    for (protocols, works) in [(&[][..], true), (named, true), (other, false)] {
        let config = offering(&pem, protocols);
        let wire = Wire::connect_tls(secured.gate.port, config, "gate.test").await;
        assert_eq!(wire.is_ok(), works, "{protocols:?}");
    }
}

#[tokio::test]
async fn libpq_18_connects_without_asking() {
    let driver = Driver::python("psycopg on libpq 18", "libpq_newest.py");
    if !driver.is_here() {
        return;
    }
    let secured = Secured::new("require").await;
    let tenant = &secured.estate.stark;
    for more in ["sslmode=require sslnegotiation=direct", "sslmode=require"] {
        let target =
            Target { port: secured.gate.port, user: more.to_owned(), token: &tenant.token, tenant };
        driver.ran(&target).await.unwrap_or_else(|said| panic!("{said}"));
    }
}
