//! The tables of a catalog in PostgreSQL: tenants and credentials, what notes their changes, a view
//! for people, and the login that the gate reads them with.

use std::path::Path;

use clap::Args;

use super::{admin, apply, runtime};
use crate::catalog::TableSettings;
use crate::cli::{Failure, File, print};
use crate::isolation::quote;
use crate::isolation::tenancy::verifier;
use crate::server::Conninfo;

/// The whole of it, with names in place of `@…@`.
const SQL: &str = include_str!("tables.sql");

/// What makes one of its logins, and lets it into the schema.
const LOGIN_SQL: &str = include_str!("login.sql");

/// What a login is for.
struct Purpose {
    said: &'static str,
    /// Ends an error about a login that may do more.
    task: &'static str,
    /// Where the settings name it.
    key: &'static str,
}

const READER: Purpose = Purpose {
    said: "The login of the gate: it reads what a route and a login need, and nothing else.",
    task: "read the catalog, may do more than read",
    key: "connection_string",
};

const MOVER: Purpose = Purpose {
    said: "The login that moves tenants: it may call one function, and read nothing.",
    task: "move tenants, may do more than that",
    key: "mover_connection_string",
};

#[derive(Args)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["print", "admin"]))]
pub(in crate::cli) struct TablesCommand {
    #[command(flatten)]
    file: File,
    /// Print the SQL for psql; nothing is run
    #[arg(long)]
    print: bool,
    /// Run it over this connection, a superuser's
    #[arg(long, value_name = "CONNINFO", env = "TENANTGATE_ADMIN", hide_env_values = true)]
    admin: Option<String>,
}

impl TablesCommand {
    /// Does what the command line says.
    pub(in crate::cli) fn run(&self) -> Result<(), Failure> {
        let table = self.file.load()?.table;
        let table = table.ok_or_else(|| no_table(&self.file.path))?;
        let text = statements(&table)?;
        let (dbname, reader) = (&table.conninfo.dbname, &table.conninfo.user);
        if self.print {
            let dbname = quote::identifier(dbname);
            return print(&format!(
                "-- The tables of a tenantgate catalog. Run it with psql as a superuser. Works\n\
                 -- on PostgreSQL 15 to 18, and may be run again.\n\
                 \\set ON_ERROR_STOP on\n\\connect {dbname}\nBEGIN;\n{text}COMMIT;\n"
            ));
        }
        let admin = admin(self.admin.as_deref().unwrap_or_default())?;
        runtime()?.block_on(async {
            let client = apply::connect(&admin, dbname).await.map_err(|failure| match failure {
                Failure::Ran(text) if text.contains("3D000") => {
                    Failure::Ran(format!("{text}\n  Make it first: createdb {dbname}."))
                }
                failure => failure,
            })?;
            let text = format!("BEGIN;\n{text}COMMIT");
            client.batch_execute(&text).await.map_err(|error| apply::lost(&error))?;
            print(&format!("database {dbname}"))?;
            print(&apply::line("schema tenantgate_catalog", "in place"))?;
            print(&apply::line(&format!("login {reader}, which reads it"), "in place"))?;
            let mover = table.mover.as_ref().map(|mover| {
                print(&apply::line(&format!("login {}, which moves", mover.user), "in place"))
            });
            mover.unwrap_or(Ok(()))
        })
    }
}

/// There is nothing to work with.
pub(in crate::cli) fn no_table(path: &Path) -> Failure {
    Failure::Usage(format!(
        "{} has no [catalog], which says where the tables are and who reads them",
        path.display()
    ))
}

fn statements(table: &TableSettings) -> Result<String, Failure> {
    let conninfo = &table.conninfo;
    let (dbname, reader) = (&conninfo.dbname, &conninfo.user);
    // The bodies of DO blocks are not quoted, so names must not be able to end them.
    let plain = |name: &str| !name.contains(['$', '@']) && !name.chars().any(char::is_control);
    let mover = table.mover.as_deref();
    if !plain(dbname) || !plain(reader) || mover.is_some_and(|mover| !plain(&mover.user)) {
        let message = "a name has control characters, a $ or an @ in it, which this SQL cannot \
                       carry";
        return Err(Failure::Usage(message.to_owned()));
    }
    let mover = mover.map(|mover| {
        let (sql, user) = (login(&MOVER, mover), quote::identifier(&mover.user));
        let function = "tenantgate_catalog.move_tenant(text, jsonb, jsonb)";
        format!("{sql}GRANT EXECUTE ON FUNCTION {function} TO {user};\n")
    });
    Ok(SQL
        .replace("@READER_LOGIN@", &login(&READER, conninfo))
        .replace("@READER@", &quote::identifier(reader))
        .replace("@MOVER_LOGIN@", &mover.unwrap_or_default()))
}

fn login(purpose: &Purpose, conninfo: &Conninfo) -> String {
    let login = quote::identifier(&conninfo.user);
    // As PostgreSQL keeps it, with a new salt each time; without one it is left as it is.
    let password = conninfo.password.as_ref().map(|password| {
        let verifier = quote::literal(&verifier(password));
        format!("ALTER ROLE {login} PASSWORD {verifier};\n")
    });
    LOGIN_SQL
        .replace("@PURPOSE@", purpose.said)
        .replace("@TASK@", purpose.task)
        .replace("@KEY@", purpose.key)
        .replace("@NAME@", &quote::literal(&conninfo.user))
        .replace("@LOGIN@", &login)
        .replace("@DATABASE@", &quote::identifier(&conninfo.dbname))
        .replace("@PASSWORD@", &password.unwrap_or_default())
}
