//! FunctionCall (the fast path): served where the login is the tenant's own, and libpq's large
//! objects, which use it.

use tenantgate::demo::Plan;
use tenantgate::isolation::Level;

use super::{Frames, Ready, Send, Step, ask, flight, play};
use crate::harness::cluster::{own, shared};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{bind, execute, flush, frame, parse, query, sync};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};
use crate::harness::wire::{Login, Wire};

/// A call of a function by its number, with arguments and result as text.
fn call(function: u32, arguments: &[Option<&str>]) -> Vec<u8> {
    let mut body = [&function.to_be_bytes()[..], &[0, 0]].concat();
    body.extend(u16::try_from(arguments.len()).unwrap().to_be_bytes());
    for argument in arguments {
        let length = argument.map_or(-1, |text| i32::try_from(text.len()).unwrap());
        body.extend(length.to_be_bytes());
        body.extend(argument.unwrap_or_default().as_bytes());
    }
    body.extend([0, 0]);
    frame(b'F', &body)
}

/// `int4pl`, `int4div`, `reverse` and `pg_advisory_lock`, by number.
const PLUS: u32 = 177;
const DIVIDE: u32 = 154;
const REVERSE: u32 = 3062;
const LOCK: u32 = 2880;

fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), execute("", 0)].concat()
}

/// Scripts and how many frames of result (`V`) each has.
fn scripts() -> Vec<(&'static str, Vec<Step>, usize)> {
    let long = "X".repeat(3 << 20);
    let steps = |parts: &[&[Step]]| parts.concat();
    vec![
        ("a call", flight(call(PLUS, &[Some("2"), Some("3")]), 1).into(), 1),
        ("null", flight(call(PLUS, &[None, Some("3")]), 1).into(), 1),
        ("a long one", flight(call(REVERSE, &[Some(&long)]), 1).into(), 1),
        (
            "several in one flight, among queries",
            flight(
                [
                    query("SELECT 1"),
                    call(PLUS, &[Some("2"), Some("3")]),
                    call(DIVIDE, &[Some("1"), Some("0")]),
                    call(PLUS, &[Some("4"), Some("3")]),
                    run("SELECT 2"),
                    sync(),
                ]
                .concat(),
                5,
            )
            .into(),
            2,
        ),
        (
            "in a transaction",
            steps(&[
                &ask("BEGIN"),
                &flight(call(PLUS, &[Some("2"), Some("3")]), 1),
                &flight(call(DIVIDE, &[Some("1"), Some("0")]), 1),
                &flight(call(PLUS, &[Some("2"), Some("3")]), 1),
                &ask("COMMIT"),
            ]),
            1,
        ),
        ("no such function", flight(call(1, &[]), 1).into(), 0),
        ("wrong count", flight(call(PLUS, &[Some("2")]), 1).into(), 0),
        (
            "behind an open batch",
            flight([run("SELECT 1"), call(PLUS, &[Some("2"), Some("3")])].concat(), 1).into(),
            1,
        ),
        (
            "behind a failed batch",
            vec![
                Send([run("SELECT 1/0"), flush()].concat()),
                Frames(2),
                Send([call(PLUS, &[Some("2"), Some("3")]), sync()].concat()),
                Ready(1),
            ],
            0,
        ),
    ]
}

#[tokio::test]
async fn a_silo_calls_functions_as_without_the_gate() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&Tweaks { capacity: 1, ..Tweaks::default() })).await;
    let silo = &estate.initech;
    let user = format!("tg_{}", silo.id);
    let own = Login { user: &user, dbname: &silo.dbname, password: LOGIN_PASSWORD, more: &[] };
    for (name, script, results) in scripts() {
        let direct = play(&mut Wire::login(shared().await.port(), &own).await, &script).await;
        let mut wire = gate.wire(silo).await;
        assert_eq!(play(&mut wire, &script).await, direct, "{name}");
        assert_eq!(direct.split(' ').filter(|it| *it == "V").count(), results, "{name}: {direct}");
        assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)", "{name}");
    }
}

