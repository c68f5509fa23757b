//! Orders of the console, and what applications and servers notice of them.

use std::time::Duration;

use super::{ADMIN, gate, one, show};
use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{ONE, query, transcript};
use crate::harness::tenants::{Tenant, Tweaks};
use crate::harness::wire::Wire;

async fn console(gate: &Gate) -> Wire {
    Wire::login(gate.port, &ADMIN).await
}

/// Server connections of one login, as PostgreSQL sees them.
async fn backends(login: &str) -> i64 {
    let admin = superuser(shared().await, "postgres").await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
    admin.query_one(sql, &[&login]).await.unwrap().get(0)
}

fn login_of(tenant: &Tenant) -> String {
    format!("tg_{}", tenant.id)
}

/// Whether nothing comes for a while.
async fn is_silent(wire: &mut Wire) -> bool {
    tokio::time::timeout(Duration::from_millis(250), wire.frame()).await.is_err()
}

/// Sends a request and sees that the console shows it waiting.
async fn waits(client: &mut Wire, console: &mut Wire, tenant: &Tenant) {
    client.send(query("SELECT 1")).await;
    eventually("the request waits", async || {
        let clients = show(console, "CLIENTS").await;
        clients.iter().find(|row| row["state"] == "waiting" && row["tenant"] == tenant.id)?;
        Some(())
    })
    .await;
}

