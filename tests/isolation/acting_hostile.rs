//! What a service's session sends on purpose, or by mistake, to get at tenants it did not choose.

use futures::StreamExt;

use crate::harness::gate::Gate;
use crate::harness::messages::{bind, close, describe, execute, parse, query, sync, terminate};
use crate::harness::services::Service;
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::Wire;
use crate::isolation::NOTES;
use crate::isolation::acting::{NO_TENANT, by_id, by_token, rows, stage, stage_with};

async fn begun(service: &Service, gate: &Gate, tenant: &Tenant) -> Wire {
    let mut wire = service.wire(gate).await;
    wire.query("BEGIN").await;
    assert_eq!(wire.query(&by_id(tenant)).await, "C(SET) Z(T)");
    assert_eq!(wire.query(NOTES).await, rows(tenant));
    wire
}

#[tokio::test]
async fn a_choice_that_is_hidden_in_a_statement_changes_nothing() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let other = estate.globex.id.as_str();
    for text in [
        format!("SELECT set_config('tenant' || 'gate.tenant', '{other}', true)"),
        format!("DO $$ BEGIN PERFORM set_config('tenantgate.tenant', '{other}', true); END $$"),
        format!("DO $$ BEGIN SET LOCAL tenantgate.tenant = '{other}'; END $$"),
        format!("SAVEPOINT a; SELECT set_config('tenant'||'gate.tenant', '{other}', true)"),
        format!("SELECT set_config(n, '{other}', true) FROM (VALUES ('tenantgate.tenant')) v(n)"),
        format!("SELECT 1; /* ; */ SELECT set_config(lower('TENANTGATE.TENANT'), '{other}', true)"),
    ] {
        let mut wire = begun(&service, &gate, &estate.acme).await;
        let said = wire.query(&text).await;
        assert!(said.ends_with("Z(T)"), "{text}: {said}");
        assert_eq!(wire.query(NOTES).await, rows(&estate.acme), "{text}");
        let shown = wire.query("SHOW tenantgate.tenant").await;
        assert_eq!(shown, format!("T D({}) C(SHOW) Z(T)", estate.acme.id), "{text}");
        wire.query("COMMIT").await;
        assert_eq!(wire.query(NOTES).await, NO_TENANT, "{text}");
    }
}

#[tokio::test]
async fn a_choice_in_any_other_place_is_refused_and_aborts_the_transaction() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let other = estate.globex.id.as_str();
    for text in [
        format!("SET LOCAL \"tenantgate\".\"tenant\" = '{other}'"),
        format!("/**/set local TenantGate.TENANT to {other}"),
        format!("SET LOCAL U&\"tenantgate.t\\0065nant\" = '{other}'"),
        format!("SET tenantgate.tenant = '{other}'"),
        "RESET tenantgate.tenant".to_owned(),
        "SET LOCAL tenantgate.tenant TO DEFAULT".to_owned(),
        format!("SELECT 1; SET LOCAL tenantgate.tenant = '{other}'"),
        format!("SELECT set_config('tenantgate.tenant', '{other}', true)"),
        format!("SELECT set_config('tenantgate.tenant', '{other}', true), 1"),
        format!("SELECT set_config(E'tenantgate\\x2etenant', '{other}', true) FROM pg_class"),
        format!("SELECT (SELECT set_config('tenantgate.token', '{other}', false))"),
        "SHOW tenantgate.token".to_owned(),
        format!("BEGIN; SET LOCAL tenantgate.tenant = '{other}'"),
    ] {
        let mut wire = begun(&service, &gate, &estate.acme).await;
        let said = wire.query(&text).await;
        assert!(said.starts_with("E(") && said.ends_with("Z(E)"), "{text}: {said}");
        let mut wire = begun(&service, &gate, &estate.acme).await;
        let said = wire.ask([parse("", &text), sync()].concat()).await;
        assert!(said.starts_with("E(") && said.ends_with("Z(E)"), "{text}: {said}");
        // And before anything was chosen.
        let mut wire = service.wire(&gate).await;
        let said = wire.query(&text).await;
        let nothing = text.starts_with("RESET") && said == "C(RESET) Z(I)";
        assert!(nothing || said.starts_with("E(") && said.ends_with("Z(I)"), "{text}: {said}");
        assert_eq!(wire.query(NOTES).await, NO_TENANT, "{text}");
    }
}

#[tokio::test]
async fn cursors_portals_and_copies_end_with_their_tenant() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = begun(&service, &gate, &estate.acme).await;
    wire.query(&format!("DECLARE c CURSOR FOR {NOTES}")).await;
    let portal = [parse("s", NOTES), bind("p", "s", &[]), execute("p", 1), sync()].concat();
    assert_eq!(wire.ask(portal).await, "1 2 D(note 1 of acme) s Z(T)");
    let copied = wire.query("COPY (SELECT body FROM notes) TO STDOUT").await;
    assert!(copied.ends_with("C(COPY 3) Z(T)"), "{copied}");
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    for asked in
        [query("FETCH c"), [execute("p", 0), sync()].concat(), query("COPY notes TO STDOUT")]
    {
        let said = wire.ask(asked).await;
        assert!(said.starts_with("E(") && said.ends_with("Z(I)"), "{said}");
    }
    for asked in [query("FETCH c"), [execute("p", 0), sync()].concat()] {
        wire.query("BEGIN").await;
        wire.query(&by_token(&estate.globex)).await;
        assert_eq!(wire.ask(asked).await, "E(34000) Z(E)");
        wire.query("ROLLBACK").await;
    }
}

