//! Claims of JSON Web Tokens (RFC 7519), checked at the time that is handed in; the signature is
//! the library's part. What a token says about itself is read here too, as far as it finds the key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};

use crate::auth::Denied;
use crate::auth::keys::Print;
use crate::auth::settings::{Family, IssuerSettings, KeySource, SettingsError};
use crate::auth::strict::Strict;
use crate::auth::vouched::{Whom, vouched};

/// Longest `kid`, `jti` or role that is looked at, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// What a verified token says.
pub(super) struct Verified {
    pub(super) whom: Whom,
    /// The `sub` claim; empty if there is none.
    pub(super) subject: String,
    pub(super) expires_at: SystemTime,
    pub(super) role: Option<String>,
    pub(super) read_only: bool,
    pub(super) jti: Option<String>,
    /// The key it was verified with.
    pub(super) key: Print,
}

/// What a token's header says that counts: which key, and whether something must be understood
/// that is not. Where it says that keys are to be had (jku, x5u, jwk) is not even read.
pub(super) struct Named {
    pub(super) kid: Option<String>,
    /// RFC 7515, 4.1.11: an extension that must be understood and is not.
    pub(super) critical: bool,
}

/// The header of a token, unverified: good for finding the key and nothing else.
pub(super) fn header(token: &[u8]) -> Result<Named, Denied> {
    let part = token.split(|byte| *byte == b'.').next().unwrap_or_default();
    let Strict(header) = decoded(part).ok_or(Denied::Malformed)?;
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= NAME_BYTES_MAX => Some(kid.clone()),
        Some(_) => return Err(Denied::Malformed),
    };
    Ok(Named { kid, critical: header.contains_key("crit") })
}

/// Who a token says has signed it, unverified: good for finding the issuer and nothing else.
pub(super) fn claimed_issuer(token: &[u8]) -> Option<String> {
    unverified(token)?.get("iss")?.as_str().map(str::to_owned)
}

/// The whole header, unverified.
pub(super) fn unverified_header(token: &[u8]) -> Option<Map<String, Value>> {
    decoded(token.split(|byte| *byte == b'.').next()?).map(|Strict(header)| header)
}

/// All claims, unverified.
pub(super) fn unverified(token: &[u8]) -> Option<Map<String, Value>> {
    decoded(token.split(|byte| *byte == b'.').nth(1)?).map(|Strict(claims)| claims)
}

fn decoded(part: &[u8]) -> Option<Strict> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Checks every claim of a token whose signature is good.
pub(super) fn check(
    settings: &IssuerSettings,
    claims: &Map<String, Value>,
    key: Print,
    now: SystemTime,
) -> Result<Verified, Denied> {
    if claims.get("iss").and_then(Value::as_str) != Some(settings.issuer.as_str()) {
        return Err(Denied::Unknown);
    }
    if !is_for(claims.get("aud"), &settings.audience) {
        return Err(Denied::WrongAudience);
    }
    let expires_at = times(settings, claims, now)?;
    let paths = &settings.claims;
    let whom = match vouched(paths, claims)? {
        Some(vouched) => Whom::Service(vouched),
        None => {
            let tenant = text_at(claims, &paths.tenant)?;
            Whom::Tenant(tenant.ok_or(Denied::ClaimMissing("the tenant's"))?)
        }
    };
    let role = match &paths.role {
        Some(path) => role(claims, path)?,
        None => None,
    };
    let read_only = match paths.read_only.as_deref().and_then(|path| claim_at(claims, path)) {
        None => false,
        Some(claim) => claim.as_bool().ok_or(Denied::ClaimMissing("the read-only"))?,
    };
    let jti = match claims.get("jti") {
        None => None,
        Some(Value::String(jti)) if (1..=NAME_BYTES_MAX).contains(&jti.len()) => Some(jti.clone()),
        Some(_) => return Err(Denied::ClaimMissing("jti")),
    };
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Verified { whom, subject, expires_at, role, read_only, jti, key })
}

