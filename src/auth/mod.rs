//! Who is asking: one verified credential decides the tenant. JSON Web Tokens of configured
//! issuers and opaque tokens of the catalog, both given where the password goes.
//!
//! Whatever is wrong, the client hears the same and waits the same: the reasons in [`Denied`] are
//! for the log.

mod claims;
mod issuer;
mod keys;
mod record;
mod remote;
mod settings;
mod shown;
mod strict;
#[cfg(test)]
mod tests;
mod throttle;
mod verifier;
mod vouched;
mod watched;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde_json::{Map, Value};

use crate::auth::claims::Verified;
use crate::auth::issuer::Issuer;
use crate::auth::keys::Print;
use crate::auth::vouched::{Vouched, Whom};
use crate::catalog::{
    CannotTell, Catalog, CredentialRecord, Face, Holds, Key, Pin, TOKEN_PREFIX, Tenant, TenantId,
    TenantName, TenantState, TokenRecord, token_id, token_sha256,
};

pub use remote::RemoteSettings;
pub use settings::{
    Algorithm, ClaimPaths, IssuerSettings, KeySource, LEEWAY_DEFAULT, LIFETIME_DEFAULT,
    PAUSE_DEFAULT, REFRESH_DEFAULT, SettingsError, TENANT_CLAIM_DEFAULT, Vouching,
};
pub use shown::shown;
pub use throttle::{GuessLimits, Knocker, Throttle};
pub use verifier::scram_verifier;

/// Longest password that is looked at. JSON Web Tokens with many groups have some 8 KiB.
pub const PASSWORD_BYTES_MAX: usize = 16 * 1024;

/// Verifies credentials. A reload makes a new one; keys that are fetched and files that are watched
/// come and go meanwhile.
#[derive(Debug)]
pub struct Authenticator {
    issuers: Vec<Issuer>,
    /// Verifies nothing; an unknown issuer's token is read as far as a known one's.
    nobody: Issuer,
    changes: Changes,
}

/// Counts the moments at which something that counted before may count no more.
#[derive(Clone, Debug, Default)]
struct Changes(Arc<AtomicU64>);

impl Changes {
    fn note(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Who is asking.
#[derive(Clone, Debug)]
pub struct Identity {
    pub tenant: Arc<Tenant>,
    /// What was shown, for logs: `token k3f9aaaabbbb` or `jwt login/alice`. Holds no secret.
    pub credential: String,
    /// From then on the credential would be denied; `None` if it does not expire.
    pub expires_at: Option<SystemTime>,
    /// As what the credential lets its bearer in.
    pub face: Face,
    proof: Proof,
    /// The record of a certificate that had to agree with the proof.
    beside: Option<CredentialRecord>,
    /// Keeps the tenant known while somebody has this.
    pin: Option<Arc<Pin>>,
}

/// What a credential was proved with: it must still be there while the session lives.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    /// The catalog's record behind an opaque token.
    Token(Arc<TokenRecord>),
    Bearer(Box<Bearer>),
    /// The catalog's record behind a SCRAM password or a certificate.
    Record(CredentialRecord),
}

/// A verified JSON Web Token, as far as it can be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bearer {
    /// The name in `[issuers.NAME]`, and what it had to be issued for.
    issuer: String,
    iss: String,
    audience: String,
    key: Print,
    jti: Option<String>,
    /// It speaks for tenants that name no issuer.
    any_tenant: bool,
    /// It speaks for a service, and for no tenant.
    vouched: Option<Box<Vouched>>,
}

impl Identity {
    /// Whether what this identity was proved with still counts: the token stands in the catalog, or
    /// the issuer, its key and the token's id would pass today. A session whose credential does
    /// not, ends.
    pub fn stands(&self, catalog: &Catalog, authenticator: &Authenticator) -> bool {
        if !self.beside.as_ref().is_none_or(|record| catalog.credentials().has(record)) {
            return false;
        }
        match &self.proof {
            Proof::Token(token) => catalog.token(&token.id) == Some(token),
            Proof::Bearer(bearer) => authenticator.still_takes(bearer),
            Proof::Record(record) => catalog.credentials().has(record),
        }
    }

