//! Credentials beside tokens: SCRAM verifiers and the names in client certificates, and who finds
//! them: one of a name, or nobody.

use std::sync::Arc;

use serde::Deserialize;

use crate::catalog::plan::{Fault, Place, TenantPlan};
use crate::catalog::{Map, TenantId};
use crate::net::{Origins, Peer};
use crate::secret::scram::{Mock, Verifier};

/// A credential's words.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialPlan {
    pub kind: CredentialKind,
    /// For logs; default: the user, or the name in the certificate.
    pub name: Option<String>,
    /// `scram`: the user that clients log in as, up to the first dot of what they say.
    pub user: Option<String>,
    /// `scram`: as in `pg_authid`.
    pub verifier: Option<HiddenText>,
    /// `certificate`: an alternative name (DNS, URI or e-mail) that it must have.
    pub san: Option<String>,
    /// `certificate`: the common name that it must have.
    pub cn: Option<String>,
}

/// Text that `Debug` does not show.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct HiddenText(pub String);

impl std::fmt::Debug for HiddenText {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("***")
    }
}

/// What a credential is proved with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialKind {
    Scram,
    Certificate,
}

/// A password of a tenant's, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramRecord {
    pub tenant: TenantId,
    pub name: String,
    pub user: String,
    pub verifier: Verifier,
}

/// A certificate's name that stands for a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRecord {
    pub tenant: TenantId,
    pub name: String,
    pub subject: CertificateName,
}

/// A name in a client's certificate. An alternative name never stands for a common name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateName {
    San(String),
    Cn(String),
}

/// The catalog's record behind a credential, to see later whether it still stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialRecord {
    Scram(Arc<ScramRecord>),
    Certificate(Arc<CertificateRecord>),
}

/// A tenant that a client named, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantName {
    /// In `user` or `options`: letter by letter.
    Exact(String),
    /// In the server name of the TLS handshake, where case means nothing.
    Host(String),
}

impl TenantName {
    /// Whether this is the tenant's name.
    pub fn is(&self, tenant: &TenantId) -> bool {
        match self {
            Self::Exact(name) => name == tenant.as_str(),
            Self::Host(name) => name.eq_ignore_ascii_case(tenant.as_str()),
        }
    }

    /// The name as it was given.
    pub fn text(&self) -> &str {
        let (Self::Exact(name) | Self::Host(name)) = self;
        name
    }
}

/// All credentials that are not tokens.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// By user and tenant; ids that differ only in case do not exist.
    scram: Map<(String, String), Arc<ScramRecord>>,
    certificates: Map<CertificateName, Arc<CertificateRecord>>,
    /// Of tenants whose clients may not come from everywhere.
    origins: Map<TenantId, Origins>,
    mock: Mock,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            scram: Map::default(),
            certificates: Map::default(),
            origins: Map::default(),
            mock: Mock::like([].into_iter()),
        }
    }
}

impl Credentials {
    /// Whose password a client means that says it is `user` and names these tenants. Without a
    /// name it must be a user that only one tenant has.
    pub fn scram(&self, user: &str, named: &[TenantName]) -> Option<&Arc<ScramRecord>> {
        let found = match named.first() {
            None => self.alone(user)?,
            Some(name) => self.scram.get(&(user.to_owned(), name.text().to_ascii_lowercase()))?,
        };
        named.iter().all(|name| name.is(&found.tenant)).then_some(found)
    }

    /// The record of a user that only one tenant has.
    fn alone(&self, user: &str) -> Option<&Arc<ScramRecord>> {
        let from = (user.to_owned(), String::new());
        let mut found = self.scram.range(from..).map(|(_, record)| record);
        let first = found.next().filter(|record| record.user == user)?;
        found.next().is_none_or(|next| next.user != user).then_some(first)
    }

