//! Schema tenants with one login in common: refused, unless the settings name the risk.

use super::Crowd;
use crate::harness::cluster::{shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::tenants::LOGIN_PASSWORD;

/// Two tenants' schemas for one login; returns settings without the templates.
async fn one_login(crowd: &Crowd, cluster: &str) -> String {
    let admin = superuser(shared().await, "app").await;
    let conninfo = shared().await.conninfo("tg_login", LOGIN_PASSWORD, "app");
    let mut more = String::new();
    for (id, token) in &crowd.tenants {
        let grant = format!(
            "GRANT USAGE ON SCHEMA s_{id} TO tg_login; GRANT SELECT ON s_{id}.notes TO tg_login"
        );
        admin.batch_execute(&grant).await.unwrap();
        more += &format!(
            "[tenants.{id}]\nisolation = \"schema\"\nschema = \"s_{id}\"\ncluster = \"other\"\n\
             connection_string = \"{conninfo}\"\ntier = \"free\"\ntokens = [\"{}\"]\n",
            token.line
        );
    }
    format!(
        "[[listen]]\naddress = \"127.0.0.1:$PORT\"\ntls = \"disable\"\n\
         plaintext_password = true\n\n[tiers.free]\n\n\
         [clusters.other]\ncapacity = 1\n{cluster}\n{more}"
    )
}

#[tokio::test]
async fn a_login_in_common_needs_a_setting_and_keeps_paths_apart() {
    let crowd = Crowd::new(2).await;
    let output = Gate::refused(&one_login(&crowd, "").await);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("login \"tg_login\" is schema tenant"), "{said}");
    assert!(said.contains("allow_shared_login"), "{said}");

    let settings = one_login(&crowd, "allow_shared_login = true").await;
    let gate = Gate::start(&settings).await;
    gate.logs("names with another tenant's schema in front").await;
    let mut wires = [crowd.wire(&gate, 0).await, crowd.wire(&gate, 1).await];
    for _ in 0..3 {
        for (wire, (id, _)) in wires.iter_mut().zip(&crowd.tenants) {
            let rows = wire.query("SELECT body FROM notes").await;
            assert_eq!(rows, format!("T D({id}) C(SELECT 1) Z(I)"));
            assert_eq!(wire.query("SET search_path TO public").await, "E(42501) Z(I)");
        }
    }
    // What the setting names: PostgreSQL cannot tell the two apart.
    let other = &crowd.tenants[1].0;
    let named = wires[0].query(&format!("SELECT body FROM s_{other}.notes")).await;
    assert_eq!(named, format!("T D({other}) C(SELECT 1) Z(I)"));
}
