//! The side that clients meet: which certificate is shown to whom, and whether clients are asked
//! for theirs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs as provider;
use rustls::server::{
    ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::names::names;
use super::{ALPN, TlsError, authorities, certificates, private_key, server_end_point};

/// What an acceptor is made of.
#[derive(Clone, Copy, Debug)]
pub struct AcceptPlan<'plan> {
    /// Certificate chains and their keys, all PEM files. The first is shown to whoever names no
    /// host, or one that none of them is for.
    pub identities: &'plan [(PathBuf, PathBuf)],
    /// PEM file of the authorities that clients' certificates come from. With it clients are asked
    /// for one; they may have none.
    pub client_authority: Option<&'plan Path>,
}

/// Shakes hands with clients.
#[derive(Clone)]
pub struct Acceptor {
    pub tls: TlsAcceptor,
    shown: Arc<Shown>,
}

impl Acceptor {
    /// Reads certificates and keys.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or a key is not its certificate's.
    pub fn new(plan: AcceptPlan<'_>) -> Result<Self, TlsError> {
        let crypto = Arc::new(provider::default_provider());
        let shown = plan.identities.iter().map(|(chain, key)| one(chain, key));
        let shown = Arc::new(Shown(shown.collect::<Result<_, _>>()?));
        let clients = match plan.client_authority {
            None => Arc::new(NoClientAuth),
            Some(file) => {
                let roots = Arc::new(authorities(file)?);
                WebPkiClientVerifier::builder_with_provider(roots, crypto.clone())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| TlsError::Roots(error.to_string()))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(shown.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { tls: TlsAcceptor::from(Arc::new(config)), shown })
    }

    /// The hash of the certificate that a client was shown who named this host.
    pub fn end_point(&self, host: Option<&str>) -> Option<&[u8]> {
        self.shown.to(host)?.end_point.as_deref()
    }
}

/// The certificates of a listener.
#[derive(Debug)]
struct Shown(Vec<Identity>);

#[derive(Debug)]
struct Identity {
    /// DNS names it is for, as they stand in it.
    hosts: Vec<String>,
    key: Arc<CertifiedKey>,
    end_point: Option<Vec<u8>>,
}

fn one(chain: &Path, key: &Path) -> Result<Identity, TlsError> {
    let certificates = certificates(chain)?;
    let leaf = certificates.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
    let hosts = names(&leaf).map(|names| names.dns).unwrap_or_default();
    let made =
        CertifiedKey::from_der(certificates, private_key(key)?, &provider::default_provider());
    let broken =
        |error: rustls::Error| TlsError::File { file: key.into(), cause: error.to_string() };
    Ok(Identity { hosts, key: Arc::new(made.map_err(broken)?), end_point: server_end_point(&leaf) })
}

impl Shown {
    /// What is shown to who names this host: the certificate of exactly that name, else one of a
    /// pattern that fits, else the first.
    fn to(&self, host: Option<&str>) -> Option<&Identity> {
        let named = |fits: fn(&str, &str) -> bool| {
            let host = host?;
            self.0.iter().find(|identity| identity.hosts.iter().any(|name| fits(name, host)))
        };
        named(str::eq_ignore_ascii_case).or_else(|| named(is_pattern_of)).or(self.0.first())
    }
}

/// Whether `*.example.com` is for this host: the star stands for one label (RFC 9525, section 6.3).
fn is_pattern_of(pattern: &str, host: &str) -> bool {
    let below = pattern.strip_prefix("*.").zip(host.split_once('.'));
    below.is_some_and(|(pattern, (label, rest))| {
        !label.is_empty() && pattern.eq_ignore_ascii_case(rest)
    })
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.to(hello.server_name()).map(|identity| identity.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        let fits = ["a.gate.test", "A.GATE.TEST"];
        assert!(fits.iter().all(|host| is_pattern_of("*.gate.test", host)));
        for host in ["gate.test", "a.b.gate.test", ".gate.test", "a.gate.testx", "*"] {
            assert!(!is_pattern_of("*.gate.test", host), "{host}");
        }
        assert!(!is_pattern_of("gate.test", "a.gate.test"));
    }
}
