//! JSON Web Tokens (RFC 7519): the library checks the signature, the claims are checked here, at
//! the time that is handed in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::auth::settings::{Algorithm, IssuerSettings, SettingsError};
use crate::auth::{Denied, LEEWAY_DEFAULT, TENANT_CLAIM_DEFAULT};

/// An issuer with its key at hand.
pub(super) struct Issuer {
    settings: IssuerSettings,
    key: DecodingKey,
    validation: Validation,
}

/// What a verified token says.
pub(super) struct Verified {
    pub(super) tenant: String,
    /// The `sub` claim; empty if there is none.
    pub(super) subject: String,
    pub(super) expires_at: SystemTime,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out: for HS256 it is the shared secret.
        out.debug_struct("Issuer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Issuer {
    pub(super) fn new(settings: &IssuerSettings) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self::with_key(settings.clone(), settings.key()?))
    }

    /// An issuer whose tokens nobody can sign: its key is random and forgotten.
    pub(super) fn nobody() -> Self {
        let mut key = [0_u8; 32];
        // Should the system have no random numbers, the key is known, but the issuer's tokens are
        // still denied by whoever asked it.
        let _ = aws_lc_rs::rand::fill(&mut key);
        let settings = IssuerSettings {
            name: String::new(),
            issuer: String::new(),
            audience: String::new(),
            algorithm: Algorithm::HS256,
            key_file: Default::default(),
            tenant_claim: TENANT_CLAIM_DEFAULT.to_owned(),
            leeway: LEEWAY_DEFAULT,
        };
        Self::with_key(settings, DecodingKey::from_secret(&key))
    }

    fn with_key(settings: IssuerSettings, key: DecodingKey) -> Self {
        // The library reads its own clock, allows "iss" to be a list and does not require claims
        // by default: it verifies the signature under the one algorithm and nothing else.
        let mut validation = Validation::new(settings.algorithm.into());
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self { settings, key, validation }
    }

    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(super) fn iss(&self) -> &str {
        &self.settings.issuer
    }

    /// Checks the signature, then every claim.
    pub(super) fn verify(&self, token: &[u8], now: SystemTime) -> Result<Verified, Denied> {
        use jsonwebtoken::errors::ErrorKind;
        let decoded =
            jsonwebtoken::decode::<Map<String, Value>>(token, &self.key, &self.validation);
        let decoded = decoded.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Denied::WrongToken,
            _ => Denied::Malformed,
        })?;
        // RFC 7515, 4.1.11: an extension that must be understood and is not.
        if decoded.header.crit.is_some() {
            return Err(Denied::Malformed);
        }
        self.check(&decoded.claims, now)
    }

    fn check(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<Verified, Denied> {
        let settings = &self.settings;
        if claims.get("iss").and_then(Value::as_str) != Some(settings.issuer.as_str()) {
            return Err(Denied::Unknown);
        }
        if !is_for(claims.get("aud"), &settings.audience) {
            return Err(Denied::WrongAudience);
        }
        let exp = claims.get("exp").and_then(moment).ok_or(Denied::ClaimMissing)?;
        let expires_at = exp.checked_add(settings.leeway).ok_or(Denied::ClaimMissing)?;
        if expires_at <= now {
            return Err(Denied::Expired);
        }
        if let Some(nbf) = claims.get("nbf") {
            let nbf = moment(nbf).ok_or(Denied::ClaimMissing)?;
            let latest = now.checked_add(settings.leeway).ok_or(Denied::NotYet)?;
            if nbf > latest {
                return Err(Denied::NotYet);
            }
        }
        let tenant = claim_at(claims, &settings.tenant_claim).and_then(Value::as_str);
        let tenant = tenant.filter(|tenant| !tenant.is_empty()).ok_or(Denied::ClaimMissing)?;
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Verified { tenant: tenant.to_owned(), subject, expires_at })
    }
}

/// What a token says about who signed it, unverified: good for finding the key and nothing else.
pub(super) fn claimed_issuer(token: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Unverified {
        iss: String,
    }
    jsonwebtoken::dangerous::insecure_decode_claims::<Unverified>(token).ok().map(|is| is.iss)
}

/// RFC 7519, 4.1.3: one audience or a list of them.
fn is_for(claim: Option<&Value>, audience: &str) -> bool {
    match claim {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(audience)),
        _ => false,
    }
}

/// RFC 7519's NumericDate: seconds since 1970, perhaps with a fraction.
fn moment(claim: &Value) -> Option<SystemTime> {
    let since = match claim.as_u64() {
        Some(seconds) => Duration::from_secs(seconds),
        None => Duration::try_from_secs_f64(claim.as_f64()?).ok()?,
    };
    UNIX_EPOCH.checked_add(since)
}

/// A claim by its name, or by a path with dots. A claim that has the whole path as its name comes
/// first: names such as `https://example.com/tenant` have dots of their own.
fn claim_at<'claims>(claims: &'claims Map<String, Value>, path: &str) -> Option<&'claims Value> {
    if let Some(claim) = claims.get(path) {
        return Some(claim);
    }
    let mut names = path.split('.');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |claim, name| claim.as_object()?.get(name))
}

/// Signs a token with an issuer's shared secret.
pub(super) fn sign(
    settings: &IssuerSettings,
    tenant: &str,
    now: SystemTime,
    lasts: Duration,
) -> Result<String, SettingsError> {
    if settings.algorithm != Algorithm::HS256 {
        let message = "only an HS256 issuer's key can sign, this one's can only verify";
        return Err(settings.fault("algorithm", message.to_owned()));
    }
    let key = EncodingKey::from_secret(&settings.secret()?);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut claims = nested(&settings.tenant_claim, tenant);
    claims.insert("iss".to_owned(), settings.issuer.as_str().into());
    claims.insert("aud".to_owned(), settings.audience.as_str().into());
    claims.insert("sub".to_owned(), "tenantgate".into());
    claims.insert("iat".to_owned(), now.as_secs().into());
    claims.insert("exp".to_owned(), now.saturating_add(lasts).as_secs().into());
    let header = Header::new(settings.algorithm.into());
    let signed = jsonwebtoken::encode(&header, &claims, &key);
    signed.map_err(|error| settings.fault("key_file", format!("cannot sign: {error}")))
}

/// `{"app": {"tenant": …}}` for the path `app.tenant`.
fn nested(path: &str, tenant: &str) -> Map<String, Value> {
    let (outer, inner) = path.split_once('.').unwrap_or((path, ""));
    let value = match inner {
        "" => Value::from(tenant),
        inner => Value::Object(nested(inner, tenant)),
    };
    Map::from_iter([(outer.to_owned(), value)])
}
