//! From keys and values to a checked [`Conninfo`].
//!
//! Errors name keys and what is allowed, never what was found in a free-form value: a password
//! with a character that should have been quoted or encoded can end up in any of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::keys::{self, Standing};
use super::split;
use super::{
    ChannelBinding, Conninfo, Host, Protocol, RequireAuth, SslMode, SslNegotiation, Target,
    TcpWish, TlsWish,
};
use crate::net::OwnPlaces;
use crate::net::tls::{Connectors, Pin};
use crate::secret::Secret;
use crate::spelling;
use crate::wire::startup::MINOR_MAX;

/// Longest connection string, in bytes; real ones have a few hundred.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Most hosts in one string; each costs up to `connect_timeout` when it is down.
const HOSTS_MAX: usize = 16;
/// Most keys that a server may have: today's, tomorrow's, and those of a few machines.
const PINS_MAX: usize = 8;
/// The longest name PostgreSQL keeps, in bytes (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;
const PORT_DEFAULT: u16 = 5432;
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// Why a connection string is refused. No variant holds the password or the whole string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConninfoError {
    #[error("connection string is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    #[error("connection string contains a NUL byte")]
    Nul,
    #[error("missing \"=\" after the word at character {position} of the connection string")]
    EqualsMissing { position: usize },
    #[error("unterminated quoted value in the connection string")]
    Unterminated,
    #[error("an IPv6 host in a URL is written [address], followed by a port, path or nothing")]
    Bracket,
    #[error("a URL's parameters are written key=value, separated by \"&\"")]
    QueryEquals,
    #[error("unexpected blank in a URL, write %20")]
    UrlBlank,
    #[error("invalid percent-encoding in a URL, write % as %25")]
    Percent,
    #[error("unknown key{} in the connection string{}", quoted(.name), meant(.nearest))]
    UnknownKey { name: Option<String>, nearest: Option<&'static str> },
    #[error("{key} cannot stand in the connection string, {why}")]
    Refused { key: &'static str, why: &'static str },
    #[error("{key} is not valid, allowed: {allowed}")]
    Value { key: &'static str, allowed: &'static str },
    #[error("{key} can only be {} here", .allowed.join(" or "))]
    Only { key: &'static str, allowed: &'static [&'static str] },
    #[error("{key} is missing{hint}")]
    Missing { key: &'static str, hint: &'static str },
    #[error("{key} is {bytes} bytes long, PostgreSQL keeps the first {NAME_BYTES_MAX}")]
    NameTooLong { key: &'static str, bytes: usize },
    #[error("{found} {what} do not fit {hosts} hosts")]
    Count { what: &'static str, found: usize, hosts: usize },
    #[error("more than {HOSTS_MAX} hosts")]
    HostsTooMany,
    #[error("{needs} needs sslmode {modes}")]
    Weak { needs: &'static str, modes: &'static str },
    #[error("require_auth names {0} more than once")]
    AuthTwice(&'static str),
    #[error("password: {0}")]
    Password(String),
    #[error("require_auth mixes methods with and without \"!\"")]
    AuthMixed,
}

impl Conninfo {
    /// Reads the URL or the keyword form. An empty value of a free-form key counts as none, as in
    /// libpq; unlike there, nothing is taken from the environment or from the user's files.
    pub fn parse(text: &str) -> Result<Self, ConninfoError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ConninfoError::TooLong);
        }
        let values = Values::read(text)?;
        let hosts = hosts(&values)?;
        let user = values.get("user").ok_or(ConninfoError::Missing { key: "user", hint: "" })?;
        let user = name("user", user)?;
        let dbname = match values.get("dbname") {
            Some(dbname) => name("dbname", dbname)?,
            None => user.clone(),
        };
        let channel_binding = channel_binding(&values)?;
        let tls = tls(&values, &hosts, channel_binding)?;
        let connect_timeout = match values.number("connect_timeout", 1)? {
            Some(seconds) => Duration::from_secs(seconds.into()),
            None => CONNECT_TIMEOUT_DEFAULT,
        };
        Ok(Self {
            hosts,
            target: target(&values)?,
            balanced: balanced(&values)?,
            dbname,
            user,
            password: values.get("password").map(Secret::new),
            tls,
            channel_binding,
            require_auth: require_auth(&values)?,
            connect_timeout,
            tcp: tcp(&values)?,
            protocol: protocol(&values)?,
            guarded: false,
            own: OwnPlaces::default(),
        })
    }
}

/// The values of known keys.
struct Values(BTreeMap<&'static str, String>);

impl Values {
    fn read(text: &str) -> Result<Self, ConninfoError> {
        let mut values = BTreeMap::new();
        for (name, value) in split::split(text)? {
            let Some((key, standing)) = keys::find(&name) else {
                return Err(unknown(name));
            };
            match standing {
                Standing::Read => {
                    values.insert(key, value);
                }
                Standing::Ignored => {}
                Standing::Only(allowed) if allowed.contains(&value.as_str()) => {}
                Standing::Only(allowed) => return Err(ConninfoError::Only { key, allowed }),
                Standing::Refused(why) => return Err(ConninfoError::Refused { key, why }),
            }
        }
        Ok(Self(values))
    }

    /// The value as written, even an empty one.
    fn raw(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The value, unless it is empty.
    fn get(&self, key: &str) -> Option<&str> {
        self.raw(key).filter(|value| !value.is_empty())
    }

    /// A whole number that is not below `least`.
    fn number(&self, key: &'static str, least: u32) -> Result<Option<u32>, ConninfoError> {
        let Some(text) = self.raw(key) else { return Ok(None) };
        let number = text.trim().parse::<i32>().ok().and_then(|number| u32::try_from(number).ok());
        let allowed = match least {
            0 => "a whole number, not negative",
            _ => "a whole number above zero; the gate waits for nothing without a limit",
        };
        let number = number.filter(|number| *number >= least);
        number.map(Some).ok_or(ConninfoError::Value { key, allowed })
    }

    /// libpq's yes and no: `1` and `0`.
    fn switch(&self, key: &'static str) -> Result<bool, ConninfoError> {
        match self.raw(key) {
            None | Some("1") => Ok(true),
            Some("0") => Ok(false),
            Some(_) => Err(ConninfoError::Value { key, allowed: "0, 1" }),
        }
    }
}

fn unknown(name: String) -> ConninfoError {
    let nearest = spelling::nearest(&name, keys::KEYS.iter().map(|(key, _)| *key));
    // Whatever is like no key may be what follows a blank or a "&" in a password; three letters of
    // one tell nobody anything.
    let short = (1..4).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase());
    ConninfoError::UnknownKey { name: (short || nearest.is_some()).then_some(name), nearest }
}

fn quoted(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default()
}

fn meant(nearest: &Option<&'static str>) -> String {
    nearest.map(|key| format!(", did you mean \"{key}\"?")).unwrap_or_default()
}

fn name(key: &'static str, text: &str) -> Result<String, ConninfoError> {
    if text.len() > NAME_BYTES_MAX {
        return Err(ConninfoError::NameTooLong { key, bytes: text.len() });
    }
    Ok(text.to_owned())
}

fn hosts(values: &Values) -> Result<Vec<Host>, ConninfoError> {
    let list = |key| values.get(key).map(|text| text.split(',').collect::<Vec<&str>>());
    let (names, addresses) = (list("host"), list("hostaddr"));
    let count = match (&addresses, &names) {
        (Some(list), _) | (None, Some(list)) => list.len(),
        (None, None) => {
            let hint = ", a server is never guessed; write host=localhost or a socket's folder";
            return Err(ConninfoError::Missing { key: "host", hint });
        }
    };
    if count > HOSTS_MAX {
        return Err(ConninfoError::HostsTooMany);
    }
    let ports = list("port").unwrap_or_else(|| vec![""]);
    let fit = |what, found| ConninfoError::Count { what, found, hosts: count };
    if let Some(names) = names.as_ref().filter(|names| names.len() != count) {
        return Err(fit("names", names.len()));
    }
    if ports.len() != 1 && ports.len() != count {
        return Err(fit("ports", ports.len()));
    }
    let at = |list: &Option<Vec<&str>>, index: usize| -> String {
        list.as_ref().and_then(|list| list.get(index)).map_or("", |text| *text).to_owned()
    };
    (0..count)
        .map(|index| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or("");
            host(at(&names, index), &at(&addresses, index), port_number(port)?)
        })
        .collect()
}

fn host(name: String, address: &str, port: u16) -> Result<Host, ConninfoError> {
    if !address.is_empty() {
        let wrong = ConninfoError::Value { key: "hostaddr", allowed: "IPv4 and IPv6 addresses" };
        let parsed = address.parse::<IpAddr>().map_err(|_| wrong)?;
        let name = if name.is_empty() { address.to_owned() } else { name };
        return Ok(Host::Tcp { name, address: Some(parsed), port });
    }
    if name.is_empty() {
        return Err(ConninfoError::Missing { key: "host", hint: " between two commas" });
    }
    if name.starts_with(['/', '@']) {
        return Ok(Host::Unix { folder: PathBuf::from(name), port });
    }
    Ok(Host::Tcp { name, address: None, port })
}

fn port_number(text: &str) -> Result<u16, ConninfoError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(PORT_DEFAULT);
    }
    let allowed = "1 to 65535 (in a URL, a password's / : @ ? are written %2F %3A %40 %3F)";
    let number = text.parse::<u16>().ok().filter(|port| *port > 0);
    number.ok_or(ConninfoError::Value { key: "port", allowed })
}

