//! The questions to the tables: all of them, or what changed behind a number. Each answer is of one
//! moment.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Row};

use super::records::{CREDENTIALS_MAX, CredentialColumns, TenantColumns, TenantRecord};
use crate::secret::Secret;
use crate::server::{Also, Conninfo, OpenError, Program, open};

/// The channel that the tables' triggers notify.
const CHANNEL: &str = "tenantgate_catalog";

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// Lets nobody's objects stand in for PostgreSQL's own, and bounds what a question may cost there.
const OPENING: &str = "SET search_path TO pg_catalog, pg_temp; \
    SET default_transaction_read_only TO on; SET statement_timeout TO '50s'; \
    SET lock_timeout TO '10s'; SET idle_session_timeout TO 0; \
    SET standard_conforming_strings TO on";

/// Whatever is too long is cut to a length at which it is still at fault.
const TENANT: &str = "left(t.id, 64), left(t.isolation, 32), left(t.cluster, 64), \
    left(t.connection_string, 16385), left(t.schema, 64), left(t.role, 64), left(t.tier, 64), \
    left(t.state, 32), left(t.overrides::text, 16385), t.placed";

const CREDENTIAL: &str = "left(coalesce(c.tenant, ''), 64), c.id, left(c.kind, 32), \
    left(c.name, 64), left(c.hash, 128), left(c.scram_verifier, 1025), left(c.cert_name, 1025), \
    left(c.role, 64), c.read_only, c.acts_for IS NOT NULL OR c.options::text <> '{}', \
    extract(epoch FROM c.expires_at)::float8, c.revoked_at IS NOT NULL";

/// Why the tables could not be read. Holds nothing that stands in them.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0}")]
    Connect(String),
    #[error("{0}")]
    Query(String),
    #[error("no answer within {} s", ANSWER.as_secs())]
    Timeout,
    #[error("the connection is lost")]
    Lost,
}

impl From<tokio_postgres::Error> for ReadError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Query(match error.as_db_error() {
            Some(said) => format!("{} {}", said.code().code(), said.message()),
            None => error.to_string(),
        })
    }
}

/// A connection to the tables' database, and the notifications that come over it.
pub struct Link {
    client: Client,
    notices: mpsc::Receiver<()>,
}

/// What changed, and up to which number.
pub struct Changes {
    pub version: i64,
    pub tenants: Vec<(String, Option<TenantRecord>)>,
}

impl Link {
    /// Connects to the first host that lets us in, and listens.
    pub async fn open(conninfo: &Conninfo) -> Result<Self, ReadError> {
        let password = conninfo.password.as_ref().map(Secret::expose);
        let (name, limit, also) = ("tenantgate catalog", conninfo.connect_timeout, Also::Nothing);
        let program = Program { name, dbname: &conninfo.dbname, password, limit, also };
        let (client, mut connection) =
            open(conninfo, program).await.map_err(|error| match error {
                OpenError::Postgres(error) => error.into(),
                error => ReadError::Connect(error.to_string()),
            })?;
        // A place for one: whoever hears it reads all there is.
        let (heard, notices) = mpsc::channel(1);
        tokio::spawn(async move {
            let next = async |connection: &mut tokio_postgres::Connection<_, _>| {
                std::future::poll_fn(|context| connection.poll_message(context)).await
            };
            while let Some(Ok(message)) = next(&mut connection).await {
                if let AsyncMessage::Notification(_) = message {
                    // Full: somebody has been told and has not looked yet.
                    let _ = heard.try_send(());
                }
            }
        });
        let link = Self { client, notices };
        let listen = format!("LISTEN {CHANNEL}");
        bounded(async { Ok(link.client.batch_execute(OPENING).await?) }).await?;
        bounded(async { Ok(link.client.batch_execute(&listen).await?) }).await?;
        Ok(link)
    }

    /// Waits for a notification; several that have come count as one.
    pub async fn notified(&mut self) -> Result<(), ReadError> {
        self.notices.recv().await.ok_or(ReadError::Lost)
    }

    /// All tenants, and the number of the last change among them.
    pub async fn all(&self) -> Result<(i64, BTreeMap<String, TenantRecord>), ReadError> {
        let tenants = format!("SELECT {TENANT} FROM tenantgate_catalog.tenants t");
        let credentials =
            format!("SELECT {CREDENTIAL} FROM tenantgate_catalog.credentials c ORDER BY c.id");
        let asked = async {
            self.begin().await?;
            let version = self.version().await?;
            let mut records = BTreeMap::new();
            for row in self.client.query(&tenants, &[]).await? {
                let record = tenant(&row, 0)?;
                records.insert(record.id.clone(), record);
            }
            let credentials = self.client.query(&credentials, &[]).await?;
            self.client.batch_execute("COMMIT").await?;
            for row in credentials {
                give(&mut records, &row)?;
            }
            Ok((version, records))
        };
        bounded(asked).await
    }

