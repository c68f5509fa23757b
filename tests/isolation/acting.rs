//! One session that serves many tenants: it sees the rows of the one it acts for, in the
//! transaction in which it said so, and nothing of anybody else at any other time.

use crate::harness::cluster::shared;
use crate::harness::gate::Gate;
use crate::harness::messages::{bind, close, describe, execute, parse, query, sync};
use crate::harness::services::Service;
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::isolation::NOTES;

pub const NO_TENANT: &str = "E(42501) Z(I)";

/// A gate with one server per tenant login, and a service that may act for everybody.
pub async fn stage(more: &str) -> (Estate, Service, Gate) {
    stage_with(more, &Tweaks::default()).await
}

pub async fn stage_with(more: &str, tweaks: &Tweaks<'_>) -> (Estate, Service, Gate) {
    let cluster = shared().await;
    let (estate, service) = (Estate::within(cluster).await, Service::new(cluster, more).await);
    let table = format!("{}\n{}", service.table, tweaks.more);
    let tweaks = Tweaks { more: &table, ..tweaks.clone() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    (estate, service, gate)
}

/// The same rows in a transaction.
pub fn rows(tenant: &Tenant) -> String {
    let rows = tenant.notes.iter().map(|(_, body)| format!("D({body}) "));
    format!("T {}C(SELECT 3) Z(T)", rows.collect::<String>())
}

pub fn by_id(tenant: &Tenant) -> String {
    format!("SET LOCAL tenantgate.tenant = '{}'", tenant.id)
}

pub fn by_token(tenant: &Tenant) -> String {
    format!("SET LOCAL tenantgate.token = '{}'", tenant.token)
}

#[tokio::test]
async fn a_service_sees_the_rows_of_whom_it_acts_for_and_nothing_without() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    for choice in [by_id, by_token] {
        for tenant in [&estate.acme, &estate.globex, &estate.umbrella, &estate.stark] {
            assert_eq!(wire.query(NOTES).await, NO_TENANT);
            assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
            assert_eq!(wire.query(&choice(tenant)).await, "C(SET) Z(T)");
            assert_eq!(wire.query(NOTES).await, rows(tenant));
            let shown = format!("T D({}) C(SHOW) Z(T)", tenant.id);
            assert_eq!(wire.query("SHOW tenantgate.tenant").await, shown);
            assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
            assert_eq!(wire.query("SHOW tenantgate.tenant").await, "T D() C(SHOW) Z(I)");
        }
    }
}

#[tokio::test]
async fn what_is_written_is_the_tenants_and_a_rollback_takes_it_back() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    for (end, left) in [("ROLLBACK", "0"), ("COMMIT", "1")] {
        wire.query("START TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
        wire.query(&by_id(&estate.acme)).await;
        let level = wire.query("SHOW transaction_isolation").await;
        assert_eq!(level, "T D(serializable) C(SHOW) Z(T)");
        let insert = "INSERT INTO notes (id, body) VALUES (77, 'mine')";
        assert_eq!(wire.query(insert).await, "C(INSERT 0 1) Z(T)");
        assert_eq!(wire.query(end).await, format!("C({end}) Z(I)"));
        let mut acme = gate.wire(&estate.acme).await;
        let found = acme.query("SELECT count(*) FROM notes WHERE id = 77").await;
        assert_eq!(found, format!("T D({left}) C(SELECT 1) Z(I)"));
    }
}

