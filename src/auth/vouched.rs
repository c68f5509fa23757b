//! Services by JSON Web Token: an issuer vouches for one service of the settings, and a token's
//! claim says for whom that service may act. Never for more than the settings let the service.

use serde_json::{Map, Value};

use crate::auth::claims::claim_at;
use crate::auth::settings::{ClaimPaths, Vouching};
use crate::auth::{Denied, Identity, Proof};
use crate::catalog::{ActsFor, Service, Tenant, TenantId};

/// Most tenants in one token's list.
const LISTED_MAX: usize = 1000;

/// What stands for everybody in the settings and in a claim.
const EVERYBODY: &str = "*";

/// Whom a token speaks for.
#[derive(Debug)]
pub(super) enum Whom {
    /// The tenant of this id.
    Tenant(String),
    /// The service that its issuer vouches for, as far as the token says.
    Service(Vouched),
}

/// What a token says a service may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vouched {
    /// What the settings said of it when the token was verified.
    pub(super) by: Vouching,
    pub(super) acts_for: ActsFor,
}

/// What the act-for claim says; `None` if the token has none, or the issuer may not vouch. A token
/// that also names a tenant, a role or a right is refused: nobody could tell what is meant.
pub(super) fn vouched(
    paths: &ClaimPaths,
    claims: &Map<String, Value>,
) -> Result<Option<Vouched>, Denied> {
    let Some(by) = &paths.vouching else { return Ok(None) };
    let Some(claim) = claim_at(claims, &by.claim) else { return Ok(None) };
    let others = [Some(&paths.tenant), paths.role.as_ref(), paths.read_only.as_ref()];
    if others.into_iter().flatten().any(|path| claim_at(claims, path).is_some()) {
        return Err(Denied::BothClaims);
    }
    let acts_for = listed(claim).ok_or(Denied::ClaimMissing("the act-for"))?;
    Ok(Some(Vouched { by: by.clone(), acts_for }))
}

/// `"*"`, or a list of ids that has one at least.
fn listed(claim: &Value) -> Option<ActsFor> {
    match claim {
        Value::String(text) => (text == EVERYBODY).then_some(ActsFor::Everybody),
        Value::Array(list) if (1..=LISTED_MAX).contains(&list.len()) => {
            let id = |one: &Value| one.as_str().and_then(TenantId::new).map(|id| id.to_string());
            list.iter().map(id).collect::<Option<_>>().map(ActsFor::Listed)
        }
        _ => None,
    }
}

impl Identity {
    /// Whether a service may let this identity in: everybody only where the settings say so too.
    pub(super) fn is_within(&self, tenant: &Tenant) -> bool {
        let vouched = self.proof.vouched().map(|vouched| &vouched.acts_for);
        let own = tenant.service.as_ref().map(|service| &service.acts_for);
        vouched != Some(&ActsFor::Everybody) || own == Some(&ActsFor::Everybody)
    }

    /// Whether a session of a service that logged in with this may act for a tenant today: by what
    /// it showed for the tenant, or else by the tenant's name.
    pub fn may_act_for(&self, own: &Tenant, tenant: &Tenant, shown: Option<&Self>) -> bool {
        let Some(service) = own.service.as_deref() else { return false };
        let named = || self.may_name(service, tenant);
        let chosen = shown.map_or_else(named, |shown| shown.is_of_the_tenants_issuer(tenant));
        chosen && service.reaches(own, tenant)
    }

    /// Whether the lists of a service and of what its session showed at the login have this id:
    /// whoever is not in them may not be named, whether there is such a tenant or not.
    pub fn may_list(&self, service: &Service, id: &str) -> bool {
        let vouched = self.proof.vouched().map(|vouched| &vouched.acts_for);
        let listed =
            |id: &TenantId| service.acts_for.has(id) && vouched.is_none_or(|it| it.has(id));
        TenantId::new(id).as_ref().is_some_and(listed)
    }

