//! What the settings say about clients: how long they may take and how much they may send.

use std::time::Duration;

use crate::auth::GuessLimits;

/// Limits of one client connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// From accept to the end of the login; default 10 s, which is enough for a slow mobile
    /// network and short for somebody who only holds connections open.
    pub login_timeout: Duration,
    /// Longest start-up packet; default 10 KiB, PostgreSQL's own limit.
    pub startup_bytes: usize,
    /// Longest statement; it is held whole to be judged. Default 16 MiB.
    pub statement_bytes: usize,
    /// Longest password message; default 64 KiB, PostgreSQL's own limit.
    pub password_bytes: usize,
    /// How long a message may stay half sent, or an answer unread; default 60 s.
    pub stall_timeout: Duration,
    /// How a session ends whose credential or tenant did; default: with its transaction.
    pub credential_end: CredentialEnd,
    /// How many logins may fail.
    pub guesses: GuessLimits,
}

/// When a session ends whose credential expired or was revoked, or whose tenant was disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialEnd {
    /// At the end of its transaction.
    #[default]
    Transaction,
    /// Where it is; its transaction is rolled back.
    Now,
}

impl CredentialEnd {
    /// The word in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Now => "now",
        }
    }
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            login_timeout: Duration::from_secs(10),
            startup_bytes: 10 * 1024,
            statement_bytes: 16 * 1024 * 1024,
            password_bytes: 64 * 1024,
            stall_timeout: Duration::from_secs(60),
            credential_end: CredentialEnd::default(),
            guesses: GuessLimits::default(),
        }
    }
}