#[tokio::test]
async fn a_choice_is_taken_first_in_a_transaction_and_nowhere_else() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    let (acme, globex) = (by_id(&estate.acme), by_id(&estate.globex));
    assert_eq!(wire.query(&acme).await, "E(25P01) Z(I)");
    assert_eq!(wire.query(&acme.replace("LOCAL ", "")).await, NO_TENANT, "not session-wide");
    // A second choice, before and after the first statement.
    for before in ["", "SELECT 1"] {
        wire.query("BEGIN").await;
        wire.query(&acme).await;
        if !before.is_empty() {
            wire.query(before).await;
        }
        assert_eq!(wire.query(&globex).await, "E(25001) Z(E)", "{before}");
        assert_eq!(wire.query(NOTES).await, "E(25P02) Z(E)");
        assert_eq!(wire.query(&globex).await, "E(25001) Z(E)".replace("25001", last(before)));
        assert_eq!(wire.query("COMMIT").await, "C(ROLLBACK) Z(I)");
        assert_eq!(wire.query(NOTES).await, NO_TENANT);
    }
    // In a failed one.
    wire.query("BEGIN").await;
    assert_eq!(wire.query(NOTES).await, "E(42501) Z(E)");
    assert_eq!(wire.query(&acme).await, "E(25P02) Z(E)");
    assert_eq!(wire.query("SELECT 1").await, "E(25P02) Z(E)");
    assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
}

/// In a failed transaction the gate says so as long as none has begun on a server.
fn last(before: &str) -> &'static str {
    if before.is_empty() { "25P02" } else { "25001" }
}

#[tokio::test]
async fn nobody_acts_for_a_tenant_without_its_token_or_its_place_in_the_list() {
    let stranger = Estate::within(shared().await).await;
    let (estate, service, gate) = stage("").await;
    let mut wire = service.wire(&gate).await;
    let mut said = Vec::new();
    for choice in [
        by_id(&estate.acme),
        by_id(&stranger.acme),
        by_token(&stranger.acme),
        format!("SET LOCAL tenantgate.token = '{}'", service.token),
        "SET LOCAL tenantgate.token = 'x'".to_owned(),
        format!("SET LOCAL tenantgate.tenant = 'service:{}'", service.name),
    ] {
        wire.query("BEGIN").await;
        wire.send(query(&choice)).await;
        let frames = wire.until_ready().await;
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
        said.push(error.texts());
        assert_eq!(wire.query(NOTES).await, "E(25P02) Z(E)", "{choice}");
        wire.query("ROLLBACK").await;
    }
    assert_eq!(said.iter().filter(|text| **text == said[0]).count(), said.len(), "{said:?}");
    assert!(said[0].iter().any(|text| text == "C42501"), "{said:?}");
    wire.query("BEGIN").await;
    assert_eq!(wire.query(&by_token(&estate.acme)).await, "C(SET) Z(T)");
    assert_eq!(wire.query(NOTES).await, rows(&estate.acme));
    for secret in [&estate.acme.token, &service.token, &stranger.acme.token] {
        assert!(!gate.log().contains(secret.as_str()));
    }
}

#[tokio::test]
async fn another_database_needs_leave() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    wire.query("BEGIN").await;
    assert_eq!(wire.query(&by_id(&estate.initech)).await, "E(0A000) Z(E)");
    let (estate, service, gate) = stage("acts_for = \"*\"\nacross_databases = true").await;
    let mut wire = service.wire(&gate).await;
    wire.query("BEGIN").await;
    assert_eq!(wire.query(&by_id(&estate.initech)).await, "C(SET) Z(T)");
    assert_eq!(wire.query(NOTES).await, rows(&estate.initech));
}

#[tokio::test]
async fn the_end_of_a_transaction_cannot_be_hidden() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    for text in [
        "COMMIT AND CHAIN",
        "ROLLBACK AND CHAIN",
        "COMMIT; BEGIN",
        "SELECT 1; commit; begin",
        "/*x*/ROLLBACK;BEGIN;",
        "SELECT 1; END; START TRANSACTION",
    ] {
        wire.query("BEGIN").await;
        wire.query(&by_id(&estate.acme)).await;
        assert_eq!(wire.query(NOTES).await, rows(&estate.acme));
        assert_eq!(wire.query(text).await, "E(0A000) Z(E)", "{text}");
        wire.query("ROLLBACK").await;
        assert_eq!(wire.query(NOTES).await, NO_TENANT, "{text}");
        let text = format!("BEGIN; {}; {NOTES}; COMMIT", by_id(&estate.acme));
        assert_eq!(wire.query(&text).await, "E(0A000) Z(I)");
    }
}

