//! `[[listen]]` and the addresses in it: one entry to one listener, TCP or Unix, no two alike.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::read::Reader;
use super::secrets;
use super::shapes::{IdentityShape, ListenShape, RuleShape};
use crate::net::{
    ListenAddress, ListenSettings, LoginMethod, LoginRule, Origins, OwnPlaces, TlsPolicy,
    UnixAddress,
};
use crate::secret::Place;
use crate::telemetry::HttpSettings;

/// PgBouncer's, and what `address` usually has.
const PORT_DEFAULT: u16 = 6432;

/// As in PostgreSQL and PgBouncer: a socket is as open as a loopback port, and the token decides.
const MODE_DEFAULT: u32 = 0o777;

/// Longest path of a socket, the zero at its end not counted (unix(7), sun_path).
const PATH_BYTES_MAX: usize = 107;

/// One `[[listen]]` entry.
pub(super) fn entry(
    reader: &mut Reader<'_>,
    index: usize,
    shape: ListenShape,
) -> Option<ListenSettings> {
    let index = index.to_string();
    let at = Entry(&index);
    match (&shape.address, &shape.unix) {
        (Some(_), None) => tcp(reader, at, shape),
        (None, Some(_)) => unix(reader, at, shape),
        (Some(_), Some(_)) => {
            let message = "address and unix in one entry".to_owned();
            let hint = "They are two listeners: write [[listen]] twice.";
            reader.problem_at(&at.key("unix"), message, Some(hint));
            None
        }
        (None, None) => {
            let hint = "Write address = \"127.0.0.1:6432\", or unix = \"/run/tenantgate\".";
            reader.problem_at(&at.key("address"), "missing key \"address\"".to_owned(), Some(hint));
            None
        }
    }
}

/// Where an entry stands.
#[derive(Clone, Copy)]
struct Entry<'index>(&'index str);

impl<'index> Entry<'index> {
    fn key(self, key: &'index str) -> [&'index str; 3] {
        ["listen", self.0, key]
    }
}

fn tcp(reader: &mut Reader<'_>, at: Entry<'_>, shape: ListenShape) -> Option<ListenSettings> {
    let foreign = [("port", shape.port.is_some()), ("mode", shape.mode.is_some())];
    for (key, _) in foreign.into_iter().filter(|(_, there)| *there) {
        let hint = Some("The port of a TCP listener stands in its address.");
        let hint = hint.filter(|_| key == "port");
        reader.problem_at(&at.key(key), format!("{key} is for Unix sockets"), hint);
    }
    let text = shape.address.unwrap_or_default();
    let address = address(reader, &at.key("address"), &text)?;
    let plaintext_password = shape.plaintext_password.unwrap_or(false);
    if plaintext_password && !address.ip().is_loopback() {
        let message = format!("plaintext_password is for loopback addresses, not {}", address.ip());
        let hint = "Tokens would cross the network readable for everybody on the way.";
        reader.problem_at(&at.key("plaintext_password"), message, Some(hint));
    }
    let tls = shape.tls.unwrap_or_default();
    let folder = reader.folder;
    let path = |file: PathBuf| folder.join(file);
    let key = shape.key.and_then(|text| key_file(reader, &at.key("key"), &text));
    let identity = match (shape.certificate.map(path), key) {
        _ if tls == TlsPolicy::Disable => None,
        (Some(certificate), Some(key)) => {
            pem(reader, &at.key("certificate"), &certificate, "CERTIFICATE");
            pem(reader, &at.key("key"), &key, "PRIVATE KEY");
            Some((certificate, key))
        }
        (certificate, _) => {
            let missing = if certificate.is_some() { "key" } else { "certificate" };
            let hint = "Name PEM files for certificate and key, or write tls = \"disable\".";
            reader.problem_at(&at.key(missing), format!("missing key \"{missing}\""), Some(hint));
            None
        }
    };
    let mut identities: Vec<_> = identity.into_iter().collect();
    for IdentityShape { certificate, key } in shape.certificates {
        let certificate = reader.folder.join(certificate);
        let Some(key) = key_file(reader, &at.key("certificates"), &key) else { continue };
        pem(reader, &at.key("certificates"), &certificate, "CERTIFICATE");
        pem(reader, &at.key("certificates"), &key, "PRIVATE KEY");
        identities.push((certificate, key));
    }
    let client_authority = shape.client_ca.map(path);
    if let Some(file) = &client_authority {
        pem(reader, &at.key("client_ca"), file, "CERTIFICATE");
    }
    let given =
        [("client_ca", client_authority.is_some()), ("sni_suffix", shape.sni_suffix.is_some())];
    for (key, _) in given.into_iter().filter(|(_, there)| *there && tls == TlsPolicy::Disable) {
        let hint = Some("Write tls = \"require\", or leave the key out.");
        reader.problem_at(&at.key(key), format!("{key} needs TLS"), hint);
    }
    let sni_suffix = shape.sni_suffix.and_then(|text| suffix(reader, at, &text));
    let rules = rules(reader, at, shape.rules, client_authority.is_some());
    let (address, systemd) = (ListenAddress::Tcp(address), shape.systemd);
    let proxies = proxies(reader, at, &shape.proxies);
    let listener = ListenSettings { identities, client_authority, proxies, ..plain(address) };
    Some(ListenSettings { tls, sni_suffix, rules, plaintext_password, systemd, ..listener })
}

