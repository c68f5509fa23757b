//! SASL OAUTHBEARER by a scripted client, as libpq 18 speaks it: the same tokens, the same answers,
//! only where nobody listens in.

use serde_json::Value;

use super::{AUDIT, claims, written};
use crate::harness::certs::{Authority, Identity};
use crate::harness::gate::Gate;
use crate::harness::messages::{frame, startup, transcript};
use crate::harness::tenants::{Estate, JWT_KEY, Tweaks, jwt_with};
use crate::harness::wire::Wire;

const RULES: &str = "rules = [{ user = \"app*\", method = \"oauth\" }, { method = \"password\" }]";

async fn gate_with(estate: &Estate, listen: &str) -> Gate {
    let listen = format!("{listen}\n{RULES}");
    let tweaks = Tweaks { listen: &listen, more: AUDIT, ..Tweaks::default() };
    Gate::start(&estate.settings(&tweaks)).await
}

/// A SASLInitialResponse.
fn initial(mechanism: &str, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [mechanism.as_bytes(), &[0], &length, message].concat();
    frame(b'p', &body)
}

fn with_token(token: &str) -> Vec<u8> {
    initial("OAUTHBEARER", format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}").as_bytes())
}

/// A client that was asked for OAUTHBEARER, and for nothing else.
async fn asked(mut wire: Wire) -> Wire {
    wire.send(startup(&[("user", "app"), ("database", "app")])).await;
    let offer = wire.frame().await;
    assert_eq!(offer.body, [&10_u32.to_be_bytes()[..], b"OAUTHBEARER\0\0"].concat());
    wire
}

/// What a client is told whose token is refused, up to the end.
async fn refused(port: u16, message: Vec<u8>) -> (Value, String) {
    let mut wire = asked(Wire::connect(port).await).await;
    wire.send(message).await;
    let challenge = wire.frame().await;
    assert_eq!(challenge.body[..4], 11_u32.to_be_bytes());
    wire.send(frame(b'p', &[1])).await;
    (serde_json::from_slice(&challenge.body[4..]).unwrap(), wire.until_closed().await)
}