#[tokio::test]
async fn what_a_call_leaves_behind_is_not_the_next_tenants() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&Tweaks { capacity: 1, ..Tweaks::default() })).await;
    let mut calls = gate.wire(&estate.initech).await;
    let mut next = gate.wire(&estate.initech).await;
    // set_config('my.mark', 'left', false)
    let leaves = call(2078, &[Some("my.mark"), Some("left"), Some("f")]);
    assert_eq!(calls.ask(leaves).await, "V Z(I)");
    let look = "SELECT coalesce(current_setting('my.mark', true), '')";
    assert_eq!(next.query(look).await, "T D() C(SELECT 1) Z(I)");
}

/// A silo's server is asked whether it holds a lock. From level guard on it may not say, and a call
/// is not read: then the server is not kept, and the lock goes with the scrub.
#[tokio::test]
async fn a_lock_that_a_call_takes_keeps_a_silos_server_and_goes_with_the_scrub_at_strict() {
    let cluster = own(&Plan::default()).await;
    let estate = Estate::at(&cluster, Level::Guard).await;
    let tweaks = Tweaks { capacity: 3, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let locks = call(LOCK, &[Some("77")]);
    let mut other = gate.wire(&estate.umbrella).await;
    let mut strict = gate.wire(&estate.stark).await;
    assert_eq!(strict.ask(&locks).await, "V Z(I)");
    assert_eq!(strict.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    let is_free = "SELECT pg_try_advisory_xact_lock(77)";
    eventually("the lock is gone", async || {
        other.query(is_free).await.contains("D(t)").then_some(())
    })
    .await;
    assert_eq!(strict.query("SELECT pg_advisory_unlock(77)").await, UNLOCKED_NOTHING);
    let (mut silo, mut next) = (gate.wire(&estate.initech).await, gate.wire(&estate.initech).await);
    assert_eq!(silo.ask(&locks).await, "V Z(I)");
    assert_eq!(next.query(is_free).await, "T D(f) C(SELECT 1) Z(I)");
    assert_eq!(silo.query("SELECT pg_advisory_unlock(77)").await, "T D(t) C(SELECT 1) Z(I)");
    assert_eq!(next.query(is_free).await, "T D(t) C(SELECT 1) Z(I)");
}

const UNLOCKED_NOTHING: &str = "T N(01000) D(f) C(SELECT 1) Z(I)";

#[tokio::test]
async fn others_are_refused_in_their_place_and_stay_in_step() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let called = call(PLUS, &[Some("2"), Some("3")]);
    for tenant in [&estate.acme, &estate.stark, &estate.umbrella] {
        let mut wire = gate.wire(tenant).await;
        assert_eq!(wire.ask(&called).await, "E(0A000) Z(I)");
        let said = wire.ask([run("SELECT 1"), called.clone()].concat()).await;
        assert_eq!(said, "1 2 D(1) C(SELECT 1) E(0A000) Z(I)");
        let skipped = [parse("", "SELEC"), called.clone(), sync()].concat();
        assert_eq!(wire.ask(skipped).await, "E(42601) Z(I)");
        assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    }
}

#[tokio::test]
async fn libpq_brings_a_large_object_in_and_out_again() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&Tweaks { capacity: 1, ..Tweaks::default() })).await;
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
    std::fs::write(&from, &bytes).unwrap();
    let import = format!("\\lo_import '{}'", from.display());
    let export = format!("\\lo_export :LASTOID '{}'", to.display());
    let commands =
        ["-v", "ON_ERROR_STOP=1", "-c", &import, "-c", &export, "-c", "\\lo_unlink :LASTOID"];
    let output = gate.program(&estate.initech, "psql", &commands).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(&to).unwrap() == bytes, "the bytes are not the same");
}
