//! Tenants that are spread over several clusters by their ids.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use tenantgate::demo::Plan;

use super::login;
use crate::harness::cluster::{own, superuser};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks, jwt};
use crate::harness::unique;

fn check(file: &Path, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
    let output = command.args(["check", "--config"]).arg(file).args(more).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The lines of the manual's example that have these words at their beginning.
fn manual(words: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/catalog.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(&format!("    {words}")).unwrap();
    let rest = rest.split("\n\n").next().unwrap();
    format!("{words}{rest}").replace("\n    ", "\n") + "\n"
}

#[tokio::test]
async fn each_tenant_lives_on_one_cluster_and_the_manual_says_on_which() {
    let (one, two) = (own(&Plan::default()).await, own(&Plan::default()).await);
    let (estate, other) = (Estate::within(&one).await, Estate::within(&two).await);
    drop(other);
    let cluster = |name: &str, cluster: &tenantgate::demo::Cluster| {
        let string = cluster.conninfo("tg_login", LOGIN_PASSWORD, "app");
        format!("[clusters.{name}]\ncapacity = 2\nconnection_string = \"{string}\"\n")
    };
    // The estate's own cluster is eu1.
    let spread = manual("[spreads.eu]").replace(", \"eu3\"", "");
    let mark = unique();
    let ids: Vec<String> = (0..12).map(|number| format!("t{mark}_{number}")).collect();
    let row = "isolation = \"row\"\nschema = \"app\"\nrole = \"app_rw\"\n";
    let tenant = |id: &String| format!("[tenants.{id}]\ncluster = \"eu\"\n{row}");
    let tenants: String = ids.iter().map(tenant).collect();
    let more = format!("{}{spread}{tenants}", cluster("eu2", &two));
    let settings = estate.settings(&Tweaks { more: &more, ..Tweaks::default() });
    let settings = settings.replace("[clusters.main]", "[clusters.eu1]");
    let settings = settings.replace("cluster = \"main\"", "cluster = \"eu1\"");
    let gate = Gate::start(&settings).await;
    for id in &ids {
        let client = login(&gate, &jwt(id, 60)).await.unwrap();
        client.execute("INSERT INTO notes (id, body) VALUES (1, 'spread')", &[]).await.unwrap();
    }
    let mut lives: BTreeMap<String, String> = BTreeMap::new();
    for (name, cluster) in [("eu1", &one), ("eu2", &two)] {
        let app = superuser(cluster, "app").await;
        let sql = "SELECT tenant_id FROM app.notes WHERE body = 'spread'";
        for row in app.query(sql, &[]).await.unwrap() {
            assert_eq!(lives.insert(row.get(0), name.to_owned()), None, "on one of them only");
        }
    }
    assert_eq!(lives.len(), ids.len());
    for id in &ids {
        assert_eq!(lives[id], by_the_manual(id), "{id}");
    }

    // Who would be led elsewhere is said before it happens.
    let file = gate.folder().join("tenantgate.toml");
    let listed: serde_json::Value = serde_json::from_str(&check(&file, &["--json"])).unwrap();
    for tenant in listed["tenants"].as_array().unwrap() {
        let id = tenant["id"].as_str().unwrap();
        assert_eq!(tenant["cluster"].as_str(), Some(lives.get(id).map_or("eu1", |it| it)), "{id}");
    }
    let old = gate.folder().join("old.toml");
    fs::copy(&file, &old).unwrap();
    let without = fs::read_to_string(&file).unwrap().replace("[\"eu1\", \"eu2\"]", "[\"eu1\"]");
    fs::write(&file, without).unwrap();
    let moves = check(&file, &["--moves", old.to_str().unwrap()]);
    for id in &ids {
        assert_eq!(moves.contains(&format!(" {id} ")), lives[id] == "eu2", "{moves}");
    }
    let moved = lives.values().filter(|name| *name == "eu2").count();
    assert!(
        moves.contains(&format!(
            "{moved} tenants would be looked for elsewhere, 0 tenants would be out"
        )),
        "{moves}"
    );
}

/// Where the formula in the manual leads.
fn by_the_manual(id: &str) -> String {
    let hash = |name: &&str| {
        let text = format!("tenantgate spread v1\0{name}\0{id}");
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref().to_vec()
    };
    ["eu1", "eu2"].into_iter().max_by_key(hash).unwrap().to_owned()
}
