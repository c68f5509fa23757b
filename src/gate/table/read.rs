//! The questions to the tables: all of them, or what changed behind a number. Each answer is of one
//! moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::TryStreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row};

use super::records::{
    CREDENTIALS_BYTES_MAX, CREDENTIALS_MAX, CredentialColumns, TenantColumns, TenantRecord,
};
use crate::catalog::{Found, Key, Whose};
use crate::secret::Secret;
use crate::server::{Also, Conninfo, OpenError, Program, open};

/// The channel that the tables' triggers notify.
const CHANNEL: &str = "tenantgate_catalog";

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// The same where all rows are read.
const LONG_ANSWER: Duration = Duration::from_secs(600);

/// How many rows are asked for, or handed on, at once.
const CHUNK: usize = 2000;

/// Most changed tenants that are read one by one.
const CHANGES_MAX: usize = 20_000;

/// Which run of which server answers.
const LINEAGE: &str = "SELECT system_identifier::text || ' ' \
    || left(pg_walfile_name(pg_current_wal_lsn()), 8) || ' ' \
    || extract(epoch FROM pg_postmaster_start_time())::text FROM pg_control_system()";

/// Lets nobody's objects stand in for PostgreSQL's own, and bounds what a question may cost there.
const OPENING: &str = "SET search_path TO pg_catalog, pg_temp; \
    SET default_transaction_read_only TO on; SET statement_timeout TO '50s'; \
    SET lock_timeout TO '10s'; SET idle_session_timeout TO 0; \
    SET standard_conforming_strings TO on";

/// Nobody waits longer for a look-up (`LOOKUP_TIME`), so it does not go on there either.
const BRIEF: &str = "SET statement_timeout TO '3s'; SET lock_timeout TO '3s'";

/// Whatever is too long is cut to a length at which it is still at fault.
const TENANT: &str = "left(t.id, 64), left(t.isolation, 32), left(t.cluster, 64), \
    left(t.connection_string, 16385), left(t.schema, 64), left(t.role, 64), left(t.tier, 64), \
    left(t.state, 32), left(t.overrides::text, 16385), t.placed";

const CREDENTIAL: &str = "left(coalesce(c.tenant, ''), 64), c.id, left(c.kind, 32), \
    left(c.name, 64), left(c.hash, 128), left(c.scram_verifier, 1025), left(c.cert_name, 1025), \
    left(c.role, 64), c.read_only, c.acts_for IS NOT NULL OR c.options::text <> '{}', \
    extract(epoch FROM c.expires_at)::float8, c.revoked_at IS NOT NULL";

/// Who has keys: what kind of key it is, the key, the tenant; and the number of the last change.
const LOOK_UP: &str = "\
    SELECT 0, split_part(c.hash, ':', 1), c.tenant, NULL::int8 \
    FROM tenantgate_catalog.credentials c \
    WHERE c.hash IS NOT NULL AND split_part(c.hash, ':', 1) = ANY($1) \
    UNION ALL SELECT 1, left(c.cert_name, 1025), c.tenant, NULL \
    FROM tenantgate_catalog.credentials c WHERE c.cert_name = ANY($2) \
    UNION ALL SELECT 2, u.name, c.tenant, NULL FROM unnest($3::text[]) u (name), \
    LATERAL (SELECT c.tenant FROM tenantgate_catalog.credentials c \
      WHERE c.scram_verifier IS NOT NULL AND c.name = u.name AND c.revoked_at IS NULL \
      ORDER BY c.tenant LIMIT 2) c \
    UNION ALL SELECT 3, '', left(t.id, 64), NULL FROM tenantgate_catalog.tenants t \
    WHERE lower(t.id) = ANY($4) \
    UNION ALL SELECT 9, '', NULL, v.number FROM tenantgate_catalog.version v";

/// The kind of a key that is a user.
const OF_USER: i32 = 2;