    /// What changed behind a number; none if the tables have a lower one, and so are others.
    pub async fn since(&self, version: i64) -> Result<Option<Changes>, ReadError> {
        let tenants = format!(
            "SELECT left(ch.tenant, 64), t.id IS NOT NULL, {TENANT} \
             FROM tenantgate_catalog.changes ch \
             LEFT JOIN tenantgate_catalog.tenants t ON t.id = ch.tenant WHERE ch.version > $1"
        );
        let credentials = format!(
            "SELECT {CREDENTIAL} FROM tenantgate_catalog.changes ch \
             JOIN tenantgate_catalog.credentials c ON c.tenant = ch.tenant WHERE ch.version > $1 \
             UNION ALL SELECT {CREDENTIAL} FROM tenantgate_catalog.credentials c \
             WHERE c.tenant IS NULL AND EXISTS (SELECT FROM tenantgate_catalog.changes ch \
             WHERE ch.tenant = '' AND ch.version > $1) ORDER BY 2"
        );
        let asked = async {
            self.begin().await?;
            let now = self.version().await?;
            if now <= version {
                self.client.batch_execute("COMMIT").await?;
                let tenants = Vec::new();
                return Ok((now == version).then_some(Changes { version, tenants }));
            }
            let mut records = BTreeMap::new();
            let mut ids = Vec::new();
            for row in self.client.query(&tenants, &[&version]).await? {
                ids.push(row.try_get::<_, String>(0)?);
                if row.try_get::<_, bool>(1)? {
                    let record = tenant(&row, 2)?;
                    records.insert(record.id.clone(), record);
                }
            }
            let credentials = self.client.query(&credentials, &[&version]).await?;
            self.client.batch_execute("COMMIT").await?;
            for row in credentials {
                give(&mut records, &row)?;
            }
            let tenants = ids.into_iter().map(|id| {
                let record = records.remove(&id);
                (id, record)
            });
            Ok(Some(Changes { version: now, tenants: tenants.collect() }))
        };
        bounded(asked).await
    }

    async fn begin(&self) -> Result<(), ReadError> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        Ok(self.client.batch_execute(begin).await?)
    }

    async fn version(&self) -> Result<i64, ReadError> {
        let sql = "SELECT number FROM tenantgate_catalog.version";
        Ok(self.client.query_one(sql, &[]).await?.try_get(0)?)
    }
}

async fn bounded<T>(asked: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
    tokio::time::timeout(ANSWER, asked).await.unwrap_or(Err(ReadError::Timeout))
}

fn tenant(row: &Row, at: usize) -> Result<TenantRecord, ReadError> {
    let columns = TenantColumns {
        isolation: row.try_get(at + 1)?,
        cluster: row.try_get(at + 2)?,
        connection_string: row.try_get(at + 3)?,
        schema: row.try_get(at + 4)?,
        role: row.try_get(at + 5)?,
        tier: row.try_get(at + 6)?,
        state: row.try_get(at + 7)?,
        overrides: row.try_get(at + 8)?,
        placed: row.try_get(at + 9)?,
    };
    let (id, credentials) = (row.try_get(at)?, Vec::new());
    Ok(TenantRecord { id, tenant: Some(columns), credentials })
}

/// Gives a credential to its tenant.
fn give(records: &mut BTreeMap<String, TenantRecord>, row: &Row) -> Result<(), ReadError> {
    let id: String = row.try_get(0)?;
    let credential = CredentialColumns {
        id: row.try_get(1)?,
        kind: row.try_get(2)?,
        name: row.try_get(3)?,
        hash: row.try_get(4)?,
        scram_verifier: row.try_get(5)?,
        cert_name: row.try_get(6)?,
        role: row.try_get(7)?,
        read_only: row.try_get(8)?,
        has_more: row.try_get(9)?,
        // What is too far away, or no number, ends at what can be counted.
        expires_at: row.try_get::<_, Option<f64>>(10)?.map(|seconds| (seconds * 1000.0) as i64),
        revoked: row.try_get(11)?,
    };
    let nobody = |id: &String| TenantRecord { id: id.clone(), tenant: None, credentials: vec![] };
    let record = records.entry(id.clone()).or_insert_with(|| nobody(&id));
    if record.credentials.len() < CREDENTIALS_MAX {
        record.credentials.push(credential);
    }
    Ok(())
}
