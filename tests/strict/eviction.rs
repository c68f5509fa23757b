//! Many logins over few places: everybody is served, and the server that goes is the one that has
//! been idle longest.

use std::time::Instant;

use tokio_postgres::Client;

use super::Crowd;
use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::tenants::Tweaks;

/// Tenants' numbers that have a server, in order.
async fn served(crowd: &Crowd, admin: &Client) -> Vec<usize> {
    let logins: Vec<String> = crowd.tenants.iter().map(|(id, _)| format!("t_{id}")).collect();
    let sql = "SELECT usename::text FROM pg_stat_activity WHERE usename = ANY ($1)";
    let rows = admin.query(sql, &[&logins]).await.unwrap();
    let at = |login: &str| logins.iter().position(|it| it == login).unwrap();
    let mut numbers: Vec<usize> = rows.iter().map(|row| at(row.get(0))).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn a_hundred_tenants_over_four_places_are_all_served() {
    let crowd = Crowd::new(100).await;
    for workers in ["workers = 1", "workers = 4"] {
        let gate = crowd.gate(&Tweaks { gate: workers, capacity: 4, ..Tweaks::default() }).await;
        let mut clients = Vec::new();
        for number in 0..100 {
            clients.push(crowd.wire(&gate, number).await);
        }
        let all = clients.into_iter().zip(&crowd.tenants).map(|(mut wire, (id, _))| async move {
            let wanted = format!("T D(t_{id},{id}) C(SELECT 1) Z(I)");
            let sql = "SELECT session_user, body FROM notes";
            assert_eq!(wire.query(sql).await, wanted);
        });
        futures::future::join_all(all).await;

        let admin = superuser(shared().await, "app").await;
        assert!(served(&crowd, &admin).await.len() <= 4);
    }
}

async fn who_goes(workers: &str) {
    let crowd = Crowd::new(8).await;
    let gate = crowd.gate(&Tweaks { gate: workers, capacity: 3, ..Tweaks::default() }).await;
    let admin = superuser(shared().await, "app").await;
    let mut wires = Vec::new();
    for number in 0..8 {
        wires.push(crowd.wire(&gate, number).await);
    }
    let mut latest: Vec<usize> = Vec::new();
    for number in [0, 1, 2, 3, 4, 2, 5, 4, 6, 7, 0, 6, 1] {
        assert_eq!(wires[number].query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
        latest.retain(|it| *it != number);
        latest.push(number);
        let mut wanted: Vec<usize> = latest.iter().rev().take(3).copied().collect();
        wanted.sort_unstable();
        let moment = Instant::now();
        // Twice as long as it takes until every worker has told what idles there.
        eventually("the servers of those who came last, for a while", async || {
            let found = served(&crowd, &admin).await;
            assert!(found.len() <= 3, "{found:?}");
            let same = latest.len() < 3 || found == wanted;
            (same && moment.elapsed().as_millis() > 250).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_server_of_the_login_that_is_unused_longest_goes() {
    who_goes("workers = 1").await;
}

#[tokio::test]
async fn the_server_that_goes_may_be_another_workers() {
    who_goes("workers = 4").await;
}