/// Why the tables could not be read. Holds nothing that stands in them.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0}")]
    Connect(String),
    #[error("{0}")]
    Query(String),
    /// It cannot have what was asked for.
    #[error("{0}")]
    Refused(String),
    #[error("another server answers than the one whose changes are followed")]
    Another,
    #[error("no answer within {0} s")]
    Timeout(u64),
    #[error("the connection is lost")]
    Lost,
    #[error("{0}")]
    File(#[from] std::io::Error),
}

impl From<tokio_postgres::Error> for ReadError {
    fn from(error: tokio_postgres::Error) -> Self {
        /// No such letter in the database's encoding.
        const LETTERS: [SqlState; 2] =
            [SqlState::CHARACTER_NOT_IN_REPERTOIRE, SqlState::UNTRANSLATABLE_CHARACTER];
        match error.as_db_error() {
            Some(said) if LETTERS.contains(said.code()) => Self::Refused(text_of(said)),
            Some(said) => Self::Query(text_of(said)),
            None => Self::Query(error.to_string()),
        }
    }
}

fn text_of(said: &DbError) -> String {
    format!("{} {}", said.code().code(), said.message())
}

/// A connection to the tables' database, and the notifications that come over it.
pub struct Link {
    pub line: Line,
    notices: mpsc::Receiver<()>,
}

/// A connection to the tables' database.
pub struct Line {
    /// Which run of which server this is; none if it does not say. Another one may have other
    /// changes under the same numbers.
    pub lineage: Option<String>,
    /// It is the only host there is.
    is_alone: bool,
    client: Client,
    /// Ends with it, also where the server does not read any more.
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The state of the tables at one moment: that of everything that is read until the end.
pub struct Facts {
    /// The number of the last change.
    pub version: i64,
    /// What verifiers are made up with, and some real ones.
    pub secret: String,
    pub samples: Vec<String>,
}

/// Rows by the tenant's id.
pub type Records = BTreeMap<String, TenantRecord>;

impl Link {
    /// Connects to the first host that lets us in, and listens.
    pub async fn open(conninfo: &Conninfo) -> Result<Self, ReadError> {
        // A place for one: whoever hears it reads all there is.
        let (heard, notices) = mpsc::channel(1);
        let line = Line::open(conninfo, Some(heard)).await?;
        let listen = format!("LISTEN {CHANNEL}");
        bounded(async { Ok(line.client.batch_execute(&listen).await?) }).await?;
        Ok(Self { line, notices })
    }

    /// Which run of which server this is; none if it does not say.
    pub fn lineage(&self) -> Option<&String> {
        self.line.lineage.as_ref()
    }

    /// Waits for a notification; several that have come count as one.
    pub async fn notified(&mut self) -> Result<(), ReadError> {
        self.notices.recv().await.ok_or(ReadError::Lost)
    }

    /// From here on everything is read as of this moment.
    pub async fn begin(&self) -> Result<Facts, ReadError> {
        let asked = async {
            self.line.begin().await?;
            let sql = "SELECT number, mock_secret::text FROM tenantgate_catalog.version";
            let row = self.line.client.query_one(sql, &[]).await?;
            let (version, secret) = (row.try_get(0)?, row.try_get(1)?);
            let sql = "SELECT left(scram_verifier, 1025) FROM tenantgate_catalog.credentials \
                       WHERE scram_verifier IS NOT NULL ORDER BY id LIMIT 8";
            let samples = self.line.client.query(sql, &[]).await?;
            let samples = samples.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>();
            Ok(Facts { version, secret, samples: samples? })
        };
        bounded(asked).await
    }

    /// The moment is over.
    pub async fn end(&self) -> Result<(), ReadError> {
        bounded(async { Ok(self.line.client.batch_execute("COMMIT").await?) }).await
    }

    /// Whether there are more rows than so many.
    pub async fn has_more_than(&self, rows: usize) -> Result<bool, ReadError> {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX - 1);
        let sql = "SELECT count(*) > $1::int8 FROM (SELECT FROM tenantgate_catalog.tenants \
                   LIMIT $1::int8 + 1) t";
        let asked = async { Ok(self.line.client.query_one(sql, &[&rows]).await?.try_get(0)?) };
        bounded(asked).await
    }

