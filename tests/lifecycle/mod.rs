//! What begins also ends: servers that die, clients that leave, cancels, reloads, drains, and the
//! places that must come back every time.

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

use tokio_postgres::Client;

use crate::harness::eventually;
use crate::harness::tenants::Tenant;

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

/// Ends all backends of a login.
async fn end_backends(admin: &Client, login: &str) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
    admin.query(sql, &[&login]).await.unwrap();
}
