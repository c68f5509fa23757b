//! What the settings file says about the console: `[console]`.

/// Who may log in to the console. Without users nobody can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsoleSettings {
    pub users: Vec<ConsoleUser>,
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