    /// All tenants with their credentials.
    pub async fn all(&self) -> Result<Records, ReadError> {
        let tenants = format!("SELECT {TENANT} FROM tenantgate_catalog.tenants t");
        let credentials =
            format!("SELECT {CREDENTIAL} FROM tenantgate_catalog.credentials c ORDER BY c.id");
        self.line.long().await?;
        let asked = async {
            let mut records = Records::new();
            let take = |row: Row| {
                let record = tenant(&row, 0)?;
                records.insert(record.id.clone(), record);
                Ok(())
            };
            self.line.each(&tenants, &[], take).await?;
            self.line.each(&credentials, &[], |row| give(&mut records, &row)).await?;
            Ok(records)
        };
        within(LONG_ANSWER, asked).await
    }

    /// What changed behind a number; none if that is more than is read at once.
    pub async fn since(
        &self,
        version: i64,
    ) -> Result<Option<Vec<(String, Option<TenantRecord>)>>, ReadError> {
        let sql = "SELECT left(ch.tenant, 64) FROM tenantgate_catalog.changes ch \
                   WHERE ch.version > $1 LIMIT $2";
        let asked = async {
            let most = i64::try_from(CHANGES_MAX + 1)
                .map_err(|error| ReadError::Query(error.to_string()))?;
            let rows = self.line.client.query(sql, &[&version, &most]).await?;
            let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>();
            Ok(ids?)
        };
        let ids = bounded(asked).await?;
        if ids.len() > CHANGES_MAX {
            return Ok(None);
        }
        let mut records = self.line.of_many(&ids).await?;
        if ids.iter().any(String::is_empty) {
            records.extend(bounded(self.services()).await?);
        }
        let changed = ids.into_iter().map(|id| {
            let record = records.remove(&id);
            (id, record)
        });
        Ok(Some(changed.collect()))
    }

    /// Credentials without a tenant.
    async fn services(&self) -> Result<Records, ReadError> {
        let sql = format!(
            "SELECT {CREDENTIAL} FROM tenantgate_catalog.credentials c WHERE c.tenant IS NULL \
             ORDER BY c.id LIMIT {CREDENTIALS_MAX}"
        );
        let mut records = Records::new();
        self.line.each(&sql, &[], |row| give(&mut records, &row)).await?;
        Ok(records)
    }
}

impl Line {
    /// Connects to the first host that lets us in. What is notified is told to `heard`.
    pub async fn open(
        conninfo: &Conninfo,
        heard: Option<mpsc::Sender<()>>,
    ) -> Result<Self, ReadError> {
        let password = conninfo.password.as_ref().map(Secret::expose);
        let (name, limit, also) = ("tenantgate catalog", conninfo.connect_timeout, Also::Nothing);
        let program = Program { name, dbname: &conninfo.dbname, password, limit, also };
        let (client, mut connection) =
            open(conninfo, program).await.map_err(|error| match error {
                OpenError::Postgres(error) => error.into(),
                error => ReadError::Connect(error.to_string()),
            })?;
        let task = tokio::spawn(async move {
            let next = async |connection: &mut tokio_postgres::Connection<_, _>| {
                std::future::poll_fn(|context| connection.poll_message(context)).await
            };
            while let Some(Ok(message)) = next(&mut connection).await {
                if let (AsyncMessage::Notification(_), Some(heard)) = (message, &heard) {
                    // Full: somebody has been told and has not looked yet.
                    let _ = heard.try_send(());
                }
            }
        });
        let is_alone = conninfo.hosts.len() == 1;
        let mut line = Self { lineage: None, is_alone, client, task };
        bounded(async { Ok(line.client.batch_execute(OPENING).await?) }).await?;
        let lineage = bounded(async { Ok(line.client.query_one(LINEAGE, &[]).await?) }).await;
        line.lineage = lineage.ok().and_then(|row| row.try_get(0).ok());
        Ok(line)
    }

    /// Whether this is the run of the server whose changes are followed. Where neither says which
    /// it is, it can only be so if there is one host.
    pub fn is_of(&self, lineage: Option<&String>) -> bool {
        is_same(self.lineage.as_ref(), lineage, self.is_alone)
    }

