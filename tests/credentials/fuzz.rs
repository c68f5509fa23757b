//! Seeded fuzz of what a JSON Web Token says: well-signed tokens with any header and any claims.
//! Only those that say exactly what a good one says prove the tenant.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tenantgate::auth::Authenticator;
use tenantgate::config;

use super::signer::{Signer, set};

/// Tokens in one run; the seed of each is its number, so a failure names itself.
const TOKENS: u64 = 20_000;

const NOW: u64 = 1_800_000_000;

const SETTINGS: &str = r#"
[[listen]]
address = "127.0.0.1:0"
tls = "disable"
[issuers.web]
issuer = "i"
audience = "a"
jwks_file = "keys.json"
role_claim = "role"
read_only_claim = "ro"
[clusters.main]
capacity = 1
connection_string = "host=127.0.0.1 user=tg dbname=app"
[tenants.acme]
isolation = "row"
cluster = "main"
roles = { r = {} }
"#;

fn authenticator(folder: &Path, keys: &str) -> (Authenticator, config::Config) {
    std::fs::write(folder.join("keys.json"), keys).unwrap();
    std::fs::write(folder.join("gate.toml"), SETTINGS).unwrap();
    let config = config::load(&folder.join("gate.toml")).unwrap_or_else(|error| panic!("{error}"));
    (Authenticator::new(&config.issuers).unwrap(), config)
}

/// Any value, mostly one that has something to do with the claims.
fn value(random: &mut fastrand::Rng, depth: u32) -> Value {
    match random.u8(..if depth > 2 { 10 } else { 13 }) {
        0 => Value::Null,
        1 => random.bool().into(),
        2 => random.u64(..).into(),
        3 => (NOW as f64 + f64::from(random.i32(-100..100))).into(),
        4 => (NOW - 3600 + random.u64(..7200)).into(),
        5 => random.i64(..).into(),
        6 => (random.f64() * 1e300).into(),
        7 => ["i", "a", "acme", "r", "", "Acme", "one"][random.usize(..7)].into(),
        8 => (0..random.usize(..20)).map(|_| random.char(..)).collect::<String>().into(),
        9 => "x".repeat(random.usize(..600)).into(),
        10 => (0..random.usize(..4)).map(|_| value(random, depth + 1)).collect(),
        11 => json!({ "acme": value(random, depth + 1) }),
        _ => json!(["acme", "a", value(random, depth + 1)]),
    }
}

/// What a good token says, written by its rules and not by the code's.
fn is_good(claims: &Value) -> bool {
    let at = |name: &str| claims.get(name);
    let number = |name: &str| at(name).map(|it| it.as_f64().filter(|it| *it >= 0.0));
    let (now, leeway, day) = (NOW as f64, 30.0, 86_400.0);
    let Some(Some(exp)) = number("exp") else { return false };
    let iat = match number("iat") {
        None => now,
        Some(Some(iat)) if iat <= now + leeway => iat,
        Some(_) => return false,
    };
    let begun = number("nbf").is_none_or(|nbf| nbf.is_some_and(|nbf| nbf <= now + leeway));
    let audience = match at("aud") {
        Some(Value::String(one)) => one == "a",
        Some(Value::Array(list)) => list.contains(&"a".into()),
        _ => false,
    };
    let text = |it: &Value| it.as_str().is_some_and(|it| (1..=256).contains(&it.len()));
    let role = at("role").is_none_or(|it| *it == json!("r") || *it == json!(["r"]));
    exp + leeway > now
        && exp - iat <= day + leeway
        && begun
        && audience
        && at("iss") == Some(&json!("i"))
        && at("tenant_id") == Some(&json!("acme"))
        && at("jti").is_none_or(text)
        && role
        && at("ro").is_none_or(Value::is_boolean)
}

#[tokio::test]
async fn only_tokens_that_say_what_a_good_one_says_prove_a_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new("k", Algorithm::EdDSA);
    let other = Signer::new("l", Algorithm::EdDSA);
    let (authenticator, config) = authenticator(folder.path(), &set(&[&signer, &other]));
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let (mut good, mut bad) = (0, 0);
    for seed in 0..TOKENS {
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut claims = json!({
            "iss": "i", "aud": "a", "tenant_id": "acme", "iat": NOW, "exp": NOW + 60,
        });
        for _ in 0..random.usize(..3) {
            let names = ["iss", "aud", "tenant_id", "iat", "exp", "nbf", "jti", "role", "ro", "x"];
            let name = names[random.usize(..names.len())];
            match random.u8(..6) {
                0 => drop(claims.as_object_mut().unwrap().remove(name)),
                _ => claims[name] = value(random, 0),
            }
        }
        let header = match random.u8(..8) {
            0 => json!({ "alg": "EdDSA", "kid": "k", "x": value(random, 0) }),
            _ => json!({ "alg": "EdDSA", "kid": "k" }),
        };
        let token = signer.token_with(&header.to_string(), &claims.to_string());
        let answer = authenticator.authenticate(&config.catalog, token.as_bytes(), &[], now).await;
        assert_eq!(answer.is_ok(), is_good(&claims), "seed {seed}: {claims} {:?}", answer.err());
        match answer {
            Ok(identity) => {
                assert!(!identity.has_expired(now) && identity.tenant.id.as_str() == "acme");
                good += 1;
            }
            Err(_) => bad += 1,
        }
    }
    assert!(good > TOKENS / 5 && bad > TOKENS / 5, "{good} good, {bad} bad");
}

#[tokio::test]
async fn no_bytes_of_a_header_or_of_claims_do_more_than_be_refused() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new("k", Algorithm::EdDSA);
    let (authenticator, config) = authenticator(folder.path(), &set(&[&signer]));
    let header = r#"{"alg":"EdDSA","kid":"k","crit":["x"],"jwk":{"kty":"OKP","crv":"Ed25519"}}"#;
    let now = jsonwebtoken::get_current_timestamp();
    let claims =
        json!({ "iss": "i", "aud": "a", "tenant_id": "acme", "exp": now + 60 }).to_string();
    for seed in 0..TOKENS {
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut texts = [header.as_bytes().to_vec(), claims.as_bytes().to_vec()];
        let text = &mut texts[random.usize(..2)];
        for _ in 0..random.usize(1..5) {
            let at = random.usize(..=text.len().saturating_sub(1));
            match random.u8(..4) {
                0 => text.truncate(at),
                1 => text.insert(at, random.u8(..)),
                2 => drop(text.get_mut(at).map(|byte| *byte = random.u8(..))),
                _ => text.extend_from_within(at..),
            }
        }
        let [header, claims] = texts.map(|text| unsigned(&text));
        let token = format!("{header}.{claims}.{}", "A".repeat(86));
        let answer = authenticator
            .authenticate(&config.catalog, token.as_bytes(), &[], SystemTime::now())
            .await;
        assert!(answer.is_err(), "seed {seed}");
        let _ = tenantgate::auth::unverified(token.as_bytes());
    }
}

fn unsigned(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