/// The file of a certificate's key, which may be a credential of systemd's.
fn key_file(reader: &mut Reader<'_>, at: &[&str], text: &Path) -> Option<PathBuf> {
    match secrets::place(reader, text, at)? {
        Place::File(path) => Some(path),
        Place::Variable(_) => {
            let message = "the key of a certificate is a file or a credential".to_owned();
            reader.problem_at(at, message, Some("Write a path, or credential:NAME."));
            None
        }
    }
}

/// A listener with nothing but an address.
fn plain(address: ListenAddress) -> ListenSettings {
    ListenSettings {
        address,
        tls: TlsPolicy::Disable,
        identities: Vec::new(),
        client_authority: None,
        sni_suffix: None,
        proxies: Origins::default(),
        rules: Vec::new(),
        plaintext_password: false,
        systemd: None,
    }
}

/// What stands behind a tenant's id in a host name, without the dot between.
fn suffix(reader: &mut Reader<'_>, at: Entry<'_>, text: &str) -> Option<String> {
    let bare = text.trim_start_matches('.');
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = bare.split('.').all(|label| !label.is_empty() && label.bytes().all(letter));
    if !fits {
        let message = format!("\"{}\" is not a host name", text.escape_debug());
        let hint =
            "Write what stands behind the tenant: gate.example.com for acme.gate.example.com.";
        reader.problem_at(&at.key("sni_suffix"), message, Some(hint));
    }
    fits.then(|| bare.to_ascii_lowercase())
}

/// The addresses of load balancers. One that is everybody would let everybody say who it is.
fn proxies(reader: &mut Reader<'_>, at: Entry<'_>, texts: &[String]) -> Origins {
    let parsed = match texts.iter().position(|text| text == "unix" || text.ends_with("/0")) {
        Some(index) => Err(index),
        None => Origins::parse(texts),
    };
    parsed.unwrap_or_else(|index| {
        let index = index.to_string();
        let message = "not the address or network of a load balancer".to_owned();
        let hint = Some("Write addresses, such as \"10.0.0.5\" or \"10.0.0.0/28\".");
        reader.problem_at(&["listen", at.0, "proxies", &index], message, hint);
        Origins::default()
    })
}

/// Rules as pg_hba.conf has them: the first that fits counts, so one that can never be the first
/// is a mistake.
fn rules(
    reader: &mut Reader<'_>,
    at: Entry<'_>,
    shapes: Vec<RuleShape>,
    has_authority: bool,
) -> Vec<LoginRule> {
    let mut rules: Vec<LoginRule> = Vec::new();
    for (index, RuleShape { user, method, client_certificate }) in shapes.into_iter().enumerate() {
        let user = user.unwrap_or_else(|| "*".to_owned());
        let index = index.to_string();
        let place = ["listen", at.0, "rules", &index];
        if (client_certificate.is_some() || method == LoginMethod::Cert) && !has_authority {
            let hint = Some("Name the authority of the clients' certificates.");
            reader.problem_at(&place, "the listener has no client_ca".to_owned(), hint);
        }
        if rules.iter().any(|earlier| earlier.user == "*" || earlier.user == user) {
            let message = "an earlier rule fits all users of this one".to_owned();
            reader.problem_at(&place, message, Some("The first rule that fits counts."));
        }
        rules.push(LoginRule { user, method, client_certificate });
    }
    rules
}

