//! How long a credential counts: its end is its sessions' end, at the end of their transaction or
//! at once, whatever they hold.

use std::time::{Duration, Instant, SystemTime};

use humantime_serde::re::humantime::format_rfc3339_millis;
use jsonwebtoken::get_current_timestamp;
use serde_json::json;
use tenantgate::catalog::new_token;

use super::{AUDIT, claims, is_let_in, written};
use crate::harness::gate::Gate;
use crate::harness::messages::{ONE, query};
use crate::harness::tenants::{Estate, JWT_KEY, Tenant, Tweaks, jwt_with};
use crate::harness::wire::{Login, Wire};

/// How soon a session ends whose credential does; a slow machine gets more.
const SOON: Duration = Duration::from_secs(10);

pub async fn session(gate: &Gate, password: &str) -> Wire {
    Wire::login(gate.port, &Login { user: "app", dbname: "app", password, more: &[] }).await
}

/// A token of issuer `login` that is past its time so many seconds from now; there is no leeway.
fn short(tenant: &str, seconds: u64) -> String {
    let mut claims = claims("login", tenant);
    claims["exp"] = json!(get_current_timestamp() + seconds);
    jwt_with(JWT_KEY, &claims)
}

/// Settings whose issuer `login` allows clocks no difference.
fn exact(estate: &Estate, gate: &str, tier: &str) -> String {
    let settings = estate.settings(&Tweaks { gate, tier, more: AUDIT, ..Tweaks::default() });
    settings.replace("key_file = \"login.key\"", "key_file = \"login.key\"\nleeway = \"0s\"")
}

/// The end of a session that has no more to say, in the words of its last message.
async fn ended(wire: &mut Wire) -> (String, String) {
    let frame = wire.frame().await;
    let told = (frame.to_string(), frame.field('M').unwrap_or_default());
    assert_eq!(frame.field('S').as_deref(), Some("FATAL"), "{told:?}");
    assert!(frame.field('H').is_some(), "a hint says what to do");
    assert_eq!(wire.until_closed().await, "");
    told
}