    /// Whether another login had the same, in all that is ever asked of it: of the very same
    /// tenant, until the same time, revoked whenever that is.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tenant, &other.tenant)
            && self.credential == other.credential
            && self.expires_at == other.expires_at
            && self.face == other.face
            && self.proof == other.proof
            && self.beside == other.beside
            && self.is_kept() == other.is_kept()
    }

    /// Whether it keeps its tenant known.
    pub fn is_kept(&self) -> bool {
        self.pin.is_some()
    }

    /// The tenant as it sees it, with what the console says of it at the moment.
    pub fn seen_under(&self, catalog: &Catalog, holds: &Holds) -> Arc<Tenant> {
        let known = catalog.known(self.tenant.id.as_str());
        let seen = known.and_then(|known| known.seen_under(&self.face, holds));
        seen.unwrap_or_else(|| self.tenant.clone())
    }

    /// Whether it is one that the tenant takes: of the issuer it is bound to, or else of one that
    /// speaks for everybody.
    pub fn is_of_the_tenants_issuer(&self, tenant: &Tenant) -> bool {
        match &self.proof {
            // The settings name the service at its issuer.
            Proof::Bearer(bearer) if bearer.vouched.is_some() => tenant.service.is_some(),
            Proof::Bearer(bearer) => bearer.is_taken_by(tenant),
            Proof::Token(_) | Proof::Record(_) => true,
        }
    }

    /// Whether the credential has run out.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

impl Bearer {
    /// Whether the issuer may speak for the tenant at all.
    fn is_taken_by(&self, tenant: &Tenant) -> bool {
        match &tenant.issuer {
            Some(issuer) => self.issuer == **issuer,
            None => self.any_tenant,
        }
    }
}