#[tokio::test]
async fn pause_lets_transactions_end_holds_requests_and_closes_servers() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    let (mut admin, mut other) = (console(&gate).await, console(&gate).await);
    let (stark, umbrella) = (&estate.stark, &estate.umbrella);
    let mut inside = gate.wire(stark).await;
    let mut idle = gate.wire(stark).await;
    let mut neighbour = gate.wire(umbrella).await;
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(idle.query("SELECT 1").await, ONE);
    admin.send(query(&format!("PAUSE TENANT {}", stark.id))).await;
    eventually("it is shown as paused", async || {
        let tenants = show(&mut other, "TENANTS").await;
        (one(&tenants, "tenant", &stark.id)["state"] == "paused").then_some(())
    })
    .await;
    // The transaction goes on, and PAUSE waits for it.
    waits(&mut idle, &mut other, stark).await;
    assert_eq!(inside.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(neighbour.query("SELECT 1").await, ONE);
    assert!(is_silent(&mut admin).await, "PAUSE returned before the transaction was over");
    assert_eq!(inside.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(transcript(&admin.until_ready().await), "C(PAUSE) Z(I)");
    assert_eq!(backends(&login_of(stark)).await, 0);
    // Who was in it waits as well from now on, and so does who logs in.
    waits(&mut inside, &mut other, stark).await;
    let mut newcomer = gate.wire(stark).await;
    newcomer.send(query("SELECT 1")).await;
    assert_eq!(neighbour.query("SELECT 1").await, ONE);
    assert_eq!(admin.query(&format!("RESUME {}", stark.id)).await, "C(RESUME) Z(I)");
    for client in [&mut inside, &mut idle, &mut newcomer] {
        assert_eq!(transcript(&client.until_ready().await), ONE);
    }
    assert_eq!(admin.query(&format!("RESUME {}", stark.id)).await, "E(55000) Z(I)");
}

#[tokio::test]
async fn pause_of_a_database_or_of_everything_holds_who_stands_in_line_too() {
    let (estate, gate) = gate(&Tweaks { capacity: 1, ..Tweaks::default() }).await;
    let mut admin = console(&gate).await;
    let (acme, globex) = (&estate.acme, &estate.globex);
    for target in ["", " app", " DATABASE \"app\"", " app@main"] {
        let mut holds = gate.wire(acme).await;
        let mut in_line = gate.wire(globex).await;
        assert_eq!(holds.query("BEGIN").await, "C(BEGIN) Z(T)");
        let mut other = console(&gate).await;
        waits(&mut in_line, &mut other, globex).await;
        admin.send(query(&format!("PAUSE{target}"))).await;
        eventually("it is paused", async || {
            let databases = show(&mut other, "DATABASES").await;
            (one(&databases, "name", "app")["paused"] == "1").then_some(())
        })
        .await;
        // The server that comes free is not for who stood in line for it.
        assert_eq!(holds.query("COMMIT").await, "C(COMMIT) Z(I)");
        assert_eq!(transcript(&admin.until_ready().await), "C(PAUSE) Z(I)");
        let servers = show(&mut other, "SERVERS").await;
        assert!(servers.iter().all(|row| row["database"] != "app"), "{servers:?}");
        assert!(is_silent(&mut in_line).await);
        assert_eq!(admin.query(&format!("RESUME{target}")).await, "C(RESUME) Z(I)");
        assert_eq!(transcript(&in_line.until_ready().await), ONE);
        assert_eq!(holds.query("SELECT 1").await, ONE);
    }
    assert_eq!(admin.query("RESUME").await, "E(55000) Z(I)");
    assert_eq!(admin.query("PAUSE nobody").await, "E(3D000) Z(I)");
    assert_eq!(admin.query("PAUSE TENANT app").await, "E(3D000) Z(I)");
}

#[tokio::test]
async fn a_paused_request_is_refused_after_query_wait_and_can_be_cancelled() {
    let cluster = "query_wait = \"1500ms\"";
    let (estate, gate) = gate(&Tweaks { cluster, ..Tweaks::default() }).await;
    let mut admin = console(&gate).await;
    let mut client = gate.wire(&estate.stark).await;
    assert_eq!(admin.query("PAUSE").await, "C(PAUSE) Z(I)");
    client.send(query("SELECT 1")).await;
    let frames = client.until_ready().await;
    assert_eq!(transcript(&frames), "E(57P03) Z(I)");
    assert_eq!(frames[0].field('M').unwrap(), "the tenant is paused");
    client.send(query("SELECT 1")).await;
    assert_eq!(admin.query("RESUME").await, "C(RESUME) Z(I)");
    assert_eq!(transcript(&client.until_ready().await), ONE);
}

#[tokio::test]
async fn kill_ends_clients_and_servers_at_once_and_holds_who_comes_back() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    let mut admin = console(&gate).await;
    let stark = &estate.stark;
    let mut inside = gate.wire(stark).await;
    let mut sleeps = gate.wire(stark).await;
    let mut idle = gate.wire(stark).await;
    let mut neighbour = gate.wire(&estate.umbrella).await;
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    sleeps.send(query("SELECT pg_sleep(600)")).await;
    eventually("it sleeps", async || {
        let sql = "SELECT FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'PgSleep'";
        let postgres = superuser(shared().await, "postgres").await;
        postgres.query_opt(sql, &[&login_of(stark)]).await.unwrap().map(drop)
    })
    .await;
    neighbour.query("BEGIN").await;
    assert_eq!(admin.query(&format!("KILL {}", stark.id)).await, "N(00000) C(KILL) Z(I)");
    assert_eq!(backends(&login_of(stark)).await, 0);
    assert_eq!(inside.until_closed().await, "E(57P01)");
    // Its row description may have been sent before.
    assert!(sleeps.until_closed().await.ends_with("E(57P01)"));
    assert_eq!(idle.until_closed().await, "E(57P01)");
    assert_eq!(neighbour.query("COMMIT").await, "C(COMMIT) Z(I)");
    let mut back = gate.wire(stark).await;
    waits(&mut back, &mut admin, stark).await;
    assert_eq!(admin.query(&format!("RESUME {}", stark.id)).await, "C(RESUME) Z(I)");
    assert_eq!(transcript(&back.until_ready().await), ONE);
    // One client alone, by its id.
    let mut victim = gate.wire(stark).await;
    let clients = show(&mut admin, "CLIENTS").await;
    let ids = clients.iter().filter(|row| row["tenant"] == stark.id).map(|row| &row["id"]);
    let id = ids.max_by_key(|id| id.parse::<u64>().unwrap()).unwrap();
    assert_eq!(admin.query(&format!("KILL_CLIENT {id}")).await, "C(KILL_CLIENT) Z(I)");
    assert_eq!(victim.until_closed().await, "E(57P01)");
    assert_eq!(back.query("SELECT 1").await, ONE);
    assert_eq!(admin.query(&format!("KILL CLIENT {id}")).await, "E(42704) Z(I)");
}

