//! Services by JSON Web Token: an issuer says for whom the one service that it vouches for may act,
//! within what the settings let that service.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::signer::{Signer, set};
use super::{AUDIT, attempt, claims, events, written};
use crate::harness::cluster::shared;
use crate::harness::gate::Gate;
use crate::harness::services::Service;
use crate::harness::tenants::{Estate, JWT_KEY, Tenant, Tweaks, jwt_with};
use crate::harness::wire::{Login, Wire};

struct Scene {
    estate: Estate,
    service: Service,
    settings: String,
    gate: Gate,
    signer: Signer,
}

impl Scene {
    /// Issuer `idp` vouches for a service that may act for these.
    async fn new(acts_for: impl Fn(&Estate) -> String) -> Self {
        let cluster = shared().await;
        let estate = Estate::within(cluster).await;
        let lines = format!("acts_for = {}", acts_for(&estate));
        let service = Service::new(cluster, &lines).await;
        let signer = Signer::new("idp-1", Algorithm::ES256);
        let (table, name) = (&service.table, &service.name);
        let more = format!(
            "{table}[issuers.idp]\nissuer = \"https://idp.test\"\naudience = \"tenantgate\"\n\
             jwks_file = \"idp.json\"\nany_tenant = true\nrole_claim = \"role\"\n\
             acts_for_claim = \"app.acts_for\"\nservice = \"{name}\"\n{AUDIT}"
        );
        let settings = estate.settings(&Tweaks { more: &more, ..Tweaks::default() });
        // One tenant is bound to the other issuer.
        let globex = format!("[tenants.{}]\n", estate.globex.id);
        let settings = settings.replace(&globex, &format!("{globex}issuer = \"login\"\n"));
        let keys = set(&[&signer]);
        let gate = Gate::start_with(&settings, &[("idp.json", &keys)]).await;
        Self { estate, service, settings, gate, signer }
    }

    /// Claims of `idp` for a service, and others laid over them.
    fn claims(&self, acts_for: Value, more: Value) -> Value {
        let mut claims = claims("idp", "");
        claims.as_object_mut().unwrap().remove("tenant_id");
        claims["app"] = json!({ "acts_for": acts_for });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    }

    async fn wire(&self, token: &str) -> Wire {
        let login = Login { user: "app", dbname: "app", password: token, more: &[] };
        Wire::login(self.gate.port, &login).await
    }

    async fn refuses(&self, reason: &str, user: &str, token: &str) {
        let before = events(&self.gate, "refusal").len();
        let login = Login { user, dbname: "app", password: token, more: &[] };
        let frames = Wire::connect(self.gate.port).await.authenticate(&login).await;
        assert_eq!(crate::harness::messages::transcript(&frames), "R E(28P01)", "{reason}");
        let told = written(&self.gate, "refusal", before + 1).await;
        let told = told.last().unwrap()["reason"].as_str().unwrap();
        assert!(told.contains(reason), "\"{told}\" instead of \"{reason}\"");
    }
}

/// What a session sees that chose a tenant by its name for one transaction.
async fn acted(wire: &mut Wire, tenant: &Tenant) -> String {
    chosen(wire, &format!("SET LOCAL tenantgate.tenant = '{}'", tenant.id)).await
}

async fn chosen(wire: &mut Wire, choice: &str) -> String {
    wire.query("BEGIN").await;
    let said = wire.query(choice).await;
    let seen = match said.as_str() {
        "C(SET) Z(T)" => wire.query("SELECT DISTINCT tenant_id FROM notes").await,
        refused => refused.to_owned(),
    };
    wire.query("ROLLBACK").await;
    seen
}

fn rows_of(tenant: &Tenant) -> String {
    format!("T D({}) C(SELECT 1) Z(T)", tenant.id)
}

const DENIED: &str = "E(42501) Z(E)";

