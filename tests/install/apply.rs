//! The command: what it prints is what it applies, it may be run again, it says what it may not do,
//! it replaces what is older, and it takes away what it brought.

use tenantgate::demo::{Cluster, Plan};

use crate::harness::cluster::{connect, of, own, superuser, template, versions};
use crate::harness::tenants::LOGIN_PASSWORD;
use crate::install::enter::POLICIES;
use crate::install::page::blocks;
use crate::install::tools::{NEW, OLD, Setup, enter, login, rows, state, tenant_id};

/// What everybody and our roles may do in database `app`, as PostgreSQL tells it.
async fn rights(cluster: &Cluster) -> Vec<Vec<String>> {
    let dba = superuser(cluster, "app").await;
    let granted = "r.oid, o.oid";
    rows(
        &dba,
        &format!(
            "SELECT r.name, o.name FROM (VALUES ('PUBLIC', 0::oid), \
             ('login', 'tg_login'::regrole), \
             ('role', 'app_rw'::regrole)) r(name, oid), LATERAL (SELECT p.oid::regprocedure::text \
             FROM pg_proc p WHERE has_function_privilege(r.oid, p.oid, 'EXECUTE') UNION ALL \
             SELECT o.oid::regclass::text || ' ' || kind FROM pg_class o, (VALUES ('SELECT'), \
             ('UPDATE')) k(kind) WHERE has_table_privilege({granted}, kind) UNION ALL \
             SELECT lanname FROM pg_language o WHERE has_language_privilege({granted}, 'USAGE') \
             UNION ALL SELECT datname || kind FROM pg_database o, (VALUES ('CONNECT'), \
             ('TEMPORARY')) k(kind) WHERE datname = 'app' \
             AND has_database_privilege({granted}, kind) \
             UNION ALL SELECT nspname || kind FROM pg_namespace o, (VALUES ('CREATE'), ('USAGE')) \
             k(kind) WHERE has_schema_privilege({granted}, kind)) o(name) ORDER BY 1, 2"
        ),
    )
    .await
}

#[tokio::test]
async fn what_is_printed_is_what_is_applied_and_a_second_run_finds_all_of_it_there() {
    for (major, template) in versions() {
        println!("PostgreSQL {major}");
        let cluster = of(template, &Plan::default()).await;
        let setup = Setup::new(&cluster, "guard", OLD);
        setup.psql(&[]);
        let said = setup.install(&[]);
        assert_eq!((said.code, said.outcomes()), (0, vec!["there already"]), "{said:?}");
        setup.psql(&[]);
        let before = rights(&cluster).await;
        let client = login(&cluster).await;
        assert_eq!(enter(&client, &setup.seal(OLD), "acme").await.unwrap(), "acme");
        // Neither the command nor the server's log says a key.
        assert!(!said.out.contains("01010101") && !said.err.contains("01010101"));

        let printed = setup.install(&["--print", "--uninstall"]);
        assert!(printed.out.contains("DROP SCHEMA tenantgate"), "{printed:?}");
        setup.psql(&["--uninstall"]);
        assert_eq!(state(&login(&cluster).await, "SELECT tenantgate.tenant_id()").await, "3F000");
        let said = setup.install(&[]);
        assert!(said.outcomes().contains(&"created"), "{said:?}");
        assert_eq!(rights(&cluster).await, before);
    }
}

#[tokio::test]
async fn a_services_login_may_connect_where_nobody_else_may() {
    let cluster = of(template(), &Plan::default()).await;
    let setup = Setup::new(&cluster, "guard", "");
    let conninfo = cluster.conninfo("backend_login", LOGIN_PASSWORD, "app");
    let service =
        format!("[services.backend]\ncluster = \"main\"\nconnection_string = \"{conninfo}\"\n");
    let text = std::fs::read_to_string(setup.settings()).unwrap();
    std::fs::write(setup.settings(), format!("{text}{service}")).unwrap();
    // Before the login is there, the rest is prepared.
    setup.psql(&[]);
    let admin = superuser(&cluster, "app").await;
    let create = format!("CREATE ROLE backend_login LOGIN PASSWORD '{LOGIN_PASSWORD}'");
    admin.batch_execute(&create).await.unwrap();
    assert!(connect(&conninfo).await.is_err(), "PUBLIC may not");
    assert!(setup.install(&[]).code == 0);
    connect(&conninfo).await.unwrap();
    let said = setup.install(&[]);
    assert_eq!((said.code, said.outcomes()), (0, vec!["there already"]), "{said:?}");
}

