//! Where an issuer's keys come from: files and addresses, their rotation, and what is wrong with
//! either.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::signer::{Signer, set};
use super::{claims, is_let_in};
use crate::harness::certs::Authority;
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tweaks};

/// Wrong tokens come in here by the hundred, from one address.
const MANY: &str = "failures_per_address = 100000\n";

/// An issuer's address, which answers what it was last told to.
struct Publisher {
    port: u16,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Publisher {
    async fn new(tls: Option<Arc<ServerConfig>>, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(Mutex::new(found(body)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (kept, count) = (answer.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (answer, count) = (kept.clone(), count.clone());
                let tls = tls.clone();
                tokio::spawn(async move {
                    // Whoever asks may hang up, or not like the certificate.
                    let _ = match tls {
                        Some(tls) => match TlsAcceptor::from(tls).accept(socket).await {
                            Ok(socket) => tell(socket, &answer, &count).await,
                            Err(error) => Err(error),
                        },
                        None => tell(socket, &answer, &count).await,
                    };
                });
            }
        });
        Self { port, answer, asked }
    }

    fn publish(&self, body: &str) {
        *self.answer.lock() = found(body);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn found(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

async fn tell(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    answer: &Mutex<String>,
    count: &AtomicUsize,
) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(socket.read_u8().await?);
    }
    count.fetch_add(1, Ordering::Relaxed);
    let answer = answer.lock().clone();
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await
}

/// A gate whose issuer `web` has these lines about its keys.
async fn gate_with(estate: &Estate, lines: &str, files: &[(&str, &str)]) -> Gate {
    let more = format!(
        "[issuers.web]\nissuer = \"https://web.test\"\naudience = \"tenantgate\"\n\
         any_tenant = true\n{lines}\n"
    );
    let settings = estate.settings(&Tweaks { gate: MANY, more: &more, ..Tweaks::default() });
    Gate::start_with(&settings, files).await
}

#[tokio::test]
async fn keys_of_every_algorithm_verify_what_they_signed() {
    use Algorithm::*;
    let estate = Estate::new().await;
    let algorithms = [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];
    let signers: Vec<Signer> = algorithms
        .iter()
        .map(|algorithm| Signer::new(&format!("{algorithm:?}"), *algorithm))
        .collect();
    let mut keys: Vec<Value> = signers.iter().map(Signer::published).collect();
    // What is in sets beside them and is passed over.
    keys.push(Signer::new("secret", HS256).published());
    keys.push(json!({ "kty": "EC", "crv": "P-521", "kid": "521", "x": "AA", "y": "AA" }));
    keys.push(json!({ "kty": "RSA", "kid": "short", "n": "AQAB", "e": "AQAB" }));
    keys.push(json!({ "kty": "new", "kid": "future", "alg": "XY999" }));
    keys.push(json!(7));
    let sealing = Signer::new("sealing", RS256);
    let mut published = sealing.published();
    published["use"] = "enc".into();
    keys.push(published);
    let text = json!({ "keys": keys }).to_string();
    let lines = "jwks_file = \"web.json\"";
    let gate = gate_with(&estate, lines, &[("web.json", &text)]).await;
    let claims = claims("web", &estate.acme.id);
    for signer in &signers {
        assert!(is_let_in(&gate, &signer.token(&claims)).await, "{}", signer.kid);
    }
    for foreign in [sealing, Signer::new("secret", HS256)] {
        assert!(!is_let_in(&gate, &foreign.token(&claims)).await, "{}", foreign.kid);
    }
    // The file is looked at all the time; a session whose key is gone ends.
    let [first, second, ..] = signers.as_slice() else { panic!("two signers") };
    let mut session = super::life::session(&gate, &first.token(&claims)).await;
    std::fs::write(gate.folder().join("web.json"), "{\"keys\":").unwrap();
    gate.logs("an issuer's new keys are not used").await;
    assert!(is_let_in(&gate, &first.token(&claims)).await, "the last good keys stay");
    std::fs::write(gate.folder().join("web.json"), set(&[second])).unwrap();
    assert_eq!(session.until_closed().await, "E(57P01)");
    assert!(!is_let_in(&gate, &first.token(&claims)).await);
    assert!(is_let_in(&gate, &second.token(&claims)).await);
}

#[tokio::test]
async fn keys_at_an_address_rotate_without_a_refused_login() {
    let estate = Estate::new().await;
    let (old, new) = (Signer::new("old", Algorithm::EdDSA), Signer::new("new", Algorithm::ES256));
    let publisher = Publisher::new(None, &set(&[&old])).await;
    let lines = format!(
        "jwks_url = \"http://127.0.0.1:{}/keys\"\njwks_refresh = \"1h\"\njwks_pause = \"300ms\"",
        publisher.port
    );
    let gate = gate_with(&estate, &lines, &[]).await;
    let claims = claims("web", &estate.acme.id);
    let (of_old, of_new) = (old.token(&claims), new.token(&claims));
    assert!(is_let_in(&gate, &of_old).await, "the keys are there when the gate is");
    assert_eq!(publisher.asked(), 1);
    let mut session = super::life::session(&gate, &of_old).await;
    // Both keys: tokens of both count as soon as one of the new was seen.
    publisher.publish(&set(&[&old, &new]));
    eventually("the new key is found", async || is_let_in(&gate, &of_new).await.then_some(()))
        .await;
    assert!(is_let_in(&gate, &of_old).await);
    assert_eq!(session.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    // However often an unknown key is named, the pause is kept: 300 ms between two fetches.
    let unknown = Signer::new("unknown", Algorithm::EdDSA).token(&claims);
    let (before, began) = (publisher.asked(), std::time::Instant::now());
    while began.elapsed().as_millis() < 1000 {
        assert!(!is_let_in(&gate, &unknown).await);
    }
    let fetched = publisher.asked() - before;
    let most = began.elapsed().as_millis() / 300 + 2;
    assert!(fetched >= 1 && (fetched as u128) <= most, "{fetched} fetches, {most} at most");
    // What is no set, or has no key in it, changes nothing.
    for broken in ["", "{}", "{\"keys\":[]}", "<html>", &set(&[&old, &old]), &"[".repeat(300_000)] {
        publisher.publish(broken);
        let asked = publisher.asked();
        eventually("it was fetched", async || {
            is_let_in(&gate, &unknown).await;
            (publisher.asked() > asked + 1).then_some(())
        })
        .await;
        assert!(is_let_in(&gate, &of_old).await && is_let_in(&gate, &of_new).await, "{broken:.20}");
    }
    // A key that is not published any more counts no more.
    publisher.publish(&set(&[&new]));
    eventually("the old key is gone", async || {
        is_let_in(&gate, &unknown).await;
        (!is_let_in(&gate, &of_old).await).then_some(())
    })
    .await;
    assert_eq!(session.until_closed().await, "E(57P01)");
    // A reload of the same settings keeps what was fetched, without asking again.
    let asked = publisher.asked();
    gate.reload();
    gate.logs("reloaded").await;
    assert!(is_let_in(&gate, &of_new).await);
    assert_eq!(publisher.asked(), asked);
}

#[tokio::test]
async fn an_address_is_asked_over_tls_and_answers_for_itself() {
    let estate = Estate::new().await;
    let signer = Signer::new("one", Algorithm::ES384);
    let thief = Signer::new("one", Algorithm::ES384);
    let (authority, stranger) = (Authority::new(), Authority::new());
    let config = |authority: &Authority| {
        let identity = authority.server(&["127.0.0.1"]);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        Arc::new(config.unwrap())
    };
    let trusted = Publisher::new(Some(config(&authority)), &set(&[&signer])).await;
    let lines = |publisher: &Publisher| {
        format!(
            "jwks_url = \"https://127.0.0.1:{}/keys\"\njwks_ca_file = \"ca.pem\"\n\
             jwks_refresh = \"200ms\"\njwks_pause = \"200ms\"",
            publisher.port
        )
    };
    let files = [("ca.pem", authority.pem())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let gate = gate_with(&estate, &lines(&trusted), &files).await;
    let claims = claims("web", &estate.acme.id);
    assert!(is_let_in(&gate, &signer.token(&claims)).await);
    // It does not send the gate elsewhere.
    let elsewhere = Publisher::new(None, &set(&[&thief])).await;
    *trusted.answer.lock() = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{}/\r\nContent-Length: 0\r\n\r\n",
        elsewhere.port
    );
    let asked = trusted.asked();
    eventually("it is asked twice", async || (trusted.asked() > asked + 1).then_some(())).await;
    assert_eq!(elsewhere.asked(), 0);
    assert!(is_let_in(&gate, &signer.token(&claims)).await);
    assert!(!is_let_in(&gate, &thief.token(&claims)).await);
    // Somebody else at the address has another certificate.
    let forged = Publisher::new(Some(config(&stranger)), &set(&[&thief])).await;
    let gate = gate_with(&estate, &lines(&forged), &files).await;
    gate.logs("could not fetch an issuer's keys").await;
    assert!(!is_let_in(&gate, &thief.token(&claims)).await);
    assert!(is_let_in(&gate, &estate.acme.token).await, "others are served meanwhile");
}
