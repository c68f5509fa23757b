//! The setting `level`, the rules, the caps, and rules that are only reported.

use crate::console;
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::http;
use crate::harness::messages::{extended, query};
use crate::harness::tenants::{Estate, Tenant, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};
use crate::refusals::{Refusal, aborts_the_transaction, is_in_step, refusal};

pub const GUARDED: Tweaks<'_> = Tweaks {
    gate: "",
    listen: "tls = \"disable\"\nplaintext_password = true",
    capacity: 4,
    cluster: "level = \"guard\"\nenforce_level = false",
    tier: "",
    more: "",
};

/// A statement and the rule that refuses it, for row tenants.
const DENIED: [(&str, &str); 14] = [
    ("ALTER DATABASE app SET work_mem = '1GB'", "alter-database"),
    ("ALTER SYSTEM RESET ALL", "alter-database"),
    ("ALTER ROLE CURRENT_USER PASSWORD 'x'", "alter-role"),
    ("ALTER USER tg_login SET search_path = evil", "alter-role"),
    ("SELECT set_config('app' || '.tenant_id', 'b', false)", "computed-setting"),
    ("UPDATE pg_settings SET setting = '1'", "computed-setting"),
    ("DO $$ BEGIN PERFORM 1; END $$", "do-block"),
    ("LOCK TABLE notes", "lock-table"),
    ("CREATE FUNCTION pg_catalog.f() RETURNS int RETURN 1", "routine"),
    ("SET work_mem = '1GB'", "setting-cap"),
    ("SELECT set_config('work_mem', '1GB', true)", "setting-cap"),
    ("SELECT query_to_xml('SELECT 1', true, true, '')", "sql-in-text"),
    ("FROBNICATE notes", "unknown-statement"),
    ("SELECT 'x", "unreadable"),
];

fn named(refused: &Refusal) -> (&str, &str) {
    (&refused.sqlstate, &refused.detail)
}

#[tokio::test]
async fn each_rule_refuses_in_both_protocols_and_aborts_an_open_transaction() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&GUARDED)).await;
    let mut wire = gate.wire(&estate.acme).await;
    for (sql, rule) in DENIED {
        let detail = format!("Rule \"{rule}\" of level guard.");
        for bytes in [query(sql), extended(sql, &[])] {
            let refused = refusal(&mut wire, &bytes).await;
            assert_eq!(named(&refused), ("42501", detail.as_str()), "{sql}: {refused:?}");
            assert_eq!((refused.severity.as_str(), refused.status.as_str()), ("ERROR", "Z(I)"));
            assert!(refused.message.starts_with("permission denied to "), "{refused:?}");
            assert!(refused.hint.ends_with('.'), "{refused:?}");
            assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
            assert_eq!(refusal(&mut wire, &bytes).await.status, "Z(E)", "{sql}");
            assert_eq!(wire.query("COMMIT").await, "C(ROLLBACK) Z(I)");
        }
        is_in_step(&mut wire).await;
    }
    let mut schema = gate.wire(&estate.stark).await;
    aborts_the_transaction(&mut schema, query("SELECT 'x")).await;
}

#[tokio::test]
async fn what_concerns_shared_tables_is_for_row_tenants_only() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&GUARDED)).await;
    for tenant in [&estate.stark, &estate.initech] {
        let mut wire = gate.wire(tenant).await;
        assert_eq!(wire.query("DO $$ BEGIN PERFORM 1; END $$").await, "C(DO) Z(I)");
        assert_eq!(wire.query("BEGIN; LOCK TABLE notes; ROLLBACK").await, LOCKED);
        let over = wire.query("SET work_mem = '1GB'").await;
        // A silo's cluster may be its own.
        let wanted = if tenant.isolation == "silo" { "C(SET) Z(I)" } else { "E(42501) Z(I)" };
        assert_eq!(over, wanted);
    }
}

const LOCKED: &str = "C(BEGIN) C(LOCK TABLE) C(ROLLBACK) Z(I)";

#[tokio::test]
async fn values_within_their_caps_pass_and_start_up_is_held_to_them_too() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&GUARDED)).await;
    let mut wire = gate.wire(&estate.acme).await;
    for sql in
        ["SET work_mem = '64MB'", "SET LOCAL hash_mem_multiplier = 2", "SET work_mem TO DEFAULT"]
    {
        let said = wire.query(&format!("BEGIN; {sql}; COMMIT")).await;
        assert_eq!(said, "C(BEGIN) C(SET) C(COMMIT) Z(I)", "{sql}");
    }
    let login = |more| Login { user: "app", dbname: "app", password: &estate.acme.token, more };
    let within = [("options", "-c work_mem=8MB")];
    Wire::login(gate.port, &login(&within)).await;
    let above = [("options", "-c work_mem=1GB")];
    let frames = Wire::connect(gate.port).await.authenticate(&login(&above)).await;
    let refused = Refusal::among(&frames);
    assert_eq!(named(&refused), ("42501", "Rule \"setting-cap\" of level guard."));
}

