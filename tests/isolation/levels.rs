//! What a level promises is checked when a server is connected: whatever the database lacks is
//! named in the log, and nobody is served.

use crate::harness::cluster::{own, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::http;
use crate::harness::messages::transcript;
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};
use crate::isolation::{NOTES, own_notes};
use tenantgate::demo::Plan;
use tenantgate::isolation::Level;

/// A fault, what the log says of it, and how it is mended.
const FAULTS: [(&str, &str, &str); 13] = [
    (
        "GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO PUBLIC",
        "the revoke pack lacks: set_config",
        "REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC",
    ),
    (
        "GRANT TEMPORARY ON DATABASE app TO app_rw",
        "the revoke pack lacks: temporary",
        "REVOKE TEMPORARY ON DATABASE app FROM app_rw",
    ),
    (
        "ALTER FUNCTION tenantgate.tenant_id() IMMUTABLE",
        "tenantgate.tenant_id() is missing or",
        "ALTER FUNCTION tenantgate.tenant_id() STABLE",
    ),
    (
        "ALTER FUNCTION tenantgate.enter(text, text, bigint, bytea) SET search_path = app",
        "tenantgate.enter() is missing or",
        "ALTER FUNCTION tenantgate.enter(text, text, bigint, bytea) RESET ALL",
    ),
    (
        "ALTER FUNCTION tenantgate.enter(text, text, bigint, bytea) SECURITY INVOKER",
        "tenantgate.enter() is missing or",
        "ALTER FUNCTION tenantgate.enter(text, text, bigint, bytea) SECURITY DEFINER",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION tenantgate.enter(text, text, bigint, bytea) FROM tg_login",
        "the login may not call tenantgate.enter()",
        "GRANT EXECUTE ON FUNCTION tenantgate.enter(text, text, bigint, bytea) TO tg_login",
    ),
    (
        "GRANT SELECT (kid) ON tenantgate.keys TO app_rw",
        "table tenantgate.keys is missing, or open to the login",
        "REVOKE SELECT (kid) ON tenantgate.keys FROM app_rw",
    ),
    (
        "GRANT CREATE ON SCHEMA tenantgate TO app_rw",
        "the login may create objects in schema tenantgate",
        "REVOKE CREATE ON SCHEMA tenantgate FROM app_rw",
    ),
    (
        "GRANT tenantgate_owner TO app_rw",
        "login is an owner of tables (tenantgate.keys)",
        "REVOKE tenantgate_owner FROM app_rw",
    ),
    (
        "GRANT SET ON PARAMETER backtrace_functions TO app_rw",
        "the login may set the carrier itself",
        "REVOKE SET ON PARAMETER backtrace_functions FROM app_rw",
    ),
    (
        "CREATE POLICY loose ON app.notes FOR SELECT
         USING (tenant_id = current_setting('App.tenant_id', true))",
        "policies read app.tenant_id, which SQL can forge, on app.notes",
        "DROP POLICY loose ON app.notes",
    ),
    (
        "CREATE POLICY loose ON app.notes FOR DELETE USING (tenant_id = tenantgate.tenant_id()
         OR tenant_id = current_setting('app.tenant_id', true))",
        "policies read app.tenant_id, which SQL can forge, on app.notes",
        "DROP POLICY loose ON app.notes",
    ),
    (
        "ALTER DATABASE app SET backtrace_functions = '0acme'",
        "given the start-up setting backtrace_functions",
        "ALTER DATABASE app RESET backtrace_functions",
    ),
];

#[tokio::test]
async fn whatever_the_database_lacks_of_a_level_is_named_and_nobody_is_served() {
    let cluster = own(&Plan::default()).await;
    let estate = Estate::at(&cluster, Level::Sealed).await;
    let admin = superuser(&cluster, "app").await;
    for (fault, words, mended) in FAULTS {
        admin.batch_execute(fault).await.unwrap();
        let gate = Gate::start(&estate.settings(&Tweaks::default())).await;
        assert_eq!(heard(&gate, &estate.acme).await, "R E(08001)", "{fault}");
        gate.logs(words).await;
        admin.batch_execute(mended).await.unwrap();
        drop(gate);
    }
    let gate = Gate::start(&estate.settings(&Tweaks { capacity: 1, ..Tweaks::default() })).await;
    for tenant in [&estate.acme, &estate.globex, &estate.acme] {
        assert_eq!(gate.wire(tenant).await.query(NOTES).await, own_notes(tenant));
    }
}

#[tokio::test]
async fn a_key_the_database_does_not_know_and_a_carrier_with_a_value_serve_nobody() {
    let cluster = own(&Plan::default()).await;
    let estate = Estate::at(&cluster, Level::Sealed).await;
    let admin = superuser(&cluster, "app").await;
    let settings = estate.settings(&Tweaks::default());
    admin.batch_execute("UPDATE tenantgate.keys SET kid = 'other'").await.unwrap();
    let gate = Gate::start(&settings).await;
    assert_eq!(heard(&gate, &estate.acme).await, "R E(08001)");
    gate.logs("is the key of seal_key_file installed?").await;
    admin.batch_execute("UPDATE tenantgate.keys SET kid = 'k1'").await.unwrap();
    // Clients of a cluster that has been mended are served, by the same gate.
    assert_eq!(gate.wire(&estate.acme).await.query(NOTES).await, own_notes(&estate.acme));
    drop(gate);
    admin.batch_execute("ALTER SYSTEM SET backtrace_functions = '0acme'").await.unwrap();
    cluster.reload().unwrap();
    let gate = Gate::start(&settings).await;
    assert_eq!(heard(&gate, &estate.globex).await, "R E(08001)");
    gate.logs("backtrace_functions has a value before anybody entered").await;
}

