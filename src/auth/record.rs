//! Credentials that are no text: a SCRAM proof and a client's certificate, once they are checked.

use std::time::SystemTime;

use crate::auth::{Authenticator, Denied, Identity, Proof, Proved, loggable};
use crate::catalog::{
    Catalog, CertificateName, CertificateRecord, CredentialRecord, Face, Key, ScramRecord,
    TenantName,
};
use crate::net::tls;

impl Authenticator {
    /// Lets in who proved a credential of the catalog, as far as its tenant may log in. The steps
    /// are those of [`Authenticator::authenticate`], also for who proved nothing.
    pub async fn admit(
        &self,
        catalog: &Catalog,
        proved: Result<CredentialRecord, Denied>,
        named: &[TenantName],
    ) -> Result<Identity, Denied> {
        self.let_in(catalog, proved.map(proof), named).await
    }

    /// Lets in who showed a certificate that the listener's authority signed (DER).
    pub async fn admit_certificate(
        &self,
        catalog: &Catalog,
        certificate: &[u8],
        named: &[TenantName],
    ) -> Result<Identity, Denied> {
        let (record, ends) = certified(catalog, certificate).await?;
        let proved = Proved { expires_at: Some(ends), ..proof(record) };
        self.let_in(catalog, Ok(proved), named).await
    }

    /// Whether a certificate stands for the very tenant that somebody proved to be of otherwise.
    /// Both count from then on: where one ends, so does the session.
    pub async fn agrees(
        &self,
        catalog: &Catalog,
        certificate: &[u8],
        identity: Identity,
    ) -> Result<Identity, Denied> {
        match certified(catalog, certificate).await? {
            (CredentialRecord::Certificate(record), ends)
                if record.tenant == identity.tenant.id =>
            {
                let beside = Some(CredentialRecord::Certificate(record));
                Ok(Identity { beside, ..identity.until(ends) })
            }
            _ => Err(Denied::Certificate),
        }
    }

    /// The same where the handshake alone had to be content with a certificate: its end counts.
    pub fn outlived(&self, certificate: &[u8], identity: Identity) -> Result<Identity, Denied> {
        let read = tls::names(certificate).ok_or(Denied::Certificate)?;
        Ok(identity.until(read.ends))
    }
}

impl Identity {
    fn until(self, ends: SystemTime) -> Self {
        let expires_at = Some(self.expires_at.map_or(ends, |at| at.min(ends)));
        Self { expires_at, ..self }
    }
}

/// The record behind a certificate, and when the certificate ends.
async fn certified(
    catalog: &Catalog,
    certificate: &[u8],
) -> Result<(CredentialRecord, SystemTime), Denied> {
    let read = tls::names(certificate).ok_or(Denied::Certificate)?;
    let alternative = read.dns.into_iter().chain(read.other).map(CertificateName::San);
    let names: Vec<_> =
        alternative.chain(read.common.into_iter().map(CertificateName::Cn)).collect();
    // A name of another tenant makes a certificate nobody's, so all of them are looked up.
    let keys: Vec<_> = names.iter().map(Key::of_certificate).collect();
    let fresh = catalog.with(&keys).await?;
    let catalog = fresh.as_deref().unwrap_or(catalog);
    let found = catalog.credentials().certificate(&names).ok_or(Denied::Certificate)?;
    Ok((CredentialRecord::Certificate(found.clone()), read.ends))
}

fn proof(record: CredentialRecord) -> Proved {
    let (tenant, credential) = match &record {
        CredentialRecord::Scram(scram) => {
            let ScramRecord { tenant, name, .. } = &**scram;
            (tenant, format!("scram {}", loggable(name)))
        }
        CredentialRecord::Certificate(certificate) => {
            let CertificateRecord { tenant, name, .. } = &**certificate;
            (tenant, format!("certificate {}", loggable(name)))
        }
    };
    let tenant = tenant.to_string();
    let (face, proof) = (Face::default(), Proof::Record(record));
    Proved { tenant, credential, expires_at: None, face, proof }
}
