//! [`Connectors`]: a connector is made once and used for every connection, as long as its files
//! stay as they are. Reading the system's authorities takes longer than a handshake.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio_rustls::TlsConnector;

use super::{ConnectorPlan, TlsError, connector};

/// After this long the files are read again in any case: the system's authorities have no one file
/// to look at.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// The connector of a connection string; all copies share it. It says nothing of its own, so any
/// two are equal.
#[derive(Clone, Default)]
pub struct Connectors(Arc<Mutex<Option<Made>>>);

struct Made {
    connector: TlsConnector,
    /// What it was made of.
    plan: String,
    stamps: Vec<Option<Stamp>>,
    at: Instant,
}

/// When a file was written last, and how long it is.
type Stamp = (SystemTime, u64);

impl Connectors {
    /// The connector for a plan, made anew if the plan or a file of it changed.
    ///
    /// # Errors
    ///
    /// As [`connector`].
    pub fn connector(&self, plan: ConnectorPlan<'_>) -> Result<TlsConnector, TlsError> {
        let (words, stamps) = (format!("{plan:?}"), stamps(plan));
        let mut made = self.0.lock();
        let fresh = made.as_ref().filter(|made| {
            made.plan == words && made.stamps == stamps && made.at.elapsed() < AGE_MAX
        });
        if let Some(made) = fresh {
            return Ok(made.connector.clone());
        }
        let connector = connector(plan)?;
        let at = Instant::now();
        *made = Some(Made { connector: connector.clone(), plan: words, stamps, at });
        Ok(connector)
    }
}

/// Taken before the files are read, so that one that changes meanwhile is read again.
fn stamps(plan: ConnectorPlan<'_>) -> Vec<Option<Stamp>> {
    let stamp = |file: &Path| {
        let facts = fs::metadata(file).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    };
    let own = plan.identity.into_iter().flat_map(|(chain, key)| [chain.as_path(), key.as_path()]);
    plan.root_file.into_iter().chain(own).map(stamp).collect()
}

impl PartialEq for Connectors {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Connectors {}

impl std::fmt::Debug for Connectors {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Connectors")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::Verify;

    #[test]
    fn a_connector_is_made_once_until_a_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        let write = |name: &str| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            fs::write(&file, made.cert.pem()).unwrap();
        };
        let plan = |verify| ConnectorPlan {
            verify,
            root_file: Some(&file),
            identity: None,
            pins: &[],
            sni: true,
            alpn: true,
        };
        let connectors = Connectors::default();
        let made = |verify| connectors.connector(plan(verify)).unwrap();
        let same = |a: &TlsConnector, b: &TlsConnector| Arc::ptr_eq(a.config(), b.config());
        write("a.test");
        let first = made(Verify::Host);
        assert!(same(&first, &made(Verify::Host)));
        assert!(same(&first, &connectors.clone().connector(plan(Verify::Host)).unwrap()));
        let other = made(Verify::Authority);
        assert!(!same(&first, &other), "another sslmode");
        write("another.name.of.another.length.test");
        assert!(!same(&other, &made(Verify::Authority)), "another file");
        fs::remove_file(&file).unwrap();
        assert!(connectors.connector(plan(Verify::Authority)).is_err(), "no file");
    }
}
