//! The revoke pack as one list: what it says is still usable is usable, what it revokes is gone,
//! and what it gives back is what PostgreSQL had given.

use tenantgate::demo::{Cluster, Plan};
use tenantgate::isolation::pack::{self, Entry, PACK, Weight};
use tokio_postgres::Client;

use crate::harness::cluster::{connect, of, superuser, versions};
use crate::harness::tenants::LOGIN_PASSWORD;
use crate::install::tools::rows;

async fn missing(client: &Client, weight: Weight) -> String {
    rows(client, &pack::missing_sql(&[weight])).await.remove(0).remove(0)
}

/// Runs each statement that the entries' queries ask for, and gives the entries that had some.
async fn carry_out(client: &Client, select: impl Fn(&Entry) -> String) -> Vec<&'static str> {
    let mut entries = Vec::new();
    for entry in &PACK {
        let statements = rows(client, &select(entry)).await.concat();
        for sql in &statements {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        entries.extend((!statements.is_empty()).then_some(entry.name));
    }
    entries
}

/// What each entry is there against, as the login or its role would try it.
const USES: [(&str, &str); 17] = [
    ("set_config", "SELECT set_config('app.tenant_id', 'x', false)"),
    ("pg_settings", "UPDATE pg_settings SET setting = '1' WHERE name = 'work_mem'"),
    ("languages", "DO $$ BEGIN NULL; END $$"),
    ("languages", "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    ("temporary", "CREATE TEMP TABLE t (x int)"),
    ("create_in_public", "CREATE TABLE public.t (x int)"),
    ("carrier", "SET backtrace_functions = '0x'"),
    ("activity", "SELECT query FROM pg_stat_activity"),
    ("activity", "SELECT pg_stat_get_backend_activity(1)"),
    ("signals", "SELECT pg_cancel_backend(0)"),
    ("signals", "SELECT pg_terminate_backend(0)"),
    ("notify", "SELECT pg_notify('a', 'b')"),
    ("setseed", "SELECT setseed(0.5)"),
    ("large_objects", "SELECT lo_from_bytea(0, 'x')"),
    ("locks", "SELECT count(*) FROM pg_locks"),
    ("prepared_transactions", "SELECT count(*) FROM pg_prepared_xacts"),
    ("pg_stat_statements", "SELECT count(*) FROM extensions.pg_stat_statements"),
];

async fn refused(client: &Client, sql: &str) -> bool {
    let outcome = client.batch_execute(&format!("BEGIN; {sql}; ROLLBACK")).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    outcome.is_err_and(|error| error.code().is_some_and(|code| code.code() == "42501"))
}

#[tokio::test]
async fn what_the_pack_takes_away_nobody_can_use_and_what_it_gives_back_everybody_can() {
    for (major, template) in versions() {
        println!("PostgreSQL {major}");
        take_away_and_give_back(&of(template, &Plan::default()).await).await;
    }
}

async fn take_away_and_give_back(cluster: &Cluster) {
    let dba = superuser(cluster, "app").await;
    // As after an upgrade from 14, with an extension, and with grants somebody made by hand.
    dba.batch_execute(
        "CREATE SCHEMA extensions; GRANT USAGE ON SCHEMA extensions TO PUBLIC; \
         CREATE EXTENSION pg_stat_statements SCHEMA extensions; \
         GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT CREATE ON SCHEMA public TO app_rw; \
         GRANT SET ON PARAMETER backtrace_functions TO PUBLIC; \
         GRANT TEMPORARY ON DATABASE app TO tg_login; GRANT SELECT (query) ON pg_stat_activity \
         TO app_rw; GRANT EXECUTE ON FUNCTION set_config TO app_rw",
    )
    .await
    .unwrap();
    let login = connect(&cluster.conninfo("tg_login", LOGIN_PASSWORD, "app")).await.unwrap();
    let names = |weight: Weight| -> String {
        let mut names: Vec<_> =
            PACK.iter().filter(|it| it.weight == weight).map(|it| it.name).collect();
        names.sort_unstable();
        names.join(", ")
    };
    for weight in [Weight::Essential, Weight::Exposure] {
        assert_eq!(missing(&login, weight).await, names(weight));
    }
    assert!(PACK.iter().all(|entry| USES.iter().any(|(name, _)| *name == entry.name)));
    for (name, sql) in USES {
        assert!(!refused(&login, sql).await, "{name} before: {sql}");
    }

    let revoke = |entry: &Entry| entry.revoke_sql(["tg_login", "app_rw"]);
    assert_eq!(carry_out(&dba, revoke).await.len(), PACK.len());
    assert_eq!(carry_out(&dba, revoke).await, [""; 0]);
    for weight in [Weight::Essential, Weight::Exposure] {
        assert_eq!(missing(&login, weight).await, "");
    }
    for role in ["RESET ROLE", "SET ROLE app_rw"] {
        login.batch_execute(role).await.unwrap();
        for (name, sql) in USES {
            assert!(refused(&login, sql).await, "{name} after {role}: {sql}");
        }
        for entry in &PACK {
            let usable = entry.usable_sql("current_user::regrole::oid");
            let usable = rows(&login, &format!("SELECT {usable}")).await;
            assert_eq!(usable, [["f"]], "{} after {role}", entry.name);
        }
    }

    // One of them coming back, to a role the login can only become, is seen.
    dba.batch_execute("CREATE ROLE other; GRANT USAGE ON LANGUAGE sql TO other").await.unwrap();
    assert_eq!(missing(&login, Weight::Essential).await, "");
    dba.batch_execute("GRANT other TO app_rw").await.unwrap();
    assert_eq!(missing(&login, Weight::Essential).await, "languages");
    dba.batch_execute("REVOKE other FROM app_rw; ALTER DATABASE app OWNER TO tg_login")
        .await
        .unwrap();
    assert_eq!(missing(&login, Weight::Essential).await, "create_in_public, temporary");
    dba.batch_execute("ALTER DATABASE app OWNER TO postgres").await.unwrap();

    login.batch_execute("RESET ROLE").await.unwrap();
    assert_eq!(carry_out(&dba, Entry::restore_sql).await.len(), PACK.len() - 2);
    for (name, sql) in USES {
        // What PostgreSQL gives to nobody is not given back.
        let kept = ["create_in_public", "carrier"].contains(&name) || sql.contains("public.f");
        assert_eq!(refused(&login, sql).await, kept, "{name} given back: {sql}");
    }
    assert_eq!(carry_out(&dba, Entry::restore_sql).await, [""; 0]);
}
