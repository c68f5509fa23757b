//! `tenantgate install --tenant ID` makes what a schema tenant needs, applied or printed.

use std::fs;
use std::process::Command;

use tenantgate::catalog::new_token;

use crate::harness::cluster::{shared, superuser, template};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::unique;
use crate::harness::wire::{Login, Wire};
use crate::install::tools::install;

use super::{SECRET, TEMPLATES};

#[tokio::test]
async fn a_login_made_by_the_command_lets_its_tenant_in_and_no_further() {
    let estate = Estate::new().await;
    let (mark, admin) = (unique(), superuser(shared().await, "app").await);
    let ids = [format!("m0_{mark}"), format!("m1_{mark}")];
    let tokens = [new_token().unwrap(), new_token().unwrap()];
    let more: String = ids
        .iter()
        .zip(&tokens)
        .map(|(id, token)| {
            format!(
                "[tenants.{id}]\nisolation = \"schema\"\ncluster = \"main\"\ntier = \"free\"\n\
             tokens = [\"{}\"]\n",
                token.line
            )
        })
        .collect();
    let cluster = format!("level = \"guard\"\n{TEMPLATES}");
    let settings = estate.settings(&Tweaks { cluster: &cluster, more: &more, ..Tweaks::default() });
    let gate = Gate::start_with(&settings, &[("logins.key", SECRET)]).await;
    let file = gate.folder().join("tenantgate.toml");
    let said = install(&file, None, &["--tenant", &ids[0], "--print"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("SCRAM-SHA-256$4096:") && !said.out.contains(SECRET), "{said:?}");
    let script = gate.folder().join("own.sql");
    fs::write(&script, &said.out).unwrap();
    let conninfo = shared().await.superuser_conninfo("postgres");
    for _ in 0..2 {
        let mut psql = Command::new(template().binaries().program("psql"));
        let output = psql.args(["-X", "-q", "-f"]).arg(&script).arg(&conninfo).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let said = install(&file, Some(&conninfo), &["--tenant", &ids[1]]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.of(&format!("login t_{}", ids[1])).ends_with("made"), "{said:?}");
    let said = install(&file, Some(&conninfo), &["--tenant", &ids[1], "--uninstall", "--yes"]);
    assert_eq!(said.code, 2, "{said:?}");

    for (id, token) in ids.iter().zip(&tokens) {
        let sql = format!("CREATE TABLE s_{id}.notes AS SELECT '{id}'::text AS body");
        admin.batch_execute(&sql).await.unwrap();
        let password = token.text.as_str();
        let login = Login { user: "app", dbname: "app", password, more: &[] };
        let mut wire = Wire::login(gate.port, &login).await;
        let own = wire.query("SELECT session_user, body FROM notes").await;
        assert_eq!(own, format!("T D(t_{id},{id}) C(SELECT 1) Z(I)"));
        let other = ids.iter().find(|other| *other != id).unwrap();
        let foreign = wire.query(&format!("SELECT body FROM s_{other}.notes")).await;
        assert!(foreign.starts_with("E("), "{foreign}");
    }
}
