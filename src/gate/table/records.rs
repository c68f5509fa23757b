//! [`TenantRecord`]: a row of `tenants` with its `credentials`, as text, and what it says in the
//! catalog's words. Whatever stands in a row, the worst it does is to be at fault.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::catalog::{
    CertificateName, CredentialPlan, LimitsPlan, Row, RowFault, TenantId, TenantPlan, TenantState,
    TokenPlan,
};
use crate::config;
use crate::isolation::Isolation;

/// Most credentials of one tenant.
pub(super) const CREDENTIALS_MAX: usize = 10_000;

/// Most bytes of these, so that a line of the copy has an end.
pub(super) const CREDENTIALS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A row of `tenants` and the rows of `credentials` that are its own. Holds passwords: it is shown
/// to nobody.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct TenantRecord {
    pub id: String,
    /// What the row says; none where there are only credentials, which is so for services.
    pub tenant: Option<TenantColumns>,
    pub credentials: Vec<CredentialColumns>,
    /// There are more than are read.
    pub has_more: bool,
    /// Its seat when it was last held against all others, in the copy on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seat: Option<String>,
    /// How long these are, while they are read.
    #[serde(skip)]
    pub(super) size: Size,
}

/// A size that makes no difference between two.
#[derive(Clone, Copy, Default)]
pub(super) struct Size(pub usize);