    /// The tenant that a certificate with these names stands for. Names of two tenants in one
    /// certificate stand for nobody.
    pub fn certificate(&self, names: &[CertificateName]) -> Option<&Arc<CertificateRecord>> {
        let mut found = names.iter().filter_map(|name| self.certificates.get(name));
        let first = found.next()?;
        found.all(|other| other.tenant == first.tenant).then_some(first)
    }

    /// Whether a certificate's name stands for somebody.
    pub(super) fn has_name(&self, name: &CertificateName) -> bool {
        self.certificates.contains_key(name)
    }

    /// Whether a tenant's clients may come from there.
    pub fn may_come(&self, tenant: &TenantId, from: &Peer) -> bool {
        self.origins.get(tenant).is_none_or(|origins| origins.include(from))
    }

    /// What users who do not exist are met with.
    pub fn mock(&self) -> &Mock {
        &self.mock
    }

    /// Whether a record is still what it was.
    pub fn has(&self, record: &CredentialRecord) -> bool {
        match record {
            CredentialRecord::Scram(record) => {
                let tenant = record.tenant.as_str().to_ascii_lowercase();
                self.scram.get(&(record.user.clone(), tenant)) == Some(record)
            }
            CredentialRecord::Certificate(record) => {
                self.certificates.get(&record.subject) == Some(record)
            }
        }
    }

    /// Takes a tenant's credentials in. Everything that is wrong is noted.
    pub(super) fn add(&mut self, tenant: &TenantId, plan: &TenantPlan, faults: &mut Vec<Fault>) {
        let place = Place::Tenant(tenant.to_string());
        match Origins::parse(&plan.allow_from) {
            Ok(_) if plan.allow_from.is_empty() => {}
            Ok(origins) => self.origins.insert_mut(tenant.clone(), origins),
            Err(index) => {
                let message = "not an address, a network or \"unix\"";
                let fault = Fault::new(place.clone(), "allow_from", message).element(index);
                let hint = "Write networks such as \"10.0.0.0/8\", with zeros behind what counts.";
                faults.push(fault.hint(hint));
            }
        }
        for (index, plan) in plan.credentials.iter().enumerate() {
            let added = match plan.kind {
                CredentialKind::Scram => self.add_scram(tenant, plan),
                CredentialKind::Certificate => self.add_certificate(tenant, plan),
            };
            if let Err((message, hint)) = added {
                let fault = Fault::new(place.clone(), "credentials", message).element(index);
                faults.push(fault.hint(hint));
            }
        }
    }