#[tokio::test]
async fn keys_do_not_get_into_the_servers_log() {
    let settings = "log_statement = 'all'\nlog_min_duration_statement = 0\n".to_owned();
    let cluster = own(&Plan { settings, ..Plan::default() }).await;
    let setup = Setup::new(&cluster, "guard", OLD);
    assert_eq!(setup.install(&[]).code, 0);
    let log = cluster.log();
    assert!(log.contains("CREATE TABLE tenantgate.keys"));
    // The two halves of every key begin and end with the pads' own bytes.
    assert!(!log.contains("3636363636") && !log.contains("INSERT INTO tenantgate.keys"), "{log}");
}

#[tokio::test]
async fn what_is_taken_away_leaves_everybody_what_postgresql_gives() {
    for (major, template) in versions() {
        println!("PostgreSQL {major}");
        let cluster = of(template, &Plan::default()).await;
        let before = rights(&cluster).await;
        let setup = Setup::new(&cluster, "guard", OLD);
        assert_eq!(setup.install(&[]).code, 0);
        assert_ne!(rights(&cluster).await, before);
        let dba = superuser(&cluster, "app").await;
        dba.batch_execute(POLICIES).await.unwrap();

        // Not without being asked, and not from under a policy.
        let said = setup.install(&["--uninstall"]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains("--yes"), "{said:?}");
        let said = setup.install(&["--uninstall", "--yes"]);
        assert_eq!(said.code, 1, "{said:?}");
        let users = said.of("use of tenantgate.tenant_id()");
        assert!(users.contains("policy own_rows on table app.notes"), "{users}");
        assert!(users.contains("default value for column tenant_id"), "{users}");
        let client = login(&cluster).await;
        assert_eq!(enter(&client, &setup.seal(OLD), "acme").await.unwrap(), "acme");

        dba.batch_execute(
            "DROP POLICY own_rows ON app.notes; ALTER TABLE app.notes ALTER tenant_id DROP DEFAULT",
        )
        .await
        .unwrap();
        let said = setup.install(&["--uninstall", "--yes"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(rights(&cluster).await, before);
        let left = "SELECT count(*) FROM pg_roles WHERE rolname = 'tenantgate_owner'";
        assert_eq!(rows(&dba, left).await.concat(), ["0"]);
        let said = setup.install(&["--uninstall", "--yes"]);
        assert_eq!((said.code, said.outcomes()), (0, vec!["there already"]), "{said:?}");
    }
}

#[tokio::test]
async fn a_role_that_is_no_superuser_gets_as_far_as_it_can_and_is_told_what_is_refused() {
    for (major, template) in versions() {
        println!("PostgreSQL {major}");
        // As managed services have it: CREATEROLE, and the database is its own.
        let cluster = tenantgate::demo::Cluster::start(template, &Plan::default()).unwrap();
        let dba = superuser(&cluster, "postgres").await;
        let sql = "CREATE ROLE manager LOGIN CREATEROLE CREATEDB PASSWORD 'manager'";
        dba.batch_execute(sql).await.unwrap();
        dba.batch_execute("CREATE DATABASE app OWNER manager").await.unwrap();
        let setup = Setup::new(&cluster, "sealed", OLD);
        let setup = setup.admin(cluster.conninfo("manager", "manager", "app"));
        let said = setup.install(&[]);
        assert_eq!(said.code, 1, "{said:?}");
        // As the page shows it, with this verdict.
        assert!(blocks("text")[0].contains("level sealed is wanted, plain can be had"));
        for line in blocks("text")[0].lines() {
            assert!(said.out.contains(line), "{line:?} not in {said:?}");
        }
        for refused in ["SET backtrace_functions", "revoke set_config", "revoke languages"] {
            assert!(said.of(refused).starts_with("refused: 42501 "), "{said:?}");
        }
        // The database is its own, so what belongs to it can be taken away, and the rest is there.
        for made in ["role app_rw", "login tg_login", "table tenantgate.keys", "tenantgate.enter()"]
        {
            assert_eq!(said.of(made), "created", "{said:?}");
        }
        assert_eq!(said.of("revoke temporary"), "there already", "{said:?}");

        // Level plain is whole: a second run has nothing to do, and policies can call tenant_id().
        setup.write("plain", "");
        let said = setup.install(&[]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("level plain is in place"), "{said:?}");
        let said = setup.install(&[]);
        assert_eq!((said.code, said.outcomes()), (0, vec!["there already"]), "{said:?}");
        let password = format!("ALTER ROLE tg_login PASSWORD '{LOGIN_PASSWORD}'");
        dba.batch_execute(&password).await.unwrap();
        let client = login(&cluster).await;
        client.batch_execute("SET app.tenant_id = 'acme'").await.unwrap();
        assert_eq!(tenant_id(&client).await.as_deref(), Some("acme"));

        // What a superuser did once stays done, and then it can have the whole.
        let super_setup = Setup::new(&cluster, "guard", OLD);
        assert_eq!(super_setup.install(&[]).code, 0);
        setup.write("guard", OLD);
        let said = setup.install(&[]);
        assert_eq!((said.code, said.outcomes()), (0, vec!["there already"]), "{said:?}");
    }
}

#[tokio::test]
async fn an_older_installation_is_replaced_and_a_newer_one_is_left_alone() {
    let cluster = own(&Plan::default()).await;
    let setup = Setup::new(&cluster, "guard", OLD);
    let dba = superuser(&cluster, "app").await;
    // Of before: other arguments, no owner of its own, open to everybody, a key nobody knows.
    dba.batch_execute(
        "CREATE SCHEMA tenantgate; GRANT ALL ON SCHEMA tenantgate TO app_rw; \
         CREATE TABLE tenantgate.keys (kid text PRIMARY KEY, ikey bytea NOT NULL, \
         okey bytea NOT NULL, added_at timestamptz NOT NULL DEFAULT now()); \
         GRANT SELECT ON tenantgate.keys TO PUBLIC; \
         INSERT INTO tenantgate.keys VALUES ('old', '', ''), ('lost', '', ''); \
         CREATE FUNCTION tenantgate.enter(text) RETURNS text LANGUAGE sql AS 'SELECT $1'; \
         CREATE FUNCTION tenantgate.tenant_id() RETURNS text LANGUAGE sql IMMUTABLE \
         SET search_path = public AS 'SELECT ''x'''; \
         COMMENT ON SCHEMA tenantgate IS 'tenantgate install, version 0, level plain'",
    )
    .await
    .unwrap();
    let said = setup.install(&[]);
    assert_eq!(said.code, 0, "{said:?}");
    for replaced in ["schema tenantgate", "table tenantgate.keys"] {
        assert_eq!(said.of(replaced), "replaced", "{said:?}");
    }
    assert_eq!(said.of("other keys"), "removed");
    let client = login(&cluster).await;
    assert_eq!(enter(&client, &setup.seal(OLD), "acme").await.unwrap(), "acme");
    assert_eq!(state(&client, "SELECT * FROM tenantgate.keys").await, "42501");
    assert_eq!(state(&client, "SELECT tenantgate.enter('globex')").await, "42883");
    client.batch_execute("SET ROLE app_rw").await.unwrap();
    let create = "CREATE TABLE tenantgate.t (x int)";
    assert_eq!(state(&client, create).await, "42501");
    assert_eq!(state(&client, "SELECT tenantgate.enter('a', 'b', 1, 'x')").await, "42501");

    let comment = "COMMENT ON SCHEMA tenantgate IS 'tenantgate install, version 99, level guard'";
    dba.batch_execute(comment).await.unwrap();
    setup.write("guard", NEW);
    let said = setup.install(&[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.of("newer version").contains("a newer tenantgate has installed here"), "{said:?}");
    let kids = "SELECT kid FROM tenantgate.keys";
    assert_eq!(rows(&dba, kids).await.concat(), ["old"]);
}

#[tokio::test]
async fn settings_without_a_key_file_leave_nobody_who_can_enter() {
    let cluster = own(&Plan::default()).await;
    let setup = Setup::new(&cluster, "guard", OLD);
    assert_eq!(setup.install(&[]).code, 0);
    setup.write("guard", "");
    let said = setup.install(&[]);
    assert_eq!((said.code, said.of("keys and tenantgate.enter()")), (0, "removed"), "{said:?}");
    let client = login(&cluster).await;
    assert_eq!(state(&client, "SELECT tenantgate.enter('a', 'b', 1, 'x')").await, "42883");
}

#[tokio::test]
async fn what_cannot_be_reached_or_does_not_exist_is_said() {
    let cluster = own(&Plan::default()).await;
    let setup = Setup::new(&cluster, "guard", OLD);
    let said = setup.install(&["--tenant", "globex"]);
    assert_eq!(
        (said.code, said.err.contains("no row or schema tenant \"globex\"")),
        (2, true),
        "{said:?}"
    );
    assert_eq!(setup.install(&["--tenant", "acme"]).code, 0);
    let setup = setup.admin(cluster.conninfo("postgres", "wrong", "app"));
    let said = setup.install(&[]);
    assert_eq!((said.code, said.err.contains("28P01")), (1, true), "{said:?}");
}
