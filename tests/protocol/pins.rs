//! What a session holds on its server that no other could take over: temporary objects, advisory
//! locks, cursors WITH HOLD, channels. The server stays while it is held, and no longer.

use std::time::Duration;

use super::{Both, Step, Table, brief, flight, queries};
use crate::console::{ADMIN, gate, show};
use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{
    assert_cancelled, bind, execute, extended, parse, query, sync, terminate, transcript,
};
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire, cancel};

/// Several flights, each with one ReadyForQuery.
fn flights(all: &[Vec<u8>]) -> Vec<Step> {
    all.iter().flat_map(|bytes| flight(bytes.clone(), 1)).collect()
}

#[tokio::test]
async fn what_a_session_holds_it_has_in_the_next_transaction_as_at_the_server() {
    let lock = "SELECT pg_advisory_lock(7)";
    let again = [bind("", "l", &[]), execute("", 0), sync()].concat();
    let rows: Table = vec![
        (
            "a temporary table",
            queries(&[
                "CREATE TEMP TABLE t (i int)",
                "INSERT INTO t VALUES (1), (2)",
                "BEGIN; UPDATE t SET i = i + 1; COMMIT",
                "SELECT i + 0 FROM t ORDER BY i",
                "DROP TABLE t",
                "SELECT * FROM t",
            ]),
            "C(CREATE TABLE) Z(I) C(INSERT 0 2) Z(I) C(BEGIN) C(UPDATE 2) C(COMMIT) Z(I) \
             T D(2) D(3) C(SELECT 2) Z(I) C(DROP TABLE) Z(I) E(42P01) Z(I)",
        ),
        (
            "a temporary table made by a query, and a view of it",
            queries(&[
                "SELECT 1 AS i INTO TEMP t",
                "CREATE TEMP VIEW v AS SELECT i + 1 AS j FROM t",
                "SELECT j + 0 FROM v",
                "DISCARD TEMP",
                "SELECT j + 0 FROM v",
            ]),
            "C(SELECT 1) Z(I) C(CREATE VIEW) Z(I) T D(2) C(SELECT 1) Z(I) C(DISCARD TEMP) Z(I) \
             E(42P01) Z(I)",
        ),
        (
            "a temporary function",
            queries(&["CREATE FUNCTION pg_temp.f() RETURNS int RETURN 4", "SELECT pg_temp.f()"]),
            "C(CREATE FUNCTION) Z(I) T D(4) C(SELECT 1) Z(I)",
        ),
        (
            "a temporary table that its transaction undoes",
            queries(&["BEGIN", "CREATE TEMP TABLE t (i int)", "ROLLBACK", "SELECT * FROM t"]),
            "C(BEGIN) Z(T) C(CREATE TABLE) Z(T) C(ROLLBACK) Z(I) E(42P01) Z(I)",
        ),
        (
            "locks, by both protocols",
            flights(&[
                query(lock),
                extended("SELECT pg_try_advisory_lock($1)", &[Some("8")]),
                [parse("l", lock), again.clone()].concat(),
                again.clone(),
                query("SELECT pg_advisory_unlock(7), pg_advisory_unlock(8)"),
                query("SELECT pg_advisory_unlock(7), pg_advisory_unlock(7)"),
                query("SELECT pg_advisory_unlock(7)"),
            ]),
            "T D() C(SELECT 1) Z(I) 1 2 T D(t) C(SELECT 1) Z(I) 1 2 D() C(SELECT 1) Z(I) \
             2 D() C(SELECT 1) Z(I) T D(t,t) C(SELECT 1) Z(I) T D(t,t) C(SELECT 1) Z(I) \
             T N(01000) D(f) C(SELECT 1) Z(I)",
        ),
        (
            "a cursor WITH HOLD",
            queries(&[
                "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 5)",
                "FETCH 2 FROM c",
                "BEGIN",
                "FETCH 1 FROM c",
                "ROLLBACK",
                "FETCH 1 FROM c",
                "CLOSE c",
                "FETCH 1 FROM c",
            ]),
            "C(DECLARE CURSOR) Z(I) T D(1) D(2) C(FETCH 2) Z(I) C(BEGIN) Z(T) T D(3) C(FETCH 1) \
             Z(T) C(ROLLBACK) Z(I) T D(4) C(FETCH 1) Z(I) C(CLOSE CURSOR) Z(I) E(34000) Z(I)",
        ),
        (
            "settings, on a server that stays",
            queries(&[
                "CREATE TEMP TABLE t (i int)",
                "SET work_mem TO '5MB'",
                "RESET ALL",
                "SHOW work_mem",
                "SELECT i + 0 FROM t",
                "SELECT count(*) FROM notes",
            ]),
            "C(CREATE TABLE) Z(I) C(SET) Z(I) C(RESET) Z(I) T D(4MB) C(SHOW) Z(I) T C(SELECT 0) \
             Z(I) T D(3) C(SELECT 1) Z(I)",
        ),
    ];
    Both::new().await.table(&rows).await;
}