    /// Whether both a service and what its session showed at the login let it name this tenant.
    pub fn may_name(&self, service: &Service, tenant: &Tenant) -> bool {
        service.acts_for.has(&tenant.id) && self.vouches_for(tenant)
    }

    /// Whether what a session of a service showed at its login lets it act for a tenant by its
    /// name, beside the service's own list: the service's token does, an issuer's speaks for those
    /// that it lists and that take the issuer's tokens.
    fn vouches_for(&self, tenant: &Tenant) -> bool {
        match (&self.proof, self.proof.vouched()) {
            (Proof::Token(_), _) => true,
            (Proof::Bearer(bearer), Some(vouched)) => {
                vouched.acts_for.has(&tenant.id) && bearer.is_taken_by(tenant)
            }
            (Proof::Bearer(_), None) | (Proof::Record(_), _) => false,
        }
    }
}

impl Proof {
    /// What an issuer says a service may.
    pub(super) fn vouched(&self) -> Option<&Vouched> {
        match self {
            Self::Bearer(bearer) => bearer.vouched.as_deref(),
            Self::Token(_) | Self::Record(_) => None,
        }
    }

    /// Whether it may be a service's: no name that a client or a claim chooses is ever one.
    pub(super) fn is_of_service(&self) -> bool {
        matches!(self, Self::Token(_)) || self.vouched().is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(claims: Value) -> Result<Option<ActsFor>, Denied> {
        let vouching = Vouching { claim: "app.acts_for".to_owned(), service: "b".to_owned() };
        let paths = ClaimPaths {
            role: Some("role".to_owned()),
            read_only: Some("app.ro".to_owned()),
            vouching: Some(vouching),
            ..ClaimPaths::default()
        };
        let read = vouched(&paths, claims.as_object().unwrap());
        read.map(|vouched| vouched.map(|vouched| vouched.acts_for))
    }

    #[test]
    fn a_list_of_ids_or_everybody_and_nothing_else() {
        let ids = |ids: &[&str]| ActsFor::Listed(ids.iter().map(|id| (*id).to_owned()).collect());
        let of = |claim: Value| read(json!({ "app": { "acts_for": claim } }));
        assert_eq!(read(json!({ "tenant_id": "a" })), Ok(None));
        assert_eq!(of(json!("*")), Ok(Some(ActsFor::Everybody)));
        assert_eq!(of(json!(["a", "b"])), Ok(Some(ids(&["a", "b"]))));
        assert_eq!(read(json!({ "app.acts_for": ["a"] })), Ok(Some(ids(&["a"]))));
        let most: Vec<String> = (0..LISTED_MAX).map(|number| format!("t{number}")).collect();
        assert!(of(json!(most)).is_ok());
        let more: Vec<String> = (0..=LISTED_MAX).map(|number| format!("t{number}")).collect();
        let bad = [
            json!(more),
            json!([]),
            json!(""),
            json!("a"),
            json!("**"),
            json!("a,b"),
            json!(["*"]),
            json!(["a", "*"]),
            json!(["a", 1]),
            json!(["a", null]),
            json!(["a", ["b"]]),
            json!([""]),
            json!(["a b"]),
            json!(["service:b"]),
            json!(["x".repeat(64)]),
            json!({ "a": true }),
            json!(true),
            json!(1),
            json!(null),
        ];
        for claim in bad {
            assert_eq!(of(claim.clone()), Err(Denied::ClaimMissing("the act-for")), "{claim}");
        }
    }

    #[test]
    fn who_speaks_for_a_service_names_neither_tenant_nor_role_nor_right() {
        for beside in [
            json!({ "tenant_id": "a" }),
            json!({ "tenant_id": null }),
            json!({ "role": "admin" }),
            json!({ "app": { "acts_for": ["a"], "ro": false } }),
        ] {
            let mut claims = json!({ "app": { "acts_for": ["a"] } });
            claims.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
            assert_eq!(read(claims.clone()), Err(Denied::BothClaims), "{claims}");
        }
    }
}
