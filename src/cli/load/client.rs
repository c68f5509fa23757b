//! One connection of the load: logs in, runs transactions, and looks at every row for whose it is.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cli::load::figures::Fault;
use crate::cli::load::script::Script;
use crate::server::{Also, Conninfo, OpenError, Program, open};

/// How long an application may take to find out that its connection is dead, and to log in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What came of a transaction.
#[derive(Debug, Default)]
pub struct Seen {
    pub rows_checked: u64,
    /// Rows that are not the tenant's: the statement, and what stood in the column.
    pub leaks: Vec<String>,
}

/// A transaction that was not done, and whether the connection is still there.
#[derive(Debug)]
pub struct Failure {
    pub fault: Fault,
    pub lost: bool,
}

/// Connects and logs in at the first host that will do; the fault is the last one's.
pub async fn login(conninfo: &Conninfo, password: &[u8]) -> Result<Client, Fault> {
    let (name, dbname) = ("tenantgate load", conninfo.dbname.as_str());
    let (password, limit, also) = (Some(password), LOGIN_TIMEOUT, Also::Token);
    let program = Program { name, dbname, password, limit, also };
    let (client, connection) = open(conninfo, program).await.map_err(|error| match error {
        OpenError::Postgres(error) => fault(&error),
        error => Fault::of_connection(error.to_string()),
    })?;
    // Its end shows in the client's next answer.
    tokio::spawn(connection);
    Ok(client)
}

/// Runs the script once. After an error inside a transaction it is rolled back.
pub async fn transact(
    client: &Client,
    script: &Script,
    tenant: &str,
    drawn: &[i64],
    check_column: Option<&str>,
) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    for number in 0..script.len() {
        let sql = script.statement(number, tenant, drawn);
        match client.simple_query(&sql).await {
            Ok(messages) => {
                if let Some(column) = check_column {
                    check(&messages, column, tenant, &sql, &mut seen);
                }
            }
            Err(error) => {
                // Outside of a transaction this is a warning and no more.
                let lost = client.is_closed() || client.simple_query("ROLLBACK").await.is_err();
                return Err(Failure { fault: fault(&error), lost });
            }
        }
    }
    Ok(seen)
}

/// Every row that has the column must have the tenant in it; NULL is nobody's.
fn check(messages: &[SimpleQueryMessage], column: &str, tenant: &str, sql: &str, seen: &mut Seen) {
    for message in messages {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let Some(at) = row.columns().iter().position(|it| it.name() == column) else { continue };
        seen.rows_checked += 1;
        let value = row.try_get(at).ok().flatten();
        if value != Some(tenant) {
            let value = value.unwrap_or("NULL");
            seen.leaks.push(format!(
                "tenant {tenant} was given a row with {column} {value}, statement: {sql}"
            ));
        }
    }
}

impl Fault {
    fn of_connection(message: String) -> Self {
        Self { sqlstate: String::new(), message, hint: String::new() }
    }
}

fn fault(error: &tokio_postgres::Error) -> Fault {
    match error.as_db_error() {
        Some(error) => Fault {
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            hint: error.hint().or(error.detail()).unwrap_or_default().to_owned(),
        },
        None => {
            let cause = std::error::Error::source(error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            Fault::of_connection(format!("{error}{cause}"))
        }
    }
}