/// `exp`, `nbf`, `iat` and the longest life; gives the moment from which the token is denied.
fn times(
    settings: &IssuerSettings,
    claims: &Map<String, Value>,
    now: SystemTime,
) -> Result<SystemTime, Denied> {
    let leeway = settings.leeway;
    let latest = now.checked_add(leeway).ok_or(Denied::NotYet)?;
    let moment_of = |name: &'static str| match claims.get(name) {
        None => Ok(None),
        Some(claim) => moment(claim).map(Some).ok_or(Denied::ClaimMissing(name)),
    };
    let exp = moment_of("exp")?.ok_or(Denied::ClaimMissing("exp"))?;
    let expires_at = exp.checked_add(leeway).ok_or(Denied::ClaimMissing("exp"))?;
    if expires_at <= now {
        return Err(Denied::Expired);
    }
    if moment_of("nbf")?.is_some_and(|nbf| nbf > latest) {
        return Err(Denied::NotYet);
    }
    let issued = moment_of("iat")?;
    if issued.is_some_and(|iat| iat > latest) {
        return Err(Denied::IssuedLater);
    }
    // Without an `iat` nobody knows how old it is: what is left of its life has to be short.
    let since = issued.unwrap_or(now);
    let lives = exp.duration_since(since).unwrap_or_default();
    let longest = settings.lifetime.checked_add(leeway).unwrap_or(Duration::MAX);
    if lives > longest {
        return Err(Denied::TooLongLived);
    }
    Ok(expires_at)
}

/// One role: a text, or a list with one in it. With several it would be unclear which counts.
fn role(claims: &Map<String, Value>, path: &str) -> Result<Option<String>, Denied> {
    let wrong = Denied::ClaimMissing("the role's");
    let text = match claim_at(claims, path) {
        None => return Ok(None),
        Some(Value::Array(list)) => match list.as_slice() {
            [Value::String(one)] => one,
            _ => return Err(wrong),
        },
        Some(Value::String(one)) => one,
        Some(_) => return Err(wrong),
    };
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    fits.then(|| Some(text.clone())).ok_or(wrong)
}

/// A claim that is a text and not empty, if it is there.
fn text_at(claims: &Map<String, Value>, path: &str) -> Result<Option<String>, Denied> {
    match claim_at(claims, path) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(Denied::ClaimMissing("the tenant's")),
    }
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
pub(super) fn moment(claim: &Value) -> Option<SystemTime> {
    let since = match claim.as_u64() {
        Some(seconds) => Duration::from_secs(seconds),
        None => Duration::try_from_secs_f64(claim.as_f64()?).ok()?,
    };
    UNIX_EPOCH.checked_add(since)
}

/// A claim by its name, or by a path with dots. A claim that has the whole path as its name comes
/// first: names such as `https://example.com/tenant` have dots of their own.
pub(super) fn claim_at<'claims>(
    claims: &'claims Map<String, Value>,
    path: &str,
) -> Option<&'claims Value> {
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
    let (path, algorithm) = match &settings.keys {
        KeySource::File { path, algorithm } if algorithm.family() == Family::Hmac => {
            (path, *algorithm)
        }
        _ => {
            let message = "only an HS256 issuer's key can sign, this one's can only verify";
            return Err(settings.fault("algorithm", message.to_owned()));
        }
    };
    let key = EncodingKey::from_secret(settings.secret(path, algorithm)?.expose());
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut claims = nested(&settings.claims.tenant, tenant);
    claims.insert("iss".to_owned(), settings.issuer.as_str().into());
    claims.insert("aud".to_owned(), settings.audience.as_str().into());
    claims.insert("sub".to_owned(), "tenantgate".into());
    claims.insert("iat".to_owned(), now.as_secs().into());
    claims.insert("exp".to_owned(), now.saturating_add(lasts).as_secs().into());
    let mut jti = [0_u8; 16];
    if aws_lc_rs::rand::fill(&mut jti).is_ok() {
        claims.insert("jti".to_owned(), URL_SAFE_NO_PAD.encode(jti).into());
    }
    let header = Header::new(algorithm.into());
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
