//! What serde cannot see: ranges, addresses, files, and entries that contradict each other.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::GateSettings;
use super::read::Reader;
use super::shapes::ListenShape;
use crate::auth::{Authenticator, IssuerSettings};
use crate::client::ClientSettings;
use crate::console::ConsoleUser;
use crate::net::{ListenSettings, TlsPolicy};
use crate::spelling;
use crate::telemetry::{HttpSettings, LogSettings};

/// Half of what a kernel hands out by default is far above what one process serves well.
const CLIENTS_MAX: usize = 1_000_000;
/// PostgreSQL itself takes no longer message (MaxAllocSize).
const STATEMENT_BYTES_MAX: usize = 0x3fff_ffff;
/// Before the login nobody is owed more memory than this.
const LOGIN_BYTES_MAX: usize = 1024 * 1024;
/// A larger leeway would make expired tokens live on.
const LEEWAY_MAX: Duration = Duration::from_secs(600);

/// The `[gate]` entry.
pub(super) fn gate(
    reader: &mut Reader<'_>,
    gate: &GateSettings,
    client: &ClientSettings,
    log: &LogSettings,
) {
    if gate.workers != 1 {
        let message = format!("workers is {}, this version has exactly 1", gate.workers);
        reader.problem_at(&["gate", "workers"], message, None);
    }
    let ranges: [(&str, usize, RangeInclusive<usize>); 4] = [
        ("clients", gate.clients, 1..=CLIENTS_MAX),
        ("startup_bytes", client.startup_bytes, 512..=LOGIN_BYTES_MAX),
        ("statement_bytes", client.statement_bytes, 1024..=STATEMENT_BYTES_MAX),
        ("password_bytes", client.password_bytes, 256..=LOGIN_BYTES_MAX),
    ];
    for (key, number, range) in ranges {
        if !range.contains(&number) {
            let message =
                format!("{key} is {number}, allowed: {} to {}", range.start(), range.end());
            reader.problem_at(&["gate", key], message, None);
        }
    }
    let waits = [("login_timeout", client.login_timeout), ("stall_timeout", client.stall_timeout)];
    for (key, _) in waits.into_iter().filter(|(_, wait)| wait.is_zero()) {
        let hint = Some("Zero does not mean forever.");
        reader.problem_at(&["gate", key], format!("{key} is zero"), hint);
    }
    log_level(reader, &log.level);
}

fn log_level(reader: &mut Reader<'_>, level: &str) {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    for part in level.split(',').map(str::trim) {
        let word = part.rsplit('=').next().unwrap_or_default();
        let known = levels.iter().any(|level| level.eq_ignore_ascii_case(word));
        let parses = part.parse::<tracing_subscriber::filter::Directive>().is_ok();
        if !known || !parses {
            let nearest = spelling::nearest(word, levels);
            let meant = nearest.map(|level| format!("Did you mean \"{level}\"? "));
            let hint = format!("{}Allowed: {}.", meant.unwrap_or_default(), levels.join(", "));
            let message = format!("\"{}\" is not a log level", part.escape_debug());
            reader.problem_at(&["gate", "log_level"], message, Some(&hint));
        }
    }
}

/// One `[[listen]]` entry.
pub(super) fn listen(
    reader: &mut Reader<'_>,
    index: usize,
    shape: ListenShape,
) -> Option<ListenSettings> {
    let index = index.to_string();
    let at = |key| ["listen", index.as_str(), key];
    let address = address(reader, &at("address"), &shape.address)?;
    if shape.plaintext_password && !address.ip().is_loopback() {
        let message = format!("plaintext_password is for loopback addresses, not {}", address.ip());
        let hint = "Tokens would cross the network readable for everybody on the way.";
        reader.problem_at(&at("plaintext_password"), message, Some(hint));
    }
    let path = |file: PathBuf| reader.folder.join(file);
    let identity = match (shape.certificate.map(path), shape.key.map(path)) {
        _ if shape.tls == TlsPolicy::Disable => None,
        (Some(certificate), Some(key)) => {
            pem(reader, &at("certificate"), &certificate, "CERTIFICATE");
            pem(reader, &at("key"), &key, "PRIVATE KEY");
            Some((certificate, key))
        }
        (certificate, _) => {
            let missing = if certificate.is_some() { "key" } else { "certificate" };
            let hint = "Name PEM files for certificate and key, or write tls = \"disable\".";
            reader.problem_at(&at(missing), format!("missing key \"{missing}\""), Some(hint));
            None
        }
    };
    let (tls, plaintext_password) = (shape.tls, shape.plaintext_password);
    Some(ListenSettings { address, tls, identity, plaintext_password })
}

