//! No server to be had: none free in time, none reachable, none that is fit.

use tenantgate::demo::Plan;

use super::{Refusal, is_in_step, refusal, told};
use crate::harness::cluster::{own, shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{extended, query};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};

#[tokio::test]
async fn no_server_in_time_is_refused_and_the_session_goes_on() {
    let estate = Estate::new().await;
    let cluster = "query_wait = \"1500ms\"";
    let tweaks = Tweaks { capacity: 1, cluster, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut waits = gate.wire(&estate.stark).await;
    let mut holds = gate.wire(&estate.acme).await;
    assert_eq!(holds.query("BEGIN").await, "C(BEGIN) Z(T)");
    for bytes in [query("SELECT 1"), extended("SELECT 1", &[])] {
        let refused = refusal(&mut waits, bytes).await;
        assert_eq!(refused.brief(), "53300 ERROR Z(I)");
        assert_eq!(refused.message, "no server connection became free in time");
        assert!(refused.detail.starts_with("Waited 1.5"), "{}", refused.detail);
    }
    // A login that needs a server for its first greeting is told the same, and ends.
    let token = &estate.umbrella.token;
    let login = Login { user: "app", dbname: "app", password: token, more: &[] };
    let mut late = Wire::connect(gate.port).await;
    assert_eq!(Refusal::among(&late.authenticate(&login).await).brief(), "53300 FATAL");
    assert_eq!(holds.query("COMMIT").await, "C(COMMIT) Z(I)");
    is_in_step(&mut waits).await;
    is_in_step(&mut holds).await;
}

#[tokio::test]
async fn a_cluster_that_is_down_is_named_and_served_again_when_it_is_up() {
    let mut cluster = own(&Plan::default()).await;
    let estate = Estate::within(&cluster).await;
    let gate = Gate::for_estate(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    is_in_step(&mut wire).await;
    cluster.crash();
    let refused = eventually("the crash is noticed", async || {
        Some(refusal(&mut wire, query("SELECT 1")).await)
    })
    .await;
    assert_eq!(refused.brief(), "08001 ERROR Z(I)");
    assert_eq!(refused.message, "could not connect to cluster \"main\"");
    let refused = refusal(&mut wire, extended("SELECT 1", &[])).await;
    assert_eq!(refused.brief(), "08001 ERROR Z(I)");
    let token = &estate.umbrella.token;
    let login = Login { user: "app", dbname: "app", password: token, more: &[] };
    let mut late = Wire::connect(gate.port).await;
    assert_eq!(Refusal::among(&late.authenticate(&login).await).brief(), "08001 FATAL");
    cluster.restart().unwrap();
    eventually("it is served again", async || {
        (wire.query("SELECT 1").await == "T D(1) C(SELECT 1) Z(I)").then_some(())
    })
    .await;
    is_in_step(&mut wire).await;
}

#[tokio::test]
async fn a_login_that_could_step_around_the_isolation_is_never_used() {
    let estate = Estate::new().await;
    let admin = superuser(shared().await, "app").await;
    let (port, mark) = (shared().await.port(), &estate.acme.id);
    let cases = [
        ("super", "SUPERUSER", "", "a superuser"),
        ("bypass", "BYPASSRLS", "", "BYPASSRLS"),
        ("creates", "CREATEROLE", "", "CREATEROLE"),
        ("replicates", "REPLICATION", "", "REPLICATION"),
        (
            "owns",
            "",
            "CREATE TABLE app.of_$ROLE (i int); ALTER TABLE app.of_$ROLE OWNER TO $ROLE",
            "an owner of tables",
        ),
        ("member", "IN ROLE pg_read_server_files", "", "a member of powerful roles"),
        ("poisoned", "", "ALTER ROLE $ROLE SET role = 'app_rw'", "start-up setting role"),
        (
            "forged",
            "",
            "ALTER ROLE $ROLE SET app.tenant_id = 'x'",
            "start-up setting app.tenant_id",
        ),
    ];
    let mut more = String::new();
    for (name, attributes, sql, _) in cases {
        let role = format!("{name}_{mark}");
        let create = format!(
            "CREATE ROLE {role} LOGIN NOINHERIT PASSWORD '{LOGIN_PASSWORD}' {attributes};
             GRANT app_rw TO {role}; {}",
            sql.replace("$ROLE", &role)
        );
        admin.batch_execute(&create).await.unwrap();
        more.push_str(&format!(
            "[tenants.{role}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
             role = \"app_rw\"\nconnection_string = \
             \"postgresql://{role}:{LOGIN_PASSWORD}@127.0.0.1:{port}/app?sslmode=disable\"\n\n"
        ));
    }
    let gate = Gate::start(&estate.settings(&Tweaks { more: &more, ..Tweaks::default() })).await;
    for (name, _, _, reason) in cases {
        let token = jwt(&format!("{name}_{mark}"), 600);
        let login = Login { user: "app", dbname: "app", password: &token, more: &[] };
        let mut wire = Wire::connect(gate.port).await;
        let frames = wire.authenticate(&login).await;
        assert_eq!(told(&frames), "R E(08001)", "{name}");
        let refused = Refusal::among(&frames);
        assert_eq!(refused.brief(), "08001 FATAL");
        assert_eq!(refused.message, "cluster \"main\" cannot serve this tenant safely");
        // Why is for the log, not for clients.
        gate.logs(reason).await;
        assert_eq!(wire.until_closed().await, "");
    }
    let mut wire = gate.wire(&estate.acme).await;
    is_in_step(&mut wire).await;
    for (name, ..) in cases {
        let role = format!("{name}_{mark}");
        admin.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
    }
}

#[tokio::test]
async fn a_context_that_cannot_be_set_is_never_used() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let id = &estate.umbrella.id;
    let admin = superuser(shared().await, "app").await;
    admin.batch_execute(&format!("ALTER ROLE rw_{id} RENAME TO gone_{id}")).await.unwrap();
    let token = jwt(id, 600);
    for more in [&[][..], &[("DateStyle", "German")][..]] {
        let mut wire = Wire::connect(gate.port).await;
        let login = Login { user: "app", dbname: "app", password: &token, more };
        let frames = wire.authenticate(&login).await;
        let refused = Refusal::among(&frames);
        assert_eq!(refused.brief(), "58000 FATAL", "{refused:?}");
        assert_eq!(refused.message, "could not verify the tenant's context");
    }
    gate.logs(&format!("role \"rw_{id}\" does not exist")).await;
    is_in_step(&mut gate.wire(&estate.acme).await).await;
}

#[tokio::test]
async fn a_route_that_leads_to_the_gate_itself_is_not_taken() {
    let estate = Estate::new().await;
    // Its own token would be let in, and again, and again.
    let id = format!("loop_{}", estate.acme.id);
    let token = jwt(&id, 600);
    let more = format!(
        "[tenants.{id}]\nisolation = \"silo\"\ncluster = \"main\"\nconnection_string = \
         \"host=127.1 port=$PORT user=app password={token} dbname={id} sslmode=disable\"\n"
    );
    let gate = Gate::start(&estate.settings(&Tweaks { more: &more, ..Tweaks::default() })).await;
    let login = Login { user: "app", dbname: &id, password: &token, more: &[] };
    let mut wire = Wire::connect(gate.port).await;
    let frames = wire.authenticate(&login).await;
    assert_eq!(Refusal::among(&frames).brief(), "08001 FATAL");
    gate.logs("host turned out to be this gate itself").await;
    is_in_step(&mut gate.wire(&estate.acme).await).await;
}
