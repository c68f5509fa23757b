//! Certificates made for a test: an authority, and what it signs.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// A fresh one; nobody else trusts it.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "tenantgate test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// What others must trust, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for these names or addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.issue(names, names[0], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A server's certificate for this key (PEM) and name, good until this year.
    pub fn server_until(&self, key: &str, name: &str, year: i32) -> String {
        let mut params = params(&[name], name, ExtendedKeyUsagePurpose::ServerAuth);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::from_pem(key).unwrap();
        params.signed_by(&key, &self.0).unwrap().pem()
    }

    /// A client's certificate with this common name.
    pub fn client(&self, common_name: &str) -> Identity {
        self.issue(&[], common_name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A client's certificate with these alternative names as well.
    pub fn client_of(&self, names: &[&str], common_name: &str) -> Identity {
        self.issue(names, common_name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A TLS client that trusts this authority only.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        trusting(&self.pem())
    }

    fn issue(&self, names: &[&str], common_name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
        let params = params(names, common_name, usage);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn params(names: &[&str], common_name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![usage];
    params
}

/// A TLS client that trusts this certificate only.
pub fn trusting(pem: &str) -> Arc<ClientConfig> {
    Arc::new(trust(pem).with_no_client_auth())
}

/// The same with a certificate of its own to show.
pub fn presenting(pem: &str, identity: &Identity) -> Arc<ClientConfig> {
    let own = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    Arc::new(trust(pem).with_client_auth_cert(vec![own], key).unwrap())
}

fn trust(pem: &str) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}