#[tokio::test]
async fn pipelined_transactions_of_several_tenants_stay_apart() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    let batch = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat();
    let mut all = Vec::new();
    for tenant in [&estate.acme, &estate.globex] {
        for sql in ["BEGIN", &by_id(tenant), NOTES, "COMMIT", NOTES] {
            all.extend(batch(sql));
        }
    }
    wire.send(all).await;
    for tenant in [&estate.acme, &estate.globex] {
        let rows = tenant.notes.iter().map(|(_, body)| format!("D({body}) "));
        let rows: String = rows.collect();
        for wanted in [
            "1 2 C(BEGIN) Z(T)".to_owned(),
            "1 2 C(SET) Z(T)".to_owned(),
            format!("1 2 {rows}C(SELECT 3) Z(T)"),
            "1 2 C(COMMIT) Z(I)".to_owned(),
            "E(42501) Z(I)".to_owned(),
        ] {
            assert_eq!(crate::harness::messages::transcript(&wire.until_ready().await), wanted);
        }
    }
    // All of it in one batch, with the next transaction's statement behind the COMMIT.
    let one = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let texts = ["BEGIN", &by_id(&estate.acme), "SELECT 1", "COMMIT", NOTES];
    let batch: Vec<u8> = texts.iter().flat_map(|sql| one(sql)).chain(sync()).collect();
    let said = wire.ask(batch).await;
    let wanted = "1 2 C(BEGIN) 1 2 C(SET) 1 2 D(1) C(SELECT 1) 1 2 C(COMMIT) E(0A000) Z(I)";
    assert_eq!(said, wanted);
    assert_eq!(wire.query(NOTES).await, NO_TENANT);
}

#[tokio::test]
async fn drivers_bind_the_choice() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    let (acme, globex) = (estate.acme.id.as_str(), estate.globex.id.as_str());
    assert_eq!(
        wire.ask(
            [
                parse("c", "SELECT set_config('tenantgate.tenant', $1, $2)"),
                describe(b'S', "c"),
                parse("b", "BEGIN"),
                parse("n", "SELECT set_config($1, $2, $3) AS x"),
                describe(b'S', "n"),
                sync()
            ]
            .concat()
        )
        .await,
        "1 t T 1 1 t T Z(I)"
    );
    for tenant in [&estate.acme, &estate.globex, &estate.acme] {
        let id = tenant.id.as_str();
        let begin = [bind("", "b", &[]), describe(b'P', ""), execute("", 0), sync()].concat();
        assert_eq!(wire.ask(begin).await, "2 n C(BEGIN) Z(T)");
        let choice = [bind("", "c", &[Some(id), Some("true")]), execute("", 0), sync()].concat();
        assert_eq!(wire.ask(choice).await, format!("2 D({id}) C(SELECT 1) Z(T)"));
        // Parsed once, and bound under whoever is there.
        let again = [close(b'S', "s"), parse("s", NOTES), sync()].concat();
        assert_eq!(wire.ask(again).await, "3 1 Z(T)");
        let read = [bind("", "s", &[]), execute("", 0), sync()].concat();
        let said = wire.ask(read).await;
        assert_eq!(said.replacen("2 ", "T ", 1), rows(tenant));
        let late = [bind("", "c", &[Some(acme), Some("true")]), execute("", 0), sync()].concat();
        assert_eq!(wire.ask(late).await, "E(25001) Z(E)");
        assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
        // Without a tenant the same statement reads nothing.
        let read = [bind("", "s", &[]), execute("", 0), sync()].concat();
        assert_eq!(wire.ask(read).await, "E(42501) Z(I)");
    }
    // The name itself is bound.
    wire.query("BEGIN").await;
    let values = [Some("TenantGate.tenant"), Some(globex), Some("t")];
    let choice = [bind("", "n", &values), execute("", 0), sync()].concat();
    assert_eq!(wire.ask(choice).await, format!("2 D({globex}) C(SELECT 1) Z(T)"));
    let read = [bind("", "s", &[]), execute("", 0), sync()].concat();
    assert_eq!(wire.ask(read).await.replacen("2 ", "T ", 1), rows(&estate.globex));
    let late = [bind("", "n", &values), execute("", 0), sync()].concat();
    assert_eq!(wire.ask(late).await, "E(25001) Z(E)");
    wire.query("ROLLBACK").await;
    // Another setting's name goes to a server, and is carried.
    let other = [Some("TimeZone"), Some("Asia/Tokyo"), Some("f")];
    let set = [bind("", "n", &other), execute("", 0), sync()].concat();
    let said = wire.ask(set).await;
    assert!(said.contains("D(Asia/Tokyo) C(SELECT 1)") && said.ends_with("Z(I)"), "{said}");
    assert_eq!(wire.query("SHOW TimeZone").await, "T D(Asia/Tokyo) C(SHOW) Z(I)");
}

