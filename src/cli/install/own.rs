//! The login and the schema of one schema tenant, made from what the settings say of it.

use std::fmt::Write;

use crate::catalog::{Tenant, TenantId};
use crate::cli::install::apply;
use crate::cli::{Failure, print};
use crate::config::Config;
use crate::isolation::tenancy::{SchemaTenant, verifier};
use crate::isolation::{Isolation, quote};
use crate::server::Conninfo;

/// The tenant of this id, if it is a schema tenant of the cluster.
pub(super) fn find<'config>(
    config: &'config Config,
    cluster: &str,
    id: Option<&TenantId>,
) -> Option<&'config Tenant> {
    let mut tenants = config.catalog.tenants();
    let tenant = tenants.find(|tenant| id == Some(&tenant.id))?;
    let here = tenant.route.cluster.name == cluster && tenant.isolation == Isolation::Schema;
    here.then_some(tenant)
}

/// What is to be run in its database. The password stands there as PostgreSQL keeps it, with a new
/// salt each time; without one in the settings it is left as it is.
fn statements(tenant: &Tenant) -> Result<String, Failure> {
    let conninfo = &tenant.route.conninfo;
    let Some(reach) = &tenant.route.reach else {
        let message = "its login may be shared (allow_shared_login), so it is yours to make";
        return Err(Failure::Usage(message.to_owned()));
    };
    let verifier = conninfo.password.as_ref().map(verifier);
    let own = SchemaTenant {
        dbname: &conninfo.dbname,
        login: &conninfo.user,
        role: tenant.context.value("role"),
        schema: &reach.schema,
        verifier: verifier.as_deref(),
    };
    Ok(own.sql())
}

/// What psql is fed with.
pub(super) fn sql(tenant: &Tenant) -> Result<String, Failure> {
    let (id, dbname) = (&tenant.id, quote::identifier(&tenant.route.conninfo.dbname));
    let mut sql = format!(
        "-- The login and the schema of tenant {id}. Run it with psql as a superuser, or as a\n\
         -- role with CREATEROLE that owns the database. Works on PostgreSQL 15 to 18, and may\n\
         -- be run again.\n\\set ON_ERROR_STOP on\n\\connect {dbname}\n"
    );
    // Writing to a String cannot fail.
    let _ = write!(sql, "BEGIN;\n{}COMMIT;\n", statements(tenant)?);
    Ok(sql)
}

/// Runs it over an administrator's connection, all or nothing.
pub(super) async fn apply(admin: &Conninfo, tenant: &Tenant) -> Result<(), Failure> {
    let conninfo = &tenant.route.conninfo;
    let client = apply::connect(admin, &conninfo.dbname).await?;
    let text = format!("BEGIN;\n{}COMMIT", statements(tenant)?);
    client.batch_execute(&text).await.map_err(|error| apply::lost(&error))?;
    print(&format!("database {}", conninfo.dbname))?;
    print(&apply::line(&format!("login {}, its schema and rights", conninfo.user), "made"))
}
