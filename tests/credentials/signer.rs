//! Keys of issuers, made for a test: what is published of them, and tokens signed with them in any
//! way one likes.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde_json::{Value, json};

/// A key pair and its name.
pub struct Signer {
    pub kid: String,
    pub algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    pub fn new(kid: &str, algorithm: Algorithm) -> Self {
        let key = match algorithm.family() {
            AlgorithmFamily::Hmac => EncodingKey::from_secret(kid.repeat(64).as_bytes()),
            AlgorithmFamily::Rsa => {
                let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
                let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
                EncodingKey::from_rsa_pem(pem(der.as_ref()).as_bytes()).unwrap()
            }
            AlgorithmFamily::Ec => {
                let curve = match algorithm {
                    Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
                    _ => &ECDSA_P256_SHA256_FIXED_SIGNING,
                };
                let der = EcdsaKeyPair::generate(curve).unwrap().to_pkcs8v1().unwrap();
                EncodingKey::from_ec_pem(pem(der.as_ref()).as_bytes()).unwrap()
            }
            AlgorithmFamily::Ed => {
                let der = Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
                EncodingKey::from_ed_pem(pem(der.as_ref()).as_bytes()).unwrap()
            }
        };
        Self { kid: kid.to_owned(), algorithm, key }
    }

    /// What the issuer publishes of it.
    pub fn published(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = self.kid.clone().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token as an issuer signs it.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": self.name(), "typ": "JWT", "kid": self.kid });
        self.token_with(&header.to_string(), &claims.to_string())
    }

    /// A token with any texts as header and claims; the signature is good.
    pub fn token_with(&self, header: &str, claims: &str) -> String {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(text.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{text}.{signature}")
    }

    /// The algorithm's name in tokens.
    pub fn name(&self) -> String {
        let header = serde_json::to_value(Header::new(self.algorithm)).unwrap();
        header["alg"].as_str().unwrap().to_owned()
    }
}

/// A set of keys as an issuer publishes it.
pub fn set(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.published()).collect();
    json!({ "keys": keys }).to_string()
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}