impl PartialEq for Size {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The columns of `tenants`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
pub struct TenantColumns {
    pub isolation: String,
    pub cluster: String,
    pub connection_string: Option<String>,
    pub schema: Option<String>,
    pub role: Option<String>,
    pub tier: Option<String>,
    pub state: String,
    pub overrides: String,
    pub placed: i64,
}

/// The columns of `credentials`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
pub struct CredentialColumns {
    pub id: i64,
    pub kind: String,
    pub name: Option<String>,
    pub hash: Option<String>,
    pub scram_verifier: Option<String>,
    pub cert_name: Option<String>,
    pub role: Option<String>,
    pub read_only: bool,
    /// Whether `acts_for` or `options` say anything.
    pub has_more: bool,
    /// Milliseconds since 1970.
    pub expires_at: Option<i64>,
    pub revoked: bool,
}

impl TenantRecord {
    /// What it says, in the catalog's words.
    pub(super) fn row(&self) -> Row {
        let Some(columns) = &self.tenant else {
            let hint = "Name its tenant. A service is written at [services.NAME] of the file.";
            let message = "credentials of services stand in the settings file, not here";
            let fault = fault("credentials", "tenant", message, hint);
            return Row { id: self.id.clone(), rank: 0, plan: Err(vec![fault]), faults: vec![] };
        };
        let mut faults = Vec::new();
        let (mut tokens, mut credentials) = (Vec::new(), Vec::new());
        for columns in &self.credentials {
            match columns.plan() {
                Ok(Some(Words::Token(plan))) => tokens.push(plan),
                Ok(Some(Words::Other(plan))) => credentials.push(plan),
                Ok(None) => {}
                Err(fault) => faults.push(fault),
            }
        }
        if self.has_more {
            let message = format!("it has more than {CREDENTIALS_MAX} credentials, or 8 MiB");
            faults.push(fault("credentials", "", &message, "Those behind are left out."));
        }
        let plan = columns.plan().map(|plan| Box::new(TenantPlan { tokens, credentials, ..plan }));
        Row { id: self.id.clone(), rank: columns.placed, plan, faults }
    }
}

impl TenantColumns {
    fn plan(&self) -> Result<TenantPlan, Vec<RowFault>> {
        let mut faults = Vec::new();
        let mut unknown = |column, text: &str, known: &str| {
            let message = format!("\"{}\" is not known here", text.escape_debug());
            faults.push(fault("tenants", column, &message, &format!("Known: {known}.")));
        };
        // A row with a fault makes no tenant, whatever stands here instead.
        let isolation = Isolation::named(&self.isolation).unwrap_or_else(|| {
            unknown("isolation", &self.isolation, "row, schema, silo");
            Isolation::Row
        });
        let state = TenantState::named(&self.state).unwrap_or_else(|| {
            unknown("state", &self.state, "active, read_only, paused, disabled");
            TenantState::Disabled
        });
        let limits = config::overrides(&self.overrides).unwrap_or_else(|error| {
            let hint = "Keys and values are those of limits in the settings file.";
            faults.push(fault("tenants", "overrides", &error, hint));
            LimitsPlan::default()
        });
        for (column, text) in [("role", &self.role), ("schema", &self.schema)] {
            if text.as_ref().is_some_and(|text| text.chars().any(char::is_control)) {
                let message = "there are control characters in it";
                faults.push(fault("tenants", column, message, ""));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(TenantPlan {
            connection_string: self.connection_string.clone(),
            role: self.role.clone(),
            schema: self.schema.clone(),
            tier: self.tier.clone(),
            state,
            limits,
            ..TenantPlan::new(isolation, self.cluster.clone())
        })
    }
}

/// A credential in the catalog's words.
enum Words {
    Token(TokenPlan),
    Other(CredentialPlan),
}

impl CredentialColumns {
    /// What is wrong with it.
    pub(super) fn fault(&self) -> Option<RowFault> {
        self.plan().err()
    }

    /// What it says; nothing if it is revoked and nobody need know why it is refused.
    fn plan(&self) -> Result<Option<Words>, RowFault> {
        let row = format!("credentials {}", self.id);
        let wrong = |column, message: &str, hint: &str| Err(fault(&row, column, message, hint));
        if self.has_more {
            let message = "acts_for and options are not supported yet";
            return wrong("options", message, "The credential is refused: leave them empty.");
        }
        if self.kind == "token" {
            let Some(line) = self.hash.clone() else {
                return wrong("hash", "a token without a hash", "");
            };
            if self.name.as_deref().is_some_and(|name| TenantId::new(name).is_none()) {
                let hint = "Letters, digits, \"_\", \".\" and \"-\", 63 at most.";
                return wrong("name", "this is not a token's name", hint);
            }
            return Ok(Some(Words::Token(TokenPlan {
                line,
                name: self.name.clone(),
                expires_at: self.expires_at.map(moment),
                revoked: self.revoked,
                role: self.role.clone(),
                read_only: self.read_only,
            })));
        }
        if self.revoked {
            return Ok(None);
        }
        if self.role.is_some() || self.read_only || self.expires_at.is_some_and(|at| at < i64::MAX)
        {
            let message = "only tokens have a role, read_only and expires_at so far";
            return wrong("kind", message, "The credential is refused: leave them empty.");
        }
        let other = |plan: serde_json::Value| {
            let read = serde_json::from_value::<CredentialPlan>(plan);
            let wrong = |_| fault(&row, "", "it cannot be read", "");
            read.map(|plan| Some(Words::Other(plan))).map_err(wrong)
        };
        match (self.kind.as_str(), &self.name, &self.scram_verifier, self.subject()) {
            ("scram", Some(user), Some(verifier), _) => other(serde_json::json!({
                "kind": "scram", "user": user, "verifier": verifier,
            })),
            ("certificate", name, _, Some(CertificateName::San(san))) => {
                other(serde_json::json!({ "kind": "certificate", "name": name, "san": san }))
            }
            ("certificate", name, _, Some(CertificateName::Cn(cn))) => {
                other(serde_json::json!({ "kind": "certificate", "name": name, "cn": cn }))
            }
            _ => {
                let hint = "token: hash. scram: name (the user) and scram_verifier. certificate: \
                            cert_name, san:NAME or cn:NAME.";
                wrong("kind", "kind and columns do not fit together", hint)
            }
        }
    }

    /// How long its texts are.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.name, &self.hash, &self.scram_verifier, &self.cert_name, &self.role];
        texts.iter().filter_map(|text| text.as_ref()).map(String::len).sum()
    }

    fn subject(&self) -> Option<CertificateName> {
        let (kind, name) = self.cert_name.as_ref()?.split_once(':')?;
        match kind {
            "san" => Some(CertificateName::San(name.to_owned())),
            "cn" => Some(CertificateName::Cn(name.to_owned())),
            _ => None,
        }
    }
}

/// Milliseconds since 1970 as a moment; what lies before is past in any case.
fn moment(milliseconds: i64) -> SystemTime {
    /// The year 9999, when nothing of today is valid.
    const LATE: Duration = Duration::from_secs(253_370_764_800);
    let since = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0)).min(LATE);
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn fault(row: &str, column: &'static str, message: &str, hint: &str) -> RowFault {
    let (row, message, hint) = (row.to_owned(), message.to_owned(), hint.to_owned());
    RowFault { row, column, message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_of_postgresql_is_one_of_ours() {
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(moment(f64::NEG_INFINITY as i64), epoch);
        assert_eq!(moment(-5), epoch);
        assert_eq!(moment(1500), epoch + Duration::from_millis(1500));
        assert!(moment(f64::INFINITY as i64) > epoch + Duration::from_secs(200_000_000_000));
    }
}
