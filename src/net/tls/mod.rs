//! TLS towards clients and towards servers. The provider is named everywhere (two providers in one
//! process make rustls' default builder panic), tickets are off as in PostgreSQL and libpq.

mod accept;
mod cached;
mod names;
mod pin;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

pub use accept::{AcceptPlan, Acceptor};
pub use cached::Connectors;
pub use names::{names, server_end_point};
pub use pin::Pin;
use verify::verifier;

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
    /// Keys that the server may have; none stands for any.
    pub pins: &'plan [Pin],
    pub sni: bool,
    /// Offers the protocol name; needed by direct TLS, harmless otherwise.
    pub alpn: bool,
}

/// The side that meets servers.
pub fn connector(plan: ConnectorPlan<'_>) -> Result<TlsConnector, TlsError> {
    let crypto = Arc::new(provider::default_provider());
    let verifier = pin::pinned(plan.pins, verifier(plan, crypto.clone())?);
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

/// Who may sign clients' certificates. A client's own certificate is no authority: whoever has the
/// key of one listed here could sign another tenant's name.
fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for (number, certificate) in (1..).zip(certificates(file)?) {
        if !names::is_authority(&certificate, SystemTime::now()) {
            let cause = format!("certificate {number} is no authority (CA:TRUE) or has run out");
            return Err(TlsError::File { file: file.to_owned(), cause });
        }
        store.add(certificate)?;
    }
    Ok(store)
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
