//! The pool: never more servers than the capacity, first come first served, nothing kept too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use super::{backends, login_of, served};
use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{ONE, query};
use crate::harness::tenants::{Estate, Tweaks};

#[tokio::test]
async fn the_cluster_never_sees_more_servers_than_the_capacity() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 3, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let logins: Vec<String> = estate.one_of_each().iter().skip(1).map(|it| login_of(it)).collect();
    let logins = [logins, vec![login_of(&estate.stark)]].concat();
    let (over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let watching = {
        let (over, most) = (over.clone(), most.clone());
        let admin = superuser(shared().await, "app").await;
        tokio::spawn(async move {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = ANY ($1)";
            while !over.load(Ordering::Relaxed) {
                let seen: i64 = admin.query_one(sql, &[&logins]).await.unwrap().get(0);
                most.fetch_max(seen, Ordering::Relaxed);
            }
        })
    };
    // Three logins, so every change of tenant closes one server and opens another.
    let tenants = [&estate.umbrella, &estate.initech, &estate.stark];
    let mut clients = Vec::new();
    for number in 0..9 {
        let mut wire = gate.wire(tenants[number % 3]).await;
        clients.push(tokio::spawn(async move {
            for turn in 0..4 {
                assert_eq!(wire.query("SELECT 1").await, ONE);
                if turn == number % 4 {
                    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
                    assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
                }
            }
            // Some leave in mid-query.
            if number % 4 == 0 {
                wire.send(query("SELECT pg_sleep(600)")).await;
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    for tenant in tenants {
        assert_eq!(gate.wire(tenant).await.query("SELECT 1").await, ONE);
    }
    over.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!((2..=3).contains(&most), "{most} servers at the same time");
}

#[tokio::test]
async fn who_waits_is_served_in_order_of_arrival() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 1, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut holds = gate.wire(&estate.stark).await;
    let mut waiting = Vec::new();
    for number in 0..8 {
        // First those of the tenant that has the server, and then they are of one tenant.
        let tenant = if number < 4 { &estate.acme } else { &estate.stark };
        waiting.push(gate.wire(tenant).await);
    }
    assert_eq!(holds.query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(served(waiting, &mut holds).await, Vec::from_iter(0..8));
}

#[tokio::test]
async fn servers_idle_too_long_and_servers_too_old_are_closed() {
    let estate = Estate::new().await;
    let cluster = "server_idle_timeout = \"300ms\"\nserver_lifetime = \"700ms\"";
    let gate = Gate::start(&estate.settings(&Tweaks { cluster, ..Tweaks::default() })).await;
    let admin = superuser(shared().await, "app").await;
    let login = login_of(&estate.stark);
    let mut wire = gate.wire(&estate.stark).await;
    assert_eq!(wire.query("SELECT 1").await, ONE);
    assert_eq!(backends(&admin, &login).await, 1);
    eventually("it is closed for being idle", async || {
        (backends(&admin, &login).await == 0).then_some(())
    })
    .await;
    // One that is busy all the time is replaced once it is old.
    let first = wire.query("SELECT pg_backend_pid()").await;
    eventually("it is closed for its age", async || {
        (wire.query("SELECT pg_backend_pid()").await != first).then_some(())
    })
    .await;
    // Inside a transaction age does not matter.
    wire.query("BEGIN").await;
    let pid = wire.query("SELECT pg_backend_pid()").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(wire.query("SELECT pg_backend_pid()").await, pid);
    assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
}

#[tokio::test]
async fn a_server_that_is_in_doubt_is_closed_and_not_reused() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 1, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut pids = std::collections::HashSet::new();
    for _ in 0..4 {
        let mut wire = gate.wire(&estate.stark).await;
        wire.query("BEGIN").await;
        let pid = wire.query("SELECT pg_backend_pid()").await;
        assert!(pids.insert(pid), "a server with an open transaction was handed on");
        drop(wire);
    }
    // One that was left in good order is handed on.
    let mut wire = gate.wire(&estate.stark).await;
    let pid = wire.query("SELECT pg_backend_pid()").await;
    drop(wire);
    let mut next = gate.wire(&estate.stark).await;
    assert_eq!(next.query("SELECT pg_backend_pid()").await, pid);
}

#[tokio::test]
async fn a_crowd_of_clients_shares_few_servers_and_all_are_served() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 2, ..Tweaks::default() };
    let gate = Arc::new(Gate::start(&estate.settings(&tweaks)).await);
    let mut clients = Vec::new();
    for number in 0..60 {
        let mut wire = gate.wire([&estate.acme, &estate.globex][number % 2]).await;
        clients.push(tokio::spawn(async move {
            for _ in 0..20 {
                let said = wire.query("SELECT count(*) FROM notes").await;
                assert_eq!(said, "T D(3) C(SELECT 1) Z(I)");
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
}