/// Why a credential was denied; for log and audit only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("unknown token, issuer or tenant")]
    Unknown,
    #[error(transparent)]
    CannotTell(#[from] CannotTell),
    #[error("wrong token or signature")]
    WrongToken,
    #[error("signed with another algorithm than the key is for")]
    WrongAlgorithm,
    #[error("signed with a key the issuer does not have, or has not published yet")]
    UnknownKey,
    #[error("wrong password")]
    WrongPassword,
    #[error("the client's certificate is another tenant's, or nobody's")]
    Certificate,
    #[error("expired")]
    Expired,
    #[error("not valid yet")]
    NotYet,
    #[error("issued in the future")]
    IssuedLater,
    #[error("valid for longer than the issuer's tokens may be")]
    TooLongLived,
    #[error("issued for another audience")]
    WrongAudience,
    #[error("without {0} claim, or with one of the wrong type")]
    ClaimMissing(&'static str),
    #[error("with an act-for claim beside a tenant's, a role's or a right's")]
    BothClaims,
    #[error("the token is for all tenants, and the service is not")]
    BeyondService,
    #[error("revoked")]
    Revoked,
    #[error("with an extension that must be understood and is not")]
    Critical,
    #[error("tenant is disabled")]
    Disabled,
    #[error("the tenant is bound to another issuer, or to none while there are several")]
    OtherIssuer,
    #[error("the tenant has no such role")]
    UnknownRole,
    #[error("the client named another tenant than its credential")]
    NameDisagrees,
    #[error("longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    #[error("neither a token nor a JSON Web Token")]
    Malformed,
}

/// A credential that proved itself, before its tenant is looked up.
struct Proved {
    tenant: String,
    credential: String,
    expires_at: Option<SystemTime>,
    face: Face,
    proof: Proof,
}

impl Authenticator {
    /// Reads the issuers' key files. Keys that have to be fetched are not there before
    /// [`Authenticator::start`].
    ///
    /// # Errors
    ///
    /// A key that cannot be read or does not fit its algorithm, two issuers with one `iss`.
    pub fn new(issuers: &[IssuerSettings]) -> Result<Self, SettingsError> {
        Self::build(issuers, Changes::default())
    }

    /// The same for a reload: what changes is counted on where this one stands.
    ///
    /// # Errors
    ///
    /// As [`Authenticator::new`].
    pub fn next(&self, issuers: &[IssuerSettings]) -> Result<Self, SettingsError> {
        Self::build(issuers, self.changes.clone())
    }

    fn build(issuers: &[IssuerSettings], changes: Changes) -> Result<Self, SettingsError> {
        settings::check_distinct(issuers)?;
        let issuers = issuers.iter().map(|it| Issuer::new(it, &changes)).collect::<Result<_, _>>();
        Ok(Self { issuers: issuers?, nobody: Issuer::nobody(), changes })
    }

    /// Begins to fetch keys, or goes on with those a former value has.
    ///
    /// # Errors
    ///
    /// The system has no thread to give.
    pub fn start(&mut self, former: Option<&Self>) -> std::io::Result<()> {
        for issuer in &mut self.issuers {
            let known = former.map(|former| former.issuers.iter());
            let known = known.and_then(|mut it| it.find(|it| it.name() == issuer.name()));
            issuer.start(known)?;
        }
        Ok(())
    }

    /// Waits until every fetch has been tried once, for so long in all: at the start of the gate.
    pub fn wait_for_keys(&self, limit: Duration) {
        let until = std::time::Instant::now() + limit;
        for issuer in &self.issuers {
            issuer.wait_for_first(until.saturating_duration_since(std::time::Instant::now()));
        }
    }

    /// Reads watched files again that have changed.
    pub fn look(&self) {
        if self.issuers.iter().fold(false, |changed, issuer| issuer.look() | changed) {
            self.changes.note();
        }
    }

    /// Rises whenever a credential that counted may count no more.
    pub fn changes(&self) -> u64 {
        self.changes.0.load(Ordering::Acquire)
    }

    /// Where a client that has no token finds out how to get one (OpenID Connect Discovery 1.0):
    /// at the first issuer that is an address.
    pub fn discovery(&self) -> Option<String> {
        let issuers = self.issuers.iter().map(|issuer| issuer.settings.issuer.as_str());
        let issuer = { issuers }.find(|issuer| issuer.starts_with("https://"))?;
        Some(format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))
    }

    fn still_takes(&self, bearer: &Bearer) -> bool {
        let found = self.issuers.iter().find(|issuer| issuer.name() == bearer.issuer);
        found.is_some_and(|issuer| {
            let settings = &issuer.settings;
            settings.issuer == bearer.iss
                && settings.audience == bearer.audience
                && (settings.any_tenant || !bearer.any_tenant)
                && bearer
                    .vouched
                    .as_ref()
                    .is_none_or(|vouched| settings.claims.vouching.as_ref() == Some(&vouched.by))
                && issuer.stands(&bearer.key, bearer.jti.as_deref())
        })
    }

    /// Decides which tenant a password stands for. `named` are the tenants the client named in
    /// other ways; each must be the very tenant the credential proves.
    pub async fn authenticate(
        &self,
        catalog: &Catalog,
        password: &[u8],
        named: &[TenantName],
        now: SystemTime,
    ) -> Result<Identity, Denied> {
        let key = token_id(password).map(|id| Key::Token(id.to_owned()));
        let fresh = match key {
            Some(key) => catalog.with(&[key]).await?,
            None => None,
        };
        let catalog = fresh.as_deref().unwrap_or(catalog);
        let proof = self.prove(catalog, password, now);
        self.let_in(catalog, proof, named).await
    }

    /// What comes after every proof, right or wrong.
    async fn let_in(
        &self,
        catalog: &Catalog,
        proof: Result<Proved, Denied>,
        named: &[TenantName],
    ) -> Result<Identity, Denied> {
        // The tenant is looked for in any case, so that a wrong credential takes as long. Only who
        // proved something has the tables asked.
        let id = proof.as_ref().map_or("", |proof| proof.tenant.as_str());
        let known = match &proof {
            Ok(proved) if proved.proof.is_of_service() => catalog.service(id),
            _ => None,
        };
        let found = match (known, &proof) {
            (Some(service), _) => Some((service.clone(), None)),
            (None, Ok(_)) => catalog.seek(id).await?,
            (None, Err(_)) => catalog.known(id).map(|known| (known.clone(), None)),
        };
        let Proved { credential, expires_at, face, proof, .. } = proof?;
        let (tenant, pin) = found.ok_or(Denied::Unknown)?;
        let pin = pin.map(Arc::new);
        if tenant.state == TenantState::Disabled {
            return Err(Denied::Disabled);
        }
        let seen = tenant.seen_by(&face);
        let credential = named_with(credential, &face);
        let identity = Identity { tenant, credential, expires_at, face, proof, beside: None, pin };
        if !identity.is_of_the_tenants_issuer(&identity.tenant) {
            return Err(Denied::OtherIssuer);
        }
        if !identity.is_within(&identity.tenant) {
            return Err(Denied::BeyondService);
        }
        if !named.iter().all(|name| name.is(&identity.tenant.id)) {
            return Err(Denied::NameDisagrees);
        }
        let tenant = seen.ok_or(Denied::UnknownRole)?;
        Ok(Identity { tenant, ..identity })
    }

    fn prove(&self, catalog: &Catalog, password: &[u8], now: SystemTime) -> Result<Proved, Denied> {
        // Bounds the work on what anybody may send; the cut text still gets its digest.
        let text = password.get(..PASSWORD_BYTES_MAX).unwrap_or(password);
        if text.len() < password.len() {
            let _ = prove_token(catalog, text, now);
            return Err(Denied::TooLong);
        }
        let dots = text.iter().filter(|byte| **byte == b'.').count();
        if dots == 2 && !text.starts_with(TOKEN_PREFIX.as_bytes()) {
            return self.prove_jwt(text, now);
        }
        prove_token(catalog, text, now)
    }

    fn prove_jwt(&self, text: &[u8], now: SystemTime) -> Result<Proved, Denied> {
        let claimed = claims::claimed_issuer(text);
        let found = self.issuers.iter().find(|it| Some(&it.settings.issuer) == claimed.as_ref());
        let verified = found.unwrap_or(&self.nobody).verify(text, now, &self.nobody);
        let issuer = match (found, claimed) {
            (Some(issuer), _) => issuer,
            (None, Some(_)) => return Err(Denied::Unknown),
            (None, None) => return Err(Denied::Malformed),
        };
        let Verified { whom, subject, expires_at, jti, key, role, read_only } = verified?;
        let settings = &issuer.settings;
        let (tenant, vouched) = match whom {
            Whom::Tenant(id) => (id, None),
            Whom::Service(vouched) => {
                (TenantId::of_service(&vouched.by.service).to_string(), Some(Box::new(vouched)))
            }
        };
        let bearer = Bearer {
            issuer: settings.name.clone(),
            iss: settings.issuer.clone(),
            audience: settings.audience.clone(),
            key,
            jti,
            any_tenant: settings.any_tenant,
            vouched,
        };
        Ok(Proved {
            tenant,
            credential: format!("jwt {}/{}", issuer.name(), loggable(&subject)),
            expires_at: Some(expires_at),
            face: Face { role: role.map(Box::from), read_only },
            proof: Proof::Bearer(Box::new(bearer)),
        })
    }
}