#[tokio::test]
async fn a_driver_looks_around_before_it_chooses() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    assert!(wire.query("SELECT version()").await.contains("C(SELECT 1) Z(I)"));
    wire.query("BEGIN").await;
    assert_eq!(wire.query("SAVEPOINT a").await, "C(SAVEPOINT) Z(T)");
    let types = "SELECT typname FROM pg_type WHERE oid = to_regtype('int4')";
    assert_eq!(wire.query(types).await, "T D(int4) C(SELECT 1) Z(T)");
    assert_eq!(wire.query(NOTES).await, "E(42501) Z(E)");
    assert_eq!(wire.query(types).await, "E(25P02) Z(E)");
    assert_eq!(wire.query("ROLLBACK TO a").await, "C(ROLLBACK) Z(T)");
    assert_eq!(wire.query(&by_id(&estate.acme)).await, "E(25001) Z(E)", "behind a savepoint");
    assert_eq!(wire.query("ROLLBACK TO b").await, "E(3B001) Z(E)");
    assert_eq!(wire.query("ROLLBACK TO a").await, "C(ROLLBACK) Z(T)");
    assert_eq!(wire.query("RELEASE a").await, "C(RELEASE) Z(T)");
    assert_eq!(
        wire.query("SET TimeZone = 'Asia/Tokyo'").await,
        "C(SET) S(TimeZone=Asia/Tokyo) Z(T)"
    );
    assert_eq!(wire.query(&by_id(&estate.acme)).await, "C(SET) Z(T)");
    assert_eq!(wire.query("SHOW TimeZone").await, "T D(Asia/Tokyo) C(SHOW) Z(T)");
    assert_eq!(wire.query("SAVEPOINT a").await, "C(SAVEPOINT) Z(T)");
    assert_eq!(wire.query(NOTES).await, rows(&estate.acme));
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(wire.query("SHOW TimeZone").await, "T D(Asia/Tokyo) C(SHOW) Z(I)");
    // What a service may not do by itself.
    for refused in [
        "CREATE TEMP TABLE t ()",
        "DO $$ BEGIN END $$",
        "LISTEN x",
        "SELECT pg_advisory_lock(1)",
        "SELECT 1; BEGIN",
        "SET TRANSACTION READ WRITE",
        "COPY pg_class TO STDOUT",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "CALL x()",
    ] {
        let said = wire.query(refused).await;
        assert!(said == NO_TENANT || said == "E(0A000) Z(I)", "{refused}: {said}");
    }
    assert_eq!(wire.query("SET default_transaction_read_only = off").await, NO_TENANT);
    assert_eq!(wire.query("SET app.tenant_id = 'acme'").await, NO_TENANT);
}

