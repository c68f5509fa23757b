//! Attacks with JSON Web Tokens, each at the gate itself: the client hears what it hears for any
//! wrong password, and the audit has the true reason.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::signer::{Signer, set};
use super::{AUDIT, attempt, claims, events, is_let_in, written};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, JWT_KEY, Tweaks, jwt, jwt_with};

/// What somebody without any credential is told.
const REFUSED: &str = "R E(28P01)";

/// Issuer `web` with its keys in a file, beside issuer `login` of every estate.
const WEB: &str = "[issuers.web]\nissuer = \"https://web.test\"\naudience = \"tenantgate\"\n\
                   jwks_file = \"web.json\"\nany_tenant = true\n";

struct Scene {
    estate: Estate,
    gate: Gate,
    /// Keys of issuer `web`.
    rsa: Signer,
    curve: Signer,
}

impl Scene {
    async fn new() -> Self {
        let estate = Estate::new().await;
        let rsa = Signer::new("rsa-1", Algorithm::RS256);
        let curve = Signer::new("curve-1", Algorithm::ES256);
        let more = format!("{WEB}{AUDIT}");
        let settings = estate.settings(&Tweaks { more: &more, ..Tweaks::default() });
        let files = [("web.json", set(&[&rsa, &curve]))];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        let gate = Gate::start_with(&settings, &files).await;
        Self { estate, gate, rsa, curve }
    }

    fn tenant(&self) -> &str {
        &self.estate.acme.id
    }

    /// Claims of issuer `web` with some of them changed; `null` takes one out.
    fn changed(&self, changes: Value) -> Value {
        let mut claims = claims("web", self.tenant());
        for (name, value) in changes.as_object().unwrap() {
            match value.is_null() {
                true => drop(claims.as_object_mut().unwrap().remove(name)),
                false => claims[name] = value.clone(),
            }
        }
        claims
    }

    /// Every one of these is refused, for its reason.
    async fn refuses(&self, attacks: &[(&str, String)]) {
        for (reason, token) in attacks {
            let before = events(&self.gate, "refusal").len();
            assert_eq!(attempt(&self.gate, token).await, REFUSED, "{reason}: {token}");
            let told = written(&self.gate, "refusal", before + 1).await;
            let told = told.last().unwrap()["reason"].as_str().unwrap();
            assert!(told.contains(reason), "\"{told}\" instead of \"{reason}\" for {token}");
        }
        let text = std::fs::read_to_string(self.gate.folder().join("audit.jsonl")).unwrap();
        for (_, token) in attacks {
            assert!(token.len() < 20 || !text.contains(&token[..20]), "{token} was written down");
        }
    }
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn nobody_chooses_the_algorithm_but_the_settings() {
    let scene = Scene::new().await;
    let good = claims("web", scene.tenant());
    for signer in [&scene.rsa, &scene.curve] {
        assert!(is_let_in(&scene.gate, &signer.token(&good)).await);
    }
    let mut attacks = Vec::new();
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let header = encoded(&json!({ "alg": none, "kid": "rsa-1" }));
        attacks.push(("neither a token", format!("{header}.{}.", encoded(&good))));
        attacks.push(("neither a token", format!("{header}.{}.AA", encoded(&good))));
    }
    // The public key is public: whoever has it could sign HS256 with it.
    let public = scene.rsa.published();
    let modulus = URL_SAFE_NO_PAD.decode(public["n"].as_str().unwrap()).unwrap();
    let secrets = [modulus, public["n"].as_str().unwrap().into(), public.to_string().into_bytes()];
    for secret in secrets {
        for kid in ["rsa-1", "curve-1"] {
            let mut header = jsonwebtoken::Header::new(Algorithm::HS256);
            header.kid = Some(kid.to_owned());
            let key = jsonwebtoken::EncodingKey::from_secret(&secret);
            let token = jsonwebtoken::encode(&header, &good, &key).unwrap();
            attacks.push(("another algorithm", token));
        }
    }
    // A key is for one algorithm, also among those of its own kind.
    let header = |kid: &str, alg: &str| json!({ "alg": alg, "kid": kid }).to_string();
    let body = good.to_string();
    attacks.push(("another algorithm", scene.rsa.token_with(&header("rsa-1", "RS512"), &body)));
    attacks.push(("another algorithm", scene.rsa.token_with(&header("rsa-1", "PS256"), &body)));
    attacks.push(("another algorithm", scene.rsa.token_with(&header("curve-1", "RS256"), &body)));
    attacks.push(("signature", scene.rsa.token_with(&header("curve-1", "ES256"), &body)));
    // And one issuer's key is nothing at another.
    let foreign = jwt_with(JWT_KEY, &claims("web", scene.tenant()));
    attacks.push(("a key the issuer does not have", foreign));
    scene.refuses(&attacks).await;
}

