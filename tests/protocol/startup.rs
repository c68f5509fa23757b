//! The first packets of a connection: versions, requests for encryption, parameters, cancels.

use super::Both;
use crate::harness::messages::{
    Frame, gss_request, password, query, ssl_request, startup, startup_version, transcript,
    untagged,
};
use crate::harness::wire::{Login, Wire};

async fn until_error_or_ready(wire: &mut Wire) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = wire.maybe_frame().await {
        let ended = matches!(frame.tag, b'E' | b'Z');
        frames.push(frame);
        if ended {
            break;
        }
    }
    frames
}

#[tokio::test]
async fn wrong_first_packets_are_named_and_end_the_connection() {
    let both = Both::new().await;
    let user = [("user", "app")];
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "version 2",
            startup_version(2, 0, &user),
            "unsupported frontend protocol 2.0: server supports 3.0 to 3.2",
        ),
        ("version 4", startup_version(4, 0, &user), "unsupported frontend protocol 4.0"),
        ("no user", startup(&[("database", "app")]), "no PostgreSQL user name"),
        ("twice", startup(&[("user", "a"), ("user", "b")]), "given twice"),
        ("no end", untagged(b"\0\x03\0\0user\0app"), "terminator"),
        ("behind the end", untagged(b"\0\x03\0\0user\0app\0\0more"), "terminator"),
        ("too short", vec![0, 0, 0, 7, 0, 0, 0], "invalid length"),
        ("too long", vec![0, 1, 0, 0, 0, 3, 0, 0], "invalid length"),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "invalid length"),
        ("bad options", startup(&[("user", "app"), ("options", "-x")]), "invalid command-line"),
        (
            "second SSLRequest asked too often",
            [ssl_request(), gss_request(), ssl_request(), ssl_request()].concat(),
            "",
        ),
    ];
    for (name, bytes, text) in cases {
        let mut wire = Wire::connect(both.gate.port).await;
        wire.send(bytes).await;
        if text.is_empty() {
            for _ in 0..3 {
                assert_eq!(wire.byte().await, b'N');
            }
        }
        let frames = until_error_or_ready(&mut wire).await;
        let sqlstate = if name == "bad options" { "42601" } else { "08P01" };
        assert_eq!(transcript(&frames), format!("E({sqlstate})"), "{name}");
        assert_eq!(frames[0].field('S').as_deref(), Some("FATAL"));
        let message = frames[0].field('M').unwrap();
        assert!(message.contains(text), "{name}: {message}");
        assert_eq!(wire.until_closed().await, "", "{name}");
    }
}

#[tokio::test]
async fn encryption_that_is_not_there_is_declined_and_the_session_goes_on() {
    let both = Both::new().await;
    let token = &both.estate.stark.token;
    let login = Login { user: "app", dbname: "app", password: token, more: &[] };
    let mut wire = Wire::connect(both.gate.port).await;
    wire.send(gss_request()).await;
    assert_eq!(wire.byte().await, b'N');
    wire.send(ssl_request()).await;
    assert_eq!(wire.byte().await, b'N');
    let frames = wire.authenticate(&login).await;
    assert_eq!(frames.last().unwrap().to_string(), "Z(I)");
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn a_second_startup_packet_is_a_violation() {
    let both = Both::new().await;
    let mut wire = Wire::connect(both.gate.port).await;
    let first = startup(&[("user", "app"), ("database", "app")]);
    wire.send([first.clone(), first.clone()].concat()).await;
    assert_eq!(wire.frame().await.tag, b'R');
    assert_eq!(transcript(&until_error_or_ready(&mut wire).await), "E(08P01)");
    assert_eq!(wire.until_closed().await, "");
    let mut wire = both.gated(&[]).await;
    wire.send(first).await;
    assert_eq!(wire.until_closed().await, "E(08P01)");
}

#[tokio::test]
async fn what_is_not_a_password_where_one_is_due_is_a_violation() {
    let both = Both::new().await;
    let long = "x".repeat(70_000);
    for (name, bytes) in [
        ("query", query("SELECT 1")),
        ("too long", password(&long)),
        ("no NUL", crate::harness::messages::frame(b'p', b"abc")),
        ("NUL inside", crate::harness::messages::frame(b'p', b"a\0c\0")),
        ("lying length", crate::harness::messages::lying_frame(b'p', 1 << 30, b"abc\0")),
        ("length of three", crate::harness::messages::lying_frame(b'p', 3, b"")),
    ] {
        let mut wire = Wire::connect(both.gate.port).await;
        wire.send(startup(&[("user", "app"), ("database", "app")])).await;
        assert_eq!(wire.frame().await.tag, b'R');
        wire.send(bytes).await;
        assert_eq!(transcript(&until_error_or_ready(&mut wire).await), "E(08P01)", "{name}");
        assert_eq!(wire.until_closed().await, "", "{name}");
    }
}

#[tokio::test]
async fn a_token_sent_ahead_of_the_question_works_and_so_does_the_first_query() {
    let both = Both::new().await;
    let mut wire = Wire::connect(both.gate.port).await;
    let ahead = [
        startup(&[("user", "app"), ("database", "app")]),
        password(&both.estate.stark.token),
        query("SELECT 42"),
    ];
    wire.send(ahead.concat()).await;
    let said = transcript(&wire.until_ready().await);
    assert!(said.starts_with("R R S(") && said.ends_with("K Z(I)"), "{said}");
    assert_eq!(transcript(&wire.until_ready().await), "T D(42) C(SELECT 1) Z(I)");
}