    /// Takes over what another value has, but names of certificates that stand here already: those
    /// are told.
    pub(super) fn absorb(&mut self, other: &Self) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, record) in &other.scram {
            self.scram.insert_mut(key.clone(), record.clone());
        }
        for (subject, record) in &other.certificates {
            if let Some(known) = self.certificates.get(subject) {
                faults.push(format!("this name stands at tenant \"{}\" too", known.tenant));
                continue;
            }
            self.certificates.insert_mut(subject.clone(), record.clone());
        }
        faults
    }

    /// Takes out what a tenant's words put in.
    pub(super) fn forget(&mut self, tenant: &TenantId, plan: &TenantPlan) {
        for words in &plan.credentials {
            if let Some(user) = &words.user {
                let key = (user.clone(), tenant.as_str().to_ascii_lowercase());
                if self.scram.get(&key).is_some_and(|record| record.tenant == *tenant) {
                    self.scram.remove_mut(&key);
                }
            }
            let san = words.san.clone().map(CertificateName::San);
            for subject in san.into_iter().chain(words.cn.clone().map(CertificateName::Cn)) {
                let known = self.certificates.get(&subject);
                if known.is_some_and(|record| record.tenant == *tenant) {
                    self.certificates.remove_mut(&subject);
                }
            }
        }
    }

    /// Makes the mock verifiers look like those that were taken in.
    pub(super) fn finish(&mut self) {
        self.mock = Mock::like(self.scram.values().map(|record| &record.verifier));
    }

    /// The same for tables, of which not all may be known: they have a secret of their own for it,
    /// and some verifiers to look like. `file` has those of the settings.
    pub(super) fn finish_with(&mut self, file: &Self, secret: &[u8], samples: &[Verifier]) {
        let own = file.scram.values().map(|record| &record.verifier);
        self.mock = Mock::with(secret, own.chain(samples));
    }

    fn add_scram(
        &mut self,
        tenant: &TenantId,
        plan: &CredentialPlan,
    ) -> Result<(), (String, &'static str)> {
        let CredentialPlan { user, verifier, .. } = plan;
        let (Some(user), Some(HiddenText(verifier)), None, None) =
            (user, verifier, &plan.san, &plan.cn)
        else {
            let message = "a scram credential has a user and a verifier, and no san or cn";
            return Err((message.to_owned(), "Write user = \"app\" and verifier = \"SCRAM-…\"."));
        };
        if user.is_empty() || user.len() > TenantId::BYTES_MAX || user.contains('.') {
            let hint = "What stands behind the first dot of a user names the tenant.";
            return Err(("user has 1 to 63 bytes and no dot".to_owned(), hint));
        }
        let Some(verifier) = Verifier::parse(verifier) else {
            let hint = "tenantgate token scram makes one: \
                        SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>.";
            return Err(("not a SCRAM-SHA-256 verifier".to_owned(), hint));
        };
        let name = plan.name.clone().unwrap_or_else(|| user.clone());
        let (tenant, user) = (tenant.clone(), user.clone());
        let key = (user.clone(), tenant.as_str().to_ascii_lowercase());
        let record = Arc::new(ScramRecord { tenant, name, user: user.clone(), verifier });
        if self.scram.contains_key(&key) {
            let message = format!("user \"{}\" has a password already", user.escape_debug());
            return Err((message, "Give another user for another password."));
        }
        self.scram.insert_mut(key, record);
        Ok(())
    }

    fn add_certificate(
        &mut self,
        tenant: &TenantId,
        plan: &CredentialPlan,
    ) -> Result<(), (String, &'static str)> {
        let subject = match (&plan.san, &plan.cn, &plan.user, &plan.verifier) {
            (Some(san), None, None, None) => CertificateName::San(san.clone()),
            (None, Some(cn), None, None) => CertificateName::Cn(cn.clone()),
            _ => {
                let message = "a certificate credential has a san or a cn, and nothing else";
                let hint = "Write san = \"app.example.com\", or cn = \"app\".";
                return Err((message.to_owned(), hint));
            }
        };
        let (CertificateName::San(text) | CertificateName::Cn(text)) = &subject;
        if text.is_empty() {
            return Err(("the certificate's name is empty".to_owned(), "Write all of it."));
        }
        let name = plan.name.clone().unwrap_or_else(|| text.clone());
        let (tenant, key) = (tenant.clone(), subject.clone());
        let record = Arc::new(CertificateRecord { tenant, name, subject });
        match self.certificates.get(&key) {
            None => {
                self.certificates.insert_mut(key, record);
                Ok(())
            }
            Some(other) => {
                let message = format!("this name stands at tenant \"{}\" too", other.tenant);
                Err((message, "A certificate stands for exactly one tenant."))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::password::scram_sha_256;

    use super::*;

    fn scram(user: &str) -> CredentialPlan {
        CredentialPlan {
            kind: CredentialKind::Scram,
            name: None,
            user: Some(user.to_owned()),
            verifier: Some(HiddenText(scram_sha_256(b"x"))),
            san: None,
            cn: None,
        }
    }

    fn certificate(san: Option<&str>, cn: Option<&str>) -> CredentialPlan {
        CredentialPlan {
            kind: CredentialKind::Certificate,
            user: None,
            verifier: None,
            san: san.map(str::to_owned),
            cn: cn.map(str::to_owned),
            ..scram("")
        }
    }

    fn plan() -> TenantPlan {
        TenantPlan {
            isolation: crate::isolation::Isolation::Row,
            cluster: "main".to_owned(),
            connection_string: None,
            role: None,
            schema: None,
            tier: None,
            state: crate::catalog::TenantState::Active,
            tokens: Vec::new(),
            credentials: Vec::new(),
            allow_from: Vec::new(),
            limits: crate::catalog::LimitsPlan::default(),
            allow_superuser: false,
            issuer: None,
            roles: Default::default(),
            default_role: None,
            read_only_role: None,
        }
    }

    fn credentials(plans: &[(&str, Vec<CredentialPlan>)]) -> (Credentials, Vec<String>) {
        let (mut credentials, mut faults) = (Credentials::default(), Vec::new());
        for (tenant, plans) in plans {
            let plan = TenantPlan { credentials: plans.clone(), ..plan() };
            credentials.add(&TenantId::new(tenant).unwrap(), &plan, &mut faults);
        }
        credentials.finish();
        (credentials, faults.into_iter().map(|fault| fault.message).collect())
    }

    #[test]
    fn a_user_of_several_tenants_needs_a_name_and_all_names_must_agree() {
        let both = [("Acme", vec![scram("app"), scram("only")]), ("globex", vec![scram("app")])];
        let (credentials, faults) = credentials(&both);
        assert_eq!(faults, [""; 0]);
        let found = |user: &str, named: &[TenantName]| {
            credentials.scram(user, named).map(|record| record.tenant.to_string())
        };
        let exact = |name: &str| TenantName::Exact(name.to_owned());
        let host = |name: &str| TenantName::Host(name.to_owned());
        assert_eq!(found("app", &[]), None);
        assert_eq!(found("only", &[]).as_deref(), Some("Acme"));
        assert_eq!(found("app", &[exact("Acme")]).as_deref(), Some("Acme"));
        assert_eq!(found("app", &[exact("acme")]), None, "ids are case-sensitive");
        assert_eq!(found("app", &[host("acme"), exact("Acme")]).as_deref(), Some("Acme"));
        assert_eq!(found("app", &[host("acme"), exact("globex")]), None);
        assert_eq!(found("app", &[exact("globex")]).as_deref(), Some("globex"));
        assert_eq!(found("only", &[exact("globex")]), None);
        assert_eq!(found("nobody", &[exact("globex")]), None);
    }

    #[test]
    fn a_certificate_stands_for_one_tenant_or_nobody() {
        let names = [
            ("acme", vec![certificate(Some("a.test"), None), certificate(None, Some("a"))]),
            ("globex", vec![certificate(Some("g.test"), None)]),
        ];
        let (credentials, faults) = credentials(&names);
        assert_eq!(faults, [""; 0]);
        let san = |name: &str| CertificateName::San(name.to_owned());
        let cn = |name: &str| CertificateName::Cn(name.to_owned());
        let found = |names: &[CertificateName]| {
            credentials.certificate(names).map(|record| record.tenant.to_string())
        };
        assert_eq!(found(&[san("other"), san("a.test"), cn("a")]).as_deref(), Some("acme"));
        assert_eq!(found(&[san("a.test"), san("g.test")]), None);
        assert_eq!(found(&[cn("a.test")]), None, "a common name is no alternative name");
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let wrong = [
            ("a", vec![CredentialPlan { verifier: None, ..scram("app") }]),
            ("b", vec![scram("app.x")]),
            (
                "c",
                vec![CredentialPlan {
                    verifier: Some(HiddenText("md5x".to_owned())),
                    ..scram("app")
                }],
            ),
            ("d", vec![scram("app"), scram("app")]),
            ("e", vec![certificate(Some("x"), Some("y")), certificate(None, None)]),
            ("f", vec![certificate(Some("x"), None)]),
            ("g", vec![certificate(Some("x"), None), certificate(Some(""), None)]),
        ];
        let (_, faults) = credentials(&wrong);
        assert_eq!(faults.len(), 8, "{faults:?}");
        let shown = format!("{:?}", scram("app"));
        assert!(shown.contains("***") && !shown.contains("SCRAM-SHA"), "{shown}");
    }
}