#[tokio::test]
async fn nothing_a_tenant_left_in_the_session_meets_the_next() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    wire.query("BEGIN").await;
    wire.query(&by_id(&estate.acme)).await;
    for (sql, said) in [
        ("SET myapp.secret = 'CANARY'", "C(SET) Z(T)"),
        ("SET DateStyle = 'German'", "C(SET) S(DateStyle=German, DMY) Z(T)"),
        ("CREATE TEMP TABLE kept AS SELECT 'CANARY' AS body", "C(SELECT 1) Z(T)"),
        ("DECLARE held CURSOR WITH HOLD FOR SELECT 'CANARY'", "C(DECLARE CURSOR) Z(T)"),
        ("SELECT pg_advisory_lock(4711)", "T D() C(SELECT 1) Z(T)"),
    ] {
        assert_eq!(wire.query(sql).await, said, "{sql}");
    }
    let parsed = [parse("kept", "SELECT current_setting('myapp.secret', true)"), sync()].concat();
    assert_eq!(wire.ask(parsed).await, "1 Z(T)");
    let said = wire.query("COMMIT").await;
    assert!(said.starts_with("C(COMMIT) Z(I)"), "{said}");
    for tenant in [&estate.globex, &estate.acme] {
        wire.query("BEGIN").await;
        let said = wire.query(&by_id(tenant)).await;
        assert!(said.ends_with("C(SET) Z(T)"), "{said}");
        assert_eq!(wire.query("SHOW DateStyle").await, "T D(ISO, MDY) C(SHOW) Z(T)");
        let read = [bind("", "kept", &[]), execute("", 0), sync()].concat();
        let said = wire.ask(read).await;
        assert!(!said.contains("CANARY") && said.ends_with("C(SELECT 1) Z(T)"), "{said}");
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711";
        assert_eq!(wire.query(locks).await, "T D(0) C(SELECT 1) Z(T)");
        assert_eq!(wire.query("FETCH held").await, "E(34000) Z(E)");
        wire.query("ROLLBACK").await;
        wire.query("BEGIN").await;
        wire.query(&by_id(tenant)).await;
        assert_eq!(wire.query("SELECT body FROM kept").await, "E(42P01) Z(E)");
        wire.query("ROLLBACK").await;
    }
}

#[tokio::test]
async fn a_session_wide_choice_needs_leave_and_ends_when_it_is_told_to() {
    let (estate, service, gate) = stage("acts_for = \"*\"\nsession_wide = true").await;
    let mut wire = service.wire(&gate).await;
    let wide = |tenant: &Tenant| by_id(tenant).replace("LOCAL ", "");
    let idle = |tenant: &Tenant| rows(tenant).replace("Z(T)", "Z(I)");
    for (tenant, end) in [
        (&estate.acme, "RESET tenantgate.tenant"),
        (&estate.globex, "DISCARD ALL"),
        (&estate.umbrella, "RESET ALL"),
        (&estate.stark, "SET tenantgate.tenant TO DEFAULT"),
    ] {
        assert_eq!(wire.query(&wide(tenant)).await, "C(SET) Z(I)");
        assert_eq!(wire.query(NOTES).await, idle(tenant));
        let read = [parse("", NOTES), bind("", "", &[]), execute("", 0), sync()].concat();
        assert!(wire.ask(read).await.ends_with("C(SELECT 3) Z(I)"));
        wire.query("BEGIN").await;
        assert_eq!(wire.query(NOTES).await, rows(tenant));
        assert_eq!(wire.query(&wide(&estate.acme)).await, "E(25001) Z(E)");
        wire.query("ROLLBACK").await;
        // What keeps its server goes with the tenant.
        wire.query("CREATE TEMP TABLE kept AS SELECT 'CANARY' AS body").await;
        assert!(wire.query(end).await.ends_with("Z(I)"), "{end}");
        assert_eq!(wire.query(NOTES).await, NO_TENANT, "{end}");
        assert_eq!(wire.query("SELECT * FROM kept").await, NO_TENANT, "{end}");
    }
    // Pipelined: each request meets the tenant that was chosen before it.
    let texts = [wide(&estate.acme), NOTES.to_owned(), wide(&estate.globex), NOTES.to_owned()];
    let all: Vec<u8> = texts.iter().flat_map(|sql| query(sql)).collect();
    wire.send(all).await;
    for wanted in ["C(SET) Z(I)", &idle(&estate.acme), "C(SET) Z(I)", &idle(&estate.globex)] {
        assert_eq!(crate::harness::messages::transcript(&wire.until_ready().await), wanted);
    }
}