#[tokio::test]
async fn a_key_is_found_by_its_name_and_by_nothing_else() {
    let scene = Scene::new().await;
    let good = claims("web", scene.tenant()).to_string();
    let thief = Signer::new("rsa-1", Algorithm::RS256);
    let unknown = "a key the issuer does not have";
    let mut attacks = Vec::new();
    let kids = [
        "rsa-2",
        "RSA-1",
        "rsa-1 ",
        "rsa-1\u{0}",
        "",
        "../../../dev/null",
        "/dev/null",
        "file:///dev/null",
        "https://evil.test/keys",
        "rsa-1' OR '1'='1",
        "x' UNION SELECT 'AA",
        "rsa-1;rm",
        "%72sa-1",
        "login.key",
        "web.json",
    ];
    for kid in kids {
        let header = json!({ "alg": "RS256", "kid": kid }).to_string();
        attacks.push((unknown, scene.rsa.token_with(&header, &good)));
    }
    attacks.push((unknown, scene.rsa.token_with(r#"{"alg":"RS256"}"#, &good)));
    for kid in [json!(1), json!(["rsa-1"]), json!({}), json!(null), json!("k".repeat(300))] {
        let header = json!({ "alg": "RS256", "kid": kid }).to_string();
        attacks.push(("neither a token", scene.rsa.token_with(&header, &good)));
    }
    // Keys a token brings along, or says where to find.
    let stolen = thief.published();
    for more in [
        json!({ "jwk": stolen }),
        json!({ "jku": "https://evil.test/keys" }),
        json!({ "x5u": "https://evil.test/cert" }),
        json!({ "x5c": ["AAAA"] }),
    ] {
        let mut header = json!({ "alg": "RS256", "kid": "rsa-1" });
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        attacks.push(("signature", thief.token_with(&header.to_string(), &good)));
        // They are not looked at: with the true key the token is good.
        let token = scene.rsa.token_with(&header.to_string(), &good);
        assert!(is_let_in(&scene.gate, &token).await, "{header}");
    }
    scene.refuses(&attacks).await;
}

#[tokio::test]
async fn a_header_that_says_things_twice_or_must_be_understood_is_refused() {
    let scene = Scene::new().await;
    let good = claims("web", scene.tenant()).to_string();
    let sign = |header: &str, claims: &str| scene.rsa.token_with(header, claims);
    let plain = r#"{"alg":"RS256","kid":"rsa-1"}"#;
    let malformed = "neither a token";
    let mut attacks: Vec<(&str, String)> = [
        r#"{"alg":"RS256","kid":"rsa-1","alg":"none"}"#,
        r#"{"alg":"none","alg":"RS256","kid":"rsa-1"}"#,
        r#"{"alg":"RS256","kid":"curve-1","kid":"rsa-1"}"#,
        r#"{"alg":"RS256","kid":"rsa-1","x":{"a":1,"a":2}}"#,
        r#"["RS256"]"#,
        r#""RS256""#,
        "",
        "{",
    ]
    .into_iter()
    .map(|header| (malformed, sign(header, &good)))
    .collect();
    for crit in [r#"["exp"]"#, r#"["b64"]"#, "[]"] {
        let header = format!(r#"{{"alg":"RS256","kid":"rsa-1","crit":{crit},"b64":true}}"#);
        attacks.push(("must be understood", sign(&header, &good)));
    }
    let acme = scene.tenant();
    let globex = &scene.estate.globex.id;
    let inner = good.trim_end_matches('}');
    for twice in [
        format!(r#"{inner},"tenant_id":"{globex}"}}"#),
        format!(r#"{{"tenant_id":"{globex}",{}"#, good.trim_start_matches('{')),
        format!(r#"{inner},"tenant\u005fid":"{globex}"}}"#),
        format!(r#"{inner},"exp":4102444800}}"#),
        format!(r#"{inner},"aud":"other"}}"#),
        format!(r#"{inner},"app":{{"tenant":"{acme}","tenant":"{globex}"}}}}"#),
    ] {
        attacks.push((malformed, sign(plain, &twice)));
    }
    for broken in ["", "{", "[]", "\"x\"", "null", "{}}", "{\"iss\":\"https://web.test\"} x"] {
        attacks.push((malformed, sign(plain, broken)));
    }
    let deep = format!(r#"{inner},"x":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
    attacks.push((malformed, sign(plain, &deep)));
    scene.refuses(&attacks).await;
}

#[tokio::test]
async fn every_claim_that_counts_must_be_there_and_right() {
    let scene = Scene::new().await;
    let now = jsonwebtoken::get_current_timestamp();
    let day = 24 * 3600;
    let attacks = [
        ("unknown", json!({ "iss": "https://evil.test" })),
        ("unknown", json!({ "iss": "https://web.test/" })),
        ("unknown", json!({ "iss": "HTTPS://WEB.TEST" })),
        ("neither a token", json!({ "iss": null })),
        ("neither a token", json!({ "iss": ["https://web.test"] })),
        ("another audience", json!({ "aud": null })),
        ("another audience", json!({ "aud": "tenantgate2" })),
        ("another audience", json!({ "aud": [] })),
        ("another audience", json!({ "aud": { "tenantgate": true } })),
        ("without exp", json!({ "exp": null })),
        ("without exp", json!({ "exp": "never" })),
        ("without exp", json!({ "exp": u64::MAX })),
        ("expired", json!({ "exp": now - 60 })),
        ("expired", json!({ "exp": 0 })),
        ("not valid yet", json!({ "nbf": now + 600, "exp": now + 1200 })),
        ("without nbf", json!({ "nbf": "now" })),
        ("issued in the future", json!({ "iat": now + 600, "exp": now + 1200 })),
        ("without iat", json!({ "iat": true })),
        ("for longer", json!({ "exp": now + day + 600 })),
        ("for longer", json!({ "iat": null, "exp": now + day + 600 })),
        ("for longer", json!({ "iat": now - 600, "exp": now + day })),
        ("the tenant's", json!({ "tenant_id": null })),
        ("the tenant's", json!({ "tenant_id": [scene.tenant()] })),
        ("the tenant's", json!({ "tenant_id": { "id": scene.tenant() } })),
        ("unknown", json!({ "tenant_id": "nobody" })),
        ("unknown", json!({ "tenant_id": format!("{}\u{0}", scene.tenant()) })),
        ("unknown", json!({ "tenant_id": scene.tenant().to_uppercase() })),
        ("jti", json!({ "jti": 7 })),
        ("longer than", json!({ "x": "y".repeat(20_000) })),
        ("longer than", json!({ "x": "y".repeat(45_000) })),
    ];
    let attacks = attacks.map(|(reason, it)| (reason, scene.rsa.token(&scene.changed(it))));
    scene.refuses(&attacks).await;
    // What is at the edge is let in.
    for edge in [
        json!({ "nbf": now + 20, "aud": ["other", "tenantgate"] }),
        json!({ "iat": now - 600, "exp": now + day - 600 }),
        json!({ "iat": null, "exp": now as f64 + 60.5 }),
        json!({ "x": "y".repeat(11_000) }),
    ] {
        let token = scene.rsa.token(&scene.changed(edge.clone()));
        assert!(is_let_in(&scene.gate, &token).await, "{edge}");
    }
}

#[tokio::test]
async fn a_tenant_bound_to_an_issuer_is_nobodys_elses() {
    let scene = Scene::new().await;
    let (acme, globex) = (&scene.estate.acme, &scene.estate.globex);
    let more = format!("{WEB}{AUDIT}");
    let settings = scene.estate.settings(&Tweaks { more: &more, ..Tweaks::default() });
    let table = format!("[tenants.{}]\n", acme.id);
    let bound = |issuer: &str| settings.replace(&table, &format!("{table}issuer = \"{issuer}\"\n"));
    let of_web = scene.rsa.token(&claims("web", &acme.id));
    let mut session = wire(&scene.gate, &of_web).await;
    scene.gate.write_settings(&bound("login"));
    scene.gate.reload();
    // The binding ends who came in with another issuer's token.
    let end = session.frame().await;
    assert_eq!(
        end.field('M').unwrap(),
        "terminating connection because the credential was revoked"
    );
    scene.refuses(&[("another issuer", of_web)]).await;
    assert!(is_let_in(&scene.gate, &jwt(&acme.id, 60)).await);
    assert!(is_let_in(&scene.gate, &acme.token).await, "an opaque token is the tenant's own");
    assert!(is_let_in(&scene.gate, &scene.rsa.token(&claims("web", &globex.id))).await);
    // One of several speaks for those who name it, unless it is said to speak for everybody.
    scene.refuses(&[("another issuer", jwt(&globex.id, 60))]).await;
    let mut session = wire(&scene.gate, &scene.rsa.token(&claims("web", &globex.id))).await;
    scene.gate.write_settings(&bound("login").replace("any_tenant = true", "any_tenant = false"));
    scene.gate.reload();
    assert_eq!(session.until_closed().await, "E(57P01)");
    let of_web = scene.rsa.token(&claims("web", &globex.id));
    scene.refuses(&[("another issuer", of_web), ("another issuer", jwt(&globex.id, 60))]).await;
    let refused = Gate::refused(
        &bound("logn")
            .replace("$PORT", "0")
            .replace("jwks_file = \"web.json\"", "key_file = \"login.key\"\nalgorithm = \"HS256\""),
    );
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("Did you mean \"login\"?"), "{said}");
}

#[tokio::test]
async fn a_revoked_token_is_of_no_use_when_it_is_shown_again() {
    let estate = Estate::new().await;
    let rsa = Signer::new("one", Algorithm::RS256);
    let more = format!("{WEB}denied_file = \"denied.txt\"\n{AUDIT}");
    let settings = estate.settings(&Tweaks { more: &more, ..Tweaks::default() });
    let files = [("web.json", set(&[&rsa])), ("denied.txt", "# nobody yet\n".to_owned())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let gate = Gate::start_with(&settings, &files).await;
    let scene = Scene { estate, gate, curve: Signer::new("two", Algorithm::ES256), rsa };
    let token = scene.rsa.token(&scene.changed(json!({ "jti": "leaked-1" })));
    let other = scene.rsa.token(&scene.changed(json!({ "jti": "leaked-10" })));
    assert!(is_let_in(&scene.gate, &token).await && is_let_in(&scene.gate, &other).await);
    let list = scene.gate.folder().join("denied.txt");
    std::fs::write(&list, "# from the incident\nleaked-1 # alice's laptop\n").unwrap();
    eventually("the list counts", async || (!is_let_in(&scene.gate, &token).await).then_some(()))
        .await;
    scene.refuses(&[("revoked", token.clone())]).await;
    // Where there is a list, a token that it could not name is none.
    let nameless = scene.rsa.token(&scene.changed(json!({})));
    scene.refuses(&[("without jti", nameless)]).await;
    assert!(is_let_in(&scene.gate, &other).await);
    // A list that cannot be read leaves the last good one.
    std::fs::remove_file(&list).unwrap();
    scene.gate.logs("list of denied tokens is not used").await;
    scene.refuses(&[("revoked", token)]).await;
}

async fn wire(gate: &Gate, token: &str) -> crate::harness::wire::Wire {
    let login =
        crate::harness::wire::Login { user: "app", dbname: "app", password: token, more: &[] };
    crate::harness::wire::Wire::login(gate.port, &login).await
}
