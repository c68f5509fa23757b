//! Logins that are refused: whatever is wrong with the proof looks the same from outside.

use super::{Refusal, told};
use crate::harness::gate::Gate;
use crate::harness::messages::Frame;
use crate::harness::tenants::{Estate, JWT_KEY, Tweaks, jwt, jwt_with};
use crate::harness::wire::{Login, Wire};
use serde_json::json;

async fn attempt(gate: &Gate, login: &Login<'_>) -> Vec<Frame> {
    let mut wire = Wire::connect(gate.port).await;
    let frames = wire.authenticate(login).await;
    if !told(&frames).ends_with("Z(I)") {
        assert_eq!(wire.until_closed().await, "");
    }
    frames
}

#[tokio::test]
async fn every_wrong_proof_is_answered_with_the_same_bytes() {
    let estate = Estate::new().await;
    let disabled = format!(
        "[tenants.off_{0}]\nisolation = \"row\"\ncluster = \"main\"\nstate = \"disabled\"\n\
         schema = \"app\"\nrole = \"app_rw\"\n",
        estate.acme.id
    );
    let gate =
        Gate::start(&estate.settings(&Tweaks { more: &disabled, ..Tweaks::default() })).await;
    let id = estate.stark.id.as_str();
    let now = jsonwebtoken::get_current_timestamp();
    let claims = |more: serde_json::Value| {
        let mut claims = json!({
            "iss": "https://login.test", "aud": "tenantgate", "tenant_id": id, "exp": now + 600,
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwt_with(JWT_KEY, &claims)
    };
    let good = claims(json!({}));
    let frames = attempt(&gate, &login("app", "app", &good)).await;
    assert!(told(&frames).ends_with("Z(I)"), "the right one works: {frames:?}");
    let token = &estate.stark.token;
    let half = &token[..token.len() - 4];
    let dot = good.rfind('.').unwrap();
    let wrong: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("nonsense", "hunter2".into()),
        ("a token of nobody", token.replace("tg_", "tg_0")),
        ("a wrong secret", format!("{half}AAAA")),
        ("a secret cut short", half.into()),
        ("expired", jwt(id, -600)),
        ("not yet", claims(json!({ "nbf": now + 600 }))),
        ("for nobody we know", jwt("nobody", 600)),
        ("of a disabled tenant", jwt(&format!("off_{}", estate.acme.id), 600)),
        ("of another issuer", claims(json!({ "iss": "https://evil.test" }))),
        ("for another audience", claims(json!({ "aud": "elsewhere" }))),
        ("without a tenant", claims(json!({ "tenant_id": null }))),
        ("with a list of tenants", claims(json!({ "tenant_id": [id] }))),
        (
            "of another key",
            jwt_with(
                "another key of more than thirty-two bytes, as wrong",
                &json!({ "iss": "https://login.test", "aud": "tenantgate", "tenant_id": id,
                "exp": now + 600 }),
            ),
        ),
        ("unsigned", format!("{}.", &good[..dot])),
        ("altered", format!("{}x{}", &good[..10], &good[10..])),
    ];
    let reference = attempt(&gate, &login("app", "app", "x")).await;
    assert_eq!(told(&reference), "R E(28P01)");
    let refused = Refusal::among(&reference);
    assert_eq!(
        (refused.brief().as_str(), refused.message.as_str()),
        ("28P01 FATAL", "authentication failed")
    );
    for (name, password) in &wrong {
        assert_eq!(attempt(&gate, &login("app", "app", password)).await, reference, "{name}");
    }
    // The right proof for somebody else than the one named, wherever it is named.
    let other = format!("app.{}", estate.acme.id);
    assert_eq!(attempt(&gate, &login(&other, "app", token)).await, reference);
    let option = format!("-c tenantgate.tenant={}", estate.acme.id);
    let more = [("options", option.as_str())];
    let named = Login { more: &more, ..login("app", "app", token) };
    assert_eq!(attempt(&gate, &named).await, reference);
    // Even with a database that is not there: what exists is nobody's business before the proof.
    assert_eq!(attempt(&gate, &login("app", "nowhere", "x")).await, reference);
}

fn login<'login>(user: &'login str, dbname: &'login str, password: &'login str) -> Login<'login> {
    Login { user, dbname, password, more: &[] }
}

#[tokio::test]
async fn start_ups_that_cannot_be_served_say_why() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let token = estate.stark.token.as_str();
    let usual = login("app", "app", token);
    for (name, login, frames, brief, message) in [
        (
            "replication",
            Login { more: &[("replication", "database")], ..usual.clone() },
            "E(0A000)",
            "0A000 FATAL",
            "replication is not supported through the gate",
        ),
        (
            "SJIS",
            Login { more: &[("client_encoding", "SJIS")], ..usual.clone() },
            "E(0A000)",
            "0A000 FATAL",
            "client_encoding \"SJIS\" is not supported",
        ),
        (
            "the gate's own business",
            Login { more: &[("tcp_keepalives_idle", "1")], ..usual.clone() },
            "E(0A000)",
            "0A000 FATAL",
            "setting \"tcp_keepalives_idle\" of a connection that is pooled is not supported",
        ),
        (
            "options",
            Login { more: &[("options", "-c tcp_user_timeout=1")], ..usual.clone() },
            "E(0A000)",
            "0A000 FATAL",
            "setting \"tcp_user_timeout\" of a connection that is pooled is not supported",
        ),
        (
            "protected",
            Login { more: &[("search_path", "public")], ..usual.clone() },
            "R E(42501)",
            "42501 FATAL",
            "permission denied to change \"search_path\"",
        ),
        (
            "unknown database",
            Login { dbname: "nowhere", ..usual.clone() },
            "R E(3D000)",
            "3D000 FATAL",
            "database \"nowhere\" does not exist",
        ),
        (
            "another tenant's database",
            Login { dbname: &estate.initech.dbname, ..usual.clone() },
            "R E(3D000)",
            "3D000 FATAL",
            "database \"initech",
        ),
        (
            "a wrong value",
            Login { more: &[("TimeZone", "Nowhere/Land")], ..usual.clone() },
            "R E(22023)",
            "22023 FATAL",
            "invalid value for parameter \"TimeZone\"",
        ),
    ] {
        let said = attempt(&gate, &login).await;
        assert_eq!(told(&said), frames, "{name}");
        let refused = Refusal::among(&said);
        assert_eq!(refused.brief(), brief, "{name}");
        assert!(refused.message.starts_with(message), "{name}: {}", refused.message);
        if name == "protected" {
            assert!(refused.hint.starts_with("Write schema.table"), "{}", refused.hint);
        }
    }
    // Whoever runs the gate is told of those who proved who they are, and where they come from.
    gate.logs("nowhere").await;
    let log = gate.log();
    let line = log.lines().find(|line| line.contains("nowhere")).unwrap();
    let tenant = format!("tenant={}", estate.stark.id);
    for part in ["login refused", "peer=127.0.0.1:", &tenant, "credential=\"token "] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    // By the tenant's id as the database, and by every name at once, it works.
    let user = format!("app.{}", estate.stark.id);
    let option = format!("-c tenantgate.tenant={}", estate.stark.id);
    let more = [("options", option.as_str())];
    let all = Login { user: &user, dbname: &estate.stark.id, password: token, more: &more };
    assert!(told(&attempt(&gate, &all).await).ends_with("Z(I)"));
}
