//! Frames that are none: 08P01, the session ends, its server is not reused, others go on.

use super::is_in_step;
use crate::harness::gate::Gate;
use crate::harness::messages::{bind, execute, frame, lying_frame, parse, password, startup, sync};
use crate::harness::tenants::{Estate, Tweaks};

fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("an unknown tag", frame(b'z', b"")),
        ("tag zero", frame(0, b"abc")),
        ("a password", password("x")),
        ("a start-up packet", startup(&[("user", "app")])),
        ("length zero", lying_frame(b'Q', 0, b"")),
        ("length three", lying_frame(b'S', 3, b"")),
        ("two gibibytes", lying_frame(b'Q', 0x8000_0000, b"x")),
        ("all ones", lying_frame(b'B', 0xffff_ffff, b"x")),
        ("a Query without its NUL", frame(b'Q', b"SELECT 1")),
        ("a Query with two", frame(b'Q', b"SELECT 1\0 SELECT 2\0")),
        ("an empty Query body", frame(b'Q', b"")),
        ("a Parse cut short", frame(b'P', b"name\0SELECT 1")),
        ("a Parse that counts wrong", frame(b'P', b"\0SELECT 1\0\0\x05\0\0")),
        ("a Bind without names", frame(b'B', b"abc")),
        ("a Describe of nothing", frame(b'D', b"")),
        ("a Describe of X", frame(b'D', b"Xname\0")),
        ("a Close of X", frame(b'C', b"Xname\0")),
        ("an Execute cut short", frame(b'E', b"portal\0\0\0")),
        ("a Sync with a body", frame(b'S', b"x")),
    ]
}

#[tokio::test]
async fn malformed_frames_end_the_session_and_nothing_else() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 1, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut bystander = gate.wire(&estate.acme).await;
    for (name, bytes) in malformed() {
        let mut idle = gate.wire(&estate.stark).await;
        idle.send(&bytes).await;
        let said = idle.until_closed().await;
        assert!(said.ends_with("E(08P01)"), "{name}: {said}");
        let mut inside = gate.wire(&estate.stark).await;
        assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
        inside.query("INSERT INTO notes VALUES (802, 'x')").await;
        inside.send(&bytes).await;
        let said = inside.until_closed().await;
        assert!(said.ends_with("E(08P01)"), "{name} in a transaction: {said}");
        // The only place is free again, and what the broken session did is undone.
        is_in_step(&mut bystander).await;
        let mut after = gate.wire(&estate.stark).await;
        let gone = after.query("SELECT count(*) FROM notes WHERE id = 802").await;
        assert_eq!(gone, "T D(0) C(SELECT 1) Z(I)", "{name}");
    }
}

#[tokio::test]
async fn what_postgresql_itself_calls_malformed_is_its_error() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    for body in [&b"\0\0\0\0\0\x01\0\0\0\x09x\0\0"[..], b"\0\0\0\x01", b"\0\0\0\0\0\0\0\0\0\0\0"] {
        let mut wire = gate.wire(&estate.stark).await;
        wire.send([parse("", "SELECT $1::text"), frame(b'B', body), sync()].concat()).await;
        assert_eq!(wire.query("SELECT 1").await.matches("E(").count(), 1);
    }
    let mut wire = gate.wire(&estate.stark).await;
    let fine = [parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), sync()].concat();
    assert_eq!(wire.ask(fine).await, "1 2 D(1) C(SELECT 1) Z(I)");
}
