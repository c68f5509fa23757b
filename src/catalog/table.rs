//! [`TableSettings`]: tenants that stand in tables of a PostgreSQL database beside those of the
//! settings file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::server::Conninfo;

/// Where the tables are, and how they are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSettings {
    /// The database, and the login that reads the tables.
    pub conninfo: Arc<Conninfo>,
    /// The login that may give a tenant another route, in the same database; without it nobody
    /// does at the console.
    pub mover: Option<Arc<Conninfo>>,
    /// Where the last good copy is kept, so that the gate can start without the database.
    pub cache_file: Option<PathBuf>,
    /// How often the tables are asked whether they changed, should no notification come; default
    /// 10 s.
    pub poll: Duration,
    /// Most tenants that are kept in memory; where the tables have more, the others are looked up
    /// when they are needed. Default 100 000.
    pub known: usize,
    /// Hosts that rows may name beside their clusters', as written.
    pub hosts: Vec<String>,
    /// Where the files are that rows may name for their passwords.
    pub secrets_folder: Option<PathBuf>,
}

impl TableSettings {
    /// `poll`, unless the settings say otherwise.
    pub const POLL_DEFAULT: Duration = Duration::from_secs(10);

    /// `known`, unless the settings say otherwise.
    pub const KNOWN_DEFAULT: usize = 100_000;
}
