//! One settings file to one checked value. Each room defines its own settings; they are put
//! together and checked against each other here.
//!
//! A file with anything wrong in it gives no value at all, so that a bad file changes nothing.

mod allowance;
mod check;
mod credentials;
mod error;
mod limits;
mod listen;
mod read;
mod rows;
mod secrets;
mod shapes;
#[cfg(test)]
mod shown_tests;
mod table;
#[cfg(test)]
mod tests;
mod units;
mod words;

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::auth::IssuerSettings;
use crate::catalog::{Catalog, TableSettings};
use crate::client::ClientSettings;
use crate::console::ConsoleSettings;
use crate::net::{ListenSettings, OwnPlaces};
use crate::telemetry::{AuditSettings, HttpSettings, LogSettings, UsageSettings};

pub use error::Error;
pub use limits::{duration, limit};
pub use rows::overrides;
pub use table::Setting;

/// Larger than a file with a hundred thousand tenants.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Everything a settings file says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub gate: GateSettings,
    /// At least one.
    pub listen: Vec<ListenSettings>,
    pub client: ClientSettings,
    pub issuers: Vec<IssuerSettings>,
    pub catalog: Catalog,
    /// Where more tenants stand.
    pub table: Option<TableSettings>,
    pub console: ConsoleSettings,
    pub http: Option<HttpSettings>,
    pub audit: Option<AuditSettings>,
    pub usage: Option<UsageSettings>,
    pub log: LogSettings,
}

/// What concerns the whole process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSettings {
    /// Threads that tenants live on; default: the CPUs the process may use, 64 at most.
    pub workers: usize,
    /// Threads that let clients in; default: one for every 4 workers.
    pub doors: usize,
    /// Client connections of the whole process; default 10,000.
    pub clients: usize,
    /// How long transactions may take to end after SIGTERM; default 30 s.
    pub drain_timeout: Duration,
}

/// More would only wait for each other; this is also the size of what is kept per worker.
const WORKERS_MAX: usize = 64;

impl GateSettings {
    /// A login with TLS costs about as much as some hundred requests, so one door keeps up with the
    /// logins of several workers' clients.
    fn doors_for(workers: usize) -> usize {
        workers.div_ceil(4)
    }
}

impl Default for GateSettings {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = cpus.min(WORKERS_MAX);
        let drain_timeout = Duration::from_secs(30);
        Self { workers, doors: Self::doors_for(workers), clients: 10_000, drain_timeout }
    }
}

impl Config {
    /// Where a gate with these settings listens.
    pub fn own(&self) -> OwnPlaces {
        listen::own(&self.listen, self.http.as_ref())
    }
}

/// Reads and checks a settings file. Relative paths in it start at its folder.
///
/// # Errors
///
/// The file cannot be read, or something in it is wrong: then every problem that was found, each
/// with its place.
pub fn load(path: &Path) -> Result<Config, Error> {
    load_beside(path, &OwnPlaces::default())
}

/// The same for a gate that listens at these places, whatever the file says by now.
///
/// # Errors
///
/// As [`load`].
pub fn load_beside(path: &Path, own: &OwnPlaces) -> Result<Config, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(std::io::Error::other("the file is larger than 64 MiB")));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let invalid = |problems| Error::Invalid { path: path.to_owned(), problems };
    let text = String::from_utf8(bytes).map_err(|error| {
        let sound = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(error.as_bytes().get(..sound).unwrap_or_default());
        invalid(vec![words::not_utf8(&before)])
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    read::read(&text, folder, own).map_err(invalid)
}
