//! Credentials that prove a tenant, and those that must not.

use std::path::Path;
use std::time::UNIX_EPOCH;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::catalog::tests::{build, plan, tenant};
use crate::catalog::{TenantName, TenantPlan, TokenPlan, new_token};
use crate::isolation::Isolation;
use crate::secret::Place;

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// Tenants `acme` (active, with a token) and `gone` (disabled, with a token).
struct Fixture {
    catalog: Catalog,
    acme: String,
    gone: String,
    folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let (acme, gone) = (new_token().unwrap(), new_token().unwrap());
    let with = |state, line| TenantPlan {
        state,
        tokens: vec![TokenPlan { line, ..TokenPlan::default() }],
        ..tenant(Isolation::Row)
    };
    let plan = plan([
        ("acme", with(TenantState::Active, acme.line)),
        ("gone", with(TenantState::Disabled, gone.line)),
    ]);
    let catalog = build(&plan);
    Fixture { catalog, acme: acme.text, gone: gone.text, folder: tempfile::tempdir().unwrap() }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn owners_only(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn issuer(folder: &Path, name: &str, algorithm: Algorithm, key: &[u8]) -> IssuerSettings {
    let key_file = folder.join(name);
    std::fs::write(&key_file, key).unwrap();
    owners_only(&key_file);
    IssuerSettings {
        name: name.to_owned(),
        issuer: format!("https://{name}.example.com"),
        audience: "tenantgate".to_owned(),
        keys: KeySource::File { path: Place::File(key_file), algorithm },
        claims: ClaimPaths::default(),
        leeway: Duration::from_secs(30),
        lifetime: LIFETIME_DEFAULT,
        denied_file: None,
        any_tenant: true,
    }
}

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn claims(name: &str) -> Value {
    json!({
        "iss": format!("https://{name}.example.com"), "aud": "tenantgate", "sub": "alice",
        "exp": NOW + 60, "tenant_id": "acme",
    })
}

fn signed(algorithm: jsonwebtoken::Algorithm, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    signed(jsonwebtoken::Algorithm::HS256, claims, &EncodingKey::from_secret(SECRET))
}

impl Fixture {
    fn hs256_issuer(&self) -> IssuerSettings {
        issuer(self.folder.path(), "hs", Algorithm::HS256, &[SECRET, b"\n"].concat())
    }

    fn ask(&self, issuers: &[IssuerSettings], password: &[u8]) -> Result<Identity, Denied> {
        self.ask_named(issuers, password, &[])
    }

    fn ask_named(
        &self,
        issuers: &[IssuerSettings],
        password: &[u8],
        named: &[&str],
    ) -> Result<Identity, Denied> {
        let authenticator = Authenticator::new(issuers).unwrap_or_else(|error| panic!("{error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let named: Vec<_> = named.iter().map(|id| TenantName::Exact((*id).to_owned())).collect();
        runtime.block_on(authenticator.authenticate(&self.catalog, password, &named, now()))
    }

    /// The reason an HS256 token with changed claims is denied for.
    fn denied(&self, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Denied {
        let mut claims = claims("hs");
        change(claims.as_object_mut().unwrap());
        self.ask(&[self.hs256_issuer()], hs256(&claims).as_bytes()).unwrap_err()
    }
}

#[test]
fn an_opaque_token_proves_its_tenant_and_nobody_elses() {
    let fixture = fixture();
    let identity = fixture.ask_named(&[], fixture.acme.as_bytes(), &["acme", "acme"]).unwrap();
    assert_eq!(identity.tenant.id.as_str(), "acme");
    assert!(identity.credential.starts_with("token ") && identity.credential.len() == 18);
    let nobody = Authenticator::new(&[]).unwrap();
    assert!(identity.stands(&fixture.catalog, &nobody));
    assert!(!identity.stands(&Catalog::default(), &nobody));
    assert!(!identity.has_expired(now()));
    let named = fixture.ask_named(&[], fixture.acme.as_bytes(), &["acme", "gone"]);
    assert_eq!(named.unwrap_err(), Denied::NameDisagrees);
    let gone = fixture.ask(&[], fixture.gone.as_bytes());
    assert_eq!(gone.unwrap_err(), Denied::Disabled);
}

#[test]
fn a_token_that_is_one_letter_off_proves_nothing() {
    let fixture = fixture();
    for at in 0..fixture.acme.len() {
        let mut wrong = fixture.acme.clone().into_bytes();
        *wrong.get_mut(at).unwrap() ^= 1;
        assert!(fixture.ask(&[], &wrong).is_err(), "letter {at}");
    }
    let id = fixture.acme.get(..16).unwrap();
    let wrong = format!("{id}{}", fixture.gone.get(16..).unwrap());
    assert_eq!(fixture.ask(&[], wrong.as_bytes()).unwrap_err(), Denied::WrongToken);
    let unknown = new_token().unwrap().text;
    assert_eq!(fixture.ask(&[], unknown.as_bytes()).unwrap_err(), Denied::Unknown);
    assert_eq!(fixture.ask(&[], b"").unwrap_err(), Denied::Malformed);
    assert_eq!(fixture.ask(&[], &[b'a'; 70_000]).unwrap_err(), Denied::TooLong);
    assert_eq!(fixture.ask(&[], &[b'.'; 2]).unwrap_err(), Denied::Malformed);
}

#[test]
fn a_signed_token_proves_the_tenant_in_its_claim() {
    let fixture = fixture();
    let issuers = [fixture.hs256_issuer()];
    let identity = fixture.ask_named(&issuers, hs256(&claims("hs")).as_bytes(), &["acme"]).unwrap();
    assert_eq!(identity.credential, "jwt hs/alice");
    assert_eq!(identity.expires_at, Some(now() + Duration::from_secs(90)));
    assert!(identity.has_expired(now() + Duration::from_secs(90)));
    let sign =
        |settings: &IssuerSettings| sign(settings, "acme", now(), Duration::from_secs(60)).unwrap();
    fixture.ask(&issuers, sign(&issuers[0]).as_bytes()).unwrap();
    let deep = IssuerSettings {
        claims: ClaimPaths { tenant: "app.org.id".to_owned(), ..ClaimPaths::default() },
        ..fixture.hs256_issuer()
    };
    fixture.ask(std::slice::from_ref(&deep), sign(&deep).as_bytes()).unwrap();
    let dotted = json!({ "app.org.id": "acme", "app": { "org": { "id": "gone" } } });
    let mut both = claims("hs");
    both.as_object_mut().unwrap().extend(dotted.as_object().unwrap().clone());
    assert_eq!(fixture.ask(&[deep], hs256(&both).as_bytes()).unwrap().tenant.id.as_str(), "acme");
}

#[test]
fn every_claim_is_required_and_checked() {
    let fixture = fixture();
    let set = |key: &'static str, value: Value| {
        fixture.denied(move |claims| drop(claims.insert(key.to_owned(), value)))
    };
    let without = |key: &'static str| fixture.denied(move |claims| drop(claims.remove(key)));
    assert_eq!(set("exp", json!(NOW - 30)), Denied::Expired);
    assert_eq!(set("exp", json!("soon")), Denied::ClaimMissing("exp"));
    assert_eq!(set("exp", json!(-1)), Denied::ClaimMissing("exp"));
    assert_eq!(set("exp", json!(u64::MAX)), Denied::ClaimMissing("exp"));
    assert_eq!(set("exp", json!(1e300)), Denied::ClaimMissing("exp"));
    assert_eq!(without("exp"), Denied::ClaimMissing("exp"));
    assert_eq!(set("nbf", json!(NOW + 31)), Denied::NotYet);
    assert_eq!(set("nbf", json!("x")), Denied::ClaimMissing("nbf"));
    assert_eq!(set("aud", json!("other")), Denied::WrongAudience);
    assert_eq!(set("aud", json!(["other", 1])), Denied::WrongAudience);
    assert_eq!(set("aud", json!([])), Denied::WrongAudience);
    assert_eq!(without("aud"), Denied::WrongAudience);
    assert_eq!(set("iss", json!("https://other.example.com")), Denied::Unknown);
    assert_eq!(set("iss", json!(["https://hs.example.com"])), Denied::Malformed);
    assert_eq!(without("iss"), Denied::Malformed);
    assert_eq!(without("tenant_id"), Denied::ClaimMissing("the tenant's"));
    for wrong in [json!(7), json!(null), json!(""), json!(["acme"]), json!({ "id": "acme" })] {
        assert_eq!(set("tenant_id", wrong), Denied::ClaimMissing("the tenant's"));
    }
    assert_eq!(set("tenant_id", json!("nobody")), Denied::Unknown);
    assert_eq!(set("tenant_id", json!("gone")), Denied::Disabled);
    assert_eq!(set("x", json!("y".repeat(20_000))), Denied::TooLong);
}

#[test]
fn edges_of_time_and_lists_of_audiences_are_accepted() {
    let fixture = fixture();
    let mut edge = claims("hs");
    edge["exp"] = json!(NOW as f64 - 29.5);
    edge["nbf"] = json!(NOW + 30);
    edge["aud"] = json!(["other", "tenantgate"]);
    fixture.ask(&[fixture.hs256_issuer()], hs256(&edge).as_bytes()).unwrap();
}

#[test]
fn the_algorithm_is_the_issuers_whatever_the_token_says() {
    let fixture = fixture();
    let folder = fixture.folder.path();
    let rsa = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let public: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
    let public_pem = pem("PUBLIC KEY", public.as_ref());
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    let rs_key =
        EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap();
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ec_private = pem("PRIVATE KEY", ec.to_pkcs8v1().unwrap().as_ref());
    let es_key = EncodingKey::from_ec_pem(ec_private.as_bytes()).unwrap();
    let ec_public: PublicKeyX509Der<'_> = ec.public_key().as_der().unwrap();
    let issuers = [
        fixture.hs256_issuer(),
        issuer(folder, "rs", Algorithm::RS256, public_pem.as_bytes()),
        issuer(folder, "es", Algorithm::ES256, pem("PUBLIC KEY", ec_public.as_ref()).as_bytes()),
    ];
    use jsonwebtoken::Algorithm::{ES256, HS256, HS512, RS256, RS512};
    fixture.ask(&issuers, signed(RS256, &claims("rs"), &rs_key).as_bytes()).unwrap();
    fixture.ask(&issuers, signed(ES256, &claims("es"), &es_key).as_bytes()).unwrap();
    // The public key is public: whoever has it could sign HS256 with it.
    let confused = EncodingKey::from_secret(public_pem.as_bytes());
    let der_confused = EncodingKey::from_secret(public.as_ref());
    let attacks = [
        signed(HS256, &claims("rs"), &confused),
        signed(HS256, &claims("rs"), &der_confused),
        signed(RS512, &claims("rs"), &rs_key),
        signed(RS256, &claims("hs"), &rs_key),
        signed(RS256, &claims("es"), &rs_key),
        signed(HS512, &claims("hs"), &EncodingKey::from_secret(SECRET)),
        hs256(&claims("rs")),
    ];
    for attack in attacks {
        let denied = fixture.ask(&issuers, attack.as_bytes()).unwrap_err();
        assert!(matches!(denied, Denied::WrongToken | Denied::WrongAlgorithm), "{denied}");
    }
}

#[test]
fn a_token_without_a_signature_is_denied_however_it_is_spelled() {
    let fixture = fixture();
    let issuers = [fixture.hs256_issuer()];
    let body = URL_SAFE_NO_PAD.encode(claims("hs").to_string());
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": algorithm }).to_string());
        for signature in ["", "AA"] {
            let token = format!("{header}.{body}.{signature}");
            assert_eq!(fixture.ask(&issuers, token.as_bytes()).unwrap_err(), Denied::Malformed);
        }
    }
    let good = hs256(&claims("hs"));
    let cut = good.rsplit_once('.').unwrap().0;
    assert!(fixture.ask(&issuers, format!("{cut}.").as_bytes()).is_err());
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.crit = Some(vec!["exp".to_owned()]);
    let key = EncodingKey::from_secret(SECRET);
    let critical = jsonwebtoken::encode(&header, &claims("hs"), &key).unwrap();
    assert_eq!(fixture.ask(&issuers, critical.as_bytes()).unwrap_err(), Denied::Critical);
}

#[test]
fn keys_that_do_not_fit_are_refused_when_the_settings_are_read() {
    let fixture = fixture();
    let folder = fixture.folder.path();
    let refused = |algorithm, key: &[u8]| {
        let settings = issuer(folder, "bad", algorithm, key);
        let error = Authenticator::new(&[settings]).unwrap_err();
        assert_eq!(error.key, "key_file");
        error.message
    };
    assert!(refused(Algorithm::HS256, &[7; 31]).contains("31 bytes"));
    assert!(refused(Algorithm::HS256, pem("PUBLIC KEY", &[1; 80]).as_bytes()).contains("PEM"));
    assert!(refused(Algorithm::RS256, SECRET).contains("PUBLIC KEY"));
    assert!(refused(Algorithm::RS256, pem("PUBLIC KEY", &[1; 80]).as_bytes()).contains("RSA"));
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ec: PublicKeyX509Der<'_> = ec.public_key().as_der().unwrap();
    let ec = pem("PUBLIC KEY", ec.as_ref());
    assert!(refused(Algorithm::RS256, ec.as_bytes()).contains("RSA key"));
    let private = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&private).unwrap();
    let private = pem("PRIVATE KEY", private.as_ref());
    assert!(refused(Algorithm::RS256, private.as_bytes()).contains("PUBLIC KEY"));
    assert!(refused(Algorithm::ES256, private.as_bytes()).contains("PUBLIC KEY"));
    let twins = [fixture.hs256_issuer(), fixture.hs256_issuer()];
    assert_eq!(Authenticator::new(&twins).unwrap_err().key, "issuer");
}

#[test]
fn no_bytes_panic_and_none_prove_a_tenant() {
    let fixture = fixture();
    let authenticator = Authenticator::new(&[fixture.hs256_issuer()]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let good = [hs256(&claims("hs")), fixture.acme.clone()];
    let mut random = fastrand::Rng::with_seed(0x7e4a_17ed);
    for round in 0..2_000 {
        let good = good.get(round % 2).unwrap();
        let mut bytes = good.clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.usize(..3) {
                0 => bytes.insert(at, random.u8(..)),
                1 => bytes.truncate(at.max(1)),
                _ => *bytes.get_mut(at).unwrap() = random.u8(..),
            }
        }
        let answer = authenticator.authenticate(&fixture.catalog, &bytes, &[], now());
        let proved = runtime.block_on(answer).is_ok();
        assert!(!proved || bytes == good.as_bytes(), "{:?}", String::from_utf8_lossy(&bytes));
    }
}