#[tokio::test]
async fn an_issuers_service_acts_for_whom_both_the_token_and_the_settings_list() {
    let ids = |estate: &Estate| {
        let [acme, globex, stark] = [&estate.acme, &estate.globex, &estate.stark].map(|it| &it.id);
        format!("[\"{acme}\", \"{globex}\", \"{stark}\"]")
    };
    let scene = Scene::new(ids).await;
    let Estate { acme, globex, umbrella, stark, .. } = &scene.estate;
    let listed = json!([acme.id, globex.id, umbrella.id, "nobody_of_that_name"]);
    let token = scene.signer.token(&scene.claims(listed, json!({})));
    let mut wire = scene.wire(&token).await;
    assert_eq!(wire.query("SELECT * FROM app.notes").await, "E(42501) Z(I)", "it is nobody's");
    assert_eq!(acted(&mut wire, acme).await, rows_of(acme));
    // Of another issuer; of the token's list alone; of the settings' list alone; of no catalog.
    for tenant in [globex, umbrella, stark] {
        assert_eq!(acted(&mut wire, tenant).await, DENIED, "{}", tenant.id);
    }
    for name in ["nobody_of_that_name", "*", ""] {
        let choice = format!("SET LOCAL tenantgate.tenant = '{name}'");
        assert_eq!(chosen(&mut wire, &choice).await, DENIED, "{name}");
    }
    // A token of the service's own is a tenant's to nobody; a tenant's needs no list.
    let own = format!("SET LOCAL tenantgate.token = '{token}'");
    assert_eq!(chosen(&mut wire, &own).await, DENIED);
    let theirs = format!("SET LOCAL tenantgate.token = '{}'", globex.token);
    assert_eq!(chosen(&mut wire, &theirs).await, rows_of(globex));
    // For a whole session it takes the service's leave, whatever the token says.
    let wide = format!("SET tenantgate.tenant = '{}'", acme.id);
    assert_eq!(wire.query(&wide).await, "E(42501) Z(I)");
    assert_eq!(acted(&mut scene.service.wire(&scene.gate).await, globex).await, rows_of(globex));
    // The same issuer still proves tenants, and the list goes to nobody who is one.
    let tenants = scene.signer.token(&claims("idp", &acme.id));
    let mut tenant = scene.wire(&tenants).await;
    assert_eq!(tenant.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(I)");
    // What the settings took out is gone at the next transaction, and with the claim the session.
    let without = scene.settings.replace(&format!("[\"{}\", ", acme.id), "[");
    scene.gate.write_settings(&without);
    scene.gate.reload();
    crate::harness::eventually("the list is in force", async || {
        (acted(&mut wire, acme).await == DENIED).then_some(())
    })
    .await;
    scene.gate.write_settings(&without.replace("app.acts_for", "app.others"));
    scene.gate.reload();
    assert_eq!(wire.until_closed().await, "E(57P01)");
    assert_eq!(tenant.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    let log = scene.gate.log();
    assert!([&token, &tenants].iter().all(|it| !log.contains(&it[..40])), "{log}");
}

#[tokio::test]
async fn a_token_that_says_more_than_a_services_may_is_refused() {
    let scene = Scene::new(|estate| format!("[\"{}\"]", estate.acme.id)).await;
    let acme = &scene.estate.acme.id;
    let many: Vec<String> = (0..1001).map(|number| format!("t{number}")).collect();
    let both = "an act-for claim beside";
    let wrong = "the act-for";
    let attacks = [
        (both, json!([acme]), json!({ "tenant_id": acme })),
        (both, json!([acme]), json!({ "tenant_id": null })),
        (both, json!([acme]), json!({ "role": "admin" })),
        (both, json!({}), json!({ "tenant_id": acme })),
        ("for all tenants", json!("*"), json!({})),
        (wrong, json!(["*"]), json!({})),
        (wrong, json!([acme, "*"]), json!({})),
        (wrong, json!(acme), json!({})),
        (wrong, json!([]), json!({})),
        (wrong, json!([acme, 7]), json!({})),
        (wrong, json!([[acme]]), json!({})),
        (wrong, json!({ "0": acme }), json!({})),
        (wrong, json!(true), json!({})),
        (wrong, json!(null), json!({})),
        (wrong, json!(many), json!({})),
        (wrong, json!([format!("{acme}\u{0}")]), json!({})),
        ("expired", json!([acme]), json!({ "exp": 1 })),
        ("another audience", json!([acme]), json!({ "aud": "other" })),
    ];
    for (reason, list, more) in attacks {
        let token = scene.signer.token(&scene.claims(list, more));
        scene.refuses(reason, "app", &token).await;
    }
    // It is no tenant's: whoever names one does not mean it.
    let good = scene.signer.token(&scene.claims(json!([acme]), json!({})));
    assert!(attempt(&scene.gate, &good).await.ends_with("Z(I)"));
    scene.refuses("another tenant", &format!("app.{acme}"), &good).await;
    // No claim names a service, and an issuer that may not vouch for one has no such claim.
    let named = format!("service:{}", scene.service.name);
    scene.refuses("unknown", "app", &scene.signer.token(&claims("idp", &named))).await;
    let mut others = scene.claims(json!([acme]), json!({ "iss": "https://login.test" }));
    scene.refuses("the tenant's", "app", &jwt_with(JWT_KEY, &others)).await;
    // And without the right key it is nothing at all.
    others["iss"] = "https://idp.test".into();
    let thief = Signer::new("idp-1", Algorithm::ES256);
    scene.refuses("signature", "app", &thief.token(&others)).await;
}

#[tokio::test]
async fn an_issuers_service_acts_for_everybody_only_where_the_settings_say_so() {
    let scene = Scene::new(|_| "\"*\"".to_owned()).await;
    let mut wire = scene.wire(&scene.signer.token(&scene.claims(json!("*"), json!({})))).await;
    let Estate { acme, globex, stark, .. } = &scene.estate;
    assert_eq!(acted(&mut wire, acme).await, rows_of(acme));
    assert_eq!(acted(&mut wire, globex).await, DENIED, "bound to another issuer");
    let choice = format!("SET LOCAL tenantgate.tenant = '{}'", stark.id);
    wire.query("BEGIN").await;
    assert_eq!(wire.query(&choice).await, "C(SET) Z(T)");
    wire.query("ROLLBACK").await;
    let listed = scene.signer.token(&scene.claims(json!([stark.id]), json!({})));
    let mut wire = scene.wire(&listed).await;
    assert_eq!(acted(&mut wire, acme).await, DENIED, "the token's list is the shorter one");
}
