//! Servers that stayed with their session: whatever was left on one, and however the session let go
//! of it, the next tenant meets none of it.

use std::time::Duration;

use crate::harness::cluster::{own, shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::terminate;
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::Wire;
use crate::isolation::{NOTES, one_server, own_notes};
use tenantgate::demo::Plan;
use tenantgate::isolation::Level;

const BACKEND: &str = "SELECT pg_backend_pid()";

/// What a backend holds for its session, by the words of the server; all of it nothing.
const HELD: &str = "SELECT \
     (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
     (SELECT count(*) FROM pg_cursors WHERE is_holdable), \
     (SELECT count(*) FROM pg_listening_channels())";

const NOTHING: &str = "T D(0,0,0) C(SELECT 1) Z(I)";

/// Leaves one of everything, under names the next tenant uses.
async fn hoards(wire: &mut Wire, key: i32) {
    for (sql, said) in [
        ("CREATE TEMP TABLE notes AS SELECT 0 AS id, 'CANARY' AS body", "C(SELECT 1) Z(I)"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 'CANARY'", "C(DECLARE CURSOR) Z(I)"),
        ("DO $$BEGIN EXECUTE 'LISTEN news'; END$$", "C(DO) Z(I)"),
    ] {
        assert_eq!(wire.query(sql).await, said, "{sql}");
    }
    let lock = format!("SELECT pg_advisory_lock({key})");
    assert_eq!(wire.query(&lock).await, "T D() C(SELECT 1) Z(I)");
}

async fn finds_nothing(next: &mut Wire, notes: &str, key: i32, how: &str) {
    assert_eq!(next.query(NOTES).await, notes, "{how}");
    assert_eq!(next.query(HELD).await, NOTHING, "{how}");
    assert_eq!(next.query("FETCH c").await, "E(34000) Z(I)", "{how}");
    let unlock = format!("SELECT pg_advisory_unlock({key})");
    assert_eq!(next.query(&unlock).await, "T N(01000) D(f) C(SELECT 1) Z(I)", "{how}");
    let free = format!("BEGIN; SELECT pg_try_advisory_xact_lock({key}); COMMIT");
    assert!(next.query(&free).await.contains("D(t)"), "{how}");
}

#[tokio::test]
async fn what_a_pinned_server_held_never_meets_the_next_tenant() {
    let (estate, gate) = one_server().await;
    let mut next = gate.wire(&estate.globex).await;
    let notes = own_notes(&estate.globex);
    let key = fastrand::i32(1000..);
    for how in ["terminate", "hang up", "mid-transaction", "DISCARD ALL", "one by one"] {
        let mut left = gate.wire(&estate.acme).await;
        hoards(&mut left, key).await;
        let backend = left.query(BACKEND).await;
        match how {
            "terminate" => left.send(terminate()).await,
            "hang up" => drop(left),
            "mid-transaction" => {
                assert_eq!(left.query("BEGIN; SELECT 1").await, "C(BEGIN) T D(1) C(SELECT 1) Z(T)");
                drop(left);
            }
            "DISCARD ALL" => assert_eq!(left.query(how).await, "C(DISCARD ALL) Z(I)"),
            _ => {
                let all = format!(
                    "DROP TABLE pg_temp.notes; CLOSE c; SELECT pg_advisory_unlock({key}); \
                     UNLISTEN *"
                );
                assert!(left.query(&all).await.ends_with("C(UNLISTEN) Z(I)"));
            }
        }
        finds_nothing(&mut next, &notes, key, how).await;
        // Let go by a statement, the server is the same one, scrubbed.
        let kept = matches!(how, "DISCARD ALL" | "one by one");
        assert_eq!(next.query(BACKEND).await == backend, kept, "{how}");
    }
}

#[tokio::test]
async fn a_pinned_server_is_scrubbed_at_every_level() {
    for level in [Level::Plain, Level::Guard, Level::Sealed] {
        let cluster = own(&Plan::default()).await;
        let estate = Estate::at(&cluster, level).await;
        let tweaks = Tweaks { capacity: 1, ..Tweaks::default() };
        let gate = Gate::start(&estate.settings(&tweaks)).await;
        let mut left = gate.wire(&estate.acme).await;
        let mut next = gate.wire(&estate.globex).await;
        let temporary = left.query("CREATE TEMP TABLE notes (body text)").await;
        let wanted = if level == Level::Plain { "C(CREATE TABLE) Z(I)" } else { "E(42501) Z(I)" };
        assert_eq!(temporary, wanted, "{}", level.name());
        for release in ["DISCARD ALL", "SELECT pg_advisory_unlock_all(); CLOSE ALL; DISCARD TEMP"] {
            left.query("DECLARE c CURSOR WITH HOLD FOR SELECT 'CANARY'").await;
            assert_eq!(left.query("SELECT pg_advisory_lock(77)").await, "T D() C(SELECT 1) Z(I)");
            let backend = left.query(BACKEND).await;
            for part in release.split("; ") {
                assert!(left.query(part).await.ends_with("Z(I)"), "{release}");
            }
            let notes = own_notes(&estate.globex);
            finds_nothing(&mut next, &notes, 77, &format!("{} {release}", level.name())).await;
            assert_eq!(next.query(BACKEND).await, backend, "{} {release}", level.name());
        }
    }
}

#[tokio::test]
async fn a_pinned_session_hears_nobody_where_tenants_share_a_database() {
    let (estate, gate) = one_server().await;
    let mut left = gate.wire(&estate.acme).await;
    hoards(&mut left, fastrand::i32(1000..)).await;
    let admin = superuser(shared().await, "app").await;
    admin.batch_execute("NOTIFY news, 'CANARY'").await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(250), left.frame()).await;
    assert!(silent.is_err(), "{silent:?}");
    assert_eq!(left.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    left.query("BEGIN").await;
    admin.batch_execute("NOTIFY news, 'CANARY'").await.unwrap();
    assert_eq!(left.query("COMMIT").await, "C(COMMIT) Z(I)");
}

#[tokio::test]
async fn pins_of_all_tenants_leave_a_server_for_the_others() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 3, tier: "pins = 3", ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut first = gate.wire(&estate.acme).await;
    let mut second = gate.wire(&estate.umbrella).await;
    let mut third = gate.wire(&estate.globex).await;
    let key = fastrand::i32(1000..);
    for (number, wire) in [&mut first, &mut second].into_iter().enumerate() {
        let lock = format!("SELECT pg_advisory_lock({key}, {number})");
        assert_eq!(wire.query(&lock).await, "T D() C(SELECT 1) Z(I)");
    }
    assert_eq!(third.query("SELECT pg_advisory_lock(1)").await, "E(53400) Z(I)");
    assert_eq!(third.query(NOTES).await, own_notes(&estate.globex));
}