fn channel_binding(values: &Values) -> Result<ChannelBinding, ConninfoError> {
    match values.raw("channel_binding") {
        None | Some("prefer") => Ok(ChannelBinding::Prefer),
        Some("disable") => Ok(ChannelBinding::Disable),
        Some("require") => Ok(ChannelBinding::Require),
        Some(_) => {
            let allowed = "disable, prefer, require";
            Err(ConninfoError::Value { key: "channel_binding", allowed })
        }
    }
}

fn target(values: &Values) -> Result<Target, ConninfoError> {
    let Some(text) = values.raw("target_session_attrs") else { return Ok(Target::Any) };
    let found = Target::ALL.into_iter().find(|(name, _)| *name == text);
    let allowed = "any, read-write, read-only, primary, standby, prefer-standby";
    let wrong = ConninfoError::Value { key: "target_session_attrs", allowed };
    found.map(|(_, target)| target).ok_or(wrong)
}

fn balanced(values: &Values) -> Result<bool, ConninfoError> {
    match values.raw("load_balance_hosts") {
        None | Some("disable") => Ok(false),
        Some("random") => Ok(true),
        Some(_) => {
            let allowed = "disable, random";
            Err(ConninfoError::Value { key: "load_balance_hosts", allowed })
        }
    }
}

