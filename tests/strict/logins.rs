//! How they log in: with a password made of a secret, which another secret changes.

use super::Crowd;
use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::tenants::Tweaks;

#[tokio::test]
async fn tenants_log_in_as_themselves_and_reach_their_own_schema_only() {
    let crowd = Crowd::new(2).await;
    let gate = crowd.gate(&Tweaks { capacity: 2, ..Tweaks::default() }).await;
    let ids: Vec<&str> = crowd.tenants.iter().map(|(id, _)| id.as_str()).collect();
    for (own, other) in [(0, 1), (1, 0)] {
        let mut wire = crowd.wire(&gate, own).await;
        let wanted = format!("T D(t_{0},t_{0}) C(SELECT 1) Z(I)", ids[own]);
        assert_eq!(wire.query("SELECT session_user, current_user").await, wanted);
        let wanted = format!("T D({}) C(SELECT 1) Z(I)", ids[own]);
        assert_eq!(wire.query("SELECT body FROM notes").await, wanted);
        let reach = format!("SELECT body FROM s_{}.notes", ids[other]);
        assert_eq!(wire.query(&reach).await, "E(42501) Z(I)");
        for sql in [format!("SET ROLE t_{}", ids[other]), format!("SET ROLE s_{}", ids[other])] {
            let said = wire.query(&sql).await;
            assert!(said.starts_with("E("), "{sql}: {said}");
        }
        // What it makes is its own.
        assert_eq!(wire.query("CREATE TABLE mine(id int)").await, "C(CREATE TABLE) Z(I)");
        assert_eq!(wire.query("DROP TABLE mine").await, "C(DROP TABLE) Z(I)");
    }
}

#[tokio::test]
async fn another_secret_counts_from_the_reload_on() {
    const OTHER: &str = "another secret that has more than thirty-two bytes";
    let crowd = Crowd::new(1).await;
    let gate = crowd.gate(&Tweaks::default()).await;
    let mut wire = crowd.wire(&gate, 0).await;
    let one = "T D(1) C(SELECT 1) Z(I)";
    assert_eq!(wire.query("SELECT 1").await, one);
    // The gate has a password that PostgreSQL does not know yet.
    std::fs::write(gate.folder().join("logins.key"), OTHER).unwrap();
    gate.reload();
    gate.logs("reloaded the catalog").await;
    eventually("the old servers are not used any more", async || {
        (wire.query("SELECT 1").await == "E(08001) Z(I)").then_some(())
    })
    .await;
    gate.logs("could not connect to a cluster").await;
    crowd.install(OTHER).await;
    assert_eq!(wire.query("SELECT 1").await, one);
    // Whoever read the database's copy of the password has nothing to log in with.
    let admin = superuser(shared().await, "app").await;
    let sql =
        format!("SELECT rolpassword FROM pg_authid WHERE rolname = 't_{}'", crowd.tenants[0].0);
    let kept: String = admin.query_one(&sql, &[]).await.unwrap().get(0);
    assert!(kept.starts_with("SCRAM-SHA-256$4096:"), "{kept}");
    assert!(!gate.log().contains(OTHER));
}
