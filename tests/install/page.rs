//! docs/install.md: its tables are those of the code, and what it says to type works.

use std::fs;
use std::process::Command;

use tenantgate::demo::Plan;
use tenantgate::isolation::pack::{self, PACK, Weight};

use crate::harness::cluster::{own, superuser};
use crate::install::tools::{Setup, enter, login, rows, tenant_id};

const PAGE: &str = include_str!("../../docs/install.md");

/// The fenced blocks that are marked with this word, without what indents them.
pub fn blocks(mark: &str) -> Vec<String> {
    let fence = format!("```{mark}\n");
    let parts = PAGE.split(fence.as_str()).skip(1);
    let block = |part: &str| part.split("```").next().unwrap().to_owned();
    parts.map(block).collect()
}

#[test]
fn the_page_has_the_whole_pack_and_nothing_else() {
    let (_, section) = PAGE.split_once("## The revoke pack").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let in_page: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let row = |entry: &pack::Entry| format!("| `{}` | {} |", entry.name, entry.reason);
    assert_eq!(in_page, PACK.iter().map(row).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_the_page_says_to_type_leads_from_plain_to_sealed() {
    let cluster = own(&Plan::default()).await;
    let dba = superuser(&cluster, "app").await;
    dba.batch_execute(include_str!("../../config/rls.sql")).await.unwrap();

    // The key file, made by the line of the page.
    let folder = tempfile::tempdir().unwrap();
    let line = PAGE.lines().find(|line| line.contains("openssl rand")).unwrap();
    let made = Command::new("sh").args(["-c", line]).current_dir(folder.path()).status().unwrap();
    assert!(made.success(), "{line}");
    let keys = fs::read_to_string(folder.path().join("seal.key")).unwrap();

    let setup = Setup::new(&cluster, "plain", &keys);
    assert!(blocks("toml")[0].contains("seal_key_file = \"seal.key\""));
    assert_eq!(setup.install(&[]).code, 0);
    let sql = blocks("sql");
    let with = |mark: &str| sql.iter().find(|block| block.contains(mark)).unwrap();
    // Before the policies are changed, level sealed is not in force, and install says which.
    setup.write("sealed", &keys);
    let said = setup.install(&[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.of("as tg_login").contains("on app.notes, public.orders"), "{said:?}");
    assert!(said.out.contains("level sealed is wanted, guard can be had"), "{said:?}");
    setup.write("plain", &keys);
    assert_eq!(setup.install(&[]).code, 0);
    dba.batch_execute(with("ALTER POLICY tenant_rows")).await.unwrap();
    dba.batch_execute(crate::install::enter::POLICIES).await.unwrap();
    for level in ["guard", "sealed"] {
        setup.write(level, &keys);
        let said = setup.install(&[]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains(&format!("level {level} is in place")), "{said:?}");
    }

    // What is granted back to others is not granted back to tenants.
    dba.batch_execute(with("GRANT USAGE ON LANGUAGE")).await.unwrap();
    let client = login(&cluster).await;
    let missing = pack::missing_sql(&[Weight::Essential, Weight::Exposure]);
    assert_eq!(rows(&client, &missing).await, [[""]]);
    dba.batch_execute("SET ROLE app_owner; DO $$ BEGIN NULL; END $$; RESET ROLE").await.unwrap();

    // An order is its tenant's, by default and by policy.
    enter(&client, &setup.seal(&keys), "acme").await.unwrap();
    client
        .batch_execute("SET ROLE app_rw; INSERT INTO orders (item) VALUES ('anvil')")
        .await
        .unwrap();
    let theirs = "INSERT INTO orders (tenant_id, item) VALUES ('globex', 'anvil')";
    assert_eq!(crate::install::tools::state(&client, theirs).await, "42501");
    client.batch_execute("RESET ALL").await.unwrap();
    assert_eq!(tenant_id(&client).await, None);
    assert_eq!(rows(&client, "SELECT * FROM orders").await, [[""; 0]; 0]);
}
