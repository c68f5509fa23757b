//! What the settings file says about telemetry: `[http]` and the log keys of `[gate]`.

use std::net::SocketAddr;

/// Where `/metrics`, `/live` and `/ready` are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    pub address: SocketAddr,
    /// Tenants with series of their own, by use; default 20.
    pub tenants_top: usize,
    /// Tenants that have them in any case; default none.
    pub tenants: Vec<String>,
}

impl HttpSettings {
    /// Settings with every default; the address has none.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, tenants_top: 20, tenants: Vec::new() }
    }
}

/// How the log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or a comma-separated filter.
    pub level: String,
}

/// One line of text, or one JSON object, per event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}
