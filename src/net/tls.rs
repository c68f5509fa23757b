//! TLS towards clients and towards servers. The provider is named everywhere (two providers in one
//! process make rustls' default builder panic), tickets are off as in PostgreSQL and libpq.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The protocol name both sides may agree on (PostgreSQL manual, 55.2.12).
pub const ALPN: &[u8] = b"postgresql";

/// Why TLS could not be set up; read by the person who starts the gate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {cause}", file.display())]
    File { file: PathBuf, cause: String },
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    #[error("no certificate authority to trust: {0}")]
    Roots(String),
}

/// How much of a server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Nothing but that the server owns the key it shows (libpq's `require`).
    Nothing,
    /// That a trusted authority signed it (`verify-ca`).
    Authority,
    /// That it is the named host's, too (`verify-full`).
    Host,
}

/// What a connector is made of.
#[derive(Clone, Copy, Debug)]
pub struct ConnectorPlan<'plan> {
    pub verify: Verify,
    /// PEM file of trusted authorities; `None` is the system's.
    pub root_file: Option<&'plan Path>,
    /// PEM files of our certificate and key.
    pub identity: Option<&'plan (PathBuf, PathBuf)>,
    pub sni: bool,
    /// Offers the protocol name; needed by direct TLS, harmless otherwise.
    pub alpn: bool,
}

/// The side that clients meet: one certificate chain and its key, both PEM files.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, private_key(key)?)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The side that meets servers.
pub fn connector(plan: ConnectorPlan<'_>) -> Result<TlsConnector, TlsError> {
    let crypto = Arc::new(provider::default_provider());
    let verifier = verifier(plan, crypto.clone())?;
    let builder = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match plan.identity {
        Some((chain, key)) => {
            builder.with_client_auth_cert(certificates(chain)?, private_key(key)?)?
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = plan.sni;
    if plan.alpn {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The hash that ties a SCRAM exchange to this certificate (RFC 5929, tls-server-end-point): by the
/// certificate's own signature hash, SHA-256 in place of MD5 and SHA-1. `None` where the signature
/// has no hash of its own (Ed25519) or is not known, which means no channel binding.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm().oid.to_string().as_str() {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => {
            &digest::SHA256
        }
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let broken = |cause: String| TlsError::File { file: file.to_owned(), cause };
    let read = CertificateDer::pem_file_iter(file).map_err(|error| broken(error.to_string()))?;
    let chain: Result<Vec<_>, _> = read.collect();
    let chain = chain.map_err(|error| broken(error.to_string()))?;
    match chain.is_empty() {
        true => Err(broken("no certificate in the file".to_owned())),
        false => Ok(chain),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|error| TlsError::File { file: file.to_owned(), cause: error.to_string() })
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let certificates = match file {
        Some(file) => certificates(file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _) = store.add_parsable_certificates(certificates);
    match added {
        0 => Err(TlsError::Roots("the system has none, set sslrootcert".to_owned())),
        _ => Ok(store),
    }
}

fn verifier(
    plan: ConnectorPlan<'_>,
    crypto: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    if plan.verify == Verify::Nothing {
        return Ok(Arc::new(Unverified { crypto }));
    }
    let roots = Arc::new(roots(plan.root_file)?);
    let full = WebPkiServerVerifier::builder_with_provider(roots, crypto)
        .build()
        .map_err(|error| TlsError::Roots(error.to_string()))?;
    Ok(match plan.verify {
        Verify::Host => full,
        Verify::Authority | Verify::Nothing => Arc::new(AnyHost { full }),
    })
}

/// `sslmode=require`: any certificate, but its owner must prove to hold the key.
#[derive(Debug)]
struct Unverified {
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

/// `sslmode=verify-ca`: everything but the host's name.
#[derive(Debug)]
struct AnyHost {
    full: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let full = &self.full;
        match full.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.full.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.full.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.full.supported_verify_schemes()
    }
}