#[tokio::test]
async fn a_begin_that_fails_runs_nothing_behind_it() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    for begin in ["BEGIN ISOLATION LEVEL NONE", "BEGIN READ", "START TRANSACTION x"] {
        assert!(wire.query(begin).await.starts_with("E("), "{begin}");
        assert_eq!(wire.query(&by_id(&estate.acme)).await, "E(25P01) Z(I)", "{begin}");
        let insert = "INSERT INTO notes (id, body) VALUES (78, 'x')";
        assert_eq!(wire.query(insert).await, NO_TENANT, "{begin}");
    }
    wire.query("BEGIN READ ONLY").await;
    wire.query(&by_id(&estate.acme)).await;
    let insert = "INSERT INTO notes (id, body) VALUES (78, 'x')";
    assert_eq!(wire.query(insert).await, "E(25006) Z(E)");
    assert_eq!(wire.query("COMMIT").await, "C(ROLLBACK) Z(I)");
}

/// How many requests the application below makes.
fn requests() -> usize {
    let more = std::env::var("TENANTGATE_ACTING_REQUESTS").ok();
    more.map_or(1_000, |text| text.parse().expect("a number"))
}

#[tokio::test]
async fn one_pool_of_ten_serves_a_thousand_tenants_their_own_rows_and_no_other() {
    const TENANTS: usize = 1_000;
    let cluster = shared().await;
    let (estate, service) =
        (Estate::within(cluster).await, Service::new(cluster, "acts_for = \"*\"").await);
    let mark = crate::harness::unique();
    let app = crate::harness::cluster::superuser(cluster, "app").await;
    let fill = format!(
        "INSERT INTO app.notes SELECT 'm{mark}_' || t, 1, 'note of m{mark}_' || t \
         FROM generate_series(1, {TENANTS}) t"
    );
    app.batch_execute(&fill).await.unwrap();
    let mut more = service.table.clone();
    for number in 1..=TENANTS {
        more.push_str(&format!(
            "[tenants.m{mark}_{number}]\nisolation = \"row\"\ncluster = \"main\"\n\
             role = \"app_rw\"\nschema = \"app\"\n"
        ));
    }
    for workers in [1, 2, 4] {
        let line = format!("workers = {workers}");
        let tweaks = Tweaks { gate: &line, more: &more, ..Tweaks::default() };
        let gate = Gate::start(&estate.settings(&tweaks)).await;
        let pool = (0..10).map(|number| {
            let (service, gate, mark) = (&service, &gate, &mark);
            async move {
                let mut random = fastrand::Rng::with_seed(number);
                let mut wire = service.wire(gate).await;
                for _ in 0..requests() / 30 {
                    let id = format!("m{mark}_{}", random.usize(1..=TENANTS));
                    let chosen = random.u8(..8) > 0;
                    wire.query("BEGIN").await;
                    if chosen {
                        let choice =
                            format!("SELECT set_config('tenantgate.tenant', '{id}', true)");
                        let said = wire.query(&choice).await;
                        assert_eq!(said, format!("T D({id}) C(SELECT 1) Z(T)"));
                    }
                    let wanted = match chosen {
                        true => format!("T D({id},note of {id}) C(SELECT 1) Z(T)"),
                        false => "E(42501) Z(E)".to_owned(),
                    };
                    let read = "SELECT tenant_id, body FROM notes";
                    assert_eq!(wire.query(read).await, wanted, "with {workers} workers");
                    wire.query("COMMIT").await;
                }
            }
        });
        futures::future::join_all(pool).await;
    }
}
