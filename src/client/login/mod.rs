//! From a start-up packet to a proven tenant: the token in the place of the password, the names the
//! client gave, the settings it wants to start with.

mod bearer;
mod papers;
mod scram;

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Sleep;

use crate::auth::{self, Authenticator, Denied, Identity};
use crate::catalog::{Catalog, Tenant, TenantName};
use crate::client::carry::{caps, carried, idle};
use crate::client::refuse;
use crate::client::settings::ClientSettings;
use crate::client::startup::Ended;
use crate::error::Error;
use crate::guard::Denial;
use crate::net::Stream;
use crate::server::Settings;
use crate::wire::backend;
use crate::wire::startup::Startup;

pub use bearer::prove_bearer;
pub use papers::Papers;
pub use scram::{Proven, prove_scram};

/// What the start-up packet asks for, apart from proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// A label, never authority: shown as the session's user.
    pub user: String,
    pub database: String,
    /// Every tenant name the client gave; all must agree with the credential.
    pub tenants: Vec<TenantName>,
    pub settings: Settings,
}

/// The option in which a tenant may be named: `options=-c tenantgate.tenant=acme`.
const TENANT_OPTION: &str = "tenantgate.tenant";

impl Wishes {
    /// Reads the parameters of a start-up packet.
    pub fn read(startup: &Startup) -> Result<Self, Error> {
        let user = startup.parameter("user").unwrap_or_default();
        if user.is_empty() {
            let what = "no PostgreSQL user name specified in startup packet".into();
            return Err(Error::InvalidStartup { what });
        }
        let (label, tenant) = user.split_once('.').unzip();
        if label.is_some_and(str::is_empty) || tenant.is_some_and(str::is_empty) {
            let what = "user name has nothing on one side of its first dot".into();
            return Err(Error::InvalidStartup { what });
        }
        let mut wishes = Self {
            user: label.unwrap_or(user).to_owned(),
            database: startup.parameter("database").unwrap_or(user).to_owned(),
            tenants: Vec::new(),
            settings: Settings::default(),
        };
        wishes.tenants.extend(tenant.map(|tenant| TenantName::Exact(tenant.to_owned())));
        // The packet's own settings are laid over those in `options`, as PostgreSQL does.
        for (name, value) in options(startup.parameter("options").unwrap_or_default())? {
            wishes.take(&name, &value)?;
        }
        for (name, value) in &startup.parameters {
            match name.as_str() {
                "user" | "database" | "options" => {}
                "replication" if !is_off(value) => {
                    let hint = "Connect to the server directly for replication.";
                    return Err(Error::NotSupported { what: "replication".into(), hint });
                }
                "replication" => {}
                _ => wishes.take(name, value)?,
            }
        }
        Ok(wishes)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let name = name.to_ascii_lowercase();
        if name == TENANT_OPTION {
            self.tenants.push(TenantName::Exact(value.to_owned()));
            return Ok(());
        }
        if name == "client_encoding" {
            carried::check_encoding(value)?;
            if carried::is_utf8(value) {
                // What servers start with anyway: nothing to carry.
                self.settings.remove(&name);
                return Ok(());
            }
        }
        if name == idle::NAME {
            self.settings.set(idle::OWN, &idle::spelled(value)?);
            return Ok(());
        }
        if carried::is_context(&name) {
            return Err(Error::ContextProtected { setting: name });
        }
        carried::check_name(&name)?;
        if !carried::follows(&name) {
            // It ends with its transaction, or has no value: there is nothing to start with.
            return Ok(());
        }
        if name == "standard_conforming_strings" {
            // The gate reads texts by it, so it must know it as the server does.
            let on = matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1");
            if !on && !is_off(value) {
                let what = format!("invalid value for parameter \"{name}\": \"{value}\"").into();
                return Err(Error::InvalidSetting { what });
            }
            self.settings.set(&name, if on { "on" } else { "off" });
            return Ok(());
        }
        self.settings.set(&name, value);
        match self.settings.count() <= carried::SETTINGS_MAX {
            true => Ok(()),
            false => Err(carried::too_many()),
        }
    }

