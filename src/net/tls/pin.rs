//! [`Pin`]: the fingerprint of a server's public key. A server whose key has none of those that are
//! named is not spoken to, whoever signed its certificate.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use crate::secret::from_hex;

/// The SHA-256 of a public key: of the certificate's SubjectPublicKeyInfo in DER, which stays the
/// same when a certificate is renewed with its key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text.strip_prefix("sha256:")?).map(Self)
    }

    /// That of a certificate's key (DER).
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let key = certificate.tbs_certificate().subject_public_key_info().to_der().ok()?;
        digest::digest(&digest::SHA256, &key).as_ref().try_into().ok().map(Self)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The same verifier, content with these keys only.
pub(super) fn pinned(
    pins: &[Pin],
    verifier: Arc<dyn ServerCertVerifier>,
) -> Arc<dyn ServerCertVerifier> {
    match pins {
        [] => verifier,
        pins => Arc::new(Pinned { pins: pins.to_vec(), verifier }),
    }
}

#[derive(Debug)]
struct Pinned {
    pins: Vec<Pin>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = &self.verifier;
        let good =
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)?;
        // The handshake goes on to prove that the server owns this very key.
        match Pin::of(end_entity).is_some_and(|pin| self.pins.contains(&pin)) {
            true => Ok(good),
            false => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_pin_is_the_keys_and_not_the_certificates() {
        let key = KeyPair::generate().unwrap();
        let made = |name: &str, key: &KeyPair| {
            let plan = CertificateParams::new(vec![name.to_owned()]).unwrap();
            Pin::of(plan.self_signed(key).unwrap().der()).unwrap()
        };
        let pin = made("a.test", &key);
        assert_eq!(pin, made("b.test", &key), "renewed with its key");
        assert_ne!(pin, made("a.test", &KeyPair::generate().unwrap()));
        assert_eq!(Pin::parse(&format!("{pin:?}")), Some(pin));
        assert_eq!(Pin::of(b"no certificate"), None);
        for bad in ["", "sha256:", "sha256:00", "sha1:00", &format!("{pin:?}0")] {
            assert_eq!(Pin::parse(bad), None, "{bad}");
        }
    }
}
