//! [`Remote`]: an issuer's keys at an address. A thread of its own fetches them, again and again;
//! logins only look at what is there. What cannot be fetched or used leaves the last good keys,
//! for a day.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::auth::Changes;
use crate::auth::keys::KeySet;
use crate::auth::settings::Algorithm;
use crate::catalog::Live;

/// How long one fetch may take, from looking the name up to the last byte.
const FETCH_LIMIT: Duration = Duration::from_secs(10);

/// Keys that could not be fetched again for so long are not trusted any more: the issuer may have
/// withdrawn one meanwhile.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// A set has some kilobytes; whatever is larger is something else.
pub(super) const SET_BYTES_MAX: u64 = 256 * 1024;

/// Where an issuer's keys are fetched from, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    /// https, or http to this machine.
    pub url: String,
    /// Keys for other algorithms are passed over.
    pub algorithm: Option<Algorithm>,
    /// Who may sign the server's certificate; default: whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// How often they are fetched; default 5 minutes.
    pub refresh: Duration,
    /// Shortest time between two fetches, whatever is asked for; default 10 s.
    pub pause: Duration,
}

/// What can be seen to be wrong with an address.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    let parsed: Uri = url.parse().map_err(|_| "it is not a URL".to_owned())?;
    let host = parsed.host().unwrap_or_default();
    let named = parsed.authority().is_some_and(|it| it.as_str().contains('@'));
    if host.is_empty() || named {
        return Err("a URL here has a host and no user".to_owned());
    }
    match parsed.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_loopback(host) => Ok(()),
        Some("http") => Err("http is for this machine only: keys would come from anybody".into()),
        _ => Err("a URL here starts with https://".to_owned()),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An issuer's keys and the thread that keeps them fresh. The thread ends when this is dropped.
pub(super) struct Remote {
    pub(super) settings: RemoteSettings,
    shared: Arc<Shared>,
    first: Mutex<Option<Receiver<()>>>,
}

struct Shared {
    name: String,
    keys: Live<KeySet>,
    wish: Mutex<Wish>,
    bell: Condvar,
    changes: Changes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Nothing,
    /// A token named a key that is not there.
    Fetch,
    End,
}

impl Remote {
    /// Keys that nobody has fetched yet.
    pub(super) fn new(name: &str, settings: &RemoteSettings, changes: Changes) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            keys: Live::new(KeySet::default()),
            wish: Mutex::new(Wish::Nothing),
            bell: Condvar::new(),
            changes,
        };
        Self { settings: settings.clone(), shared: Arc::new(shared), first: Mutex::default() }
    }

    /// Begins with the keys of another one of the same address, so that nobody's session ends
    /// because they are fetched in another way from now on.
    pub(super) fn take_over(&self, former: &Self) {
        let (own, other) = (&self.settings, &former.settings);
        if own.url == other.url && own.algorithm == other.algorithm {
            self.shared.keys.share(former.keys());
        }
    }

    /// Starts the thread.
    pub(super) fn start(&self) -> std::io::Result<()> {
        let (tried, first) = channel();
        *self.first.lock() = Some(first);
        let (shared, settings) = (self.shared.clone(), self.settings.clone());
        let name = format!("keys-{}", self.shared.name).chars().take(15).collect();
        thread::Builder::new().name(name).spawn(move || shared.work(&settings, tried))?;
        Ok(())
    }

    /// Waits for the first fetch, however it ends.
    pub(super) fn wait_for_first(&self, limit: Duration) {
        if let Some(first) = self.first.lock().take() {
            // Too late or over: what is there then will be seen.
            let _ = first.recv_timeout(limit);
        }
    }

    pub(super) fn keys(&self) -> Arc<KeySet> {
        self.shared.keys.load()
    }

    /// A token named a key that is not there: a fetch is due as soon as the pause is over.
    pub(super) fn want(&self) {
        let mut wish = self.shared.wish.lock();
        if *wish == Wish::Nothing {
            *wish = Wish::Fetch;
            self.shared.bell.notify_one();
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        *self.shared.wish.lock() = Wish::End;
        self.shared.bell.notify_one();
    }
}

impl Shared {
    fn work(&self, settings: &RemoteSettings, tried: Sender<()>) {
        let (mut tried, mut good) = (Some(tried), Instant::now());
        loop {
            let began = Instant::now();
            let fetched = fetch(settings).and_then(|text| KeySet::read(&text, settings.algorithm));
            let wait = match fetched {
                Ok(keys) => {
                    self.take(keys);
                    good = began;
                    settings.refresh
                }
                Err(why) => {
                    let (issuer, url) = (&self.name, &settings.url);
                    tracing::warn!(issuer, url, why, "could not fetch an issuer's keys");
                    if good.elapsed() > KEPT && self.keys.load().len() > 0 {
                        tracing::error!(issuer, url, "an issuer's keys are too old to be used");
                        self.take(KeySet::default());
                    }
                    settings.pause
                }
            };
            // Dropped, it tells that the first try is over.
            tried.take();
            if !self.wait(began, wait, settings.pause) {
                return;
            }
        }
    }

    fn take(&self, keys: KeySet) {
        let same = self.keys.load().same_keys(&keys);
        let count = keys.len();
        // Also if they are the same: their names may be others.
        self.keys.replace(keys);
        if !same {
            tracing::info!(issuer = self.name, keys = count, "an issuer's keys changed");
            self.changes.note();
        }
    }

    /// Waits until the next fetch is due; false if there will be none.
    fn wait(&self, began: Instant, wait: Duration, pause: Duration) -> bool {
        let mut wish = self.wish.lock();
        loop {
            let due = match *wish {
                Wish::End => return false,
                Wish::Fetch => began + pause.min(wait),
                Wish::Nothing => began + wait.max(pause),
            };
            if Instant::now() >= due {
                *wish = Wish::Nothing;
                return true;
            }
            self.bell.wait_until(&mut wish, due);
        }
    }
}

/// The text at the address: no redirect, no proxy, no more bytes and no more time than a set needs.
fn fetch(settings: &RemoteSettings) -> Result<Vec<u8>, String> {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots(settings.ca_file.as_deref())?))
        .build();
    let agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(FETCH_LIMIT))
        .max_redirects(0)
        .proxy(None)
        .max_idle_connections(0)
        .user_agent("tenantgate")
        .accept("application/jwk-set+json, application/json")
        .build()
        .new_agent();
    let mut response = agent.get(&settings.url).call().map_err(|error| error.to_string())?;
    if response.status() != 200 {
        return Err(format!("the answer is {}", response.status()));
    }
    let body = response.body_mut().with_config().limit(SET_BYTES_MAX).read_to_vec();
    body.map_err(|error| error.to_string())
}

fn roots(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>, String> {
    let found: Vec<CertificateDer<'static>> = match ca_file {
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        // What cannot be read is not trusted; without any, the fetch says so.
        None => rustls_native_certs::load_native_certs().certs,
    };
    Ok(found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        let good = [
            "https://login.example.com/keys",
            "https://10.0.0.1:8443/a?b=c",
            "http://127.0.0.1:80/keys",
            "http://localhost/keys",
            "http://[::1]:8080/keys",
        ];
        for url in good {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        let bad = [
            "",
            "login.example.com/keys",
            "/etc/passwd",
            "file:///etc/passwd",
            "http://login.example.com/keys",
            "http://127.0.0.1.example.com/keys",
            "http://localhost@example.com/keys",
            "https://user:password@example.com/keys",
            "ftp://127.0.0.1/keys",
        ];
        for url in bad {
            assert!(check_url(url).is_err(), "{url}");
        }
    }
}