    /// Refuses start-up settings that the tenant's context owns.
    pub fn check(&self, tenant: &Tenant) -> Result<(), Error> {
        for (name, _) in self.settings.iter() {
            if name != idle::OWN && carried::is_owned(name, tenant) {
                return Err(Error::ContextProtected { setting: name.to_owned() });
            }
        }
        let cap = Denial::SettingCap;
        let capped = cap.is_for(tenant.watch()) && !tenant.report_only.contains(cap);
        if capped && self.settings.iter().any(|(name, value)| !caps::is_within(name, Some(value))) {
            return Err(refuse::denied(cap));
        }
        let service = tenant.service.as_ref().map(|service| service.name.as_str());
        let id = service.unwrap_or(tenant.id.as_str());
        let names = [tenant.route.conninfo.dbname.as_str(), id];
        match names.contains(&self.database.as_str()) {
            true => Ok(()),
            false => Err(Error::UnknownDatabase { database: self.database.clone() }),
        }
    }
}

fn is_off(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "off" | "false" | "no" | "0" | "f" | "n")
}

/// The settings in libpq's `options`: `-c name=value` and `--name=value`, words split at blanks, a
/// backslash takes the next character as it is (PostgreSQL manual, 34.1.2).
pub fn options(text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut words = words(text).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c") {
            Some("") => words.next().unwrap_or_default(),
            Some(rest) => rest.to_owned(),
            None => word.strip_prefix("--").unwrap_or_default().to_owned(),
        };
        let Some((name, value)) = setting.split_once('=').filter(|(name, _)| !name.is_empty())
        else {
            return Err(Error::InvalidOptions { word });
        };
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            blank if blank.is_ascii_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(letters.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

/// A client that was turned away: what it is told, and what only the log and the audit may know.
#[derive(Debug)]
pub struct Turned {
    pub error: Error,
    pub reason: String,
    /// What it showed, proved or not: a token's id, a token's issuer.
    pub credential: Option<String>,
}

impl Turned {
    /// Whatever was wrong with a credential, the client hears the same, unless it could not be
    /// looked at.
    pub fn denied(denied: Denied) -> Self {
        let error = match denied {
            Denied::CannotTell(_) => Error::CatalogUnavailable,
            _ => Error::AuthenticationFailed,
        };
        Self { error, reason: denied.to_string(), credential: None }
    }

    /// The same, with what the client showed.
    pub fn showing(self, password: &[u8]) -> Self {
        Self { credential: auth::shown(password), ..self }
    }
}

impl From<Error> for Turned {
    fn from(error: Error) -> Self {
        let reason = error.message().into_owned();
        Self { error, reason, credential: None }
    }
}

/// Asks whether a token may be tried.
pub type MayTry<'asking> = dyn Fn(&[u8]) -> Result<(), Error> + 'asking;

/// What a client is asked with.
#[derive(Clone, Copy)]
pub struct Asking<'asking> {
    pub authenticator: &'asking Authenticator,
    pub catalog: &'asking Catalog,
    pub wishes: &'asking Wishes,
    pub settings: &'asking ClientSettings,
    /// Whether the client may try what it has sent, which may be a token; asked right before it is
    /// looked at.
    pub may_try: &'asking MayTry<'asking>,
    /// What to wait for behind a look-up whose time would tell whether somebody is there: those
    /// who need none wait as long as the others.
    pub in_step: &'asking dyn Fn() -> Sleep,
}

