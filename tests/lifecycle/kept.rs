//! Idle sessions that keep a server: what ends them, and what changes under them.

use tenantgate::demo::Plan;

use super::{backends, login_of};
use crate::harness::cluster::{own, shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tenant, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};

/// A session that holds a lock, and so its server.
async fn holder(gate: &Gate, tenant: &Tenant) -> Wire {
    holder_of(gate, tenant, 31).await
}

async fn holder_of(gate: &Gate, tenant: &Tenant, lock: u32) -> Wire {
    let mut wire = gate.wire(tenant).await;
    let locked = wire.query(&format!("SELECT pg_advisory_lock({lock})")).await;
    assert_eq!(locked, "T D() C(SELECT 1) Z(I)");
    wire
}

#[tokio::test]
async fn a_new_role_of_the_tenant_is_bound_on_the_server_a_session_keeps() {
    let cluster = own(&Plan::default()).await;
    let estate = Estate::within(&cluster).await;
    let before = estate.settings(&Tweaks::default());
    let gate = Gate::start(&before).await;
    let (acme, stark) = (&estate.acme, &estate.stark);
    let (mut wire, mut moves) = (holder(&gate, acme).await, holder_of(&gate, stark, 32).await);
    assert_eq!(wire.query("SET work_mem = '3MB'").await, "C(SET) Z(I)");
    let pid = wire.query("SELECT pg_backend_pid()").await;
    // One that may only read.
    let admin = superuser(&cluster, "app").await;
    let sql = "CREATE ROLE readers NOLOGIN; GRANT readers TO tg_login;
               GRANT USAGE ON SCHEMA app TO readers; GRANT SELECT ON app.notes TO readers";
    admin.batch_execute(sql).await.unwrap();
    let insert = "INSERT INTO notes (id, body) VALUES (970, 'x')";
    assert_eq!(wire.query(&format!("BEGIN; {insert}; ROLLBACK")).await, WRITES);
    let schema = format!("schema = \"{}\"\n", stark.id);
    let after = before.replace("role = \"app_rw\"", "role = \"readers\"");
    let after = after.replace(&schema, &format!("{schema}role = \"readers\"\n"));
    gate.write_settings(&after);
    gate.reload();
    // The session's worker hears of it a moment later.
    const WHO: &str = "SELECT current_user";
    eventually("the new role", async || {
        (wire.query(WHO).await == "T D(readers) C(SELECT 1) Z(I)").then_some(())
    })
    .await;
    assert_eq!(wire.query(insert).await, "E(42501) Z(I)");
    assert_eq!(wire.query("RESET ROLE").await, "C(RESET) Z(I)");
    assert_eq!(wire.query("SET ROLE app_rw").await, "E(42501) Z(I)");
    assert_eq!(wire.query(WHO).await, "T D(readers) C(SELECT 1) Z(I)");
    assert_eq!(wire.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(I)");
    // It is the same server, with all that the session has there.
    assert_eq!(wire.query("SELECT pg_backend_pid()").await, pid);
    assert_eq!(wire.query("SHOW work_mem").await, "T D(3MB) C(SHOW) Z(I)");
    assert_eq!(wire.query("SELECT pg_advisory_unlock(31)").await, "T D(t) C(SELECT 1) Z(I)");
    // What a schema tenant's login may reach is looked at when a server is opened.
    assert_eq!(moves.until_closed().await, "E(57P01)");
}

const WRITES: &str = "C(BEGIN) C(INSERT 0 1) C(ROLLBACK) Z(I)";

#[tokio::test]
async fn a_drain_ends_an_idle_session_and_the_server_it_keeps() {
    let estate = Estate::new().await;
    let mut gate = Gate::for_estate(&estate).await;
    let stark = &estate.stark;
    let admin = superuser(shared().await, "app").await;
    let mut wire = holder(&gate, stark).await;
    gate.terminate();
    let told = wire.frame().await;
    assert_eq!(told.to_string(), "E(57P01)");
    let message = told.field('M').unwrap();
    assert_eq!(message, "terminating connection due to administrator command");
    assert_eq!(wire.until_closed().await, "");
    assert_eq!(gate.exit().await.code(), Some(0));
    eventually("its server is gone", async || {
        (backends(&admin, &login_of(stark)).await == 0).then_some(())
    })
    .await;
}

/// How long before their end tokens are made, in seconds: the gate gives them thirty more.
const PAST: i64 = 25;

#[tokio::test]
async fn who_listens_hears_nothing_more_when_its_token_is_past_its_time() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let silo = &estate.initech;
    let token = jwt(&silo.id, -PAST);
    let login = Login { user: "app", dbname: &silo.dbname, password: &token, more: &[] };
    let mut listens = Wire::login(gate.port, &login).await;
    let mut sends = gate.wire(silo).await;
    assert_eq!(listens.query("LISTEN news").await, "C(LISTEN) Z(I)");
    assert_eq!(sends.query("NOTIFY news").await, "C(NOTIFY) Z(I)");
    assert_eq!(listens.frame().await.tag, b'A');
    // Nobody asks it for anything, and it ends all the same.
    let told = listens.frame().await;
    assert_eq!(told.to_string(), "E(57P01)");
    let message = told.field('M').unwrap();
    assert_eq!(message, "terminating connection because the credential has expired");
    assert_eq!(listens.until_closed().await, "");
    let admin = superuser(shared().await, &silo.dbname).await;
    eventually("nobody listens", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' \
                   AND datname = current_database()";
        (admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    assert_eq!(sends.query("NOTIFY news").await, "C(NOTIFY) Z(I)");
}
