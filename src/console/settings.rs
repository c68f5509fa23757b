//! What the settings file says about the console: `[console]`.

use std::time::Duration;

/// Who may log in to the console, and what averages it shows. Without users nobody can, apart from
/// the gate's own on a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleSettings {
    pub users: Vec<ConsoleUser>,
    /// Averages of SHOW STATS are over periods of this length; default 60 s, as in PgBouncer.
    pub stats_period: Duration,
}

impl Default for ConsoleSettings {
    fn default() -> Self {
        Self { users: Vec::new(), stats_period: Duration::from_secs(60) }
    }
}

/// A console user; it has nothing to do with tenants or PostgreSQL roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsoleUser {
    pub name: String,
    /// A verifier as in `pg_authid`: `SCRAM-SHA-256$iterations:salt$stored:server`.
    pub scram: String,
    pub rights: Rights,
}

/// What a console user may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rights {
    /// Look and act.
    #[default]
    Admin,
    /// Only look.
    Stats,
}