#[tokio::test]
async fn a_rule_that_is_only_reported_refuses_nothing_and_is_counted() {
    let tier = "report_only = [\"lock-table\", \"setting-cap\", \"unreadable\", \"do-block\"]";
    let (estate, gate) = console::gate(&Tweaks { tier, ..GUARDED }).await;
    let mut wire = gate.wire(&estate.acme).await;
    // PostgreSQL's own word on it: app_rw may not lock in this mode, and may with a lesser one.
    for sql in ["BEGIN; LOCK TABLE notes IN ROW EXCLUSIVE MODE; ROLLBACK"; 3] {
        assert_eq!(wire.query(sql).await, LOCKED);
    }
    assert_eq!(wire.ask(extended("SET work_mem = '1GB'", &[])).await, "1 2 n C(SET) Z(I)");
    assert_eq!(wire.query("SHOW work_mem").await, "T D(1GB) C(SHOW) Z(I)");
    assert_eq!(wire.query("SELECT 'a secret value").await, "E(42601) Z(I)");
    // Every other rule is in force, and so is level plain.
    let refused = refusal(&mut wire, query("ALTER ROLE app_rw NOLOGIN")).await;
    assert_eq!(refused.sqlstate, "42501");
    for sql in ["SET app.tenant_id = 'x'", "DO $$ BEGIN END $$; SET ROLE none"] {
        let refused = refusal(&mut wire, query(sql)).await;
        assert_eq!(refused.detail, "The setting binds this connection to its tenant.", "{sql}");
    }
    let mut console = Wire::login(gate.port, &console::ADMIN).await;
    let rows = console::show(&mut console, "WOULD_REFUSE").await;
    let cells =
        |row: &console::Row| ["tenant", "rule", "statement", "count"].map(|name| row[name].clone());
    let mut found: Vec<[String; 4]> = rows.iter().map(cells).collect();
    found.sort();
    let id = estate.acme.id.as_str();
    let wanted = [
        [id, "lock-table", "BEGIN", "3"],
        [id, "setting-cap", "SET work_mem", "1"],
        [id, "unreadable", "SELECT", "1"],
    ];
    assert_eq!(found, wanted.map(|row| row.map(str::to_owned)));
    let series = "tenantgate_guard_would_refuse_total{rule=\"lock-table\"} 3";
    eventually(series, async || {
        let (_, body) = http::get(gate.http, "/metrics").await;
        body.lines().any(|line| line == series).then_some(())
    })
    .await;
    gate.logs("level guard would have refused a statement").await;
    assert!(!gate.log().contains("secret"), "{}", gate.log());
}

#[tokio::test]
async fn a_reload_raises_and_lowers_the_level_of_sessions_that_are_there() {
    let estate = Estate::new().await;
    let plain = estate.settings(&Tweaks { cluster: "", ..GUARDED });
    let guarded = estate.settings(&GUARDED);
    let reported = estate.settings(&Tweaks { tier: "report_only = [\"all\"]", ..GUARDED });
    let gate = Gate::start(&plain).await;
    let mut wire = gate.wire(&estate.acme).await;
    let sql = "BEGIN; LOCK TABLE notes IN ROW SHARE MODE; ROLLBACK";
    assert_eq!(wire.query(sql).await, LOCKED);
    for (settings, wanted) in [(&guarded, "E(42501) Z(I)"), (&reported, LOCKED), (&plain, LOCKED)] {
        gate.reload_with(settings).await;
        // The worker hears of it a moment later.
        eventually(wanted, async || (wire.query(sql).await == wanted).then_some(())).await;
    }
}

/// Who is known by a JSON Web Token is held to the same rules.
#[tokio::test]
async fn the_level_is_the_clusters_however_one_logs_in() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&GUARDED)).await;
    let Tenant { id, dbname, .. } = &estate.acme;
    let token = jwt(id, 60);
    let login = Login { user: "app", dbname, password: &token, more: &[] };
    let mut wire = Wire::login(gate.port, &login).await;
    assert_eq!(refusal(&mut wire, query("LOCK notes")).await.sqlstate, "42501");
}
