//! Another route for a tenant of the tables, written by a login that can do nothing else: one
//! function compares the row's route with the one that is known here, and sets the new one.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_postgres::error::Severity;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::Table;
use crate::catalog::RoutePlan;
use crate::secret::Secret;
use crate::server::{Also, Conninfo, Program, open};

/// Longest wait for the row to be written.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest wait for the copy on disk, and for what was written to be read.
const FOLLOWED: Duration = Duration::from_secs(10);

/// How often it is looked whether that is so.
const LOOK: Duration = Duration::from_millis(10);

const OPENING: &str = "SET search_path TO pg_catalog, pg_temp; SET statement_timeout TO '9s'; \
    SET default_transaction_isolation TO 'read committed'; \
    SET standard_conforming_strings TO on";

/// Why a route was not written.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// It was not, for certain.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows: the connection was lost over it.
    #[error("{0}")]
    Lost(String),
}

/// JSON as text, so that no feature of the library is needed.
#[derive(Debug)]
struct Json(String);

impl ToSql for Json {
    fn to_sql(
        &self,
        of: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        // The binary form of jsonb begins with its version.
        if *of == Type::JSONB {
            out.extend_from_slice(&[1]);
        }
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        matches!(*of, Type::JSON | Type::JSONB)
    }

    to_sql_checked!();
}

/// A route as the function takes it.
fn columns(route: &RoutePlan) -> Json {
    let RoutePlan { isolation, cluster, connection_string, schema, role } = route;
    let isolation = isolation.name();
    let columns = json!({
        "isolation": isolation, "cluster": cluster, "connection_string": connection_string,
        "schema": schema, "role": role,
    });
    Json(columns.to_string())
}

/// Writes a tenant's new route if it still has the former. Says the number of the change. To write
/// it once more changes nothing.
///
/// # Errors
///
/// The row has another route by now, or the database did not answer.
pub async fn write(
    conninfo: &Conninfo,
    tenant: &str,
    former: &RoutePlan,
    new: &RoutePlan,
) -> Result<i64, MoveError> {
    let written = tokio::time::timeout(ANSWER, async {
        let client = connect(conninfo).await.map_err(MoveError::Refused)?;
        let told = |error: tokio_postgres::Error| match error.as_db_error() {
            // A server that ends the session may have committed before.
            Some(said) if said.parsed_severity() == Some(Severity::Error) => {
                MoveError::Refused(format!("{} {}", said.code().code(), said.message()))
            }
            Some(said) => MoveError::Lost(said.message().to_owned()),
            None => MoveError::Lost(error.to_string()),
        };
        client.batch_execute(OPENING).await.map_err(|error| {
            // Nothing was asked for yet.
            MoveError::Refused(told(error).to_string())
        })?;
        let sql = "SELECT tenantgate_catalog.move_tenant($1, $2, $3)";
        let (former, new) = (columns(former), columns(new));
        let row = client.query_one(sql, &[&tenant, &former, &new]).await.map_err(told)?;
        row.try_get::<_, i64>(0).map_err(|error| MoveError::Lost(error.to_string()))
    });
    written.await.unwrap_or_else(|_| {
        Err(MoveError::Lost(format!("no answer within {} s", ANSWER.as_secs())))
    })
}

async fn connect(conninfo: &Conninfo) -> Result<tokio_postgres::Client, String> {
    let password = conninfo.password.as_ref().map(Secret::expose);
    let (name, limit, also) = ("tenantgate move", conninfo.connect_timeout, Also::Nothing);
    let program = Program { name, dbname: &conninfo.dbname, password, limit, also };
    let (client, connection) = open(conninfo, program).await.map_err(|error| error.to_string())?;
    // Its end is seen by whoever asks something.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

impl Table {
    /// Takes a tenant out of the copy on disk while its route is written: a start without the
    /// database must not find the former one. Returns when the disk has it.
    ///
    /// # Errors
    ///
    /// It could not be written in time, or the tables cannot be read now.
    pub async fn withhold(&self, tenant: &str) -> Result<(), String> {
        if !self.state.figures().connected {
            return Err("the catalog's tables cannot be read now: see SHOW CATALOG".to_owned());
        }
        if !self.has_copy {
            return Ok(());
        }
        // One that was being written already may have the tenant; the one behind it has not.
        for _ in 0..2 {
            let before = self.state.copies();
            self.change_withheld(|withheld| _ = withheld.insert(tenant.to_owned()));
            if !self.until(|| self.state.copies() > before, FOLLOWED).await {
                return Err("the copy of the catalog could not be written: see the log".to_owned());
            }
        }
        Ok(())
    }

    /// Has the copy on disk hold the tenant again, as it is by now.
    pub fn give_back(&self, tenant: &str) {
        self.change_withheld(|withheld| _ = withheld.remove(tenant));
    }

    fn change_withheld(&self, change: impl FnOnce(&mut BTreeSet<String>)) {
        change(&mut self.again.withheld.lock());
        self.again.copy.store(true, Ordering::Release);
        self.again.told.notify_one();
    }

    /// Returns when the tables were read up to this change. False if that takes too long.
    pub async fn follows(&self, version: i64) -> bool {
        self.again.told.notify_one();
        let read = || {
            let figures = self.state.figures();
            figures.connected && figures.version >= version
        };
        self.until(read, FOLLOWED).await
    }

    async fn until(&self, done: impl Fn() -> bool, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while !done() {
            if Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }
}
