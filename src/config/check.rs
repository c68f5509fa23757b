//! What serde cannot see: ranges, names, and entries that contradict each other.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::GateSettings;
use super::read::Reader;
use super::words::reworded;
use crate::auth::{Authenticator, IssuerSettings};
use crate::catalog::Catalog;
use crate::client::ClientSettings;
use crate::console::ConsoleUser;
use crate::secret::scram::Verifier;
use crate::spelling;
use crate::telemetry::LogSettings;

/// Half of what a kernel hands out by default is far above what one process serves well.
const CLIENTS_MAX: usize = 1_000_000;
/// PostgreSQL itself takes no longer message (MaxAllocSize).
const STATEMENT_BYTES_MAX: usize = 0x3fff_ffff;
/// Before the login nobody is owed more memory than this.
const LOGIN_BYTES_MAX: usize = 1024 * 1024;
/// A larger leeway would make expired tokens live on.
const LEEWAY_MAX: Duration = Duration::from_secs(600);

/// What collects metrics keeps every series for weeks.
const TENANTS_TOP_MAX: usize = 1000;

/// Averages over less are noise.
const STATS_PERIOD_MIN: Duration = Duration::from_secs(1);

/// Shorter, and a busy gate would do nothing else.
const USAGE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The `[gate]` entry.
pub(super) fn gate(
    reader: &mut Reader<'_>,
    gate: &GateSettings,
    client: &ClientSettings,
    log: &LogSettings,
) {
    let ranges: [(&str, usize, RangeInclusive<usize>); 6] = [
        ("workers", gate.workers, 1..=super::WORKERS_MAX),
        ("doors", gate.doors, 1..=super::WORKERS_MAX),
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
    let failures = [
        ("failures_per_address", client.guesses.per_address),
        ("failures_per_tenant", client.guesses.per_tenant),
    ];
    for (key, _) in failures.into_iter().filter(|(_, count)| *count == 0) {
        let hint = Some("Nobody could log in.");
        reader.problem_at(&["gate", key], format!("{key} is zero"), hint);
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
            let message = "not a log level".to_owned();
            reader.problem_at(&["gate", "log_level"], message, Some(&hint));
        }
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

/// A tenant that is bound to an issuer names one that is there.
pub(super) fn tenants_issuers(
    reader: &mut Reader<'_>,
    catalog: &Catalog,
    issuers: &[IssuerSettings],
) {
    let known = || issuers.iter().map(|settings| settings.name.as_str());
    for tenant in catalog.tenants() {
        let Some(name) = tenant.issuer.as_deref().filter(|name| !known().any(|it| it == *name))
        else {
            continue;
        };
        let message = format!("issuer \"{}\" does not exist", name.escape_debug());
        let meant = spelling::nearest(name, known());
        let hint = meant.map(|meant| format!("Did you mean \"{meant}\"?"));
        let at = ["tenants", tenant.id.as_str(), "issuer"];
        reader.problem_at(&at, message, hint.as_deref());
    }
}

/// An issuer vouches for a service that is there.
pub(super) fn issuers_services(
    reader: &mut Reader<'_>,
    catalog: &Catalog,
    issuers: &[IssuerSettings],
) {
    let known: Vec<&str> = { catalog.services() }
        .filter_map(|it| it.service.as_ref().map(|service| service.name.as_str()))
        .collect();
    for settings in issuers {
        let Some(vouching) = &settings.claims.vouching else { continue };
        let name = vouching.service.as_str();
        if known.contains(&name) {
            continue;
        }
        let message = format!("service \"{}\" does not exist", name.escape_debug());
        let meant = spelling::nearest(name, known.iter().copied());
        let hint = meant.map(|meant| format!("Did you mean \"{meant}\"?"));
        reader.problem_at(&["issuers", &settings.name, "service"], message, hint.as_deref());
    }
}

/// How many tenants have series of their own.
pub(super) fn tenants_top(reader: &mut Reader<'_>, top: usize) {
    if top > TENANTS_TOP_MAX {
        let message = format!("tenants_top is {top}, allowed: 0 to {TENANTS_TOP_MAX}");
        reader.problem_at(&["http", "tenants_top"], message, None);
    }
}

/// How long usage records are over.
pub(super) fn usage_interval(reader: &mut Reader<'_>, interval: Duration) {
    if interval < USAGE_INTERVAL_MIN {
        let path = ["usage", "interval"];
        reader.problem_at(&path, "interval is shorter than 1s".to_owned(), None);
    }
}

/// How long averages are over.
pub(super) fn stats_period(
    reader: &mut Reader<'_>,
    span: std::ops::Range<usize>,
    period: Result<Option<Duration>, toml::de::Error>,
) -> Option<Duration> {
    match period {
        Ok(Some(period)) if period >= STATS_PERIOD_MIN => Some(period),
        Ok(_) => {
            reader.problem(span, "stats_period is shorter than 1s".to_owned(), None);
            None
        }
        Err(error) => {
            reader.problem(span, reworded(error.message()).message, None);
            None
        }
    }
}

/// A console user's name and verifier.
pub(super) fn console_user(reader: &mut Reader<'_>, user: &ConsoleUser) -> bool {
    let at = ["console", "users", user.name.as_str()];
    if user.name.is_empty() || user.name.len() > 63 {
        reader.problem_at(&at, "a user's name has 1 to 63 bytes".to_owned(), None);
        return false;
    }
    if Verifier::parse(&user.scram).is_none() {
        let hint = "tenantgate token scram makes one: \
                    SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>.";
        let message = "not a SCRAM-SHA-256 verifier".to_owned();
        reader.problem_at(&at, message, Some(hint));
        return false;
    }
    true
}