fn tls(values: &Values, hosts: &[Host], binding: ChannelBinding) -> Result<TlsWish, ConninfoError> {
    let root = values.get("sslrootcert");
    let identity = match (values.get("sslcert"), values.get("sslkey")) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(ConninfoError::Missing { key: "sslcert", hint: " beside sslkey" });
        }
        (Some(_), None) => {
            return Err(ConninfoError::Missing { key: "sslkey", hint: " beside sslcert" });
        }
    };
    let direct = match values.raw("sslnegotiation") {
        None | Some("postgres") => false,
        Some("direct") => true,
        Some(_) => {
            let allowed = "postgres, direct";
            return Err(ConninfoError::Value { key: "sslnegotiation", allowed });
        }
    };
    let wants_tls = root.is_some() || identity.is_some() || direct;
    let wants_tls = wants_tls || values.raw("sslpin").is_some();
    let wants_tls = wants_tls || binding == ChannelBinding::Require;
    let local = hosts.iter().all(Host::is_local);
    let mut mode = match values.raw("sslmode") {
        Some(text) => ssl_mode(text)?,
        None if local && !wants_tls => SslMode::Disable,
        None => SslMode::VerifyFull,
    };
    if root == Some("system") && mode != SslMode::VerifyFull {
        return Err(ConninfoError::Weak { needs: "sslrootcert=system", modes: "verify-full" });
    }
    let weak = matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
    let modes = "require, verify-ca or verify-full";
    if direct && weak {
        return Err(ConninfoError::Weak { needs: "sslnegotiation=direct", modes });
    }
    let pins = pins(values)?;
    if !pins.is_empty() && weak {
        return Err(ConninfoError::Weak { needs: "sslpin", modes });
    }
    if binding == ChannelBinding::Require && mode == SslMode::Disable {
        return Err(ConninfoError::Weak { needs: "channel_binding=require", modes });
    }
    if mode == SslMode::Require && root.is_some() {
        // libpq's rule: whoever names certificates to trust wants them checked.
        mode = SslMode::VerifyCa;
    }
    let negotiation = if direct { SslNegotiation::Direct } else { SslNegotiation::Postgres };
    let root_file = root.filter(|root| *root != "system").map(PathBuf::from);
    let (sni, connectors) = (values.switch("sslsni")?, Connectors::default());
    Ok(TlsWish { mode, negotiation, root_file, identity, pins, sni, connectors })
}

