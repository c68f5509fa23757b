//! [`KeySet`]: the keys an issuer's tokens are verified with, each with the one algorithm it is
//! for. From a PEM file, a shared secret, or a JSON Web Key Set (RFC 7517).

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use crate::auth::settings::{Algorithm, Family};

/// Issuers publish two or three; whatever has more is another file.
const KEYS_MAX: usize = 64;

/// RFC 7518, 3.3: an RSA key has 2048 bits or more.
const RSA_BYTES_MIN: usize = 256;

/// Which key a credential was verified with. Says nothing about the key itself.
pub(super) type Print = [u8; 32];

/// The keys of one issuer.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// The one key of a file: it is for every token, whatever `kid` it names.
    for_any_kid: bool,
}

/// A key that tokens are verified with.
pub(super) struct Key {
    kid: Option<String>,
    pub(super) print: Print,
    pub(super) decoding: DecodingKey,
    pub(super) validation: Validation,
}

impl Key {
    pub(super) fn new(algorithm: Algorithm, decoding: DecodingKey, print: Print) -> Self {
        // The library reads its own clock, allows "iss" to be a list and does not require claims
        // by default: it verifies the signature under the one algorithm and nothing else.
        let mut validation = Validation::new(algorithm.into());
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self { kid: None, print, decoding, validation }
    }
}

impl KeySet {
    /// The one key of a file.
    pub(super) fn one(key: Key) -> Self {
        Self { keys: vec![key], for_any_kid: true }
    }

    /// The keys of a JSON Web Key Set that tokens can be verified with; `only` leaves out those for
    /// other algorithms. Keys this gate cannot use (for encryption, of unknown kinds, shared
    /// secrets) are passed over. An error says what is wrong with the set.
    pub(super) fn read(text: &[u8], only: Option<Algorithm>) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(text)
            .map_err(|_| "it is not a JSON Web Key Set: {\"keys\": [...]}".to_owned())?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("it has {} keys, more than {KEYS_MAX}", set.keys.len()));
        }
        let mut keys: Vec<Key> = Vec::new();
        for value in set.keys {
            let Some(key) = serde_json::from_value(value).ok().and_then(|it| usable(&it, only))
            else {
                continue;
            };
            keys.push(key);
        }
        // Which of two is meant cannot be known, so neither is used; the others are still good.
        let twice: Vec<_> = keys.iter().map(|key| key.kid.clone()).collect();
        keys.retain(|key| twice.iter().filter(|kid| **kid == key.kid).count() == 1);
        match keys.is_empty() {
            false => Ok(Self { keys, for_any_kid: false }),
            true => Err("it has no key that tokens could be verified with".to_owned()),
        }
    }

    /// The key for a token: the one its `kid` names, letter by letter. A token without one is for
    /// a set with a single key.
    pub(super) fn find(&self, kid: Option<&str>) -> Option<&Key> {
        match (self.keys.as_slice(), kid) {
            ([one], _) if self.for_any_kid => Some(one),
            ([one], None) => Some(one),
            (_, None) => None,
            (keys, Some(kid)) => keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
        }
    }

    /// Whether a key is in it.
    pub(super) fn has(&self, print: &Print) -> bool {
        self.keys.iter().any(|key| key.print == *print)
    }

    pub(super) fn same_keys(&self, other: &Self) -> bool {
        let all = |one: &Self, other: &Self| one.keys.iter().all(|key| other.has(&key.print));
        all(self, other) && all(other, self)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

/// A key of a set, if it is for signatures of an algorithm we know.
fn usable(jwk: &Jwk, only: Option<Algorithm>) -> Option<Key> {
    let common = &jwk.common;
    let foreign = |of: &PublicKeyUse| *of != PublicKeyUse::Signature;
    let verifies = |of: &Vec<KeyOperations>| of.contains(&KeyOperations::Verify);
    if common.public_key_use.as_ref().is_some_and(foreign)
        || !common.key_operations.as_ref().is_none_or(verifies)
    {
        return None;
    }
    let named = match &common.key_algorithm {
        Some(named) => Some(Algorithm::named(&named.to_string())?),
        None => None,
    };
    let (of_kind, parts): (Algorithm, Vec<Vec<u8>>) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let (modulus, exponent) = (bytes(&rsa.n)?, bytes(&rsa.e)?);
            if modulus.iter().skip_while(|byte| **byte == 0).count() < RSA_BYTES_MIN {
                return None;
            }
            let rsa = |of: &Algorithm| matches!(of.family(), Family::Rsa | Family::RsaPss);
            let of_kind = named.filter(rsa).or(only.filter(rsa)).unwrap_or(Algorithm::RS256);
            (of_kind, vec![modulus, exponent])
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let of_kind = match ec.curve {
                EllipticCurve::P256 => Algorithm::ES256,
                EllipticCurve::P384 => Algorithm::ES384,
                _ => return None,
            };
            (of_kind, vec![bytes(&ec.x)?, bytes(&ec.y)?])
        }
        AlgorithmParameters::OctetKeyPair(ed) if ed.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, vec![bytes(&ed.x)?])
        }
        // A shared secret has no place in a set that anybody may read.
        _ => return None,
    };
    let fits = |algorithm: Option<Algorithm>| algorithm.is_none_or(|it| it == of_kind);
    if !fits(named) || !fits(only) {
        return None;
    }
    let decoding = DecodingKey::from_jwk(jwk).ok()?;
    if !matches!(jwk.algorithm, AlgorithmParameters::RSA(_)) && !is_sound(of_kind, &decoding) {
        return None;
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let kid = common.key_id.clone();
    Some(Key { kid, ..Key::new(of_kind, decoding, print(of_kind, &parts)) })
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// What a key is known by.
pub(super) fn print(algorithm: Algorithm, parts: &[&[u8]]) -> Print {
    let mut context = Context::new(&SHA256);
    context.update(algorithm.name().as_bytes());
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut print = Print::default();
    for (to, from) in print.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    print
}

/// Whether the bytes of a public key are one for the algorithm: on its curve, long enough.
pub(super) fn is_sound(algorithm: Algorithm, key: &DecodingKey) -> bool {
    let verifier: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &ED25519,
        _ => &RSA_PKCS1_2048_8192_SHA256,
    };
    let bytes = key.try_get_as_bytes().map(<[u8]>::to_vec);
    bytes.is_ok_and(|bytes| ParsedPublicKey::new(verifier, bytes).is_ok())
}