fn unix(reader: &mut Reader<'_>, at: Entry<'_>, shape: ListenShape) -> Option<ListenSettings> {
    let foreign = [
        ("tls", shape.tls.is_some()),
        ("certificate", shape.certificate.is_some()),
        ("key", shape.key.is_some()),
        ("certificates", !shape.certificates.is_empty()),
        ("client_ca", shape.client_ca.is_some()),
        ("sni_suffix", shape.sni_suffix.is_some()),
        ("proxies", !shape.proxies.is_empty()),
        ("plaintext_password", shape.plaintext_password.is_some()),
    ];
    for (key, _) in foreign.into_iter().filter(|(_, there)| *there) {
        let hint = "What goes through a Unix socket stays on this machine: no TLS, and tokens are \
                    taken.";
        reader.problem_at(&at.key(key), format!("{key} is for TCP listeners"), Some(hint));
    }
    let folder = folder(reader, at, shape.unix.unwrap_or_default())?;
    let port = shape.port.unwrap_or(PORT_DEFAULT);
    if port == 0 {
        reader.problem_at(&at.key("port"), "port is 0, allowed: 1 to 65535".to_owned(), None);
    }
    let mode = match &shape.mode {
        Some(text) => mode(reader, at, text)?,
        None => MODE_DEFAULT,
    };
    let address = UnixAddress { folder, port, mode };
    if address.is_abstract() && shape.mode.is_some() {
        let hint = "Every process that shares the network of this one can connect to it.";
        let message = "an abstract socket has no file and so no mode".to_owned();
        reader.problem_at(&at.key("mode"), message, Some(hint));
    }
    let path = address.path();
    if path.as_os_str().len() > PATH_BYTES_MAX {
        let path = path.display();
        let message =
            format!("{path} is longer than {PATH_BYTES_MAX} bytes, too long for a socket");
        reader.problem_at(&at.key("unix"), message, None);
    }
    let rules = rules(reader, at, shape.rules, false);
    let (address, systemd) = (ListenAddress::Unix(address), shape.systemd);
    Some(ListenSettings { rules, plaintext_password: true, systemd, ..plain(address) })
}

/// The folder of a socket: absolute, as libpq wants it, or the name of an abstract one.
fn folder(reader: &mut Reader<'_>, at: Entry<'_>, folder: PathBuf) -> Option<PathBuf> {
    if !folder.as_os_str().as_encoded_bytes().starts_with(b"@") {
        let folder = reader.folder.join(folder);
        return Some(std::path::absolute(&folder).unwrap_or(folder));
    }
    if cfg!(target_os = "linux") {
        return Some(folder);
    }
    let hint = "Name a folder.";
    let message = "abstract sockets (@name) exist on Linux only".to_owned();
    reader.problem_at(&at.key("unix"), message, Some(hint));
    None
}

/// Permissions as chmod takes them.
fn mode(reader: &mut Reader<'_>, at: Entry<'_>, text: &str) -> Option<u32> {
    let digits = matches!(text.len(), 3 | 4) && text.bytes().all(|one| one.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
    if mode.is_none() {
        let message = format!("\"{}\" is not a file mode", text.escape_debug());
        let hint = "Write octal digits, such as \"0770\": whoever may write may connect.";
        reader.problem_at(&at.key("mode"), message, Some(hint));
    }
    mode
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

/// Where no route may lead.
pub(super) fn own(listen: &[ListenSettings], http: Option<&HttpSettings>) -> OwnPlaces {
    let http = http.map(|http| ListenAddress::Tcp(http.address));
    OwnPlaces::new(listen.iter().map(|listen| listen.address.clone()).chain(http))
}

/// No two listeners at one address. Port 0 takes any free port, as often as one likes.
pub(super) fn distinct(
    reader: &mut Reader<'_>,
    listen: &[ListenSettings],
    http: Option<&HttpSettings>,
) {
    let mut seen = BTreeSet::new();
    for (index, settings) in listen.iter().enumerate() {
        let (address, key) = match &settings.address {
            ListenAddress::Tcp(address) if address.port() == 0 => continue,
            // Two modes would still be one socket.
            ListenAddress::Unix(unix) => {
                (ListenAddress::Unix(UnixAddress { mode: 0, ..unix.clone() }), "unix")
            }
            tcp => (tcp.clone(), "address"),
        };
        let message = format!("there is a [[listen]] at {address} already");
        if !seen.insert(address) {
            reader.problem_at(&["listen", &index.to_string(), key], message, None);
        }
    }
    if let Some(http) = http.filter(|http| seen.contains(&ListenAddress::Tcp(http.address))) {
        let message = format!("there is a [[listen]] at {} already", http.address);
        reader.problem_at(&["http", "address"], message, None);
    }
}