#[tokio::test]
async fn a_bearer_token_lets_in_as_it_does_in_the_place_of_a_password() {
    let estate = Estate::new().await;
    let gate = gate_with(&estate, "tls = \"disable\"\nplaintext_password = true").await;
    let acme = &estate.acme;
    let good = jwt_with(JWT_KEY, &claims("login", &acme.id));
    for token in [&good, &acme.token] {
        let mut wire = asked(Wire::connect(gate.port).await).await;
        wire.send(with_token(token)).await;
        let welcome = transcript(&wire.until_ready().await);
        assert!(welcome.starts_with("R ") && welcome.ends_with("Z(I)"), "{welcome}");
        assert_eq!(wire.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(I)");
    }
    // Whatever is wrong, and without any token, the answer is the same.
    let mut expired = claims("login", &acme.id);
    expired["exp"] = 1.into();
    let wrong = [
        with_token(&jwt_with(JWT_KEY, &expired)),
        with_token(&jwt_with(
            "another key of more than thirty-two bytes",
            &claims("login", &acme.id),
        )),
        with_token(&jwt_with(JWT_KEY, &claims("login", "nobody"))),
        with_token("x"),
        initial("OAUTHBEARER", b"n,,\x01auth=\x01\x01"),
        // Longer than any token, and not longer than what is read at all.
        with_token(&"x".repeat(60_000)),
    ];
    let mut answers = Vec::new();
    for message in wrong {
        let (status, end) = refused(gate.port, message).await;
        assert_eq!(end, "E(28P01)");
        assert_eq!(
            (&status["status"], &status["scope"]),
            (&"invalid_token".into(), &"openid".into())
        );
        let address = "https://login.test/.well-known/openid-configuration";
        assert_eq!(status["openid-configuration"], address);
        answers.push(status);
    }
    assert!(answers.windows(2).all(|two| two[0] == two[1]));
    let reasons = written(&gate, "refusal", 6).await;
    assert_eq!(reasons[0]["reason"], "expired");
    let text = std::fs::read_to_string(gate.folder().join("audit.jsonl")).unwrap();
    assert!(!text.contains(&good[..40]), "{text}");
}

#[tokio::test]
async fn what_is_no_message_of_the_mechanism_is_a_violation_of_the_protocol() {
    let estate = Estate::new().await;
    let gate = gate_with(&estate, "tls = \"disable\"\nplaintext_password = true").await;
    let good = jwt_with(JWT_KEY, &claims("login", &estate.acme.id));
    let bearer = |text: &str| initial("OAUTHBEARER", text.replace("TOKEN", &good).as_bytes());
    let messages = [
        initial("SCRAM-SHA-256", b"n,,n=,r=abcdefgh"),
        initial("PLAIN", b"\0app\0x"),
        bearer("n,,\u{1}auth=Bearer TOKEN\u{1}auth=Bearer TOKEN\u{1}\u{1}"),
        bearer("p=tls-server-end-point,,\u{1}auth=Bearer TOKEN\u{1}\u{1}"),
        bearer("n,a=globex,\u{1}auth=Bearer TOKEN\u{1}\u{1}"),
        bearer("n,,\u{1}auth=Bearer TOKEN\u{1}"),
        bearer("n,,\u{1}auth Bearer TOKEN\u{1}\u{1}"),
        bearer("n,,\u{1}=x\u{1}auth=Bearer TOKEN\u{1}\u{1}"),
        bearer("n,,\u{1}auth=Basic TOKEN\u{1}\u{1}"),
        bearer(",,\u{1}auth=Bearer TOKEN\u{1}\u{1}"),
        bearer("TOKEN"),
        with_token(&"x".repeat(70_000)),
        frame(b'p', good.as_bytes()),
        frame(b'p', b"OAUTHBEARER\0\x7f\xff\xff\xff"),
        frame(b'Q', b"SELECT 1\0"),
    ];
    for message in messages {
        let mut wire = asked(Wire::connect(gate.port).await).await;
        let shown = message.escape_ascii().to_string();
        wire.send(message).await;
        assert_eq!(wire.until_closed().await, "E(08P01)", "{shown}");
    }
    let mut wire = asked(Wire::connect(gate.port).await).await;
    wire.send(with_token("x")).await;
    assert_eq!(wire.frame().await.to_string(), "R");
    wire.send(frame(b'p', b"n,,\x01auth=Bearer x\x01\x01")).await;
    assert_eq!(wire.until_closed().await, "E(08P01)", "one try for each connection");
}

#[tokio::test]
async fn a_token_is_asked_for_only_where_nobody_listens_in() {
    let estate = Estate::new().await;
    let gate = gate_with(&estate, "tls = \"disable\"").await;
    let mut wire = Wire::connect(gate.port).await;
    wire.send(startup(&[("user", "app"), ("database", "app")])).await;
    assert_eq!(wire.until_closed().await, "E(28000)", "before it could send one");

    let authority = Authority::new();
    let Identity { certificate, key } = authority.server(&["gate.test"]);
    let listen = format!("certificate = \"gate.crt\"\nkey = \"gate.key\"\n{RULES}");
    let settings = estate.settings(&Tweaks { listen: &listen, ..Tweaks::default() });
    let files = [("gate.crt", certificate.as_str()), ("gate.key", key.as_str())];
    let gate = Gate::start_with(&settings, &files).await;
    let wire = Wire::connect_tls(gate.port, authority.client_config(), "gate.test").await.unwrap();
    let mut wire = asked(wire).await;
    wire.send(with_token(&jwt_with(JWT_KEY, &claims("login", &estate.acme.id)))).await;
    assert!(transcript(&wire.until_ready().await).ends_with("Z(I)"));
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
}
