//! `tenantgate catalog export | import`: what goes out comes in again, what would change is shown,
//! and a file with a fault changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::{Tables, let_in, notes};
use crate::harness::cluster::shared;
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD};
use crate::harness::{eventually, http, unique};

/// Tables, and settings that name cluster `main` and tier `free`.
struct Desk {
    tables: Tables,
}

impl Desk {
    async fn new() -> Self {
        let cluster = shared().await;
        let tables = Tables::new(cluster).await;
        let settings = format!(
            "[[listen]]\naddress = \"127.0.0.1:6432\"\ntls = \"disable\"\n\n\
             [clusters.main]\ncapacity = 4\nconnection_string = \"{}\"\n\n[tiers.free]\n\n\
             [catalog]\nconnection_string = \"{}\"\n",
            cluster.conninfo("tg_login", LOGIN_PASSWORD, "app"),
            tables.conninfo
        );
        fs::write(tables.folder.path().join("gate.toml"), settings).unwrap();
        Self { tables }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tables.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn run(&self, command: &str, file: &str, more: &[&str]) -> Output {
        let mut it = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
        it.args(["catalog", command, "--config"]).arg(self.path("gate.toml"));
        it.env("TENANTGATE_ADMIN", &self.tables.admin);
        it.arg(self.path(file)).args(more).output().unwrap()
    }

    /// Runs a command that must do what it is asked for. Gives what it printed.
    fn good(&self, command: &str, file: &str, more: &[&str]) -> String {
        let output = self.run(command, file, more);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs an import that must be refused, and change nothing. Gives what it said.
    async fn bad(&self, file: &str, more: &[&str]) -> String {
        let before = self.number().await;
        let output = self.run("import", file, more);
        assert!(!output.status.success(), "{output:?}");
        assert_eq!(self.number().await, before, "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The number of the last change.
    async fn number(&self) -> i64 {
        let sql = "SELECT number FROM tenantgate_catalog.version";
        self.tables.dba.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Both tables as text, but for what triggers keep.
    async fn all(&self) -> Vec<String> {
        let sql = "SELECT (to_jsonb(t) - 'updated_at' - 'placed')::text
              FROM tenantgate_catalog.tenants t
            UNION ALL SELECT (to_jsonb(c) - 'id')::text
              FROM tenantgate_catalog.credentials c ORDER BY 1";
        let rows = self.tables.dba.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// Letters that every form has to escape.
const ODD: &str = "a\\b\t\"c\"\n,{}é\u{1}'\\N";

#[tokio::test]
async fn what_goes_out_comes_in_again() {
    let desk = Desk::new().await;
    let hash = format!("abcdefgh2345:sha256:{}", "0".repeat(64));
    desk.tables.add("plain").await;
    let odd = serde_json::json!({ "note": ODD, "deep": { "null": null } }).to_string();
    let sql = format!(
        "INSERT INTO tenants (id, isolation, cluster, connection_string, tier, state, overrides,
           attributes, region) VALUES ('odd.one', 'silo', 'main',
           'postgresql://u:secret@127.0.0.1:{}/odd', 'free', 'disabled',
           '{{\"clients\": 5, \"query_time\": \"10s\"}}', $j${odd}$j$, $r${ODD}$r$);
         INSERT INTO credentials (kind, tenant, name, hash, role, read_only, expires_at, revoked_at)
           VALUES ('token', 'odd.one', 'ci', '{hash}', 'r', true, 'infinity',
             '2026-01-02 03:04:05.678901+02');
         INSERT INTO credentials (kind, tenant, cert_name)
           VALUES ('certificate', 'plain', 'san:p')",
        shared().await.port(),
    );
    desk.tables.run(&sql).await;
    let (before, number) = (desk.all().await, desk.number().await);
    assert_eq!(before.len(), 5);
    for ending in ["csv", "jsonl"] {
        let (tenants, credentials) = (format!("t.{ending}"), format!("c.{ending}"));
        desk.good("export", &tenants, &[]);
        desk.good("export", &credentials, &["--table", "credentials"]);
        let mode = fs::metadata(desk.path(&tenants)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What is there already is not written.
        let said = desk.good("import", &tenants, &["--delete", "--yes"]);
        let same = "tenants: 0 new, 0 changed, 0 deleted, 2 as before\nnothing to write\n";
        assert_eq!(said, same);
        let (empty, header) = match ending {
            "csv" => ("e.csv", desk.read(&tenants).lines().next().unwrap().to_owned()),
            _ => ("e.jsonl", String::new()),
        };
        assert_eq!(desk.number().await, number, "nothing changed, so no gate is told");
        desk.write(empty, &header);
        let said = desk.good("import", empty, &["--delete", "--yes"]);
        assert!(said.ends_with("tenants: 0 new, 0 changed, 2 deleted, 0 as before\nwritten\n"));
        assert_eq!(desk.all().await.len(), 0);
        desk.good("import", &tenants, &[]);
        let said = desk.good("import", &credentials, &["--table", "credentials"]);
        assert!(!said.contains("sha256"), "{said}");
        assert_eq!(desk.all().await, before, "{ending}");
        desk.tables.run("UPDATE version SET number = number").await;
        assert!(desk.number().await > number);
        let sql = "UPDATE tenantgate_catalog.version SET number = $1";
        desk.tables.dba.execute(sql, &[&number]).await.unwrap();
    }
}

#[tokio::test]
async fn what_would_change_is_shown_and_a_dry_run_changes_nothing() {
    let (desk, port) = (Desk::new().await, shared().await.port());
    desk.tables.add("stays").await;
    desk.tables.add("changes").await;
    desk.tables.add("goes").await;
    desk.good("export", "t.jsonl", &[]);
    let text = desk.read("t.jsonl");
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("\"goes\"")).collect();
    let changed = lines.join("\n").replace("\"id\":\"changes\",", "\"id\":\"changes\",\"x\":1,");
    desk.write("x.jsonl", &changed);
    assert!(desk.bad("x.jsonl", &[]).await.contains("x.jsonl:1: tenants has no column \"x\""));
    let changed: String = lines
        .iter()
        .map(|line| match line.contains("\"changes\"") {
            true => line.replace("\"tier\":\"free\"", "\"tier\":null").replace(
                "\"connection_string\":null",
                &format!(
                    "\"connection_string\":\"postgresql://u:hidden@127.0.0.1:{}/app\"",
                    port
                ),
            ),
            false => (*line).to_owned(),
        } + "\n")
        .collect();
    let empty = ["connection_string", "schema", "role", "tier", "state", "attributes", "region"];
    let empty: String = empty.map(|name| format!(", \"{name}\": null")).concat();
    let new = r#"{"id": "new", "isolation": "row", "cluster": "main", "overrides": {"clients": 2}"#;
    let new = format!("{new}{empty}}}");
    desk.write("t.jsonl", &format!("{changed}\n{new}\n"));
    let before = desk.all().await;
    let dry = desk.good("import", "t.jsonl", &["--delete", "--dry-run"]);
    assert_eq!(
        dry,
        "~ changes                  connection_string ***, tier free -> (none)\n\
         - goes\n\
         + new                      isolation row, cluster main, overrides {\"clients\": 2}\n\
         tenants: 1 new, 1 changed, 1 deleted, 1 as before\n\
         nothing was written: a dry run\n"
    );
    assert_eq!(desk.all().await, before);
    let said = desk.bad("t.jsonl", &["--delete"]).await;
    assert!(said.contains("1 to delete, 0 disabled or revoked"), "{said}");
    let said = desk.good("import", "t.jsonl", &["--show", "1"]);
    assert!(said.contains("… and 1 more") && said.contains("0 deleted, 1 as before"), "{said}");
    let said = desk.good("import", "t.jsonl", &["--delete", "--yes"]);
    assert!(said.contains("0 new, 0 changed, 1 deleted, 3 as before"), "{said}");
    assert_eq!(desk.all().await.iter().filter(|row| row.contains("\"goes\"")).count(), 0);
    // Of columns that a file does not have nothing changes.
    desk.write("state.csv", "id,state\nchanges,disabled\nstays,active\n");
    let said = desk.good("import", "state.csv", &[]);
    assert!(said.starts_with("~ changes                  state active -> disabled\n"), "{said}");
    // What is merged with the table is held to the same.
    desk.write("cluster.csv", "id,cluster\nstays,main\nchanges,maim\n");
    let said = desk.bad("cluster.csv", &[]).await;
    assert!(said.contains("cluster.csv:3: cluster: "), "{said}");
    // Who is kept out is not let in again by the way.
    desk.write("state.csv", "id,state\nchanges,active\n");
    let said = desk.bad("state.csv", &[]).await;
    assert!(said.contains("0 to delete, 1 disabled or revoked to let in again"), "{said}");
    desk.tables.run("UPDATE credentials SET revoked_at = now() WHERE tenant = 'stays'").await;
    desk.good("export", "c.jsonl", &["--table", "credentials"]);
    let revoked = desk.read("c.jsonl");
    let (line, _) = revoked.split_once(",\"expires_at\"").unwrap();
    desk.write("one.jsonl", &format!("{line}}}\n"));
    desk.good("import", "one.jsonl", &["--table", "credentials"]);
    desk.good("import", "c.jsonl", &["--table", "credentials"]);
    let quoted = revoked.split("\"revoked_at\":\"").nth(1).unwrap().split('"').next().unwrap();
    let again = revoked.replace(&format!("\"{quoted}\""), "null");
    desk.write("again.jsonl", &again);
    let said = desk.bad("again.jsonl", &["--table", "credentials"]).await;
    assert!(said.contains("0 to delete, 1 disabled or revoked to let in again"), "{said}");
    desk.good("import", "again.jsonl", &["--table", "credentials", "--yes"]);
}

#[tokio::test]
async fn a_file_with_a_fault_changes_nothing_and_says_where_it_is() {
    let desk = Desk::new().await;
    desk.tables.add("acme").await;
    let top = "id,isolation,cluster,connection_string,schema,role,tier,state,overrides,attributes,\
               region\n";
    let good = "one,row,main,,app,app_rw,free,active,{},{},eu\n";
    for (line, said) in [
        ("two,rows,main,,,,,,,,\n", "t.csv:3: isolation: \"rows\" is not known here"),
        ("two,row,maim,,,,,,,,\n", "t.csv:3: cluster: "),
        ("two,row,main,,,,gold,,,,\n", "t.csv:3: tier: "),
        ("two,row,main,host=far user=hush,,,,,,,\n", "t.csv:3: connection_string: "),
        ("two,row,main,,,,,,\"{\"\"clients\"\": 0}\",,\n", "t.csv:3: overrides: clients is zero"),
        ("two,row,main,,,,,,{,,\n", "t.csv:3: overrides: not a JSON object"),
        ("tw o,row,main,,,,,,,,\n", "t.csv:3: "),
        ("One,row,main,,app,app_rw,,,,,\n", "23505 duplicate key"),
        ("one,row,main,,app,app_rw,,,,,\n", "t.csv:3: one stands on line 2, too"),
        ("two,row\n", "t.csv:3: it has 2 fields, and the line of names 11"),
    ] {
        desk.write("t.csv", &format!("{top}{good}{line}"));
        let output = desk.bad("t.csv", &[]).await;
        assert!(output.contains(said), "{line}: {output}");
        assert!(!output.contains("hush"), "{output}");
    }
    let top = "kind,tenant,name,hash,expires_at\n";
    let good = format!("token,acme,,bcdefgh23456:sha256:{},\n", "0".repeat(64));
    for (line, said) in [
        ("token,acme,,,\n", "c.csv:3: kind is not valid, allowed: token with hash"),
        ("token,acme,,short,\n", "c.csv:3: hash is not valid, allowed: ID:sha256:HASH"),
        ("token,acme,,cdefgh234567:sha256:0,soon\n", "c.csv:3: PostgreSQL cannot take a value"),
        ("token,nobody,,cdefgh234567:sha256:0,\n", "c.csv:3: hash is not valid"),
    ] {
        desk.write("c.csv", &format!("{top}{good}{line}"));
        let output = desk.bad("c.csv", &["--table", "credentials"]).await;
        assert!(output.contains(said), "{line}: {output}");
    }
    let orphan = format!("token,nobody,,cdefgh234567:sha256:{},\n", "0".repeat(64));
    desk.write("c.csv", &format!("{top}{good}{orphan}"));
    let output = desk.bad("c.csv", &["--table", "credentials"]).await;
    assert!(output.contains("foreign key"), "{output}");
    for (text, said) in [
        ("", "t.csv:1: there is no line of names"),
        ("isolation,cluster\nrow,main\n", "t.csv:1: there is no column id"),
        ("id,cluster\r\nacme,main\r\nnew,maim\r\n", "t.csv:3: "),
        ("id,isolation,cluster\nnew,rwo,main\n", "t.csv:2: isolation is not valid, allowed: row"),
    ] {
        desk.write("t.csv", text);
        let output = desk.bad("t.csv", &[]).await;
        assert!(output.contains(said), "{text}: {output}");
    }
    assert!(desk.bad("t.txt", &[]).await.contains("ends neither in .csv nor in .jsonl"));
    assert!(desk.bad("none.csv", &[]).await.contains("cannot read"));
}

#[tokio::test]
async fn imported_tenants_are_served_at_once() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let gate = Gate::start(&tables.settings(&estate, "")).await;
    fs::copy(gate.folder().join("login.key"), tables.folder.path().join("login.key")).unwrap();
    fs::write(
        tables.folder.path().join("gate.toml"),
        tables.settings(&estate, "").replace("$HTTP", "1").replace("$PORT", "2"),
    )
    .unwrap();
    let desk = Desk { tables };
    let ids: Vec<String> = (0..50).map(|number| format!("row_{}_{number}", unique())).collect();
    let tokens: Vec<_> = ids.iter().map(|_| tenantgate::catalog::new_token().unwrap()).collect();
    let tenants = ids.iter().map(|id| format!("{id},row,main,app,app_rw\n")).collect::<String>();
    desk.write("t.csv", &format!("id,isolation,cluster,schema,role\n{tenants}"));
    let tokens_of = ids.iter().zip(&tokens);
    let credentials =
        tokens_of.map(|(id, it)| format!("token,{id},{}\n", it.line)).collect::<String>();
    desk.write("c.csv", &format!("kind,tenant,hash\n{credentials}"));
    assert!(desk.good("import", "t.csv", &[]).contains("tenants: 50 new"));
    assert!(desk.good("import", "c.csv", &["--table", "credentials"]).contains("50 new"));
    for token in &tokens {
        assert_eq!(notes(&let_in(&gate, &token.text).await).await, [0; 0]);
    }
    eventually("the gate's catalog is whole", async || {
        let (_, text) = http::get(gate.http, "/metrics").await;
        text.contains("tenantgate_catalog_faults 0").then_some(())
    })
    .await;
}