#[tokio::test]
async fn disable_ends_sessions_at_their_boundary_and_outlives_a_reload() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    let mut admin = console(&gate).await;
    let stark = &estate.stark;
    let mut inside = gate.wire(stark).await;
    let mut idle = gate.wire(stark).await;
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(admin.query(&format!("DISABLE {}", stark.id)).await, "C(DISABLE) Z(I)");
    assert_eq!(idle.until_closed().await, "E(57P01)");
    assert_eq!(inside.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    inside.send(query("COMMIT")).await;
    assert_eq!(inside.until_closed().await, "C(COMMIT) Z(I) E(57P01)");
    assert_eq!(admin.query("RELOAD").await, "C(RELOAD) Z(I)");
    let refused = gate.try_connect(stark).await.expect_err("it is disabled");
    assert_eq!(refused.code().unwrap().code(), "28P01");
    assert_eq!(gate.wire(&estate.umbrella).await.query("SELECT 1").await, ONE);
    let tenants = show(&mut admin, "TENANTS").await;
    assert_eq!(one(&tenants, "tenant", &stark.id)["state"], "disabled");
    assert_eq!(admin.query(&format!("ENABLE {}", stark.id)).await, "C(ENABLE) Z(I)");
    assert_eq!(gate.wire(stark).await.query("SELECT 1").await, ONE);
    assert_eq!(admin.query(&format!("ENABLE {}", stark.id)).await, "E(55000) Z(I)");
}

#[tokio::test]
async fn reconnect_replaces_servers_as_they_come_free() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    let mut admin = console(&gate).await;
    let stark = &estate.stark;
    let pid = "SELECT pg_backend_pid()";
    let mut inside = gate.wire(stark).await;
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    let before = inside.query(pid).await.replace("Z(T)", "Z(I)");
    assert_eq!(admin.query(&format!("RECONNECT {}", stark.id)).await, "C(RECONNECT) Z(I)");
    let servers = show(&mut admin, "SERVERS").await;
    assert_eq!(one(&servers, "user", &login_of(stark))["close_needed"], "1");
    assert_eq!(inside.query(pid).await.replace("Z(T)", "Z(I)"), before);
    assert_eq!(inside.query("COMMIT").await, "C(COMMIT) Z(I)");
    let after = inside.query(pid).await;
    assert_ne!(after, before);
    assert_eq!(inside.query(pid).await, after);
    assert_eq!(admin.query("RECONNECT").await, "C(RECONNECT) Z(I)");
    assert_ne!(inside.query(pid).await, after);
}

