//! Tenants in tables: what `tenantgate catalog install` makes, what becomes of changed rows while
//! clients are connected, what an outage does, and that a broken row harms nobody else.

mod faults;
mod files;
mod follow;
mod lazy;
mod outage;
mod spreads;
mod tables;
mod wards;

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;
use tenantgate::catalog::new_token;
use tenantgate::demo::Cluster;
use tokio_postgres::{Client, Error};

use crate::harness::cluster::{connect, superuser};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};
use crate::harness::{eventually, unique};

/// A database of a test's own with the tables in it.
pub struct Tables {
    pub dba: Client,
    pub dbname: String,
    pub reader: String,
    /// Of the reader.
    pub conninfo: String,
    admin: String,
    folder: TempDir,
}

impl Tables {
    /// A database without the tables.
    pub async fn empty(cluster: &Cluster) -> Self {
        let mark = unique();
        let (dbname, reader) = (format!("control_{mark}"), format!("reader_{mark}"));
        let postgres = superuser(cluster, "postgres").await;
        postgres.batch_execute(&format!("CREATE DATABASE {dbname}")).await.unwrap();
        let conninfo = cluster.conninfo(&reader, LOGIN_PASSWORD, &dbname);
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "[[listen]]\naddress = \"127.0.0.1:6432\"\ntls = \"disable\"\n\n\
             [catalog]\nconnection_string = \"{conninfo}\"\n"
        );
        fs::write(folder.path().join("gate.toml"), settings).unwrap();
        let (dba, admin) = (superuser(cluster, &dbname).await, cluster.superuser_conninfo(&dbname));
        Self { dba, dbname, reader, conninfo, admin, folder }
    }

    /// The same with the tables.
    pub async fn new(cluster: &Cluster) -> Self {
        let tables = Self::empty(cluster).await;
        let said = tables.install(&[]);
        assert!(said.status.success(), "{said:?}");
        tables
    }

    /// `tenantgate catalog install`, applied unless there are more words.
    pub fn install(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
        command.args(["catalog", "install", "--config"]).arg(self.folder.path().join("gate.toml"));
        if more.is_empty() {
            command.env("TENANTGATE_ADMIN", &self.admin);
        }
        command.args(more).output().unwrap()
    }

    /// Makes the login that moves tenants, and says its connection string.
    pub fn with_mover(&self) -> String {
        let mover = self.conninfo.replace(&self.reader, &format!("mover_{}", self.dbname));
        let path = self.folder.path().join("gate.toml");
        let settings = fs::read_to_string(&path).unwrap();
        let line = format!("mover_connection_string = \"{mover}\"\n");
        fs::write(path, settings + &line).unwrap();
        let said = self.install(&[]);
        assert!(said.status.success(), "{said:?}");
        mover
    }

    /// An estate's settings with the tables in them. Lines of `more` go to `[catalog]`.
    pub fn settings(&self, estate: &Estate, more: &str) -> String {
        let text = format!("[catalog]\nconnection_string = \"{}\"\n{more}", self.conninfo);
        let http = "[http]\naddress = \"127.0.0.1:$HTTP\"\n";
        estate.settings(&Tweaks { more: &format!("{http}\n{text}"), ..Tweaks::default() })
    }

    /// Runs SQL as whoever keeps the tables, which are on the search path.
    pub async fn run(&self, sql: &str) {
        let sql = format!("SET search_path TO tenantgate_catalog; {sql}");
        self.dba.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// A row tenant in database `app`, and its token.
    pub async fn add(&self, id: &str) -> String {
        let token = new_token().unwrap();
        let line = token.line;
        self.run(&format!(
            "BEGIN; INSERT INTO tenants (id, isolation, cluster, schema, role, tier)
               VALUES ('{id}', 'row', 'main', 'app', 'app_rw', 'free');
             INSERT INTO credentials (kind, tenant, hash) VALUES ('token', '{id}', '{line}');
             COMMIT"
        ))
        .await;
        token.text
    }
}

/// Logs in to database `app` with a token.
pub async fn login(gate: &Gate, token: &str) -> Result<Client, Error> {
    let port = gate.port;
    connect(&format!("host=127.0.0.1 port={port} user=app dbname=app password={token}")).await
}

/// Waits until a token lets its bearer in.
pub async fn let_in(gate: &Gate, token: &str) -> Client {
    eventually("the token is taken", async || login(gate, token).await.ok()).await
}

/// Waits until a token lets nobody in; what is said then is what a wrong token is told.
pub async fn kept_out(gate: &Gate, token: &str) {
    let said = eventually("the token is refused", async || login(gate, token).await.err()).await;
    let said = said.as_db_error().unwrap();
    let wrong = login(gate, "nonsense").await.err().unwrap();
    let wrong = wrong.as_db_error().unwrap();
    assert_eq!((said.code(), said.message()), (wrong.code(), wrong.message()));
}

/// The ids of the notes a session sees.
pub async fn notes(client: &Client) -> Vec<i32> {
    let rows = client.query("SELECT id FROM notes ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