#[tokio::test]
async fn a_level_that_is_not_enforced_is_told_of_and_everybody_is_served() {
    let cluster = own(&Plan::default()).await;
    let estate = Estate::at(&cluster, Level::Guard).await;
    let admin = superuser(&cluster, "app").await;
    admin.batch_execute("GRANT TEMPORARY ON DATABASE app TO app_rw").await.unwrap();
    let more = "[http]\naddress = \"127.0.0.1:$HTTP\"\n";
    let tweaks = Tweaks {
        gate: "workers = 1",
        cluster: "enforce_level = false",
        capacity: 2,
        more,
        ..Tweaks::default()
    };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    gate.logs("guard (not enforced)").await;
    assert_eq!(gate.wire(&estate.acme).await.query(NOTES).await, own_notes(&estate.acme));
    let told = "level \"guard\" is not in force: the revoke pack lacks: temporary";
    gate.logs(told).await;
    // Each connection counts, and the log is told once a minute.
    let mut wires = [gate.wire(&estate.acme).await, gate.wire(&estate.globex).await];
    for wire in &mut wires {
        assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    }
    eventually("both are counted", async || {
        let (_, metrics) = http::get(gate.http, "/metrics").await;
        metrics.contains("tenantgate_level_shortfalls_total 2").then_some(())
    })
    .await;
    assert_eq!(gate.log().matches(told).count(), 1);
    drop(wires);
    // The guard itself goes on.
    let denied = gate.wire(&estate.acme).await.query("DO $$BEGIN END$$").await;
    assert_eq!(denied, "E(42501) Z(I)");
}

#[tokio::test]
async fn a_server_whose_clock_is_an_hour_ahead_lets_tenants_enter() {
    let cluster = own(&Plan::default()).await;
    let estate = Estate::at(&cluster, Level::Sealed).await;
    let admin = superuser(&cluster, "app").await;
    let clock = "CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz
                 LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.now() + interval ''1 hour'''";
    admin.batch_execute(clock).await.unwrap();
    let gate = Gate::start(&estate.settings(&Tweaks { capacity: 1, ..Tweaks::default() })).await;
    let mut acme = gate.wire(&estate.acme).await;
    for _ in 0..3 {
        assert_eq!(gate.wire(&estate.globex).await.query(NOTES).await, own_notes(&estate.globex));
        assert_eq!(acme.query(NOTES).await, own_notes(&estate.acme));
    }
    // A clock that jumps while the gate runs: signatures are out of their time. The servers that
    // refuse them are closed, the next ones are asked for the time again.
    admin.batch_execute(&clock.replace("1 hour", "9 hours")).await.unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(heard(&gate, &estate.globex).await);
    }
    assert!(outcomes.last().is_some_and(|last| last.ends_with("Z(I)")), "{outcomes:?}");
    assert_eq!(gate.wire(&estate.globex).await.query(NOTES).await, own_notes(&estate.globex));
}

#[tokio::test]
async fn a_reload_raises_a_cluster_to_sealed_under_its_clients() {
    let cluster = own(&Plan::default()).await;
    let estate = Estate::at(&cluster, Level::Sealed).await;
    let sealed = estate.settings(&Tweaks { capacity: 1, ..Tweaks::default() });
    let guarded = sealed.replace("level = \"sealed\"", "level = \"guard\"");
    let gate = Gate::start(&guarded).await;
    let mut acme = gate.wire(&estate.acme).await;
    let mut globex = gate.wire(&estate.globex).await;
    // The key alone seals tenants already: the policies of this database show rows to nobody else.
    assert_eq!(acme.query(NOTES).await, own_notes(&estate.acme));
    gate.reload_with(&sealed).await;
    assert_eq!(globex.query(NOTES).await, own_notes(&estate.globex));
    assert_eq!(acme.query(NOTES).await, own_notes(&estate.acme));
    // And without the key there is nobody.
    let keyless = guarded.replace("seal_key_file = \"seal.key\"\n", "");
    gate.reload_with(&keyless).await;
    assert_eq!(acme.query(NOTES).await, "T C(SELECT 0) Z(I)");
}

/// What a client of a tenant hears until it is logged in or refused.
async fn heard(gate: &Gate, tenant: &Tenant) -> String {
    let mut wire = Wire::connect(gate.port).await;
    let (dbname, password) = (tenant.dbname.as_str(), tenant.token.as_str());
    let login = Login { user: "app", dbname, password, more: &[] };
    transcript(&wire.authenticate(&login).await)
}