/// Asks for the password and proves whose it is. The same text and the same steps for every kind
/// of wrong.
pub async fn authenticate(
    stream: &mut Stream,
    asking: Asking<'_>,
) -> Result<Result<Identity, Turned>, Ended> {
    let Asking { authenticator, catalog, wishes, settings, may_try, .. } = asking;
    let mut out = Vec::new();
    backend::put_cleartext_request(&mut out);
    stream.write_all(&out).await?;
    stream.flush().await?;
    let password = match password(stream, settings.password_bytes).await? {
        Ok(password) => password,
        Err(error) => return Ok(Err(error.into())),
    };
    if let Err(error) = may_try(&password) {
        return Ok(Err(error.into()));
    }
    let (named, now) = (&wishes.tenants, SystemTime::now());
    let proof = authenticator.authenticate(catalog, &password, named, now).await;
    Ok(proof.map_err(|denied| Turned::denied(denied).showing(&password)))
}

/// Reads a password, which ends with a zero and has none in it.
async fn password(stream: &mut Stream, bytes_max: usize) -> io::Result<Result<Vec<u8>, Error>> {
    let mut body = match answer(stream, bytes_max + 1).await? {
        Ok(body) => body,
        Err(error) => return Ok(Err(error)),
    };
    match body.pop() {
        Some(0) if !body.contains(&0) => Ok(Ok(body)),
        _ => Ok(Err(Error::Protocol { what: "invalid password packet".into() })),
    }
}

/// Reads the one message that may come now: one of a password's or of SASL.
pub async fn answer(stream: &mut Stream, bytes_max: usize) -> io::Result<Result<Vec<u8>, Error>> {
    let tag = stream.read_u8().await?;
    let length = stream.read_u32().await? as usize;
    let malformed = |what: &'static str| Ok(Err(Error::Protocol { what: what.into() }));
    if tag != b'p' {
        return malformed("expected password response");
    }
    if !(5..=bytes_max + 4).contains(&length) {
        return malformed("invalid password packet size");
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(Ok(body))
}

/// A client that proved who it is, on its way to the worker of its tenant.
#[derive(Debug)]
pub struct Arrival {
    /// Detached from the door's runtime.
    pub stream: Stream,
    pub account: Arc<crate::budget::Account>,
    pub slot: crate::budget::ClientSlot,
    pub identity: Identity,
    pub wishes: Wishes,
    pub entry: crate::client::registry::Entry,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(parameters: &[(&str, &str)]) -> Startup {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Startup {
            minor: 0,
            parameters: parameters.iter().map(owned).collect(),
            extensions: Vec::new(),
        }
    }

    #[test]
    fn every_name_given_to_a_tenant_is_kept() {
        let options = ("options", "-c tenantgate.tenant=acme -c DateStyle=ISO");
        let wishes = Wishes::read(&startup(&[("user", "app.acme"), options])).unwrap();
        let acme = TenantName::Exact("acme".to_owned());
        assert_eq!(wishes.tenants, [acme.clone(), acme]);
        assert_eq!((wishes.user.as_str(), wishes.database.as_str()), ("app", "app.acme"));
        assert_eq!(wishes.settings.get("datestyle"), Some("ISO"));
    }

    #[test]
    fn options_are_split_as_libpq_splits_them() {
        let read = options(r"-c a=b\ c --d-e=f -cg=h").unwrap();
        let wanted = [("a", "b c"), ("d_e", "f"), ("g", "h")];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read, wanted);
        assert!(options("-c").is_err() && options("-x y").is_err() && options("--=1").is_err());
    }

    #[test]
    fn what_cannot_be_carried_is_refused_at_the_door() {
        let refused =
            [("replication", "on"), ("tcp_user_timeout", "1"), ("client_encoding", "SJIS")];
        for parameter in refused {
            let read = Wishes::read(&startup(&[("user", "app"), parameter]));
            assert!(matches!(read, Err(Error::NotSupported { .. })), "{parameter:?}");
        }
        assert!(Wishes::read(&startup(&[("user", "app"), ("client_encoding", "'utf-8'")])).is_ok());
        assert!(Wishes::read(&startup(&[("database", "app")])).is_err());
    }
}
