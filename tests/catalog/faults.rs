//! Rows that are wrong, or want too much: their tenant is kept out, and everybody else goes on.

use std::os::unix::fs::PermissionsExt;

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::ToSql;

use super::{Tables, kept_out, let_in, login, notes};
use crate::harness::cluster::{connect, shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD};
use crate::harness::{eventually, unique};

/// A gate with a console, in front of an estate and tables.
async fn with_console(estate: &Estate, tables: &Tables, more: &str) -> Gate {
    let admin = superuser(shared().await, "app").await;
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'tg_login'";
    let verifier: String = admin.query_one(sql, &[]).await.unwrap().get(0);
    let settings = tables.settings(estate, more);
    Gate::start(&format!("{settings}\n[console.users]\nadmin = \"{verifier}\"\n")).await
}

/// The rows of a SHOW.
async fn shown(gate: &Gate, what: &str) -> Vec<Vec<String>> {
    let (port, password) = (gate.port, LOGIN_PASSWORD);
    let console = format!("host=127.0.0.1 port={port} user=admin dbname=tenantgate");
    let console = connect(&format!("{console} password={password}")).await.unwrap();
    let rows = console.simple_query(&format!("SHOW {what}")).await.unwrap();
    let rows = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    rows.map(|row| (0..row.len()).map(|at| text(row.get(at))).collect()).collect()
}

/// The fault that is shown of a tenant: row, column, message.
async fn fault(gate: &Gate, id: &str) -> [String; 3] {
    let find = async || {
        let rows = shown(gate, "CATALOG_FAULTS").await;
        let row = rows.into_iter().find(|row| row[0] == id)?;
        Some([row[1].clone(), row[2].clone(), row[3].clone()])
    };
    eventually(&format!("a fault of {id}"), find).await
}