#[tokio::test]
async fn discard_all_leaves_nothing_as_at_the_server() {
    let held = [
        "CREATE TEMP TABLE t (i int)",
        "SELECT pg_advisory_lock(9)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    ];
    let after = ["SELECT * FROM t", "SELECT pg_advisory_unlock(9)", "FETCH c", "SHOW work_mem"];
    let script = |discard: Vec<u8>| {
        let mut script = queries(&held);
        script.extend(queries(&["SET work_mem TO '5MB'"]));
        script.extend(flight(discard, 1));
        script.extend(queries(&after));
        script
    };
    let wanted = |discard| {
        format!(
            "C(CREATE TABLE) Z(I) T D() C(SELECT 1) Z(I) C(DECLARE CURSOR) Z(I) C(SET) Z(I) \
             {discard} Z(I) E(42P01) Z(I) T N(01000) D(f) C(SELECT 1) Z(I) E(34000) Z(I) \
             T D(4MB) C(SHOW) Z(I)"
        )
    };
    let both = Both::new().await;
    for (discard, answer) in [
        (query("DISCARD ALL"), "C(DISCARD ALL)"),
        (extended("DISCARD ALL", &[]), "1 2 n C(DISCARD ALL)"),
    ] {
        let direct = both.same(answer, &script(discard)).await;
        assert_eq!(brief(&direct), wanted(answer));
    }
}

async fn gate_of(capacity: usize, tier: &str) -> (Estate, Gate) {
    gate(&Tweaks { capacity, tier, ..Tweaks::default() }).await
}

/// Why each client of a tenant keeps its server.
async fn pins(console: &mut Wire, tenant: &Tenant) -> Vec<String> {
    let clients = show(console, "CLIENTS").await;
    let own = clients.into_iter().filter(|row| row["tenant"] == tenant.id);
    own.map(|row| row["pin"].clone()).collect()
}

#[tokio::test]
async fn a_server_stays_while_it_holds_something_and_the_console_says_why() {
    let (estate, gate) = gate_of(4, "").await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let tenant = &estate.initech;
    grant_temporary(tenant).await;
    let mut wire = gate.wire(tenant).await;
    for (hold, pin, release) in [
        ("CREATE TEMP TABLE t (i int)", "temporary", "DROP TABLE t"),
        ("SELECT pg_advisory_lock(1)", "lock", "SELECT pg_advisory_unlock(1)"),
        ("SELECT pg_try_advisory_lock_shared(1, 2)", "lock", "SELECT pg_advisory_unlock_all()"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "cursor", "CLOSE c"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "cursor", "CLOSE ALL"),
        ("LISTEN news", "listen", "UNLISTEN news"),
        ("LISTEN news", "listen", "UNLISTEN *"),
        ("SET ROLE pg_read_all_stats", "role", "RESET ROLE"),
        ("SET ROLE pg_read_all_stats", "role", "SET SESSION AUTHORIZATION DEFAULT"),
        ("SET ROLE pg_read_all_stats; LISTEN news", "listen,role", "DISCARD ALL"),
        ("LISTEN news; CREATE TEMP SEQUENCE s", "temporary,listen", "DISCARD ALL"),
    ] {
        wire.query(hold).await;
        let pid = wire.query("SELECT pg_backend_pid()").await;
        assert_eq!(pins(&mut console, tenant).await, [pin], "{hold}");
        let servers = show(&mut console, "SERVERS").await;
        let linked: Vec<_> = servers.iter().filter(|row| !row["link"].is_empty()).collect();
        assert_eq!(linked.len(), 1, "{hold}: {servers:?}");
        assert_eq!(wire.query("SELECT pg_backend_pid()").await, pid, "{hold}");
        wire.query(release).await;
        assert_eq!(pins(&mut console, tenant).await, [""], "{release}");
        let servers = show(&mut console, "SERVERS").await;
        assert!(servers.iter().all(|row| row["link"].is_empty()), "{release}: {servers:?}");
    }
}

/// Lets a silo tenant's login make temporary tables, as everybody may who is not told otherwise.
async fn grant_temporary(tenant: &Tenant) {
    let admin = superuser(shared().await, &tenant.dbname).await;
    let id = &tenant.id;
    let sql =
        format!("GRANT TEMPORARY ON DATABASE {id} TO tg_{id}; GRANT pg_read_all_stats TO tg_{id}");
    admin.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn the_role_that_a_silos_session_took_is_its_own() {
    let (estate, gate) = gate_of(2, "").await;
    let tenant = &estate.initech;
    grant_temporary(tenant).await;
    let (mut one, mut other) = (gate.wire(tenant).await, gate.wire(tenant).await);
    const WHO: &str = "SELECT current_user";
    let (taken, own) = (
        "T D(pg_read_all_stats) C(SELECT 1) Z(I)".to_owned(),
        format!("T D(tg_{}) C(SELECT 1) Z(I)", tenant.id),
    );
    for set in [query("SET ROLE pg_read_all_stats"), extended("SET ROLE pg_read_all_stats", &[])] {
        assert!(one.ask(set).await.ends_with("C(SET) Z(I)"));
        assert_eq!((one.query(WHO).await, other.query(WHO).await), (taken.clone(), own.clone()));
        assert_eq!(one.query("BEGIN; RESET ROLE; ROLLBACK").await, UNDONE);
        assert_eq!((one.query(WHO).await, other.query(WHO).await), (taken.clone(), own.clone()));
        assert_eq!(one.query("RESET ROLE").await, "C(RESET) Z(I)");
        assert_eq!((one.query(WHO).await, other.query(WHO).await), (own.clone(), own.clone()));
    }
    assert_eq!(one.query("SET ROLE postgres").await, "E(42501) Z(I)");
    assert_eq!(one.query("SET ROLE pg_read_all_stats").await, "C(SET) Z(I)");
    drop(one);
    // Both servers at once: none of them has it.
    let mut next = gate.wire(tenant).await;
    let open = format!("BEGIN; {WHO}");
    let wanted = own.replace("T D", "C(BEGIN) T D").replace("Z(I)", "Z(T)");
    for wire in [&mut other, &mut next] {
        assert_eq!(wire.query(&open).await, wanted);
    }
}

const UNDONE: &str = "C(BEGIN) C(RESET) C(ROLLBACK) Z(I)";

#[tokio::test]
async fn a_notification_reaches_an_idle_listener_and_nobody_else() {
    let (estate, gate) = gate_of(4, "").await;
    let tenant = &estate.initech;
    let (mut listens, mut sends) = (gate.wire(tenant).await, gate.wire(tenant).await);
    assert_eq!(listens.query("LISTEN news").await, "C(LISTEN) Z(I)");
    assert_eq!(sends.query("NOTIFY news, 'first'").await, "C(NOTIFY) Z(I)");
    let told = listens.frame().await;
    assert_eq!((told.tag, &told.body[4..]), (b'A', &b"news\0first\0"[..]));
    // Inside a transaction it comes when that is over, as PostgreSQL sends it.
    assert_eq!(listens.query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(sends.query("NOTIFY news, 'second'").await, "C(NOTIFY) Z(I)");
    assert_eq!(listens.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(listens.query("COMMIT").await, "C(COMMIT) A Z(I)");
    // One's own.
    assert_eq!(listens.query("NOTIFY news").await, "C(NOTIFY) A Z(I)");
    assert_eq!(listens.query("UNLISTEN news").await, "C(UNLISTEN) Z(I)");
    assert_eq!(sends.query("NOTIFY news, 'late'").await, "C(NOTIFY) Z(I)");
    assert_eq!(listens.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn where_tenants_share_a_database_nobody_listens() {
    let (estate, gate) = gate_of(2, "").await;
    for tenant in [&estate.acme, &estate.stark] {
        let mut wire = gate.wire(tenant).await;
        for bytes in [query("LISTEN news"), extended("LISTEN news", &[])] {
            assert_eq!(wire.ask(&bytes).await, "E(0A000) Z(I)");
        }
    }
}

#[tokio::test]
async fn so_many_sessions_of_a_tenant_keep_a_server_and_no_more() {
    let (estate, gate) = gate_of(4, "pins = 1").await;
    let (mut first, mut second) = (gate.wire(&estate.acme).await, gate.wire(&estate.acme).await);
    assert_eq!(first.query("SELECT pg_advisory_lock(1)").await, "T D() C(SELECT 1) Z(I)");
    for bytes in [query("SELECT pg_advisory_lock(2)"), extended("CREATE TEMP TABLE t ()", &[])] {
        second.send(query("BEGIN")).await;
        second.until_ready().await;
        second.send(&bytes).await;
        let frames = second.until_ready().await;
        let error = frames.iter().find(|frame| frame.tag == b'E').expect("a refusal");
        assert_eq!(error.field('C').as_deref(), Some("53400"));
        assert!(error.field('H').is_some_and(|hint| hint.contains("pins")));
        assert_eq!(second.query("COMMIT").await, "C(ROLLBACK) Z(I)", "{}", transcript(&frames));
    }
    // What ends with its transaction needs no server of its own.
    let ends =
        "BEGIN; CREATE TEMP TABLE t () ON COMMIT DROP; SELECT pg_advisory_xact_lock(2); COMMIT";
    assert!(second.query(ends).await.ends_with("C(COMMIT) Z(I)"));
    assert!(first.query("SELECT pg_advisory_unlock(1)").await.contains("D(t)"));
    assert_eq!(second.query("SELECT pg_advisory_lock(2)").await, "T D() C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn a_session_that_keeps_a_server_and_is_idle_for_too_long_ends() {
    let (estate, gate) = gate_of(2, "pin_idle = \"200ms\"").await;
    let mut wire = gate.wire(&estate.acme).await;
    let mut other = gate.wire(&estate.acme).await;
    assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    assert_eq!(wire.query("SELECT pg_advisory_lock(5)").await, "T D() C(SELECT 1) Z(I)");
    assert_eq!(wire.until_closed().await, "E(57P05)");
    // The lock went with the session, and who keeps nothing may be idle.
    eventually("the lock is free", async || {
        other.query("SELECT pg_try_advisory_lock(5)").await.contains("D(t)").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_session_is_the_end_of_what_it_held() {
    let (estate, gate) = gate_of(3, "").await;
    let mut watcher: Wire = gate.wire(&estate.globex).await;
    for goodbye in [true, false] {
        let mut wire = gate.wire(&estate.acme).await;
        assert_eq!(wire.query("SELECT pg_advisory_lock(6)").await, "T D() C(SELECT 1) Z(I)");
        if goodbye {
            wire.send(terminate()).await;
            assert_eq!(wire.until_closed().await, "");
        }
        drop(wire);
        eventually("the lock is free", async || {
            watcher.query("SELECT pg_try_advisory_lock(6)").await.contains("D(t)").then_some(())
        })
        .await;
        assert!(watcher.query("SELECT pg_advisory_unlock(6)").await.contains("D(t)"));
    }
    // Who has the answer to DISCARD ALL can count on it at once.
    let mut wire = gate.wire(&estate.acme).await;
    assert_eq!(wire.query("SELECT pg_advisory_lock(6)").await, "T D() C(SELECT 1) Z(I)");
    assert_eq!(wire.query("DISCARD ALL").await, "C(DISCARD ALL) Z(I)");
    assert!(watcher.query("SELECT pg_try_advisory_lock(6)").await.contains("D(t)"));
}

const WHOLE: Tweaks<'_> = Tweaks {
    tier: "pooling = \"session\"",
    capacity: 2,
    gate: "",
    listen: "tls = \"disable\"\nplaintext_password = true",
    cluster: "query_wait = \"300ms\"",
    more: "",
};

#[tokio::test]
async fn a_session_has_its_server_for_life_where_the_tier_says_so() {
    let (estate, gate) = gate(&WHOLE).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let tenant = &estate.initech;
    let (dbname, password) = (tenant.dbname.as_str(), tenant.token.as_str());
    let more = [("TimeZone", "Asia/Tokyo"), ("application_name", "whole")];
    let login = Login { user: "app", dbname, password, more: &more };
    let mut wire = Wire::login(gate.port, &login).await;
    let own = wire.pid;
    assert_eq!(wire.parameters["TimeZone"], "Asia/Tokyo");
    assert_eq!(pins(&mut console, tenant).await, ["session"]);
    let pid = format!("T D({own}) C(SELECT 1) Z(I)");
    assert_eq!(wire.query("SELECT pg_backend_pid()").await, pid);
    // What no statement shows stays as well.
    let hidden = "DO $$BEGIN PERFORM set_config('work_mem', '5MB', false); \
                  PERFORM pg_advisory_lock(11); END$$";
    assert_eq!(wire.query(hidden).await, "C(DO) Z(I)");
    assert_eq!(wire.query("SHOW work_mem").await, "T D(5MB) C(SHOW) Z(I)");
    assert_eq!(wire.query("SET TimeZone TO 'UTC'").await, "C(SET) S(TimeZone=UTC) Z(I)");
    assert_eq!(wire.query("RESET TimeZone").await, "C(RESET) S(TimeZone=Asia/Tokyo) Z(I)");
    assert_eq!(wire.query("RESET ALL").await, "C(RESET) Z(I)");
    assert_eq!(wire.query("SHOW work_mem").await, "T D(4MB) C(SHOW) Z(I)");
    assert_eq!(wire.query("SHOW TimeZone").await, "T D(Asia/Tokyo) C(SHOW) Z(I)");
    assert_eq!(wire.query("DISCARD ALL").await, "C(DISCARD ALL) Z(I)");
    assert_eq!(wire.query("SELECT pg_backend_pid()").await, pid);
    assert!(wire.query("SELECT pg_advisory_unlock(11)").await.contains("D(f)"));
    // Cancels find it by that pid.
    let (pid, secret) = (wire.pid, wire.secret);
    wire.send(query("SELECT pg_sleep(60)")).await;
    // A cancel that overtakes its statement cancels nothing, so each state is waited for.
    eventually("it runs", async || pinned_client_is(&mut console, "active").await).await;
    eventually("it is cancelled", async || {
        cancel(gate.port, pid, secret).await;
        pinned_client_is(&mut console, "idle").await
    })
    .await;
    assert_cancelled(&wire.until_ready().await);
    // A notification to it, and a notice while it is idle.
    assert_eq!(wire.query("LISTEN news").await, "C(LISTEN) Z(I)");
    let admin = superuser(shared().await, &tenant.dbname).await;
    admin.batch_execute("NOTIFY news").await.unwrap();
    assert_eq!(wire.frame().await.tag, b'A');
    // The server's own end of it.
    let kill = format!("SELECT pg_terminate_backend({pid})");
    admin.batch_execute(&kill).await.unwrap();
    assert_eq!(wire.until_closed().await, "E(57P01)");
}

/// Whether the client that keeps its server for life is in `state`.
async fn pinned_client_is(console: &mut Wire, state: &str) -> Option<()> {
    let clients = show(console, "CLIENTS").await;
    clients.iter().any(|row| row["state"] == state && row["pin"] == "session").then_some(())
}

#[tokio::test]
async fn servers_of_whole_sessions_are_counted_and_come_back_when_they_end() {
    let (estate, gate) = gate(&WHOLE).await;
    let first = gate.wire(&estate.acme).await;
    let mut second = gate.wire(&estate.globex).await;
    assert_ne!(first.pid, second.pid);
    let refused = gate.try_connect(&estate.acme).await.expect_err("no server is left");
    assert_eq!(refused.code().map(|code| code.code()), Some("53300"));
    assert_eq!(second.query("CREATE TEMP TABLE notes ()").await, "C(CREATE TABLE) Z(I)");
    let old = second.pid;
    drop(second);
    let mut third = eventually("a server comes back", async || {
        let mut wire = Wire::connect(gate.port).await;
        let (dbname, password) = (estate.stark.dbname.as_str(), estate.stark.token.as_str());
        let login = Login { user: "app", dbname, password, more: &[] };
        wire.authenticate(&login).await;
        (wire.pid != 0).then_some(wire)
    })
    .await;
    assert_ne!(third.pid, old, "closed at the end of its session");
    assert_eq!(third.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn a_pause_holds_a_session_that_keeps_its_server_and_leaves_both() {
    let (estate, gate) = gate_of(4, "").await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let tenant = &estate.umbrella;
    let mut wire = gate.wire(tenant).await;
    assert_eq!(wire.query("CREATE TEMP TABLE t (i int)").await, "C(CREATE TABLE) Z(I)");
    assert_eq!(console.query(&format!("PAUSE TENANT {}", tenant.id)).await, "C(PAUSE) Z(I)");
    wire.send(query("SELECT count(*) FROM t")).await;
    let silent = tokio::time::timeout(Duration::from_millis(250), wire.frame()).await;
    assert!(silent.is_err(), "{silent:?}");
    assert_eq!(console.query(&format!("RESUME TENANT {}", tenant.id)).await, "C(RESUME) Z(I)");
    assert_eq!(transcript(&wire.until_ready().await), "T D(0) C(SELECT 1) Z(I)");
    console.query(&format!("DISABLE TENANT {}", tenant.id)).await;
    assert_eq!(wire.until_closed().await, "E(57P01)");
}

#[tokio::test]
async fn a_reload_leaves_a_kept_server_alone_unless_the_tenant_moves() {
    let estate = Estate::new().await;
    let settings = |tier, cluster| estate.settings(&Tweaks { tier, cluster, ..Tweaks::default() });
    let gate = Gate::start(&settings("", "")).await;
    let mut wire = gate.wire(&estate.umbrella).await;
    assert_eq!(wire.query("CREATE TEMP TABLE t (i int)").await, "C(CREATE TABLE) Z(I)");
    gate.reload_with(&settings("clients = 7", "")).await;
    assert_eq!(wire.query("SELECT count(*) FROM t").await, "T D(0) C(SELECT 1) Z(I)");
    // The same server by another conninfo: as good as another one.
    let id = &estate.umbrella.id;
    let moved = settings("", "").replace(
        &format!("/app?sslmode=disable\"\nschema = \"{id}\""),
        &format!("/app?sslmode=prefer\"\nschema = \"{id}\""),
    );
    assert_ne!(moved, settings("", ""));
    gate.write_settings(&moved);
    gate.reload();
    assert_eq!(wire.until_closed().await, "E(57P01)");
}

#[tokio::test]
async fn what_a_function_hides_is_there_only_while_the_server_happens_to_stay() {
    let (estate, gate) = gate_of(1, "").await;
    let mut wire = gate.wire(&estate.acme).await;
    let mut other = gate.wire(&estate.globex).await;
    let hidden = "DO $$BEGIN CREATE TEMP TABLE hidden (i int); END$$";
    assert_eq!(wire.query(hidden).await, "C(DO) Z(I)");
    assert_eq!(other.query("SELECT * FROM hidden").await, "E(42P01) Z(I)");
    assert_eq!(wire.query("SELECT * FROM hidden").await, "E(42P01) Z(I)");
    // Beside something that is seen it is kept as well.
    assert_eq!(wire.query("SELECT pg_advisory_lock(12)").await, "T D() C(SELECT 1) Z(I)");
    assert_eq!(wire.query(hidden).await, "C(DO) Z(I)");
    assert_eq!(wire.query("SELECT count(*) FROM hidden").await, "T D(0) C(SELECT 1) Z(I)");
}