#[tokio::test]
async fn a_token_that_expires_ends_its_sessions_and_no_others() {
    let estate = Estate::new().await;
    let gate = Gate::start(&exact(&estate, "", "")).await;
    let (stark, began) = (&estate.stark.id, Instant::now());
    let token = short(stark, 5);
    let (mut idle, mut inside) = (session(&gate, &token).await, session(&gate, &token).await);
    let mut locked = session(&gate, &token).await;
    let mut other = gate.wire(&estate.stark).await;
    assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
    let lock = "SELECT pg_advisory_lock(7), 1";
    assert_eq!(locked.query(lock).await, "T D(,1) C(SELECT 1) Z(I)");
    let expired = "terminating connection because the credential has expired".to_owned();
    let wanted = ("E(57P01)".to_owned(), expired);
    assert_eq!(ended(&mut idle).await, wanted);
    assert!(began.elapsed() < Duration::from_secs(5) + SOON);
    assert_eq!(ended(&mut locked).await, wanted, "what it keeps is no excuse");
    // A transaction that has begun goes on, and its end is the session's.
    assert_eq!(inside.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    inside.send(query("COMMIT")).await;
    assert_eq!(inside.until_closed().await, "C(COMMIT) Z(I) E(57P01)");
    assert_eq!(other.query("SELECT 1").await, ONE);
    assert!(!is_let_in(&gate, &token).await);
    let events = written(&gate, "revocation", 3).await;
    assert!(events.iter().all(|event| event["reason"] == "credential_expired"), "{events:?}");
    assert!(events.iter().all(|event| event["credential"] == "jwt login/alice"), "{events:?}");
}

/// What a transaction was at that did not end in time was undone.
async fn nothing_is_late(gate: &Gate, tenant: &Tenant) {
    let late = "SELECT count(*) FROM notes WHERE body = 'late'";
    assert_eq!(gate.wire(tenant).await.query(late).await, "T D(0) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn in_session_pooling_and_by_setting_at_once_it_ends_too() {
    let estate = Estate::new().await;
    let gate = "credential_grace = \"0s\"";
    let gate = Gate::start(&exact(&estate, gate, "pooling = \"session\"")).await;
    let token = short(&estate.stark.id, 3);
    let (mut idle, mut inside) = (session(&gate, &token).await, session(&gate, &token).await);
    assert_eq!(
        inside.query("BEGIN; UPDATE notes SET body = 'late'").await,
        "C(BEGIN) C(UPDATE 3) Z(T)"
    );
    assert_eq!(idle.query("SELECT 1").await, ONE);
    assert_eq!(ended(&mut idle).await.0, "E(57P01)");
    assert_eq!(ended(&mut inside).await.0, "E(57P01)");
    nothing_is_late(&gate, &estate.stark).await;
}

#[tokio::test]
async fn an_open_transaction_has_a_grace_and_no_more() {
    let estate = Estate::new().await;
    let gate = Gate::start(&exact(&estate, "credential_grace = \"1s\"", "")).await;
    let token = short(&estate.acme.id, 4);
    let (mut idle, mut inside) = (session(&gate, &token).await, session(&gate, &token).await);
    assert_eq!(
        inside.query("BEGIN; UPDATE notes SET body = 'late'").await,
        "C(BEGIN) C(UPDATE 3) Z(T)"
    );
    assert_eq!(idle.query("SELECT 1").await, ONE);
    assert_eq!(ended(&mut idle).await.0, "E(57P01)");
    let (code, told) = ended(&mut inside).await;
    assert_eq!((code.as_str(), told.contains("has expired")), ("E(57P01)", true), "{told}");
    nothing_is_late(&gate, &estate.acme).await;
}

#[tokio::test]
async fn what_takes_a_credential_away_ends_its_sessions_with_the_reason() {
    let estate = Estate::new().await;
    let good = exact(&estate, "", "");
    let gate = Gate::start(&good).await;
    let stark = &estate.stark;
    let table = format!("[tenants.{}]\n", stark.id);
    let revoked = "terminating connection because the credential was revoked";
    let disabled = "terminating connection because the tenant is disabled";
    let removed = "terminating connection because the tenant changed";
    let changes = [
        (good.replace("https://login.test", "https://other.test"), revoked, true),
        (good.replace("audience = \"tenantgate\"", "audience = \"x\""), revoked, true),
        (good.replace(&table, &format!("{table}state = \"disabled\"\n")), disabled, false),
        (good.replace(stark.table(), ""), removed, false),
    ];
    for (changed, message, token_stays) in changes {
        let (mut jwt, mut token) =
            (session(&gate, &short(&stark.id, 60)).await, gate.wire(stark).await);
        gate.write_settings(&changed);
        gate.reload();
        assert_eq!(ended(&mut jwt).await, ("E(57P01)".to_owned(), message.to_owned()));
        match token_stays {
            true => assert_eq!(token.query("SELECT 1").await, ONE),
            false => assert_eq!(ended(&mut token).await.1, message),
        }
        gate.write_settings(&good);
        gate.reload();
        let back = async || {
            let both = [&stark.token, &short(&stark.id, 60)];
            let in_by_token = is_let_in(&gate, both[0]).await;
            (in_by_token && is_let_in(&gate, both[1]).await).then_some(())
        };
        crate::harness::eventually("it may log in again", back).await;
    }
    // By another name it is another issuer.
    let mut jwt = session(&gate, &short(&stark.id, 60)).await;
    gate.write_settings(&good.replace("[issuers.login]", "[issuers.other]"));
    gate.reload();
    assert_eq!(ended(&mut jwt).await.1, revoked);
    // The key itself: another secret in the file.
    let mut jwt = session(&gate, &short(&stark.id, 60)).await;
    std::fs::write(gate.folder().join("login.key"), "another secret of thirty-two bytes").unwrap();
    gate.reload();
    assert_eq!(ended(&mut jwt).await.1, revoked);
}

#[tokio::test]
async fn opaque_tokens_have_names_and_ends_of_their_own() {
    let estate = Estate::new().await;
    let acme = &estate.acme;
    let [first, second, third, past] = [(); 4].map(|()| new_token().unwrap());
    let at = |seconds: u64| {
        format_rfc3339_millis(SystemTime::now() + Duration::from_secs(seconds)).to_string()
    };
    let line = acme.table().lines().find(|line| line.starts_with("tokens")).unwrap();
    let more = |revoked: bool| {
        let tokens = format!(
            "tokens = [{{ hash = \"{}\", name = \"reports\", expires = \"{}\" }}, \
             {{ hash = \"{}\", revoked = {revoked} }}, \"{}\", \
             {{ hash = \"{}\", expires = \"2020-01-31\" }}]",
            first.line,
            at(3),
            second.line,
            third.line,
            past.line,
        );
        exact(&estate, "", "").replace(line, &tokens)
    };
    let settings = more(false);
    let gate = Gate::start(&settings).await;
    assert!(!is_let_in(&gate, &past.text).await && !is_let_in(&gate, &acme.token).await);
    let mut expiring = session(&gate, &first.text).await;
    let (mut revoked, mut plain) =
        (session(&gate, &second.text).await, session(&gate, &third.text).await);
    let names = written(&gate, "login", 3).await;
    let named =
        |event: &serde_json::Value| event["credential"].as_str().unwrap().ends_with(" reports");
    assert!(names.iter().any(named), "{names:?}");
    assert!(ended(&mut expiring).await.1.ends_with("has expired"));
    assert!(!is_let_in(&gate, &first.text).await);
    gate.write_settings(&settings.replace("revoked = false", "revoked = true"));
    gate.reload();
    assert!(ended(&mut revoked).await.1.ends_with("was revoked"));
    assert!(!is_let_in(&gate, &second.text).await);
    assert_eq!(plain.query("SELECT 1").await, ONE);
    let reasons = written(&gate, "refusal", 4).await;
    let reasons: Vec<&str> = reasons.iter().map(|it| it["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["expired", "unknown token, issuer or tenant", "expired", "revoked"]);
}
