//! What begins also ends: servers that die, clients that leave, cancels, reloads, drains, and the
//! places that must come back every time.

mod beside;
mod cancels;
mod drain;
mod failover;
mod hosts;
mod kept;
mod pool;
mod reload;
mod reload_live;
mod servers;
mod shares;
mod timeouts;
mod workers;

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::harness::eventually;
use crate::harness::messages::{query, transcript};
use crate::harness::tenants::Tenant;
use crate::harness::wire::Wire;

/// The login of a tenant at its cluster: row tenants share one.
pub fn login_of(tenant: &Tenant) -> String {
    match tenant.isolation {
        "row" => "tg_login".to_owned(),
        _ => format!("tg_{}", tenant.id),
    }
}

/// Backends of a login, as the cluster counts them.
async fn backends(admin: &Client, login: &str) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
    admin.query_one(sql, &[&login]).await.unwrap().get(0)
}

/// Waits until a login runs a query that contains this text (or, with false, none does).
pub async fn runs(admin: &Client, login: &str, text: &str, wanted: bool) {
    let sql = "SELECT count(*) > 0 FROM pg_stat_activity \
               WHERE usename = $1 AND state = 'active' AND position($2 IN query) > 0";
    eventually(&format!("{login} runs {text}: {wanted}"), async || {
        let row = admin.query_one(sql, &[&login, &text]).await.unwrap();
        (row.get::<_, bool>(0) == wanted).then_some(())
    })
    .await;
}

/// Lets these ask one after the other while somebody holds the only server, who then ends its
/// transaction. Says in which order they were served.
async fn served(waiting: Vec<Wire>, holds: &mut Wire) -> Vec<usize> {
    let mut tasks = JoinSet::new();
    for (number, mut wire) in waiting.into_iter().enumerate() {
        wire.send(query("SELECT extract(epoch FROM clock_timestamp())")).await;
        tasks.spawn(async move {
            let heard = transcript(&wire.until_ready().await);
            let row =
                heard.strip_prefix("T D(").and_then(|it| it.strip_suffix(") C(SELECT 1) Z(I)"));
            // The server's clock: who hears its answer first depends on this machine's threads.
            let at: f64 = row.unwrap_or_else(|| panic!("{heard}")).parse().unwrap();
            (at, number, wire)
        });
        // Their packets must not overtake each other on the way to the gate, and on several workers
        // it is longer than the head start that the manual promises.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(holds.query("COMMIT").await, "C(COMMIT) Z(I)");
    let mut all = tasks.join_all().await;
    all.sort_by(|(one, ..), (other, ..)| one.total_cmp(other));
    all.into_iter().map(|(_, number, _)| number).collect()
}

/// Ends all backends of a login.
async fn end_backends(admin: &Client, login: &str) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
    admin.query(sql, &[&login]).await.unwrap();
}
