//! What connection strings in rows of a table may say: not every server, and no file of the gate's.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::TenantId;
use crate::catalog::build::Builder;
use crate::catalog::plan::{Fault, Place};
use crate::secret::Secret;
use crate::server::Conninfo;

/// Longest password in a file.
const PASSWORD_BYTES_MAX: usize = 4096;
const SECRET_HINT: &str = "password=file:NAME is the content of that file in secrets_folder of \
                           [catalog], which nobody but the gate may read (chmod 600).";

/// Longest that a row may have the gate wait for its server.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(15);

impl Builder<'_> {
    /// A row's own connection string, if it stays within what rows may do.
    pub(super) fn bounded(
        &self,
        id: &str,
        cluster: &str,
        mut conninfo: Conninfo,
        place: &Place,
    ) -> Result<Arc<Conninfo>, Fault> {
        let fault = |message: String, hint: &str| {
            Err(Fault::new(place.clone(), "connection_string", message).hint(hint))
        };
        if conninfo.tls.root_file.is_some() || conninfo.tls.identity.is_some() {
            let message = "a row names files of the gate's machine".to_owned();
            return fault(message, "sslrootcert, sslcert and sslkey stand at clusters only.");
        }
        let known = self.defaults.get(cluster).and_then(Option::as_ref);
        let known = known.map_or(&[][..], |known| &known.hosts);
        for host in &conninfo.hosts {
            if let Err(why) = self.plan().hosts.allow(host, known) {
                let message = format!("the row may not lead there: {why}");
                return fault(
                    message,
                    "Add the host to hosts in [catalog], or name its cluster's.",
                );
            }
        }
        if let Some(password) = &conninfo.password {
            let secret = self.referred(id, password).map_err(|message| {
                let key = "connection_string";
                Fault::new(place.clone(), key, message).hint(SECRET_HINT)
            })?;
            conninfo.password = secret.or(conninfo.password);
        }
        // A host that says nothing must not keep the cluster's places from its neighbours.
        conninfo.connect_timeout = conninfo.connect_timeout.min(CONNECT_TIMEOUT_MAX);
        conninfo.guarded = true;
        Ok(Arc::new(conninfo))
    }

    /// The password that a row's `file:NAME` stands for; none if it is the password itself. A row
    /// may name its own tenant's files only: it could send what is in them to a server of its own.
    fn referred(&self, id: &str, password: &Secret) -> Result<Option<Secret>, String> {
        let text = str::from_utf8(password.expose()).unwrap_or_default();
        if text.starts_with("env:") || text.starts_with("credential:") {
            let rule = "a row takes no password from the environment or from systemd";
            return Err(rule.to_owned());
        }
        let Some(name) = text.strip_prefix("file:") else { return Ok(None) };
        let folder = self.plan().secrets_folder.as_ref();
        let folder = folder.ok_or("the settings name no secrets_folder")?;
        // The rule of names: no slash, and no dot to begin with. No id has an "@" in it, so what
        // stands before it is one tenant's.
        let (owner, rest) = name.split_once('@').unwrap_or((name, "0"));
        if owner != id || TenantId::new(rest).is_none() {
            let rule =
                "a secret's file has the tenant's id for its name, or begins with it and an @";
            return Err(rule.to_owned());
        }
        let read = Secret::read(&folder.join(name), PASSWORD_BYTES_MAX);
        read.map(Some).map_err(|error| error.to_string())
    }
}
