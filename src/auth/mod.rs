//! Who is asking: one verified credential decides the tenant. JSON Web Tokens of configured
//! issuers and opaque tokens of the catalog, both given where the password goes.
//!
//! Whatever is wrong, the client hears the same and waits the same: the reasons in [`Denied`] are
//! for the log.

mod jwt;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::auth::jwt::{Issuer, Verified};
use crate::catalog::{
    Catalog, TOKEN_PREFIX, Tenant, TenantState, TokenRecord, token_id, token_sha256,
};

pub use settings::{
    Algorithm, IssuerSettings, LEEWAY_DEFAULT, SettingsError, TENANT_CLAIM_DEFAULT,
};

/// Longest password that is looked at. JSON Web Tokens with many groups have some 8 KiB.
pub const PASSWORD_BYTES_MAX: usize = 16 * 1024;

/// Verifies credentials. Immutable: a reload makes a new one.
#[derive(Debug)]
pub struct Authenticator {
    issuers: Vec<Issuer>,
    /// Verifies nothing; gives unknown issuers the work that known ones get.
    nobody: Issuer,
}

/// Who is asking.
#[derive(Clone, Debug)]
pub struct Identity {
    pub tenant: Arc<Tenant>,
    /// What was shown, for logs: `token k3f9aaaabbbb` or `jwt login/alice`. Holds no secret.
    pub credential: String,
    /// From then on the credential would be denied; `None` if it does not expire.
    pub expires_at: Option<SystemTime>,
    /// The catalog's record behind an opaque token; `None` for a JSON Web Token.
    pub token: Option<TokenRecord>,
}

impl Identity {
    /// Whether the catalog still holds what this identity was proved with. A session whose token
    /// was taken out of the catalog ends.
    pub fn stands(&self, catalog: &Catalog) -> bool {
        let Some(token) = &self.token else { return true };
        catalog.token(&token.id) == Some(token)
    }

    /// Whether the credential has run out.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

/// Why a credential was denied; for the log only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("unknown token, issuer or tenant")]
    Unknown,
    #[error("wrong token or signature")]
    WrongToken,
    #[error("expired")]
    Expired,
    #[error("not valid yet")]
    NotYet,
    #[error("issued for another audience")]
    WrongAudience,
    #[error("without a claim it must have, or with one of the wrong type")]
    ClaimMissing,
    #[error("tenant is disabled")]
    Disabled,
    #[error("the client named another tenant than its credential")]
    NameDisagrees,
    #[error("longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    #[error("neither a token nor a JSON Web Token")]
    Malformed,
}

impl Denied {
    /// The word in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::WrongToken => "wrong_token",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::WrongAudience => "wrong_audience",
            Self::ClaimMissing => "claim_missing",
            Self::Disabled => "disabled",
            Self::NameDisagrees => "name_disagrees",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
        }
    }
}

/// A credential that proved itself, before its tenant is looked up.
struct Proof {
    tenant: String,
    credential: String,
    expires_at: Option<SystemTime>,
    token: Option<TokenRecord>,
}

impl Authenticator {
    /// Reads the issuers' key files.
    ///
    /// # Errors
    ///
    /// A key that cannot be read or does not fit its algorithm, two issuers with one `iss`.
    pub fn new(issuers: &[IssuerSettings]) -> Result<Self, SettingsError> {
        settings::check_distinct(issuers)?;
        let issuers = issuers.iter().map(Issuer::new).collect::<Result<_, _>>()?;
        Ok(Self { issuers, nobody: Issuer::nobody() })
    }

    /// Decides which tenant a password stands for. `named` are the tenants the client named in
    /// other ways; each must be the very tenant the credential proves.
    pub async fn authenticate(
        &self,
        catalog: &Catalog,
        password: &[u8],
        named: &[&str],
        now: SystemTime,
    ) -> Result<Identity, Denied> {
        let proof = self.prove(catalog, password, now);
        // The tenant is looked up in any case, so that a wrong credential takes as long.
        let id = proof.as_ref().map_or("", |proof| proof.tenant.as_str());
        let tenant = catalog.find(id).await;
        let proof = proof?;
        let tenant = tenant.ok_or(Denied::Unknown)?;
        if tenant.state == TenantState::Disabled {
            return Err(Denied::Disabled);
        }
        if named.iter().any(|name| *name != tenant.id.as_str()) {
            return Err(Denied::NameDisagrees);
        }
        let Proof { credential, expires_at, token, .. } = proof;
        Ok(Identity { tenant, credential, expires_at, token })
    }

    fn prove(&self, catalog: &Catalog, password: &[u8], now: SystemTime) -> Result<Proof, Denied> {
        // Bounds the work on what anybody may send; the cut text still gets its digest.
        let text = password.get(..PASSWORD_BYTES_MAX).unwrap_or(password);
        if text.len() < password.len() {
            let _ = prove_token(catalog, text);
            return Err(Denied::TooLong);
        }
        let dots = text.iter().filter(|byte| **byte == b'.').count();
        if dots == 2 && !text.starts_with(TOKEN_PREFIX.as_bytes()) {
            return self.prove_jwt(text, now);
        }
        prove_token(catalog, text)
    }

    fn prove_jwt(&self, text: &[u8], now: SystemTime) -> Result<Proof, Denied> {
        let claimed = jwt::claimed_issuer(text);
        let found = self.issuers.iter().find(|known| Some(known.iss()) == claimed.as_deref());
        let verified = found.unwrap_or(&self.nobody).verify(text, now);
        let issuer = match (found, claimed) {
            (Some(issuer), _) => issuer,
            (None, Some(_)) => return Err(Denied::Unknown),
            (None, None) => return Err(Denied::Malformed),
        };
        let Verified { tenant, subject, expires_at } = verified?;
        let credential = format!("jwt {}/{}", issuer.name(), loggable(&subject));
        Ok(Proof { tenant, credential, expires_at: Some(expires_at), token: None })
    }
}

/// An opaque token: found by its id, proved by its digest. Unknown ids are compared with a digest
/// that nothing has.
fn prove_token(catalog: &Catalog, text: &[u8]) -> Result<Proof, Denied> {
    let sha256 = token_sha256(text);
    let id = token_id(text);
    let record = catalog.token(id.unwrap_or_default());
    let stored = record.map_or([0; 32], |record| record.sha256);
    let equal = verify_slices_are_equal(&sha256, &stored).is_ok();
    match (id, record) {
        (None, _) => Err(Denied::Malformed),
        (Some(_), None) => Err(Denied::Unknown),
        (Some(_), Some(_)) if !equal => Err(Denied::WrongToken),
        (Some(id), Some(record)) => Ok(Proof {
            tenant: record.tenant.to_string(),
            credential: format!("token {id}"),
            expires_at: None,
            token: Some(record.clone()),
        }),
    }
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
    jwt::sign(settings, tenant, now, lasts)
}
