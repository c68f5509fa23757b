//! Rules of a listener: the first that fits the user counts, whether or not there is such a user;
//! a reload changes them for those who come next.

use super::{PASSWORD, scram};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{self, transcript};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::{Login, Wire};

/// What a user is asked for.
async fn asked(gate: &Gate, user: &str) -> String {
    let mut wire = Wire::connect(gate.port).await;
    wire.send(messages::startup(&[("user", user), ("database", "app")])).await;
    let frame = wire.frame().await;
    match (frame.tag, frame.body.get(3)) {
        (b'R', Some(3)) => "password".to_owned(),
        (b'R', Some(10)) => "sasl".to_owned(),
        _ => transcript(&[frame]),
    }
}

fn settings(estate: &Estate, more: &str, listen: &str) -> String {
    let listen = format!("tls = \"disable\"\n{listen}");
    estate.settings(&Tweaks { listen: &listen, more, ..Tweaks::default() })
}

#[tokio::test]
async fn the_first_rule_that_fits_counts() {
    let estate = Estate::new().await;
    let rules = "plaintext_password = true\nrules = [\n\
        { user = \"svc_out\", method = \"reject\" },\n\
        { user = \"svc*\", method = \"scram-sha-256\" },\n\
        { user = \"*.acme\", method = \"scram-sha-256\" },\n\
        { user = \"app\", method = \"password\" },\n]\n";
    let more = scram(&estate.stark.id, "svc", PASSWORD);
    let gate = Gate::start(&settings(&estate, &more, rules)).await;
    for (user, wanted) in [
        ("svc_out", "E(28000)"),
        ("svc", "sasl"),
        ("svc_nobody", "sasl"),
        ("svc.nowhere", "sasl"),
        ("x.acme", "sasl"),
        ("app", "password"),
        ("app.stark", "password"),
        ("svc_out.stark", "E(28000)"),
        ("other", "E(28000)"),
        ("other.stark", "E(28000)"),
        ("app.", "E(08P01)"),
        (".acme", "E(08P01)"),
        ("", "E(08P01)"),
    ] {
        assert_eq!(asked(&gate, user).await, wanted, "{user}");
    }
    let login = |user, password| Login { user, dbname: "app", password, more: &[] };
    let mut svc = Wire::login(gate.port, &login("svc", PASSWORD)).await;
    let mut app = Wire::login(gate.port, &login("app", &estate.stark.token)).await;
    // Without plaintext passwords tokens are refused and proofs are not; who is in stays in.
    let rules = "rules = [{ user = \"app\", method = \"password\" }, \
                 { method = \"scram-sha-256\" }]\n";
    gate.write_settings(&settings(&estate, &more, rules));
    gate.reload();
    eventually("the rules are in force", async || {
        (asked(&gate, "app").await == "E(28000)").then_some(())
    })
    .await;
    assert_eq!(asked(&gate, "svc_out").await, "sasl");
    for wire in [&mut svc, &mut app] {
        assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    }
    // The password is taken out of the catalog: its sessions end, those of the token do not.
    let other = settings(&estate, &more, rules).replace("user = \"svc\"", "user = \"new\"");
    gate.write_settings(&other);
    gate.reload();
    assert_eq!(svc.until_closed().await, "E(57P01)");
    assert_eq!(app.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
}

#[test]
fn rules_that_cannot_be_meant_are_told() {
    let estate = tokio::runtime::Runtime::new().unwrap().block_on(Estate::new());
    let more = scram(&estate.stark.id, "svc", PASSWORD);
    for (rules, message) in [
        ("rules = [{ method = \"cert\" }]", "the listener has no client_ca"),
        (
            "rules = [{ method = \"password\" }, { user = \"a\", method = \"password\" }]",
            "an earlier rule fits all users of this one",
        ),
        (
            "rules = [{ method = \"trust\" }]",
            "Allowed: password, scram-sha-256, oauth, cert, reject.",
        ),
        ("client_ca = \"login.key\"", "client_ca needs TLS"),
        ("sni_suffix = \"a..b\"", "is not a host name"),
    ] {
        let settings = settings(&estate, &more, rules).replace("$PORT", "6432");
        let output = Gate::refused(&settings);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(message), "{rules}: {said}");
        assert!(!said.contains("SCRAM-SHA-256$"), "{said}");
    }
}