#[tokio::test]
async fn a_broken_row_is_its_tenants_alone() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let gate = with_console(&estate, &tables, "").await;
    let (good, bad) = (format!("good_{}", unique()), format!("bad_{}", unique()));
    let (good_token, bad_token) = (tables.add(&good).await, tables.add(&bad).await);
    let client = let_in(&gate, &good_token).await;
    let row = |id: &str| {
        format!(
            "cluster = 'main', tier = 'free', role = 'app_rw', schema = 'app',
                 overrides = '{{}}', connection_string = NULL WHERE id = '{id}'"
        )
    };
    for (change, column, words) in [
        ("cluster = 'lost'", "cluster", "does not exist"),
        ("tier = 'lost'", "tier", "does not exist"),
        ("role = 'pg_monitor'", "role", "PostgreSQL's own"),
        (r#"overrides = '{"clients": 0}'"#, "overrides", "zero"),
        (r#"overrides = '{"cleints": 1}'"#, "overrides", "cleints"),
        (r#"overrides = '{"query_time": 5}'"#, "overrides", "duration"),
        ("connection_string = 'host=127.0.0.1'", "connection_string", "user"),
        (
            "connection_string = 'host=127.0.0.1 user=x sslrootcert=/etc/passwd sslmode=verify-ca'",
            "connection_string",
            "files",
        ),
        (
            "connection_string = 'host=169.254.169.254 user=x sslmode=disable'",
            "connection_string",
            "link-local",
        ),
        ("connection_string = 'host=db.internal user=x'", "connection_string", "not allowed"),
    ] {
        let client = let_in(&gate, &bad_token).await;
        tables.run(&format!("UPDATE tenants SET {change} WHERE id = '{bad}'")).await;
        eventually("its session ends", async || client.is_closed().then_some(())).await;
        kept_out(&gate, &bad_token).await;
        let [from, at, message] = fault(&gate, &bad).await;
        assert_eq!((from.as_str(), at.as_str()), ("tenants", column), "{change}: {message}");
        assert!(message.contains(words), "{change}: {message}");
        tables.run(&format!("UPDATE tenants SET {}", row(&bad))).await;
    }
    let_in(&gate, &bad_token).await;
    assert!(shown(&gate, "CATALOG_FAULTS").await.is_empty());
    assert_eq!(notes(&client).await, [0; 0], "nobody else noticed");
    let whole = shown(&gate, "CATALOG").await.remove(0);
    assert_eq!((whole[0].as_str(), whole[3].as_str(), whole[4].as_str()), ("table", "0", "1"));
    gate.logs("column=\"tier\"").await;
}

#[tokio::test]
async fn of_two_that_cannot_be_side_by_side_the_later_is_at_fault() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let gate = with_console(&estate, &tables, "").await;
    let port = shared().await.port();
    let (older, newer) = (format!("older_{}", unique()), format!("newer_{}", unique()));
    let silo = format!("silo_{}", unique());
    let url = format!("postgresql://tg_{silo}:x@127.0.0.1:{port}/{silo}");
    for id in [&older, &newer] {
        tables
            .run(&format!(
                "INSERT INTO tenants (id, isolation, cluster, connection_string)
                 VALUES ('{id}', 'silo', 'main', '{url}')"
            ))
            .await;
    }
    let [_, column, message] = fault(&gate, &newer).await;
    assert!(column == "connection_string" && message.contains(&older), "{column}: {message}");
    // A tenant of the file is always the older one, and an id of the file is the file's.
    let theirs = format!("postgresql://x@127.0.0.1:{port}/{}", estate.initech.id);
    let twin = estate.stark.id.to_uppercase();
    let acme = &estate.acme.id;
    tables
        .run(&format!(
            "INSERT INTO tenants (id, isolation, cluster, connection_string)
             VALUES ('thief_{silo}', 'silo', 'main', '{theirs}'),
               ('{acme}', 'silo', 'main', '{url}'), ('{twin}', 'row', 'main', NULL)"
        ))
        .await;
    assert!(fault(&gate, &format!("thief_{silo}")).await[2].contains(&estate.initech.id));
    assert!(fault(&gate, acme).await[2].contains("settings file"));
    assert!(fault(&gate, &twin).await[2].contains("only in case"));
    notes(&gate.connect(&estate.acme).await).await;
    let settings = gate.folder().join("tenantgate.toml");
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_tenantgate"));
    let said = check.args(["catalog", "check", "--config"]).arg(settings).output().unwrap();
    let out = String::from_utf8(said.stdout).unwrap();
    let told = format!("tenant {newer} (tenants, connection_string): database");
    assert!(said.status.code() == Some(1) && out.contains(&told), "{out}");
    assert!(
        out.contains(&older) && out.contains("\n6 tenants, ") && !out.contains("good"),
        "{out}"
    );
    // When the older one goes, the newer one is free to come.
    tables.run(&format!("DELETE FROM tenants WHERE id = '{older}'")).await;
    let free = async || {
        let rows = shown(&gate, "CATALOG_FAULTS").await;
        (!rows.iter().any(|row| row[0] == newer)).then_some(())
    };
    eventually("the newer one is in", free).await;
}

#[tokio::test]
async fn a_row_leads_only_where_the_settings_allow() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let gate = with_console(&estate, &tables, "hosts = [\"10.1.0.0/16\", \"*.db.test\"]\n").await;
    let own = gate.port;
    let mark = unique();
    for (number, (host, words)) in [
        ("10.2.0.1", "not allowed"),
        ("169.254.169.254", "link-local"),
        ("127.0.0.1", "not allowed"),
        ("db.test", "not allowed"),
        ("10.1.0.1,other", "not allowed"),
        ("/run/postgresql", "not allowed"),
        (&format!("127.0.0.1 port={own}"), "the gate itself"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("far{number}_{mark}");
        let conninfo = format!("host={host} user={id} dbname={id}");
        tables
            .run(&format!(
                "INSERT INTO tenants (id, isolation, cluster, connection_string)
                 VALUES ('{id}', 'silo', 'main', '{conninfo}')"
            ))
            .await;
        let [_, column, message] = fault(&gate, &id).await;
        assert!(column == "connection_string" && message.contains(words), "{host}: {message}");
    }
    // What is allowed is no fault, and a service is told of.
    tables
        .run(&format!(
            "DELETE FROM tenants;
             INSERT INTO tenants (id, isolation, cluster, connection_string) VALUES
               ('ok1_{mark}', 'silo', 'main', 'host=10.1.2.3 user=a dbname=a'),
               ('ok2_{mark}', 'silo', 'main', 'host=x.db.test user=b dbname=b');
             INSERT INTO credentials (kind, hash, acts_for)
               VALUES ('token', 'abcdefgh2345:sha256:{}', '{{a}}')",
            "0".repeat(64)
        ))
        .await;
    assert!(fault(&gate, "").await[2].contains("services"));
    assert_eq!(shown(&gate, "CATALOG_FAULTS").await.len(), 1);
}

#[tokio::test]
async fn whatever_stands_in_rows_nothing_breaks_and_nothing_leaks() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let gate = with_console(&estate, &tables, "").await;
    // As if somebody had taken all the constraints away.
    tables
        .run(
            "DO $$ DECLARE one record; BEGIN FOR one IN SELECT conrelid::regclass t, conname c
               FROM pg_constraint WHERE connamespace = 'tenantgate_catalog'::regnamespace
               AND contype = 'c' LOOP
               EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', one.t, one.c); END LOOP; END $$",
        )
        .await;
    let file = gate.connect(&estate.acme).await;
    let mut random = fastrand::Rng::with_seed(17);
    for _ in 0..300 {
        strange_rows(&tables, &mut random).await;
    }
    let last = format!("last_{}", unique());
    let token = tables.add(&last).await;
    notes(&let_in(&gate, &token).await).await;
    notes(&file).await;
    assert!(login(&gate, "hunter2").await.is_err());
    let faults = shown(&gate, "CATALOG_FAULTS").await;
    assert!(faults.len() > 50, "{}", faults.len());
    for text in faults.iter().flatten() {
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(text.len() < 4000 && !text.contains("hunter2"), "{text}");
    }
    let log = gate.log();
    assert!(!log.contains("panicked") && !log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn a_rows_password_may_be_a_file_of_the_one_folder() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, mode| {
        let path = folder.path().join(name);
        std::fs::write(&path, LOGIN_PASSWORD).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let id = format!("row_{}", unique());
    secret(&id, 0o600);
    secret(&format!("{id}@open"), 0o644);
    // Another tenant may have this id.
    secret(&format!("{id}.b"), 0o600);
    secret("anothers", 0o600);
    let more = format!("secrets_folder = \"{}\"\n", folder.path().display());
    let gate = with_console(&estate, &tables, &more).await;
    let token = tables.add(&id).await;
    let port = shared().await.port();
    let (none, open) = (format!("file:{id}@none"), format!("file:{id}@open"));
    let (dotted, out) = (format!("file:{id}.b"), format!("file:{id}@../{id}"));
    for (password, words) in [
        (none.as_str(), "No such file"),
        (open.as_str(), "open to others"),
        ("credential:x", "systemd"),
        ("file:anothers", "the tenant's id"),
        (dotted.as_str(), "the tenant's id"),
        (out.as_str(), "the tenant's id"),
        ("file:../good", "the tenant's id"),
        ("file:/etc/passwd", "the tenant's id"),
        ("env:HOME", "environment"),
    ] {
        let conninfo = format!("host=127.0.0.1 port={port} user=tg_login dbname=app");
        let change = format!("connection_string = '{conninfo} password={password}'");
        tables.run(&format!("UPDATE tenants SET {change}")).await;
        let told = async || fault(&gate, &id).await[2].contains(words).then_some(());
        eventually(words, told).await;
        kept_out(&gate, &token).await;
    }
    let conninfo = format!("host=127.0.0.1 port={port} user=tg_login dbname=app");
    let change = format!("connection_string = '{conninfo} password=file:{id}'");
    tables.run(&format!("UPDATE tenants SET {change}")).await;
    notes(&let_in(&gate, &token).await).await;
}

/// Parts of names, and of texts that may hold secrets.
const NAMES: [&str; 24] = [
    "",
    "row",
    "silo",
    "main",
    "free",
    "app",
    "app_rw",
    "\u{1}",
    "\n",
    "'",
    "\"",
    "é",
    "\u{202e}",
    "$user",
    "pg_catalog",
    "%",
    "\\",
    "99999999999999999999",
    "tenantgate",
    "..",
    "a",
    "B",
    "{}",
    ":",
];
const SECRETS: [&str; 12] = [
    "host=127.0.0.1 ",
    "password=hunter2 ",
    "user=x ",
    "dbname=d ",
    "postgresql://x:hunter2@127.0.0.1/",
    "abcdefgh2345:sha256:",
    "san:",
    "cn:x",
    "SCRAM-SHA-256$4096:c2FsdA==$hunter2:hunter2",
    "hunter2",
    "\n",
    "'",
];

/// A tenant that is mostly wrong somewhere, and a credential of some tenant.
async fn strange_rows(tables: &Tables, random: &mut fastrand::Rng) {
    let mut text = |bits: &[&str]| {
        let parts = random.usize(0..4);
        let mut text: String = (0..parts).map(|_| bits[random.usize(..bits.len())]).collect();
        if random.usize(0..40) == 0 {
            text.push_str(&"x".repeat(20_000));
        }
        Some(text).filter(|text| !text.is_empty())
    };
    let (id, isolation) = (text(&NAMES).unwrap_or_default(), text(&NAMES));
    let id: String = id.chars().take(500).collect();
    let isolation = isolation.filter(|_| id.len().is_multiple_of(5));
    let isolation = isolation.as_deref().unwrap_or(["row", "schema", "silo"][id.len() % 3]);
    let (string, schema, role, tier) = (text(&SECRETS), text(&NAMES), text(&NAMES), text(&NAMES));
    let tier = tier.filter(|_| id.len().is_multiple_of(2));
    let overrides = ["{}", r#"{"clients": -1}"#, r#"{"clients": "hunter2"}"#, r#"["hunter2"]"#];
    let overrides = overrides[id.len() % 4];
    let insert = "INSERT INTO tenantgate_catalog.tenants (id, isolation, cluster, \
        connection_string, schema, role, tier, overrides) \
        VALUES ($1, $2, 'main', $3, $4, $5, $6, $7::text::jsonb) ON CONFLICT DO NOTHING";
    let tenant: [&(dyn ToSql + Sync); 7] =
        [&id, &isolation, &string, &schema, &role, &tier, &overrides];
    tables.dba.execute(insert, &tenant).await.unwrap();
    let credential = "INSERT INTO tenantgate_catalog.credentials (kind, tenant, name, hash, \
        scram_verifier, cert_name, expires_at) \
        SELECT $1, id, $2, left($3, 900), $4, left($5, 900), $6::text::timestamptz \
        FROM tenantgate_catalog.tenants ORDER BY md5(id || $7) LIMIT 1 ON CONFLICT DO NOTHING";
    let kind = ["token", "scram", "certificate", "x"][id.len() % 4];
    let (name, hash, verifier) = (text(&NAMES), text(&SECRETS), text(&SECRETS));
    let name = name.map(|name| name.chars().take(500).collect::<String>());
    let moments = [None, Some("infinity"), Some("-infinity"), Some("294276-12-31"), Some("now")];
    let (subject, moment) = (text(&SECRETS), moments[id.len() % 5]);
    let credentials: [&(dyn ToSql + Sync); 7] =
        [&kind, &name, &hash, &verifier, &subject, &moment, &id];
    tables.dba.execute(credential, &credentials).await.unwrap();
}