    /// All tenants without their credentials, in the order of their places, many at a time; then
    /// those of some ids with theirs. All is as of one moment: that of the number it gives back.
    pub async fn all(
        &self,
        mut take: impl FnMut(Vec<TenantRecord>),
        known: &[String],
    ) -> Result<(i64, Records), ReadError> {
        let sql = format!(
            "SELECT {TENANT} FROM tenantgate_catalog.tenants t \
             ORDER BY t.placed, t.id COLLATE \"C\""
        );
        bounded(self.begin()).await?;
        let version = bounded(self.number()).await?;
        self.long().await?;
        let asked = async {
            let mut some = Vec::new();
            let keep = |row: Row| {
                some.push(tenant(&row, 0)?);
                if some.len() >= CHUNK {
                    take(std::mem::take(&mut some));
                }
                Ok(())
            };
            self.each(&sql, &[], keep).await?;
            take(some);
            Ok(())
        };
        within(LONG_ANSWER, asked).await?;
        let records = self.of_many(known).await?;
        bounded(async { Ok(self.client.batch_execute("COMMIT").await?) }).await?;
        Ok((version, records))
    }

    /// The number of the last change.
    async fn number(&self) -> Result<i64, ReadError> {
        let sql = "SELECT number FROM tenantgate_catalog.version";
        Ok(self.client.query_one(sql, &[]).await?.try_get(0)?)
    }

    /// What comes next may take its time.
    async fn long(&self) -> Result<(), ReadError> {
        let sql = "SET LOCAL statement_timeout TO '10min'";
        bounded(async { Ok(self.client.batch_execute(sql).await?) }).await
    }

    /// From here on no question may take long.
    pub async fn be_brief(&self) -> Result<(), ReadError> {
        bounded(async { Ok(self.client.batch_execute(BRIEF).await?) }).await
    }

    /// Those of these tenants that there are, with their credentials, and which of them changed
    /// behind a number: all as of one moment.
    pub async fn as_of(
        &self,
        ids: &[String],
        version: i64,
    ) -> Result<(Vec<String>, Records), ReadError> {
        bounded(self.begin()).await?;
        let sql = "SELECT left(ch.tenant, 64) FROM tenantgate_catalog.changes ch \
                   WHERE ch.version > $1 AND ch.tenant = ANY($2)";
        let asked = async {
            if self.number().await? < version {
                return Err(ReadError::Another);
            }
            let rows = self.client.query(sql, &[&version, &ids]).await?;
            Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
        };
        let changed = bounded(asked).await?;
        let read = self.of_many(ids).await?;
        bounded(async { Ok(self.client.batch_execute("COMMIT").await?) }).await?;
        Ok((changed, read))
    }

    /// Those of these tenants that there are, with their credentials, in several questions.
    pub async fn of_many(&self, ids: &[String]) -> Result<Records, ReadError> {
        let mut records = Records::new();
        for ids in ids.chunks(CHUNK) {
            records.append(&mut bounded(self.of(ids)).await?);
        }
        Ok(records)
    }

