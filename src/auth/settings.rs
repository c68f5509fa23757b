//! What the settings say about issuers of JSON Web Tokens, and their key files.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use jsonwebtoken::DecodingKey;

/// The claim that names the tenant unless an issuer's settings name another.
pub const TENANT_CLAIM_DEFAULT: &str = "tenant_id";
/// How far the issuer's clock may be off.
pub const LEEWAY_DEFAULT: Duration = Duration::from_secs(30);

/// RFC 7518, 3.2: a key for HS256 has at least as many bits as the hash.
const SECRET_BYTES_MIN: usize = 32;
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
    pub algorithm: Algorithm,
    /// HS256: the secret's bytes, a trailing newline dropped. Otherwise a public key in PEM.
    pub key_file: PathBuf,
    /// The claim that holds the tenant's id: its name, or a path into objects with dots.
    pub tenant_claim: String,
    /// How far `exp` and `nbf` may be off; default 30 s.
    pub leeway: Duration,
}

/// The one algorithm an issuer signs with (RFC 7518, 3.1). What a token says about its algorithm
/// is compared with this and never chooses anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum Algorithm {
    HS256,
    RS256,
    ES256,
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 => Self::HS256,
            Algorithm::RS256 => Self::RS256,
            Algorithm::ES256 => Self::ES256,
        }
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
    /// Whether the settings can be used: what can be seen here, and the key file.
    pub fn check(&self) -> Result<(), SettingsError> {
        for (key, value) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            if value.is_empty() {
                return Err(self.fault(key, format!("{key} is empty")));
            }
        }
        if self.tenant_claim.split('.').any(str::is_empty) {
            let message = "tenant_claim is a claim's name, or names with dots between them";
            return Err(self.fault("tenant_claim", message.to_owned()));
        }
        self.key().map(drop)
    }

    /// The key that verifies this issuer's tokens.
    pub(super) fn key(&self) -> Result<DecodingKey, SettingsError> {
        match self.algorithm {
            Algorithm::HS256 => Ok(DecodingKey::from_secret(&self.secret()?)),
            Algorithm::RS256 => {
                let pem = self.public_pem(&["PUBLIC KEY", "RSA PUBLIC KEY"])?;
                let key = DecodingKey::from_rsa_pem(&pem);
                self.fits(key, &RSA_PKCS1_2048_8192_SHA256, "an RSA key of 2048 bits or more")
            }
            Algorithm::ES256 => {
                let key = DecodingKey::from_ec_pem(&self.public_pem(&["PUBLIC KEY"])?);
                self.fits(key, &ECDSA_P256_SHA256_FIXED, "an EC key on the curve P-256")
            }
        }
    }

    /// The shared secret of an HS256 issuer.
    pub(super) fn secret(&self) -> Result<Vec<u8>, SettingsError> {
        let mut bytes = self.read()?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.starts_with(b"-----BEGIN ") {
            let message = "the file holds a PEM key, HS256 takes a shared secret".to_owned();
            return Err(self.fault("key_file", message));
        }
        if bytes.len() < SECRET_BYTES_MIN {
            let message = format!(
                "the secret in {} has {} bytes, HS256 takes {SECRET_BYTES_MIN} or more",
                self.key_file.display(),
                bytes.len()
            );
            return Err(self.fault("key_file", message));
        }
        Ok(bytes)
    }

    /// A private key or certificate would be read as well by the library; a public key it must be.
    fn public_pem(&self, labels: &[&str]) -> Result<Vec<u8>, SettingsError> {
        let bytes = self.read()?;
        let text = String::from_utf8_lossy(&bytes);
        let begins: Vec<&str> =
            text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")).collect();
        let wanted = |begin: &&str| labels.iter().any(|label| **begin == format!("{label}-----"));
        if begins.len() == 1 && begins.iter().all(wanted) {
            return Ok(bytes);
        }
        let message = format!(
            "{} does not hold one PEM block \"{}\"",
            self.key_file.display(),
            labels.join("\" or \"")
        );
        Err(self.fault("key_file", message))
    }

    fn fits(
        &self,
        key: jsonwebtoken::errors::Result<DecodingKey>,
        algorithm: &'static dyn VerificationAlgorithm,
        wanted: &str,
    ) -> Result<DecodingKey, SettingsError> {
        let usable = |key: &DecodingKey| {
            let bytes = key.try_get_as_bytes().map(|bytes| bytes.to_vec());
            bytes.is_ok_and(|bytes| ParsedPublicKey::new(algorithm, bytes).is_ok())
        };
        key.ok().filter(usable).ok_or_else(|| {
            let message = format!("{} does not hold {wanted}", self.key_file.display());
            self.fault("key_file", message)
        })
    }

    fn read(&self) -> Result<Vec<u8>, SettingsError> {
        let fault = |why: String| {
            self.fault("key_file", format!("cannot read {}: {why}", self.key_file.display()))
        };
        let size = fs::metadata(&self.key_file).map_err(|error| fault(error.to_string()))?.len();
        if size > KEY_FILE_BYTES_MAX as u64 {
            return Err(fault(format!("it has {size} bytes, a key has fewer")));
        }
        fs::read(&self.key_file).map_err(|error| fault(error.to_string()))
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
