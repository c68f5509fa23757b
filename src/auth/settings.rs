//! What the settings say about issuers of JSON Web Tokens, and their key files.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::DecodingKey;

use crate::auth::keys::{self, Key, KeySet};
use crate::auth::remote::{RemoteSettings, SET_BYTES_MAX, check_url};
use crate::auth::watched::{DenyList, Watched};
use crate::secret::{Place, Secret};

/// The claim that names the tenant unless an issuer's settings name another.
pub const TENANT_CLAIM_DEFAULT: &str = "tenant_id";
/// How far the issuer's clock may be off.
pub const LEEWAY_DEFAULT: Duration = Duration::from_secs(30);
/// Longest life of a token: one that leaks is of no use for longer.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// How often keys are fetched.
pub const REFRESH_DEFAULT: Duration = Duration::from_secs(300);
/// Shortest time between two fetches.
pub const PAUSE_DEFAULT: Duration = Duration::from_secs(10);

/// A key is some hundred bytes; whatever is larger is another file.
const KEY_FILE_BYTES_MAX: usize = 64 * 1024;

/// Who signs tokens, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSettings {
    /// The key in `[issuers.NAME]`; for logs.
    pub name: String,
    /// What the `iss` claim must be, letter by letter.
    pub issuer: String,
    /// What the `aud` claim must be or contain.
    pub audience: String,
    pub keys: KeySource,
    pub claims: ClaimPaths,
    /// How far `exp`, `nbf` and `iat` may be off; default 30 s.
    pub leeway: Duration,
    /// Longest time from `iat`, or from now, to `exp`; default 24 h.
    pub lifetime: Duration,
    /// Ids of tokens that are denied; then every token needs one.
    pub denied_file: Option<PathBuf>,
    /// Whether it speaks for tenants that name no issuer; default: if it is the only one.
    pub any_tenant: bool,
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// One key. HMAC: the secret's bytes, a trailing newline dropped. Otherwise a public key, PEM.
    File { path: Place, algorithm: Algorithm },
    /// A JSON Web Key Set in a file; with `algorithm` only its keys for that one.
    SetFile { path: PathBuf, algorithm: Option<Algorithm> },
    /// A JSON Web Key Set at an address.
    SetUrl(RemoteSettings),
}

/// Claims by name, or by a path into objects with dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPaths {
    /// The tenant's id.
    pub tenant: String,
    /// The tenant's role the token is for.
    pub role: Option<String>,
    /// `true`: nothing may be written.
    pub read_only: Option<String>,
    /// For whom a service may act, if the issuer vouches for one.
    pub vouching: Option<Vouching>,
}

/// The service that an issuer vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouching {
    /// The claim with the ids of tenants, or `"*"`.
    pub claim: String,
    /// The key in `[services.NAME]`: no token chooses it.
    pub service: String,
}

impl Default for ClaimPaths {
    fn default() -> Self {
        let tenant = TENANT_CLAIM_DEFAULT.to_owned();
        Self { tenant, role: None, read_only: None, vouching: None }
    }
}

/// The one algorithm a key is for (RFC 7518, 3.1; RFC 8037). What a token says about its algorithm
/// is compared with this and never chooses anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// What kind of key an algorithm takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Hmac,
    Rsa,
    RsaPss,
    Curve,
    Edwards,
}

const ALGORITHMS: [(Algorithm, &str, jsonwebtoken::Algorithm, Family); 12] = {
    use jsonwebtoken::Algorithm as Lib;
    [
        (Algorithm::HS256, "HS256", Lib::HS256, Family::Hmac),
        (Algorithm::HS384, "HS384", Lib::HS384, Family::Hmac),
        (Algorithm::HS512, "HS512", Lib::HS512, Family::Hmac),
        (Algorithm::RS256, "RS256", Lib::RS256, Family::Rsa),
        (Algorithm::RS384, "RS384", Lib::RS384, Family::Rsa),
        (Algorithm::RS512, "RS512", Lib::RS512, Family::Rsa),
        (Algorithm::PS256, "PS256", Lib::PS256, Family::RsaPss),
        (Algorithm::PS384, "PS384", Lib::PS384, Family::RsaPss),
        (Algorithm::PS512, "PS512", Lib::PS512, Family::RsaPss),
        (Algorithm::ES256, "ES256", Lib::ES256, Family::Curve),
        (Algorithm::ES384, "ES384", Lib::ES384, Family::Curve),
        (Algorithm::EdDSA, "EdDSA", Lib::EdDSA, Family::Edwards),
    ]
};

