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
    /// How long a transaction may go on that is open when its credential or tenant ends; zero:
    /// not at all; default 30 s.
    pub credential_grace: Duration,
    /// How many logins may fail.
    pub guesses: GuessLimits,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            login_timeout: Duration::from_secs(10),
            startup_bytes: 10 * 1024,
            statement_bytes: 16 * 1024 * 1024,
            password_bytes: 64 * 1024,
            stall_timeout: Duration::from_secs(60),
            credential_grace: Duration::from_secs(30),
            guesses: GuessLimits::default(),
        }
    }
}