#[tokio::test]
async fn drain_lets_nobody_in_and_resume_opens_again() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    let mut admin = console(&gate).await;
    let mut other = console(&gate).await;
    let mut inside = gate.wire(&estate.stark).await;
    let mut idle = gate.wire(&estate.acme).await;
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    admin.send(query("DRAIN")).await;
    assert_eq!(idle.until_closed().await, "E(57P01)");
    let refused = gate.try_connect(&estate.acme).await.expect_err("it drains");
    assert_eq!(refused.code().unwrap().code(), "57P01");
    assert_eq!(super::get(gate.http, "/ready").await.0, 503);
    assert!(is_silent(&mut admin).await, "DRAIN returned before the transaction was over");
    inside.send(query("COMMIT")).await;
    assert_eq!(inside.until_closed().await, "C(COMMIT) Z(I) E(57P01)");
    assert_eq!(transcript(&admin.until_ready().await), "C(DRAIN) Z(I)");
    assert_eq!(show(&mut other, "CLIENTS").await.len(), 0);
    assert_eq!(admin.query("RESUME").await, "C(RESUME) Z(I)");
    assert_eq!(super::get(gate.http, "/ready").await.0, 200);
    assert_eq!(gate.wire(&estate.stark).await.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn shutdown_waits_for_what_it_is_told_to() {
    for (order, ends) in [
        ("SHUTDOWN", "E(57P01)"),
        ("SHUTDOWN WAIT_FOR_SERVERS", "C(COMMIT) Z(I) E(57P01)"),
        ("SHUTDOWN WAIT_FOR_CLIENTS", "C(COMMIT) Z(I)"),
    ] {
        let (estate, mut gate) = gate(&Tweaks::default()).await;
        let mut admin = console(&gate).await;
        let mut inside = gate.wire(&estate.stark).await;
        assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
        assert_eq!(admin.query(order).await, "C(SHUTDOWN) Z(I)");
        if order != "SHUTDOWN" {
            inside.send(query("COMMIT")).await;
        }
        if order.ends_with("CLIENTS") {
            assert_eq!(transcript(&inside.until_ready().await), ends);
            assert_eq!(inside.query("SELECT 1").await, ONE);
            assert!(gate.try_connect(&estate.stark).await.is_err(), "nobody new gets in");
            drop(inside);
        } else {
            assert_eq!(inside.until_closed().await, ends, "{order}");
        }
        assert_eq!(gate.exit().await.code(), Some(0), "{order}");
    }
}

#[tokio::test]
async fn every_order_is_in_the_log_with_who_gave_it_and_what_came_of_it() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    let mut admin = console(&gate).await;
    admin.query(&format!("PAUSE TENANT {}", estate.stark.id)).await;
    admin.query("KILL nobody").await;
    gate.logs("command=KILL").await;
    let lines = gate.log();
    let found = |what: &str| lines.lines().find(|line| line.contains(what)).map(str::to_owned);
    let paused = found(&format!("command=PAUSE TENANT \"{}\"", estate.stark.id)).expect(&lines);
    for part in ["console command", "user=\"admin\"", "peer=127.0.0.1:", "outcome=\"done\""] {
        assert!(paused.contains(part), "{part} in {paused}");
    }
    let killed = found("command=KILL \"nobody\"").expect(&lines);
    assert!(killed.contains("outcome=\"failed: no tenant or database"), "{killed}");
}

#[tokio::test]
async fn a_command_that_is_not_carried_out_says_what_is_so_and_what_was_meant() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    let mut admin = console(&gate).await;
    let acme = estate.acme.id.as_str();
    let cases = [
        ("RESUME", "nothing is paused", ""),
        ("RESUME TENANT $", "tenant \"$\" is not paused", ""),
        ("RESUME app", "database \"app\" is not paused", ""),
        ("ENABLE $", "tenant \"$\" is not disabled", ""),
        ("READ_WRITE $", "READ_ONLY was not said of tenant \"$\"", ""),
        ("DISABLE TENANT app", "no tenant \"app\"", "DATABASE app means it."),
        ("DISABLE DATABASE $", "no database \"$\"", "TENANT $ means it."),
        ("PAUSE app@man", "no tenant or database \"app@man\"", "SHOW TENANTS and SHOW DATABASES"),
        ("SET BUDGET nobody clients = 1 FOR '1h'", "no tenant \"nobody\"", "SHOW TENANTS lists"),
        ("RESET BUDGET $", "SET BUDGET has set nothing for tenant \"$\"", ""),
        ("SET BUDGET $ clients = 'many' FOR '1h'", "\"many\" is not a whole number", "tiers.NAME"),
        ("SHOW POLS", "syntax error at or near \"POLS\"", "Did you mean SHOW POOLS?"),
        ("KILL", "syntax error at end of input", "Write KILL TARGET, or KILL_CLIENT ID."),
        ("MOVE TENANT nobody", "no tenant \"nobody\"", "SHOW TENANTS lists"),
    ];
    for (command, message, hint) in cases {
        let [command, message, hint] = [command, message, hint].map(|it| it.replace('$', acme));
        admin.send(query(&command)).await;
        let said = admin.until_ready().await;
        let error = said.iter().find(|frame| frame.tag == b'E').unwrap_or_else(|| {
            panic!("{command}: {}", transcript(&said));
        });
        let [told, hinted] = ['M', 'H'].map(|letter| error.field(letter).unwrap_or_default());
        assert!(told.starts_with(&message), "{command}: {told}");
        assert!(hinted.contains(&hint), "{command}: {hinted}");
    }
    admin.query("BEGIN").await;
    admin.send(query("RELOAD")).await;
    let said = admin.until_ready().await;
    let hinted = said.iter().find_map(|frame| frame.field('H')).unwrap_or_default();
    assert!(hinted.starts_with("Turn autocommit on"), "{}", transcript(&said));
}
