//! Names that a cluster makes of its tenants' ids, for tenants that have none of their own: the
//! login and its password, the schema, the database.

use std::sync::Arc;

use crate::catalog::plan::{ClusterPlan, Fault, Place, TenantPlan};
use crate::isolation::tenancy::{LoginSecret, Template};
use crate::isolation::{Isolation, NAME_BYTES_MAX};
use crate::server::Conninfo;

/// A cluster's templates.
#[derive(Debug, Default)]
pub(super) struct Names<'plan> {
    cluster: &'plan str,
    login: Option<Template>,
    secret: Option<&'plan LoginSecret>,
    schema: Option<Template>,
    database: Option<Template>,
}

impl<'plan> Names<'plan> {
    /// Reads a cluster's templates. With a fault in one there are none.
    pub fn read(name: &'plan str, plan: &'plan ClusterPlan) -> Result<Self, Vec<Fault>> {
        let words = &plan.names;
        let place = Place::Cluster(name.to_owned());
        let mut faults = Vec::new();
        let mut template = |key, text: &Option<String>| {
            let parsed = text.as_deref().map(Template::parse)?;
            let fault = |error| {
                let message = format!("{key} is not a template: {error}");
                Fault::new(place.clone(), key, message)
                    .hint("Write a name with {tenant} in the place of the tenant's id: t_{tenant}.")
            };
            parsed.map_err(|error| faults.push(fault(error))).ok()
        };
        let login = template("tenant_login", &words.login);
        let schema = template("tenant_schema", &words.schema);
        let database = template("tenant_database", &words.database);
        if words.login.is_none() && words.secret.is_some() {
            let key = "tenant_login_secret_file";
            let message = format!("{key} has no tenant_login to go with");
            faults.push(Fault::new(place.clone(), key, message));
        }
        if words.login.is_none() && words.database.is_some() {
            let message = "tenant_database has no tenant_login to go with";
            faults.push(
                Fault::new(place.clone(), "tenant_database", message)
                    .hint("A database of one's own is reached by a login of one's own."),
            );
        }
        if words.login.is_some() {
            faults.extend(log_in_fault(plan, &place));
        }
        let secret = words.secret.as_ref();
        match faults.is_empty() {
            true => Ok(Self { cluster: name, login, secret, schema, database }),
            false => Err(faults),
        }
    }

    /// How a tenant without a connection string of its own is reached: by the cluster's with the
    /// tenant's login, password and database in it. Row tenants share the cluster's as it is.
    pub fn conninfo(
        &self,
        id: &str,
        tenant: &TenantPlan,
        cluster: &Arc<Conninfo>,
    ) -> Result<Arc<Conninfo>, Fault> {
        let (Some(login), Isolation::Schema | Isolation::Silo) = (&self.login, tenant.isolation)
        else {
            return Ok(cluster.clone());
        };
        let mut own = Conninfo::clone(cluster);
        own.user = expanded("tenant_login", "login", login, id)?;
        // The cluster's password is the cluster's login's.
        own.password = self.secret.map(|secret| secret.password(self.cluster, &own.user));
        if let (Some(database), Isolation::Silo) = (&self.database, tenant.isolation) {
            own.dbname = expanded("tenant_database", "database", database, id)?;
        }
        Ok(Arc::new(own))
    }

    /// A schema tenant's schema, where it names none.
    pub fn schema(&self, id: &str, tenant: &TenantPlan) -> Result<Option<String>, Fault> {
        match (&tenant.schema, &self.schema, tenant.isolation) {
            (None, Some(schema), Isolation::Schema) => {
                expanded("tenant_schema", "schema", schema, id).map(Some)
            }
            (own, ..) => Ok(own.clone()),
        }
    }
}

/// A login without a password can only log in where the server asks for none.
fn log_in_fault(plan: &ClusterPlan, place: &Place) -> Option<Fault> {
    let fault = |message: &str, hint: &str| {
        Some(Fault::new(place.clone(), "tenant_login", message).hint(hint))
    };
    let Some(text) = &plan.connection_string else {
        return fault(
            "tenant_login needs a connection_string of the cluster",
            "It says where tenants' logins connect to, and how.",
        );
    };
    // One that cannot be read has a fault of its own.
    let conninfo = Conninfo::parse(text).ok()?;
    match plan.names.secret.is_some() || conninfo.require_auth.none {
        true => None,
        false => fault(
            "the logins of tenant_login have nothing to log in with",
            "Add tenant_login_secret_file, or a client certificate: sslcert, sslkey and \
             require_auth=none in the cluster's connection_string.",
        ),
    }
}

fn expanded(
    key: &'static str,
    what: &'static str,
    template: &Template,
    id: &str,
) -> Result<String, Fault> {
    let name = template.expand(id);
    let lower = name.to_ascii_lowercase();
    let reserved = lower.starts_with("pg_")
        || match what {
            "login" => matches!(lower.as_str(), "none" | "public"),
            "schema" => matches!(lower.as_str(), "information_schema" | "public" | "tenantgate"),
            _ => matches!(lower.as_str(), "postgres" | "template0" | "template1"),
        };
    let fault = |message: String| {
        let hint = format!("{key} of its cluster makes it of the tenant's id.");
        Err(Fault::entry(Place::Tenant(id.to_owned()), message).hint(hint))
    };
    match name.len() {
        _ if reserved => fault(format!("{what} \"{name}\" is PostgreSQL's own or the gate's")),
        0..=NAME_BYTES_MAX => Ok(name),
        bytes => fault(format!(
            "{what} \"{name}\" is {bytes} bytes long, PostgreSQL keeps the first {NAME_BYTES_MAX}"
        )),
    }
}
