//! PROXY headers: taken from the balancer's addresses, where nothing else is, and from nobody else.

use super::{PASSWORD, scram};
use crate::harness::gate::Gate;
use crate::harness::messages::{self, transcript};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::{Login, Wire};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\x13\x88\x19\x20";

async fn gate(estate: &Estate, proxies: &str) -> Gate {
    let more = format!(
        "[tenants.far_{0}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
         role = \"app_rw\"\nallow_from = [\"10.0.0.0/24\"]\n{1}",
        estate.stark.id,
        scram(&format!("far_{}", estate.stark.id), "far", PASSWORD),
    );
    let listen = format!(
        "tls = \"disable\"\nplaintext_password = true\nproxies = [\"{proxies}\"]\n\
         rules = [{{ user = \"far\", method = \"scram-sha-256\" }}, {{ method = \"password\" }}]\n"
    );
    let tweaks = Tweaks { listen: &listen, more: &more, ..Tweaks::default() };
    Gate::start(&estate.settings(&tweaks)).await
}

const FAR: Login<'_> = Login { user: "far", dbname: "app", password: PASSWORD, more: &[] };

#[tokio::test]
async fn the_client_is_who_the_balancer_says() {
    let estate = Estate::new().await;
    let gate = gate(&estate, "127.0.0.0/8").await;
    let v1 = b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 6432\r\n";
    for header in [&v1[..], V2] {
        let mut wire = Wire::connect(gate.port).await;
        wire.send(header).await;
        assert!(transcript(&wire.authenticate(&FAR).await).ends_with("Z(I)"), "{header:?}");
    }
    gate.logs("peer=10.0.0.1:5000").await;
    let other = b"PROXY TCP4 10.0.1.1 10.0.0.2 5000 6432\r\n";
    for header in [&other[..], b"PROXY UNKNOWN\r\n", b"PROXY TCP6 ::1 ::1 1 2\r\n"] {
        let mut wire = Wire::connect(gate.port).await;
        wire.send(header).await;
        assert_eq!(transcript(&wire.authenticate(&FAR).await), "R R E(28P01)", "{header:?}");
    }
    // Whoever comes through it is not on this machine: no token in clear, no console.
    let token = &estate.stark.token;
    let local = b"PROXY TCP4 127.0.0.1 127.0.0.1 5000 6432\r\n";
    for (dbname, wanted) in [("app", "E(28000)"), ("tenantgate", "E(3D000)")] {
        let mut wire = Wire::connect(gate.port).await;
        wire.send(local).await;
        let login = Login { user: "app", dbname, password: token, more: &[] };
        assert_eq!(transcript(&wire.authenticate(&login).await), wanted);
    }
}

#[tokio::test]
async fn from_a_balancer_nothing_else_is_taken_and_from_others_no_header() {
    let estate = Estate::new().await;
    let balanced = gate(&estate, "127.0.0.1").await;
    let start = messages::startup(&[("user", "far"), ("database", "app")]);
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat();
    for bytes in [
        &start[..],
        &messages::ssl_request(),
        &long,
        b"PROXY TCP4 10.0.0.1 10.0.0.2 5000\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\0\0\0\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c............",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff............",
    ] {
        let mut wire = Wire::connect(balanced.port).await;
        wire.send(bytes).await;
        let _ = wire.half_close().await;
        assert_eq!(wire.until_closed().await, "", "{bytes:?}");
    }
    let plain = gate(&estate, "10.9.9.9").await;
    for header in [&b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 6432\r\n"[..], V2] {
        let mut wire = Wire::connect(plain.port).await;
        wire.send(header).await;
        assert_eq!(wire.until_closed().await, "E(08P01)", "a header is no start-up packet");
    }
}

/// The balancer's bytes and the client's, altered: whatever comes, the gate lives on.
#[tokio::test]
async fn headers_with_mistakes_in_them_leave_the_gate_whole() {
    let estate = Estate::new().await;
    let gate = gate(&estate, "127.0.0.1").await;
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = match random.bool() {
            true => V2.to_vec(),
            false => b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 6432\r\n".to_vec(),
        };
        bytes.extend(messages::startup(&[("user", "far"), ("database", "app")]));
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        let mut wire = Wire::connect(gate.port).await;
        let _ = wire.try_send(&bytes).await;
        let _ = wire.half_close().await;
        let heard = wire.until_closed().await;
        assert!(!heard.contains('Z'), "seed {seed}: {heard}");
    }
    assert!(!gate.log().contains("panicked"), "{}", gate.log());
    let mut wire = Wire::connect(gate.port).await;
    wire.send(V2).await;
    assert!(transcript(&wire.authenticate(&FAR).await).ends_with("Z(I)"));
}
