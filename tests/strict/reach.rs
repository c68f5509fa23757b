//! From level guard on, a login that reaches more than its tenant's schema gets no connection.

use tokio_postgres::Client;

use super::Crowd;
use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::messages::ONE;
use crate::harness::tenants::Tweaks;

/// Ends the servers of a login, so that the next request needs a new one.
async fn end(admin: &Client, login: &str) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
    admin.query(sql, &[&login]).await.unwrap();
    let sql = "SELECT FROM pg_stat_activity WHERE usename = $1";
    eventually("they are gone", async || {
        admin.query(sql, &[&login]).await.unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_login_that_reaches_beyond_its_schema_is_refused_by_name() {
    let crowd = Crowd::new(2).await;
    let (own, other) = (&crowd.tenants[0].0, &crowd.tenants[1].0);
    let admin = superuser(shared().await, "app").await;
    let (shared_schema, role) = (format!("ext_{own}"), format!("r_{own}"));
    let made = format!("CREATE SCHEMA {shared_schema}; CREATE ROLE {role} NOLOGIN");
    admin.batch_execute(&made).await.unwrap();
    let level = format!("level = \"guard\"\nshared_schemas = [\"{shared_schema}\"]");
    let gate = crowd.gate(&Tweaks { cluster: &level, ..Tweaks::default() }).await;
    let mut wire = crowd.wire(&gate, 0).await;
    assert_eq!(wire.query("SELECT 1").await, ONE);
    // Grants, how they are taken back, and what the log says of them; or nothing, where they are
    // within reach.
    let on = |schema: &str, what: &str| {
        let (grant, from) = (format!("GRANT {what} ON SCHEMA {schema}"), format!("t_{own}"));
        (format!("{grant} TO {from}"), format!("REVOKE {what} ON SCHEMA {schema} FROM {from}"))
    };
    let member = |of: &str| (format!("GRANT {of} TO t_{own}"), format!("REVOKE {of} FROM t_{own}"));
    let foreign = format!("s_{other}");
    let cases = [
        (member(&format!("t_{other}")), format!("the login is a member of t_{other}")),
        (member(&role), format!("the login is a member of {role}")),
        (on(&foreign, "USAGE"), format!("the login may use schema {foreign}")),
        (on(&foreign, "CREATE"), format!("the login may create objects in schema {foreign}")),
        (on("public", "CREATE"), "the login may create objects in schema public".to_owned()),
        (
            on(&shared_schema, "CREATE"),
            format!("the login may create objects in schema {shared_schema}"),
        ),
        (on(&shared_schema, "USAGE"), String::new()),
    ];
    for ((grant, revoke), told) in cases {
        admin.batch_execute(&grant).await.unwrap();
        end(&admin, &format!("t_{own}")).await;
        if told.is_empty() {
            assert_eq!(wire.query("SELECT 1").await, ONE, "{grant}");
        } else {
            assert_eq!(wire.query("SELECT 1").await, "E(08001) Z(I)", "{grant}");
            gate.logs(&format!("level \"strict\" is not in force: {told}")).await;
        }
        admin.batch_execute(&revoke).await.unwrap();
        assert_eq!(wire.query("SELECT 1").await, ONE, "{revoke}");
    }
    assert_eq!(crowd.wire(&gate, 1).await.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn who_only_wants_to_be_told_is_served() {
    let crowd = Crowd::new(2).await;
    let admin = superuser(shared().await, "app").await;
    let (own, other) = (&crowd.tenants[0].0, &crowd.tenants[1].0);
    let grant = format!("GRANT t_{other} TO t_{own}");
    admin.batch_execute(&grant).await.unwrap();
    let told = format!("level \"strict\" is not in force: the login is a member of t_{other}");
    let level = "level = \"guard\"\nenforce_level = false";
    // Without a level nothing is promised, and nothing is looked at.
    for (cluster, wanted) in [(level, true), ("", false)] {
        let gate = crowd.gate(&Tweaks { cluster, ..Tweaks::default() }).await;
        let said = crowd.wire(&gate, 0).await.query("SELECT 1").await;
        assert_eq!(said, ONE);
        assert_eq!(gate.log().contains(&told), wanted, "{cluster}");
    }
}