    async fn begin(&self) -> Result<(), ReadError> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        Ok(self.client.batch_execute(begin).await?)
    }

    /// Asks, and takes row by row.
    async fn each(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
        mut take: impl FnMut(Row) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let values = values.iter().copied();
        let rows = self.client.query_raw::<_, _, _>(sql, values).await?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await? {
            take(row)?;
        }
        Ok(())
    }

    /// Tenants with these ids and their credentials.
    async fn of(&self, ids: &[String]) -> Result<Records, ReadError> {
        let tenants =
            format!("SELECT {TENANT} FROM tenantgate_catalog.tenants t WHERE t.id = ANY($1)");
        let credentials = format!(
            "SELECT {CREDENTIAL} FROM unnest($1::text[]) t (id), \
             LATERAL (SELECT * FROM tenantgate_catalog.credentials c \
               WHERE c.tenant = t.id ORDER BY c.id LIMIT {CREDENTIALS_MAX} + 1) c ORDER BY c.id"
        );
        let mut records = Records::new();
        let take = |row: Row| {
            let record = tenant(&row, 0)?;
            records.insert(record.id.clone(), record);
            Ok(())
        };
        self.each(&tenants, &[&ids], take).await?;
        self.each(&credentials, &[&ids], |row| give(&mut records, &row)).await?;
        Ok(records)
    }

    /// Whoever has these keys, all as of one moment. After a refusal more can be asked.
    pub async fn look_up(&self, keys: &[Key]) -> Result<Found, ReadError> {
        self.begin().await?;
        let found = self.found(keys).await;
        let end = if found.is_ok() { "COMMIT" } else { "ROLLBACK" };
        self.client.batch_execute(end).await?;
        found
    }

    async fn found(&self, keys: &[Key]) -> Result<Found, ReadError> {
        let of = |kind: fn(&Key) -> Option<&str>| -> Vec<&str> {
            keys.iter().filter_map(kind).collect()
        };
        let tokens = of(|key| if let Key::Token(it) = key { Some(it) } else { None });
        let names = of(|key| if let Key::Certificate(it) = key { Some(it) } else { None });
        let users = of(|key| if let Key::User(it) = key { Some(it) } else { None });
        let ids = of(|key| if let Key::Tenant(it) = key { Some(it) } else { None });
        let ids: Vec<String> = ids.iter().map(|id| id.to_ascii_lowercase()).collect();
        let rows = self.client.query(LOOK_UP, &[&tokens, &names, &users, &ids]).await?;
        let (mut found, mut wanted) = (Found::default(), BTreeSet::new());
        for row in rows {
            let (kind, key): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
            let (tenant, number): (Option<String>, Option<i64>) =
                (row.try_get(2)?, row.try_get(3)?);
            found.version = number.unwrap_or(found.version);
            let Some(tenant) = tenant else { continue };
            if kind == OF_USER {
                let whose = found.whose.entry(key).or_default();
                *whose = match whose {
                    Whose::Nobody => Whose::One(tenant.clone()),
                    _ => Whose::Several,
                };
            }
            wanted.insert(tenant);
        }
        // Also for nobody: it takes as long as for somebody.
        let wanted: Vec<String> = wanted.into_iter().collect();
        let records = self.of(&wanted).await?;
        found.rows = records.values().map(TenantRecord::row).collect();
        let sql = "SELECT left(ch.tenant, 64), ch.version FROM tenantgate_catalog.changes ch \
                   WHERE ch.tenant = ANY($1)";
        for row in self.client.query(sql, &[&wanted]).await? {
            found.changed.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(found)
    }
}

/// Whether two say that they are one run of one server; where neither does, whether there is only
/// one host that it can be.
fn is_same(one: Option<&String>, other: Option<&String>, is_alone: bool) -> bool {
    one == other && (one.is_some() || is_alone)
}

async fn bounded<T>(asked: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
    within(ANSWER, asked).await
}

async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, ReadError>>,
) -> Result<T, ReadError> {
    let late = || Err(ReadError::Timeout(limit.as_secs()));
    tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| late())
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
    let id = row.try_get(at)?;
    Ok(TenantRecord { id, tenant: Some(columns), ..TenantRecord::default() })
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
    let nobody =
        |id: &String| TenantRecord { id: id.clone(), tenant: None, ..TenantRecord::default() };
    let record = records.entry(id.clone()).or_insert_with(|| nobody(&id));
    if record.credentials.len() < CREDENTIALS_MAX && record.size.0 < CREDENTIALS_BYTES_MAX {
        record.size.0 += credential.bytes();
        record.credentials.push(credential);
    } else {
        record.has_more = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_say_which_server_it_is_can_only_be_the_one_there_is() {
        let (one, other) = ("one".to_owned(), "other".to_owned());
        for is_alone in [false, true] {
            assert!(is_same(Some(&one), Some(&one), is_alone));
            assert!(!is_same(Some(&one), Some(&other), is_alone));
            assert!(!is_same(None, Some(&one), is_alone) && !is_same(Some(&one), None, is_alone));
            assert_eq!(is_same(None, None, is_alone), is_alone);
        }
    }
}
