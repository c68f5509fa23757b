//! Neighbours: tenants of every isolation behind one gate, same names everywhere, and keys and
//! tokens that are not one's own.

use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::messages::{assert_cancelled, bind, execute, parse, query, sync, transcript};
use crate::harness::wire::{Login, Wire, cancel};
use crate::isolation::{NOTES, one_server, own_notes};

#[tokio::test]
async fn the_same_names_mean_each_tenants_own_in_every_isolation() {
    let (estate, gate) = one_server().await;
    let mut wires = Vec::new();
    for tenant in estate.tenants() {
        let mut wire = gate.wire(tenant).await;
        assert_eq!(wire.ask([parse("s", NOTES), sync()].concat()).await, "1 Z(I)");
        wires.push((tenant, wire));
    }
    let run = [bind("", "s", &[]), execute("", 0), sync()].concat();
    for round in 0..3 {
        for (tenant, wire) in &mut wires {
            assert_eq!(wire.query(NOTES).await, own_notes(tenant));
            let extended = own_notes(tenant).replacen('T', "2", 1);
            assert_eq!(wire.ask(&run).await, extended);
            let update = format!("UPDATE notes SET body = body WHERE id <= 3 AND {round} >= 0");
            assert_eq!(wire.query(&update).await, "C(UPDATE 3) Z(I)");
        }
    }
}

#[tokio::test]
async fn a_schema_or_database_of_another_tenant_cannot_be_reached_by_name() {
    let (estate, gate) = one_server().await;
    for tenant in estate.tenants() {
        let mut wire = gate.wire(tenant).await;
        for other in [&estate.umbrella, &estate.stark] {
            if other.id == tenant.id {
                continue;
            }
            let asked = wire.query(&format!("SELECT body FROM {}.notes", other.id)).await;
            assert!(["E(42501) Z(I)", "E(42P01) Z(I)"].contains(&asked.as_str()), "{asked}");
        }
        if tenant.isolation != "row" {
            let asked = wire.query("SELECT body FROM app.notes").await;
            assert!(["E(42501) Z(I)", "E(42P01) Z(I)"].contains(&asked.as_str()), "{asked}");
        }
        let dbnames = estate.tenants().map(|other| other.dbname.as_str());
        for dbname in ["postgres", "template1"].into_iter().chain(dbnames) {
            if dbname == tenant.dbname {
                continue;
            }
            let mut wire = Wire::connect(gate.port).await;
            let login = Login { user: "app", dbname, password: &tenant.token, more: &[] };
            assert_eq!(transcript(&wire.authenticate(&login).await), "R E(3D000)", "{dbname}");
        }
    }
}

#[tokio::test]
async fn one_tenants_token_never_opens_another_tenants_data() {
    let (estate, gate) = one_server().await;
    for tenant in estate.tenants() {
        for other in estate.tenants().into_iter().filter(|other| other.id != tenant.id) {
            let user = format!("app.{}", other.id);
            let (dbname, password) = (other.dbname.as_str(), tenant.token.as_str());
            let mut wire = Wire::connect(gate.port).await;
            let login = Login { user: &user, dbname, password, more: &[] };
            assert_eq!(transcript(&wire.authenticate(&login).await), "R E(28P01)");
        }
    }
}

#[tokio::test]
async fn only_the_right_key_cancels_and_only_its_own_sessions_query() {
    let (estate, gate) = one_server().await;
    let mut wire = gate.wire(&estate.acme).await;
    let mut other = gate.wire(&estate.initech).await;
    let thief = gate.wire(&estate.globex).await;
    let admin = superuser(shared().await, "app").await;
    let backend = wire.query("SELECT pg_backend_pid()").await;
    let backend: i32 = backend[4..backend.find(") C").unwrap()].parse().unwrap();
    assert_ne!(wire.pid, backend, "the server's pid is the gate's secret");
    wire.send(query("SELECT pg_sleep(600)")).await;
    let runs = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND query LIKE '%pg_sleep%'";
    eventually("the query runs", async || {
        let row = admin.query_one(runs, &[&backend]).await.unwrap();
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    cancel(gate.port, thief.pid, thief.secret).await;
    cancel(gate.port, wire.pid, wire.secret ^ 1).await;
    cancel(gate.port, wire.pid ^ 1, wire.secret).await;
    cancel(gate.port, wire.pid, thief.secret).await;
    cancel(gate.port, backend, wire.secret).await;
    other.send(query(NOTES)).await;
    let row = admin.query_one(runs, &[&backend]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1, "it still runs");
    cancel(gate.port, wire.pid, wire.secret).await;
    assert_cancelled(&wire.until_ready().await);
    assert_eq!(transcript(&other.until_ready().await), own_notes(&estate.initech));
}

#[tokio::test]
async fn cancels_after_the_answer_hit_nobody() {
    let (estate, gate) = one_server().await;
    let mut first = gate.wire(&estate.acme).await;
    let mut second = gate.wire(&estate.globex).await;
    let (port, pid, secret) = (gate.port, first.pid, first.secret);
    let storm = tokio::spawn(async move {
        loop {
            cancel(port, pid, secret).await;
        }
    });
    for _ in 0..150 {
        first.send(query("SELECT 1")).await;
        let heard = transcript(&first.until_ready().await);
        assert!(heard.ends_with("Z(I)"), "{heard}");
        assert_eq!(second.query("SELECT pg_sleep(0.001)").await, "T D() C(SELECT 1) Z(I)");
    }
    storm.abort();
}
