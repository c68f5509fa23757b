//! What stands in a certificate: its names, and the hash that SCRAM binds to.

use std::time::SystemTime;

use aws_lc_rs::digest;
use x509_cert::Certificate;
use x509_cert::der::asn1::{ContextSpecific, ObjectIdentifier};
use x509_cert::der::{Any, Decode, Encode};
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::spki::AlgorithmIdentifierOwned;

/// The names in a certificate, in its order. Those with control characters in them are left out:
/// what reads them may stop there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub dns: Vec<String>,
    /// URIs and e-mail addresses, each with `uri:` or `email:` ahead: an authority that lets
    /// anybody have an address of its own choice has not said that it is a host's name.
    pub other: Vec<String>,
    pub common: Vec<String>,
    /// When the certificate ends.
    pub ends: SystemTime,
}

/// Reads a certificate's names. `None` if it is none.
pub fn names(certificate: &[u8]) -> Option<Names> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let certificate = parsed.tbs_certificate();
    let ends = certificate.validity().not_after.to_system_time();
    let mut names = Names { dns: Vec::new(), other: Vec::new(), common: Vec::new(), ends };
    let clean = |text: &str| {
        let fits = !text.is_empty() && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    };
    let alternative = certificate.get_extension::<SubjectAltName>().ok()?;
    for name in alternative.into_iter().flat_map(|(_, names)| names.0) {
        match name {
            GeneralName::DnsName(name) => {
                names.dns.extend(clean(name.as_str()).filter(|name| !name.contains(':')));
            }
            GeneralName::Rfc822Name(name) => {
                names.other.extend(clean(name.as_str()).map(|name| format!("email:{name}")));
            }
            GeneralName::UniformResourceIdentifier(name) => {
                names.other.extend(clean(name.as_str()).map(|name| format!("uri:{name}")));
            }
            _ => {}
        }
    }
    for part in certificate.subject().iter().filter(|part| part.oid == COMMON_NAME) {
        let text = DirectoryString::try_from(&part.value).ok();
        names.common.extend(text.and_then(|text| clean(&text.value())));
    }
    Some(names)
}

/// Whether a certificate may sign others at this time: what an authority file must hold, because
/// chain building takes whatever stands there for one (RFC 5280, sections 4.1.2.5 and 4.2.1.9).
pub fn is_authority(certificate: &[u8], now: SystemTime) -> bool {
    let Ok(parsed) = Certificate::from_der(certificate) else { return false };
    let certificate = parsed.tbs_certificate();
    let basic = certificate.get_extension::<BasicConstraints>().ok().flatten();
    let signs = basic.is_some_and(|(_, basic)| basic.ca);
    signs && certificate.validity().not_after.to_system_time() > now
}

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const RSA_PSS: &str = "1.2.840.113549.1.1.10";

/// The hash that ties a SCRAM exchange to this certificate (RFC 5929, tls-server-end-point): by the
/// certificate's own signature hash, SHA-256 in place of MD5 and SHA-1. `None` where the signature
/// has no hash of its own (Ed25519) or is not known, which means no channel binding.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let signature = parsed.signature_algorithm();
    let algorithm = match signature.oid.to_string().as_str() {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => {
            &digest::SHA256
        }
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => &digest::SHA224,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        RSA_PSS => pss_hash(signature.parameters.as_ref())?,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// The hash in the parameters of RSASSA-PSS (RFC 4055, section 3.1); SHA-1 where none stands there.
fn pss_hash(parameters: Option<&Any>) -> Option<&'static digest::Algorithm> {
    let parts = Vec::<Any>::from_der(&parameters?.to_der().ok()?).ok()?;
    let hash = parts.iter().find_map(|part| {
        let der = part.to_der().ok()?;
        let tagged = ContextSpecific::<AlgorithmIdentifierOwned>::from_der(&der).ok()?;
        (tagged.tag_number.value() == 0).then(|| tagged.value.oid.to_string())
    });
    match hash.as_deref() {
        None | Some("1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1") => Some(&digest::SHA256),
        Some("2.16.840.1.101.3.4.2.4") => Some(&digest::SHA224),
        Some("2.16.840.1.101.3.4.2.2") => Some(&digest::SHA384),
        Some("2.16.840.1.101.3.4.2.3") => Some(&digest::SHA512),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn only_authorities_that_have_not_run_out_may_sign() {
        let is_one = |is_ca: IsCa, year: i32| {
            let mut plan = CertificateParams::new(vec!["app.acme.test".to_owned()]).unwrap();
            plan.is_ca = is_ca;
            plan.not_after = date_time_ymd(year, 1, 1);
            let made = plan.self_signed(&KeyPair::generate().unwrap()).unwrap();
            is_authority(made.der(), SystemTime::now())
        };
        let any = || IsCa::Ca(BasicConstraints::Unconstrained);
        assert!(is_one(any(), 4000));
        assert!(!is_one(any(), 2020), "it has run out");
        assert!(!is_one(IsCa::NoCa, 4000) && !is_one(IsCa::ExplicitNoCa, 4000));
        assert!(!is_authority(b"no certificate", SystemTime::now()));
    }
}