/// An opaque token: found by its id, proved by its digest. Unknown ids are compared with a digest
/// that nothing has.
fn prove_token(catalog: &Catalog, text: &[u8], now: SystemTime) -> Result<Proved, Denied> {
    let sha256 = token_sha256(text);
    let id = token_id(text);
    let record = catalog.token(id.unwrap_or_default());
    let stored = record.map_or([0; 32], |record| record.sha256);
    let equal = verify_slices_are_equal(&sha256, &stored).is_ok();
    match (id, record) {
        (None, _) => Err(Denied::Malformed),
        (Some(_), None) => Err(Denied::Unknown),
        (Some(_), Some(_)) if !equal => Err(Denied::WrongToken),
        (Some(_), Some(record)) if record.revoked => Err(Denied::Revoked),
        (Some(_), Some(record)) if record.expires_at.is_some_and(|at| at <= now) => {
            Err(Denied::Expired)
        }
        (Some(id), Some(record)) => Ok(Proved {
            tenant: record.tenant.to_string(),
            credential: match &record.name {
                Some(name) => format!("token {id} {name}"),
                None => format!("token {id}"),
            },
            expires_at: record.expires_at,
            face: record.face.clone(),
            proof: Proof::Token(record.clone()),
        }),
    }
}

/// The credential's name for logs, with what it lets its bearer be.
fn named_with(mut credential: String, face: &Face) -> String {
    if let Some(role) = &face.role {
        credential.push_str(" as ");
        credential.push_str(&loggable(role));
    }
    if face.read_only {
        credential.push_str(" read-only");
    }
    credential
}

/// What a JSON Web Token says about itself, unverified.
#[derive(Clone, Debug, Default)]
pub struct Unverified {
    pub header: Map<String, Value>,
    pub claims: Map<String, Value>,
}

/// Reads what a token says, for people who want to know why it is refused. `None` if it cannot be
/// read at all.
pub fn unverified(token: &[u8]) -> Option<Unverified> {
    let (header, claims) = (claims::unverified_header(token)?, claims::unverified(token)?);
    Some(Unverified { header, claims })
}

/// A subject comes from outside: printable, short, on one line.
fn loggable(subject: &str) -> String {
    subject.chars().take(64).flat_map(char::escape_debug).collect()
}

/// Signs a token as an HS256 issuer would, for demonstrations and tests.
///
/// # Errors
///
/// The issuer's algorithm has no shared secret, or its key cannot be read.
pub fn sign(
    settings: &IssuerSettings,
    tenant: &str,
    now: SystemTime,
    lasts: Duration,
) -> Result<String, SettingsError> {
    claims::sign(settings, tenant, now, lasts)
}
