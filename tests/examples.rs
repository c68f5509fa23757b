//! The files people copy must work: the container example's SQL and settings, on real clusters.

use tenantgate::demo::{Cluster, Plan};

use crate::harness::certs::Authority;
use crate::harness::cluster::{self, superuser, template};
use crate::harness::gate::Gate;
use crate::harness::messages::transcript;
use crate::harness::wire::{Login, Wire};

const SETTINGS: &str = include_str!("../docker/tenantgate.toml");
const README: &str = include_str!("../docker/README.md");

/// A tenant of the example, as the table in its README has it.
struct Row<'readme> {
    id: &'readme str,
    dbname: &'readme str,
    token: &'readme str,
}

fn rows() -> Vec<Row<'static>> {
    let cells = |line: &'static str| -> Vec<&'static str> {
        line.split('|').map(|cell| cell.trim().trim_matches('`')).collect()
    };
    let lines = README.lines().filter(|line| line.contains("| `tg_"));
    let rows = lines.map(cells).map(|of| Row { id: of[1], dbname: of[3], token: of[4] });
    rows.collect()
}

async fn loaded(dbname: &str, sql: &str) -> Cluster {
    let cluster = Cluster::start(template(), &Plan::default()).unwrap();
    let postgres = superuser(&cluster, "postgres").await;
    postgres.batch_execute(&format!("CREATE DATABASE {dbname}")).await.unwrap();
    superuser(&cluster, dbname).await.batch_execute(sql).await.unwrap();
    cluster
}

async fn clusters() -> (Cluster, Cluster) {
    let shared = loaded("app", include_str!("../docker/init/shared.sql")).await;
    let silo = loaded("initech", include_str!("../docker/init/silo.sql")).await;
    (shared, silo)
}

#[tokio::test]
async fn the_container_examples_sql_gives_logins_what_they_need_and_no_more() {
    let (shared, silo) = clusters().await;
    let password = "login-of-the-example";
    let login = shared.conninfo("tg_login", password, "app");
    let client = cluster::connect(&login).await.unwrap();
    assert!(client.batch_execute("SELECT * FROM app.notes").await.is_err());
    let bind = "SET ROLE app_rw; SET app.tenant_id = 'acme'";
    client.batch_execute(bind).await.unwrap();
    assert_eq!(client.query("SELECT * FROM app.notes", &[]).await.unwrap().len(), 2);
    assert!(client.batch_execute("SELECT * FROM umbrella.notes").await.is_err());
    let login = silo.conninfo("tg_initech", password, "initech");
    let client = cluster::connect(&login).await.unwrap();
    assert_eq!(client.query("SELECT * FROM notes", &[]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_container_examples_settings_serve_the_tenants_of_its_readme() {
    let (shared, silo) = clusters().await;
    let settings = SETTINGS
        .replace("@shared:5432", &format!("@127.0.0.1:{}", shared.port()))
        .replace("@silo:5432", &format!("@127.0.0.1:{}", silo.port()))
        .replace("0.0.0.0:6432", "127.0.0.1:$PORT")
        .replace("0.0.0.0:9187", "127.0.0.1:$HTTP");
    let authority = Authority::new();
    let identity = authority.server(&["localhost"]);
    let files = [("gate.crt", identity.certificate.as_str()), ("gate.key", &identity.key)];
    let gate = Gate::start_with(&settings, &files).await;
    let seen = [
        ("acme", "T D(anvil) D(rocket skates) C(SELECT 2) Z(I)"),
        ("globex", "T D(weather machine) C(SELECT 1) Z(I)"),
        ("umbrella", "T D(green herb) D(red herb) C(SELECT 2) Z(I)"),
        ("initech", "T D(cover sheet) D(stapler) C(SELECT 2) Z(I)"),
    ];
    for (row, (id, notes)) in rows().iter().zip(seen) {
        assert_eq!(row.id, id);
        let config = authority.client_config();
        let mut wire = Wire::connect_tls(gate.port, config, "localhost").await.unwrap();
        let login = Login { user: "app", dbname: row.dbname, password: row.token, more: &[] };
        let frames = wire.authenticate(&login).await;
        assert!(transcript(&frames).ends_with("Z(I)"), "{id}: {frames:?}");
        assert_eq!(wire.query("SELECT body FROM notes ORDER BY id").await, notes, "{id}");
    }
}