/// Fingerprints of the keys that the server may have.
fn pins(values: &Values) -> Result<Vec<Pin>, ConninfoError> {
    // An empty one is a pin that got lost on its way here, and not the wish for none.
    let Some(text) = values.raw("sslpin") else { return Ok(Vec::new()) };
    let pins: Option<Vec<Pin>> = text.split(',').map(|one| Pin::parse(one.trim())).collect();
    let allowed = "sha256: with 64 hexadecimal digits, or up to 8 of them with commas";
    let wrong = ConninfoError::Value { key: "sslpin", allowed };
    pins.filter(|pins| pins.len() <= PINS_MAX).ok_or(wrong)
}

fn ssl_mode(text: &str) -> Result<SslMode, ConninfoError> {
    match text {
        "disable" => Ok(SslMode::Disable),
        "allow" => Ok(SslMode::Allow),
        "prefer" => Ok(SslMode::Prefer),
        "require" => Ok(SslMode::Require),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" => Ok(SslMode::VerifyFull),
        _ => {
            let allowed = "disable, allow, prefer, require, verify-ca, verify-full";
            Err(ConninfoError::Value { key: "sslmode", allowed })
        }
    }
}

/// libpq's list: methods that are allowed or, each with a `!`, methods that are not.
fn require_auth(values: &Values) -> Result<RequireAuth, ConninfoError> {
    let Some(text) = values.get("require_auth") else {
        return Ok(RequireAuth { scram: true, md5: false, password: false, none: false });
    };
    let negated = text.trim_start().starts_with('!');
    let start = negated;
    let mut allowed = RequireAuth { scram: start, md5: start, password: start, none: start };
    let mut seen = Vec::new();
    for part in text.split(',') {
        let part = part.trim_matches([' ', '\t']);
        let method = part.strip_prefix('!');
        if method.is_some() != negated {
            return Err(ConninfoError::AuthMixed);
        }
        let (name, switch) = match method.unwrap_or(part) {
            "scram-sha-256" => ("scram-sha-256", Some(&mut allowed.scram)),
            "md5" => ("md5", Some(&mut allowed.md5)),
            "password" => ("password", Some(&mut allowed.password)),
            "none" => ("none", Some(&mut allowed.none)),
            // Methods the gate cannot do are no loss when they are excluded.
            "gss" if negated => ("gss", None),
            "sspi" if negated => ("sspi", None),
            "oauth" if negated => ("oauth", None),
            _ => {
                let allowed = "scram-sha-256, md5, password, none, or these with \"!\"";
                return Err(ConninfoError::Value { key: "require_auth", allowed });
            }
        };
        if seen.contains(&name) {
            return Err(ConninfoError::AuthTwice(name));
        }
        seen.push(name);
        if let Some(switch) = switch {
            *switch = !negated;
        }
    }
    Ok(allowed)
}

fn protocol(values: &Values) -> Result<Protocol, ConninfoError> {
    let minor = |key| match values.get(key) {
        None => Ok(None),
        Some("3.0") => Ok(Some(0)),
        Some("3.2" | "latest") => Ok(Some(MINOR_MAX)),
        Some(_) => Err(ConninfoError::Value { key, allowed: "3.0, 3.2, latest" }),
    };
    let minor_min = minor("min_protocol_version")?.unwrap_or(0);
    // As libpq: whoever asks for at least 3.2 asks for it.
    let minor_max = minor("max_protocol_version")?.unwrap_or(minor_min);
    if minor_max < minor_min {
        let allowed = "not above max_protocol_version";
        return Err(ConninfoError::Value { key: "min_protocol_version", allowed });
    }
    Ok(Protocol { minor_min, minor_max })
}

fn tcp(values: &Values) -> Result<TcpWish, ConninfoError> {
    // Zero stands for the system's value in libpq.
    let number = |key| values.number(key, 0).map(|number| number.filter(|number| *number > 0));
    let seconds = |key| number(key).map(|n| n.map(|n| Duration::from_secs(n.into())));
    let milliseconds = number("tcp_user_timeout")?;
    Ok(TcpWish {
        keepalives: values.switch("keepalives")?,
        keepalives_idle: seconds("keepalives_idle")?,
        keepalives_interval: seconds("keepalives_interval")?,
        keepalives_count: number("keepalives_count")?,
        user_timeout: milliseconds.map(|number| Duration::from_millis(number.into())),
    })
}