#[tokio::test]
async fn what_concerns_a_tenant_concerns_those_who_act_for_it() {
    let tweaks = Tweaks { tier: "queries_per_second = 1\nqueries_burst = 2", ..Tweaks::default() };
    let (estate, service, gate) =
        stage_with("acts_for = \"*\"\nacross_databases = true", &tweaks).await;
    let mut wire = service.wire(&gate).await;
    wire.query("BEGIN").await;
    wire.query(&by_id(&estate.stark)).await;
    let mut said = String::new();
    for _ in 0..3 {
        said = wire.query("SELECT 1").await;
    }
    assert_eq!(said, "E(53400) Z(E)");
    wire.query("ROLLBACK").await;
    // Another tenant has a budget of its own.
    wire.query("BEGIN").await;
    wire.query(&by_id(&estate.umbrella)).await;
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    wire.query("ROLLBACK").await;
    // Disabled between the choice and the first statement, and at all.
    wire.query("BEGIN").await;
    assert_eq!(wire.query(&by_id(&estate.initech)).await, "C(SET) Z(T)");
    let table = estate.initech.table();
    let settings = estate.settings(&Tweaks { more: &service.table, ..tweaks });
    let settings = settings.replace(table, &format!("{table}state = \"disabled\"\n"));
    gate.reload_with(&settings).await;
    assert_eq!(wire.query("SELECT 1").await, "E(42501) Z(E)");
    assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    wire.query("BEGIN").await;
    assert_eq!(wire.query(&by_id(&estate.initech)).await, "E(42501) Z(E)");
}

/// Random sessions, each of which only ever chooses one tenant.
const SESSIONS: u64 = 200;

fn random_message(random: &mut fastrand::Rng, tenant: &Tenant) -> Vec<u8> {
    let texts = [
        "BEGIN",
        "START TRANSACTION READ ONLY",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT a",
        "ROLLBACK TO a",
        NOTES,
        NOTES,
        "SHOW tenantgate.tenant",
        "SET TimeZone = 'UTC'",
        "DISCARD ALL",
        "RESET ALL",
        "RESET tenantgate.tenant",
        "SELECT 1/0",
        "COMMIT AND CHAIN",
        "COMMIT; BEGIN",
        "SELECT set_config('tenantgate.tenant', $1, $2)",
        "SELECT set_config($1, $2, $3)",
        "",
    ];
    let choices = [by_id(tenant), by_token(tenant), by_id(tenant).replace("LOCAL ", "")];
    let text = match random.usize(..texts.len() + 6) {
        at if at < texts.len() => texts[at],
        at => choices[at % 3].as_str(),
    };
    let (name, id) = (["", "a", "b"][random.usize(..3)], tenant.id.as_str());
    let values: [&[Option<&str>]; 3] =
        [&[], &[Some(id), Some("true")], &[Some("tenantgate.tenant"), Some(id), Some("t")]];
    match random.u8(..16) {
        0..6 => query(text),
        6..8 => [parse("", text), bind("", "", &[]), describe(b'P', ""), execute("", 0), sync()]
            .concat(),
        8 | 9 => parse(name, text),
        10 => bind(name, name, values[random.usize(..3)]),
        11 => describe([b'S', b'P'][random.usize(..2)], name),
        12 => execute(name, random.u32(..3)),
        13 => close([b'S', b'P'][random.usize(..2)], name),
        _ => sync(),
    }
}

async fn random_session(seed: u64, estate: &Estate, service: &Service, gate: &Gate) {
    let mut random = fastrand::Rng::with_seed(seed);
    let tenants = [&estate.acme, &estate.globex, &estate.umbrella];
    let tenant = tenants[random.usize(..3)];
    let mut wire = service.wire(gate).await;
    let mut bytes = Vec::new();
    for _ in 0..random.usize(5..40) {
        bytes.extend(random_message(&mut random, tenant));
    }
    bytes.extend([sync(), terminate()].concat());
    // It may have ended the session itself.
    let _ = wire.try_send(bytes).await;
    while let Some(frame) = wire.maybe_frame().await {
        if frame.tag != b'D' {
            continue;
        }
        for value in frame.columns().into_iter().flatten() {
            let foreign = tenants
                .iter()
                .filter(|it| it.id != tenant.id)
                .any(|it| value == it.id || it.notes.iter().any(|(_, body)| *body == value));
            assert!(!foreign, "session {seed} of {} read {value:?}", tenant.id);
        }
    }
}

#[tokio::test]
async fn random_sessions_only_ever_see_whom_they_chose() {
    let (estate, service, gate) = stage_with(
        "acts_for = \"*\"\nsession_wide = true",
        &Tweaks { capacity: 3, ..Tweaks::default() },
    )
    .await;
    let all = futures::stream::iter(0..SESSIONS);
    all.for_each_concurrent(8, |seed| random_session(seed, &estate, &service, &gate)).await;
    let mut wire = service.wire(&gate).await;
    assert_eq!(wire.query(NOTES).await, NO_TENANT);
    assert!(!gate.log().contains("panic"));
}