impl Algorithm {
    fn row(self) -> (&'static str, jsonwebtoken::Algorithm, Family) {
        let found = ALGORITHMS.into_iter().find(|(algorithm, ..)| *algorithm == self);
        // Every algorithm has its row; a test walks over them.
        found.map_or(("", jsonwebtoken::Algorithm::HS256, Family::Hmac), |(_, a, b, c)| (a, b, c))
    }

    /// The name in settings and tokens.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        ALGORITHMS.into_iter().find(|(_, known, ..)| *known == name).map(|(it, ..)| it)
    }

    pub(super) fn family(self) -> Family {
        self.row().2
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        algorithm.row().1
    }
}

/// What is wrong with an issuer's settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("issuer \"{issuer}\": {message}")]
pub struct SettingsError {
    /// The name in `[issuers.NAME]`.
    pub issuer: String,
    /// The key it concerns.
    pub key: &'static str,
    pub message: String,
}

impl IssuerSettings {
    /// Whether the settings can be used: what can be seen here, and the files.
    pub fn check(&self) -> Result<(), SettingsError> {
        for (key, value) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            if value.is_empty() {
                return Err(self.fault(key, format!("{key} is empty")));
            }
        }
        let claims = &self.claims;
        let paths = [
            ("tenant_claim", Some(&claims.tenant)),
            ("role_claim", claims.role.as_ref()),
            ("read_only_claim", claims.read_only.as_ref()),
            ("acts_for_claim", claims.vouching.as_ref().map(|it| &it.claim)),
        ];
        for (key, path) in paths {
            if path.is_some_and(|path| path.split('.').any(str::is_empty)) {
                let message = format!("{key} is a claim's name, or names with dots between them");
                return Err(self.fault(key, message));
            }
        }
        let claim = claims.vouching.as_ref().map(|it| &it.claim);
        let others = [Some(&claims.tenant), claims.role.as_ref(), claims.read_only.as_ref()];
        if claim.is_some() && others.contains(&claim) {
            let message = "acts_for_claim is the claim of something else too".to_owned();
            return Err(self.fault("acts_for_claim", message));
        }
        if self.lifetime.is_zero() {
            return Err(self.fault("lifetime", "lifetime is zero".to_owned()));
        }
        if let KeySource::SetUrl(remote) = &self.keys {
            check_url(&remote.url).map_err(|message| self.fault("jwks_url", message))?;
            let times = [("jwks_refresh", remote.refresh), ("jwks_pause", remote.pause)];
            if let Some((key, _)) = times.into_iter().find(|(_, time)| time.is_zero()) {
                return Err(self.fault(key, format!("{key} is zero")));
            }
        }
        self.deny_list()?;
        self.keys().map(drop)
    }

    /// The keys that verify this issuer's tokens; `None` if they have to be fetched.
    pub(super) fn keys(&self) -> Result<Option<KeySet>, SettingsError> {
        match &self.keys {
            KeySource::File { path, algorithm } => {
                self.key(path, *algorithm).map(|key| Some(KeySet::one(key)))
            }
            KeySource::SetFile { path, algorithm } => {
                let text = Watched::new(path, SET_BYTES_MAX).changed();
                let text = text.map_err(|message| self.fault("jwks_file", message))?;
                let set = KeySet::read(&text.unwrap_or_default(), *algorithm);
                let fault = |why| self.fault("jwks_file", format!("{}: {why}", path.display()));
                set.map(Some).map_err(fault)
            }
            KeySource::SetUrl(_) => Ok(None),
        }
    }

    pub(super) fn deny_list(&self) -> Result<Option<DenyList>, SettingsError> {
        let list = self.denied_file.as_deref().map(DenyList::read).transpose();
        list.map_err(|message| self.fault("denied_file", message))
    }

    fn key(&self, path: &Place, algorithm: Algorithm) -> Result<Key, SettingsError> {
        let (key, wanted) = match algorithm.family() {
            Family::Hmac => {
                let secret = self.secret(path, algorithm)?;
                let secret = secret.expose();
                let print = keys::print(algorithm, &[secret]);
                return Ok(Key::new(algorithm, DecodingKey::from_secret(secret), print));
            }
            Family::Rsa | Family::RsaPss => {
                let pem = self.public_pem(path, &["PUBLIC KEY", "RSA PUBLIC KEY"])?;
                (DecodingKey::from_rsa_pem(&pem), "an RSA key of 2048 bits or more")
            }
            Family::Curve => {
                let pem = self.public_pem(path, &["PUBLIC KEY"])?;
                let wanted = match algorithm {
                    Algorithm::ES384 => "an EC key on the curve P-384",
                    _ => "an EC key on the curve P-256",
                };
                (DecodingKey::from_ec_pem(&pem), wanted)
            }
            Family::Edwards => {
                let pem = self.public_pem(path, &["PUBLIC KEY"])?;
                (DecodingKey::from_ed_pem(&pem), "an Ed25519 key")
            }
        };
        let key = key
            .ok()
            .filter(|key| keys::is_sound(algorithm, key))
            .ok_or_else(|| self.fault("key_file", format!("{path} does not hold {wanted}")))?;
        let print = keys::print(algorithm, &[key.try_get_as_bytes().unwrap_or_default()]);
        Ok(Key::new(algorithm, key, print))
    }

    /// The shared secret of an HMAC issuer: as many bits as the hash or more (RFC 7518, 3.2).
    pub(super) fn secret(
        &self,
        path: &Place,
        algorithm: Algorithm,
    ) -> Result<Secret, SettingsError> {
        let bytes_min = match algorithm {
            Algorithm::HS384 => 48,
            Algorithm::HS512 => 64,
            _ => 32,
        };
        let secret = path.read(KEY_FILE_BYTES_MAX);
        let secret = secret.map_err(|error| self.fault("key_file", error.to_string()))?;
        let bytes = secret.expose();
        let name = algorithm.name();
        if bytes.starts_with(b"-----BEGIN ") {
            let message = format!("the file holds a PEM key, {name} takes a shared secret");
            return Err(self.fault("key_file", message));
        }
        if bytes.len() < bytes_min {
            let len = bytes.len();
            let message =
                format!("the secret in {path} has {len} bytes, {name} takes {bytes_min} or more");
            return Err(self.fault("key_file", message));
        }
        Ok(secret)
    }

    /// A private key or certificate would be read as well by the library; a public key it must be.
    fn public_pem(&self, path: &Place, labels: &[&str]) -> Result<Vec<u8>, SettingsError> {
        let bytes = self.read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let begins: Vec<&str> =
            text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")).collect();
        let wanted = |begin: &&str| labels.iter().any(|label| **begin == format!("{label}-----"));
        if begins.len() == 1 && begins.iter().all(wanted) {
            return Ok(bytes);
        }
        let labels = labels.join("\" or \"");
        Err(self.fault("key_file", format!("{path} does not hold one PEM block \"{labels}\"")))
    }

    /// A public key: its file may be anybody's.
    fn read(&self, place: &Place) -> Result<Vec<u8>, SettingsError> {
        let Place::File(path) = place else {
            let read = place.read(KEY_FILE_BYTES_MAX);
            let read = read.map_err(|error| self.fault("key_file", error.to_string()));
            return read.map(|secret| secret.expose().to_vec());
        };
        let fault =
            |why: String| self.fault("key_file", format!("cannot read {}: {why}", path.display()));
        let size = fs::metadata(path).map_err(|error| fault(error.to_string()))?.len();
        if size > KEY_FILE_BYTES_MAX as u64 {
            return Err(fault(format!("it has {size} bytes, a key has fewer")));
        }
        fs::read(path).map_err(|error| fault(error.to_string()))
    }

    pub(super) fn fault(&self, key: &'static str, message: String) -> SettingsError {
        SettingsError { issuer: self.name.clone(), key, message }
    }
}

/// A token is looked up by its `iss`, so no two issuers may have the same.
pub(super) fn check_distinct(issuers: &[IssuerSettings]) -> Result<(), SettingsError> {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    for settings in issuers {
        if let Some(other) = first.insert(&settings.issuer, &settings.name) {
            let message = format!("[issuers.{other}] has the same issuer");
            return Err(settings.fault("issuer", message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_found_by_its_name() {
        for (algorithm, name, ..) in ALGORITHMS {
            assert_eq!((algorithm.name(), Algorithm::named(name)), (name, Some(algorithm)));
            assert_eq!(name.parse::<jsonwebtoken::Algorithm>().unwrap(), algorithm.into());
        }
        assert_eq!(Algorithm::named("none"), None);
    }
}
