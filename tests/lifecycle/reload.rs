//! SIGHUP: a broken file changes nothing, a good one changes what it says, at once.

use super::{backends, login_of};
use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{ONE, query, transcript};
use crate::harness::tenants::{Estate, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};

#[tokio::test]
async fn a_broken_file_changes_nothing_and_the_log_names_the_line() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    let good = estate.settings(&Tweaks::default());
    let wrong = good.replace("isolation = \"silo\"", "isolation = \"silos\"");
    let line = wrong.lines().position(|line| line.contains("silos")).unwrap() + 1;
    for (broken, says) in [
        (wrong, format!("tenantgate.toml:{line}:")),
        (good.replace("capacity = 4", "capacity = \"four\""), "capacity".into()),
        (good.replace("[tiers.free]", "[tiers.free"), "tenantgate.toml:".into()),
        (String::new(), "reload rejected".into()),
    ] {
        let before = gate.log().matches("reload rejected").count();
        gate.write_settings(&broken);
        gate.reload();
        eventually("the rejection", async || {
            (gate.log().matches("reload rejected").count() > before).then_some(())
        })
        .await;
        gate.logs(&says).await;
        assert_eq!(wire.query("SELECT 1").await, ONE);
        for tenant in estate.tenants() {
            assert_eq!(gate.wire(tenant).await.query("SELECT 1").await, ONE);
        }
    }
    gate.reload_with(&good).await;
}

#[tokio::test]
async fn new_tenants_work_and_disabled_ones_end_at_their_boundary() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let good = estate.settings(&Tweaks::default());
    let mut idle = gate.wire(&estate.stark).await;
    let mut inside = gate.wire(&estate.stark).await;
    let mut other = gate.wire(&estate.umbrella).await;
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    let id = &estate.stark.id;
    let table = format!("[tenants.{id}]\n");
    let newcomer = format!(
        "[tenants.new_{id}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
         role = \"app_rw\"\n"
    );
    let changed = good.replace(&table, &format!("{table}state = \"disabled\"\n"));
    gate.reload_with(&format!("{changed}\n{newcomer}")).await;
    let ended = idle.frame().await;
    assert_eq!(
        (ended.to_string().as_str(), ended.field('S').as_deref()),
        ("E(57P01)", Some("FATAL"))
    );
    let disabled = "terminating connection because the tenant is disabled";
    assert_eq!(ended.field('M').unwrap(), disabled);
    assert_eq!(idle.until_closed().await, "");
    // A transaction that has begun goes on, and its end is the session's.
    assert_eq!(inside.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    inside.send(query("COMMIT")).await;
    assert_eq!(inside.until_closed().await, "C(COMMIT) Z(I) E(57P01)");
    assert_eq!(other.query("SELECT 1").await, ONE);
    let token = jwt(&format!("new_{id}"), 600);
    let login = Login { user: "app", dbname: "app", password: &token, more: &[] };
    let mut fresh = Wire::login(gate.port, &login).await;
    assert_eq!(fresh.query("SELECT count(*) FROM notes").await, "T D(0) C(SELECT 1) Z(I)");
    assert!(gate.try_connect(&estate.stark).await.is_err());
    // Enabled again, it may log in; a tenant taken out of the file is ended as well.
    gate.reload_with(&good).await;
    assert_eq!(fresh.until_closed().await, "E(57P01)");
    assert_eq!(gate.wire(&estate.stark).await.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn changed_limits_count_at_once() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    for _ in 0..50 {
        assert_eq!(wire.query("SELECT 1").await, ONE);
    }
    let tier = "queries_per_second = 1\nqueries_burst = 1";
    gate.reload_with(&estate.settings(&Tweaks { tier, ..Tweaks::default() })).await;
    let mut refused = 0;
    for _ in 0..50 {
        refused += usize::from(wire.query("SELECT 1").await == "E(53400) Z(I)");
    }
    assert!(refused > 30, "{refused} of 50");
    gate.reload_with(&estate.settings(&Tweaks::default())).await;
    for _ in 0..50 {
        assert_eq!(wire.query("SELECT 1").await, ONE);
    }
    let tier = "query_time = \"100ms\"\nclients = 1";
    gate.reload_with(&estate.settings(&Tweaks { tier, ..Tweaks::default() })).await;
    assert_eq!(wire.query("SELECT pg_sleep(60)").await, "T E(57014) Z(I)");
    assert!(gate.try_connect(&estate.stark).await.is_err());
}

#[tokio::test]
async fn a_changed_route_is_used_by_the_next_transaction() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let admin = superuser(shared().await, "app").await;
    let (stark, umbrella) = (&estate.stark, &estate.umbrella);
    let good = estate.settings(&Tweaks::default());
    let mut wire = gate.wire(stark).await;
    let mut inside = gate.wire(stark).await;
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    wire.query("SET work_mem = '3MB'").await;
    // A copy of the schema under another name, which the same login may use.
    let moved = format!("moved_{}", stark.id);
    let sql = format!(
        "CREATE SCHEMA {moved} AUTHORIZATION app_owner; SET ROLE app_owner;
         CREATE TABLE {moved}.notes (id int, body text);
         GRANT USAGE ON SCHEMA {moved} TO tg_{0}; GRANT SELECT ON {moved}.notes TO tg_{0}",
        stark.id
    );
    admin.batch_execute(&sql).await.unwrap();
    let schema = format!("schema = \"{}\"", stark.id);
    let changed = good.replace(&schema, &format!("schema = \"{moved}\""));
    assert_ne!(changed, good);
    gate.reload_with(&changed).await;
    // The session's worker hears of it a moment later.
    eventually("the new schema", async || {
        let said = wire.query("SELECT count(*) FROM notes").await;
        (said == "T D(0) C(SELECT 1) Z(I)").then_some(())
    })
    .await;
    assert_eq!(wire.query("SHOW work_mem").await, "T D(3MB) C(SHOW) Z(I)");
    // Who was in a transaction stays where it is until that ends.
    assert_eq!(inside.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(T)");
    assert_eq!(inside.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(inside.query("SELECT count(*) FROM notes").await, "T D(0) C(SELECT 1) Z(I)");
    // Another database altogether: the old servers are closed.
    let (old, silo) = (login_of(stark), &estate.initech);
    let port = shared().await.port();
    let from = changed.lines().find(|line| line.contains(&format!("//{old}:"))).unwrap();
    let to = format!(
        "connection_string = \"postgresql://tg_{0}:{1}@127.0.0.1:{port}/{0}?sslmode=disable\"",
        silo.id,
        crate::harness::tenants::LOGIN_PASSWORD
    );
    let without_silo = changed.split("\n[tenants.initech").next().unwrap();
    let next = without_silo.replace(from, &to);
    let next = next.replace(&format!("schema = \"{moved}\""), "schema = \"public\"");
    gate.reload_with(&next).await;
    wire.send(query("SELECT current_database()")).await;
    let said = transcript(&wire.until_ready().await);
    assert_eq!(said, format!("T D({}) C(SELECT 1) Z(I)", silo.dbname));
    eventually("the old route's servers are closed", async || {
        (backends(&admin, &old).await == 0).then_some(())
    })
    .await;
    assert_eq!(gate.wire(umbrella).await.query("SELECT 1").await, ONE);
}