/// Whether a PEM file is there and holds what it should; the TLS library reads it later.
fn pem(reader: &mut Reader<'_>, at: &[&str], file: &Path, wanted: &str) {
    let message = match fs::read(file) {
        Err(error) => format!("cannot read {}: {error}", file.display()),
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let holds = text.lines().any(|line| {
                line.trim_end()
                    .strip_suffix("-----")
                    .is_some_and(|line| line.starts_with("-----BEGIN ") && line.ends_with(wanted))
            });
            if holds {
                return;
            }
            format!("{} holds no PEM block \"{wanted}\"", file.display())
        }
    };
    reader.problem_at(at, message, None);
}

/// An address and port as written.
pub(super) fn address(reader: &mut Reader<'_>, at: &[&str], text: &str) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        let message = format!("\"{}\" is not an address with a port", text.escape_debug());
        let hint = "Write numbers, such as \"127.0.0.1:6432\" or \"[::]:6432\".";
        reader.problem_at(at, message, Some(hint));
    }
    address
}

/// No two listeners at one address. Port 0 takes any free port, as often as one likes.
pub(super) fn addresses(
    reader: &mut Reader<'_>,
    listen: &[ListenSettings],
    http: Option<&HttpSettings>,
) {
    let mut seen = BTreeSet::new();
    for (index, settings) in listen.iter().enumerate() {
        let address = settings.address;
        if address.port() != 0 && !seen.insert(address) {
            let message = format!("there is a [[listen]] at {address} already");
            reader.problem_at(&["listen", &index.to_string(), "address"], message, None);
        }
    }
    if let Some(http) = http.filter(|http| seen.contains(&http.address)) {
        let message = format!("there is a [[listen]] at {} already", http.address);
        reader.problem_at(&["http", "address"], message, None);
    }
}

/// Issuers, each on its own and, if all could be read, beside each other.
pub(super) fn issuers(reader: &mut Reader<'_>, issuers: &[IssuerSettings], sound: bool) {
    let mut sound = sound;
    for settings in issuers {
        if settings.leeway > LEEWAY_MAX {
            let message = "leeway is longer than 10 minutes".to_owned();
            let hint = Some("Expired tokens would live on; set the clocks instead.");
            reader.problem_at(&["issuers", &settings.name, "leeway"], message, hint);
        }
        if let Err(fault) = settings.check() {
            reader.problem_at(&["issuers", &fault.issuer, fault.key], fault.message, None);
            sound = false;
        }
    }
    if sound && let Err(fault) = Authenticator::new(issuers) {
        reader.problem_at(&["issuers", &fault.issuer, fault.key], fault.message, None);
    }
}

/// A console user's name and verifier.
pub(super) fn console_user(reader: &mut Reader<'_>, user: &ConsoleUser) -> bool {
    let at = ["console", "users", user.name.as_str()];
    if user.name.is_empty() || user.name.len() > 63 {
        reader.problem_at(&at, "a user's name has 1 to 63 bytes".to_owned(), None);
        return false;
    }
    if !is_verifier(&user.scram) {
        let hint = "Copy rolpassword from pg_authid: \
                    SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>.";
        let message = "not a SCRAM-SHA-256 verifier".to_owned();
        reader.problem_at(&at, message, Some(hint));
        return false;
    }
    true
}

/// PostgreSQL's form of a verifier (parse_scram_secret in scram-common).
fn is_verifier(text: &str) -> bool {
    let parts = || {
        let (salted, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = salted.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some((iterations, salt, stored, server))
    };
    let Some((iterations, salt, stored, server)) = parts() else { return false };
    let bytes = |text: &str| STANDARD.decode(text).map_or(0, |bytes| bytes.len());
    let counted = iterations.parse::<u32>().is_ok_and(|count| count > 0);
    counted && bytes(salt) > 0 && bytes(stored) == 32 && bytes(server) == 32
}
