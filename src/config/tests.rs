//! Settings files, good and bad.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::Problem;
use super::*;
use crate::catalog::{Cluster, TenantState};
use crate::net::{ListenAddress, TlsPolicy, UnixAddress};
use crate::telemetry::LogFormat;

pub(super) const GOOD: &str = r#"
[[listen]]
address = "127.0.0.1:6432"
tls = "disable"
plaintext_password = true

[clusters.main]
capacity = 2
connection_string = "postgresql://tg:hunter2@127.0.0.1:5432/app"

[tiers.free]
clients = 3

[tenants.acme]
isolation = "row"
cluster = "main"
tier = "free"
"#;

fn read(text: &str, folder: &Path) -> Result<Config, Vec<Problem>> {
    read::read(text, folder, &OwnPlaces::default())
}

fn read_good(text: &str) -> Config {
    read(text, Path::new("")).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// What a person sees of a file that is refused.
pub(super) fn refused(text: &str) -> String {
    match read(text, Path::new("")) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(problems) => Error::Invalid { path: "gate.toml".into(), problems }.to_string(),
    }
}

/// A file that only its owner may read.
fn secret_file(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A copy of `config/` with the key files its samples name.
fn samples() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for name in ["minimal.toml", "tenantgate.toml"] {
        fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for name in ["gate", "tenants", "clients"] {
        let path = |ending| folder.path().join(format!("{name}.{ending}"));
        fs::write(path("crt"), certified.cert.pem()).unwrap();
        fs::write(path("key"), certified.signing_key.serialize_pem()).unwrap();
    }
    let key = folder.path().join("login.key");
    fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(folder.path().join("denied.txt"), "# none yet\n").unwrap();
    secret_file(&folder.path().join("logins.key"), &"s".repeat(32));
    secret_file(&folder.path().join("seal.key"), &format!("first:{}", "5a".repeat(32)));
    let path = |name| folder.path().join(name);
    let (minimal, full) = (path("minimal.toml"), path("tenantgate.toml"));
    (folder, minimal, full)
}

#[test]
fn the_minimal_sample_loads() {
    let (_folder, minimal, _) = samples();
    let config = load(&minimal).unwrap_or_else(|error| panic!("{error}"));
    let ids: Vec<&str> = config.catalog.tenants().map(|tenant| tenant.id.as_str()).collect();
    assert_eq!(ids, ["acme", "beta", "gamma"]);
    assert_eq!(config.gate, GateSettings::default());
    assert!(fs::read_to_string(&minimal).unwrap().lines().count() <= 50);
}

#[test]
fn the_annotated_sample_loads_and_equals_the_defaults() {
    let (folder, _, full) = samples();
    let config = load(&full).unwrap_or_else(|error| panic!("{error}"));
    // The default depends on the machine.
    assert_eq!(config.gate, GateSettings { workers: 4, doors: 1, ..GateSettings::default() });
    assert_eq!(config.client, ClientSettings::default());
    assert_eq!(config.log, LogSettings::default());
    let listen = config.listen.first().unwrap();
    assert_eq!((listen.tls, listen.plaintext_password), (TlsPolicy::default(), false));
    let (certificate, _) = listen.identities.first().cloned().unwrap();
    assert_eq!(certificate, folder.path().join("gate.crt"));
    let unix = UnixAddress { folder: "/run/tenantgate".into(), port: 6432, mode: 0o777 };
    assert_eq!(config.listen.get(1).unwrap().address, ListenAddress::Unix(unix));
    let issuer = config.issuers.first().unwrap();
    assert_eq!(issuer.claims.tenant, crate::auth::TENANT_CLAIM_DEFAULT);
    assert_eq!(issuer.lifetime, crate::auth::LIFETIME_DEFAULT);
    assert_eq!(issuer.leeway, crate::auth::LEEWAY_DEFAULT);
    let cluster = config.catalog.clusters().next().unwrap();
    let seal_keys = cluster.seal_keys.clone();
    assert!(seal_keys.is_some());
    assert_eq!(**cluster, Cluster { seal_keys, ..Cluster::new("main".to_owned(), 20) });
    let acme = config.catalog.tenants().next().unwrap();
    assert_eq!(acme.state, TenantState::Active);
    assert_eq!(acme.context.value("app.tenant_id"), Some("acme"));
    assert_eq!(acme.context.value("search_path"), Some("\"public\""));
    assert_eq!(acme.limits.queries_per_second, Some(50));
    assert_eq!(acme.limits.queries_burst, Some(400));
    assert_eq!(config.console.users.len(), 2);
}

#[test]
fn the_annotated_sample_names_every_key() {
    let (_folder, _, full) = samples();
    let text = fs::read_to_string(full).unwrap();
    for line in text.lines().filter(|line| !line.starts_with(['#', '[', ']', ' '])) {
        let told = ["live;", "restart;"].iter().any(|mark| line.contains(mark));
        let long = [
            "connection_string",
            "mover_connection_string",
            "tokens",
            "roles",
            "admin",
            "watcher",
            "rules",
            "cred",
        ];
        let repeated = ["isolation", "cluster", "schema", "certificates"];
        let elsewhere = long.iter().chain(&repeated).any(|key| line.starts_with(key));
        assert!(line.is_empty() || told || elsewhere, "{line}");
    }
    // What serde would accept is what the sample shows: an unknown key lists them all.
    for (section, entry) in [("[gate]", ""), ("[clusters.main]", ""), ("[tenants.acme]", "")] {
        let broken = text.replacen(section, &format!("{section}\nbanana = 1{entry}"), 1);
        let problems = read(&broken, Path::new("")).unwrap_err();
        let hints = problems.iter().filter_map(|problem| problem.hint.as_ref());
        let hint = { hints }.find(|hint| hint.contains("Allowed: ")).unwrap();
        let keys = hint.trim_end_matches('.').rsplit("Allowed: ").next().unwrap();
        for key in keys.split(", ") {
            let written = text.lines().any(|line| line.starts_with(&format!("{key} =")));
            assert!(written, "{section} {key}");
        }
    }
}

#[test]
fn a_mistake_shows_its_line_a_caret_and_the_nearest_key() {
    let shown = refused(&GOOD.replace("capacity", "capcity"));
    let expected = "gate.toml:8:1: unknown key \"capcity\"\n  |\n8 | capcity = …\n  | ^^^^^^^\n  \
                    = Did you mean \"capacity\"?";
    assert!(shown.starts_with(expected), "{shown}");
    assert!(!shown.contains("missing key"), "{shown}");
}

#[test]
fn several_mistakes_are_shown_together_in_the_order_of_the_file() {
    let text = GOOD
        .replace("tls = \"disable\"", "tls = \"requires\"")
        .replace("clients = 3", "clients = \"many\"\nquery_time = \"10 fortnights\"")
        .replace("isolation = \"row\"", "isolation = \"rows\"\nbanana = 1");
    let shown = refused(&format!("{text}\n[tenant.beta]\n"));
    let order = [
        ":4:7: unknown value\n",
        "Did you mean \"require\"? Allowed: require, allow, disable.",
        ":12:11: this is a text, wanted: a whole number",
        "this is not a duration",
        ":16:13: unknown value\n",
        ":17:1: unknown key \"banana\"",
        ":21:2: unknown key \"tenant\"",
        "Did you mean \"tenants\"?",
    ];
    let mut rest = shown.as_str();
    for part in order {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part} is not in order in\n{shown}"));
        rest = rest.get(at..).unwrap();
    }
}

#[test]
fn a_tenants_fault_points_at_its_key() {
    let shown = refused(&GOOD.replace("cluster = \"main\"", "cluster = \"mian\""));
    assert!(shown.starts_with("gate.toml:16:11: cluster \"…\" does not exist\n"), "{shown}");
    assert!(shown.contains("16 | cluster = …\n   |           ^\n   = Did you mean \"main\"?"));
    let shown = refused(&GOOD.replace("acme", "\"a c\""));
    assert!(shown.starts_with("gate.toml:14:10: \"a c\" is not a tenant id"), "{shown}");
    let shown = refused(&format!("{GOOD}tokens = [\"x\"]\nlimits = {{ clients = 0 }}"));
    assert!(shown.contains(":18:11: not a token's line"), "{shown}");
    assert!(shown.contains(":19:22: clients is zero"), "{shown}");
}

#[test]
fn passwords_are_not_shown_even_beside_a_mistake() {
    let silo = "[tenants.beta]\nisolation = \"silo\"\ncluster = \"main\"\n";
    let texts = [
        GOOD.replace("127.0.0.1:5432/app", "127.0.0.1:5432/app?sslmod=x"),
        format!("{GOOD}{silo}connection_string = 'host=h user=u password=hunter2 x=1'"),
        GOOD.replace("connection_string = \"p", "connection_string = p"),
        GOOD.replace("hunter2@", "hunter2@\n"),
        format!("{GOOD}[tenants]\nb = {{ isolation = 'x', connection_string = 'hunter2' }}"),
        format!(
            "{GOOD}[console]\nusers = {{ hunter = 'hunter2', other = {{ scram = 'hunter2' }} }}"
        ),
        format!("{GOOD}[console.users.a]\nscram = 'hunter2'\nright = 'x'"),
    ];
    for text in texts {
        let shown = refused(&text);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let cases = [
        (GOOD.replace("127.0.0.1:6432", "10.0.0.1:6432"), "plaintext_password is for loopback"),
        (GOOD.replace("\"disable\"", "\"allow\""), "missing key \"certificate\""),
        (GOOD.replace("127.0.0.1:6432", "localhost:6432"), "not an address with a port"),
        (format!("{GOOD}[http]\naddress = '127.0.0.1:6432'"), "already"),
        (format!("{GOOD}[gate]\nworkers = 65"), "allowed: 1 to 64"),
        (format!("{GOOD}[gate]\ndoors = 0"), "allowed: 1 to 64"),
        (format!("{GOOD}[gate]\nlogin_timeout = '0s'"), "login_timeout is zero"),
        (format!("{GOOD}[gate]\nlogin_timeout = 10"), "wanted: a duration with its unit"),
        (format!("{GOOD}[gate]\nstatement_bytes = '2 TiB'"), "allowed: 1024 to"),
        (format!("{GOOD}[gate]\nlog_level = 'inof'"), "Did you mean \"info\"?"),
        (GOOD.replace("capacity", "level = 'sealed'\ncapacity"), "needs a seal_key_file"),
        (
            GOOD.replace("capacity", "level = 'strict'\ncapacity"),
            "\"sealed\" is as far as they get",
        ),
        (GOOD.replace("capacity", "seal_key_file = 'none'\ncapacity"), "cannot read …"),
        (GOOD.replace("[[listen]]", "[listen]"), "listen is written [[listen]]"),
        ("[clusters]\n".to_owned(), "there is no [[listen]]"),
        (format!("tiers = 3{GOOD}").replace("[tiers.free]\nclients = 3", ""), "written as a table"),
        (format!("{GOOD}[tenants.acme]\n"), "duplicate key: it stands on line 14, too"),
        (format!("{GOOD}schema = 'a'\nschema = 'b'"), "duplicate key: it stands on line 18, too"),
        (GOOD.replace("tls = \"disable\"", "tls = false"), "this is not a text"),
        (GOOD.replace("tls = \"disable\"", "tls = false"), "Allowed: require, allow, disable."),
        (GOOD.replace("capacity = 2", "capacity = -1"), "this is a number, wanted: a whole number"),
        (format!("{GOOD}[[listen]]\naddress = '127.0.0.1:6432'\ntls = 'disable'"), "already"),
    ];
    let levels = [
        (GOOD.replace("capacity", "level = 'seeled'\ncapacity"), "unknown value\n"),
        (
            GOOD.replace("capacity", "level = 'seeled'\ncapacity"),
            "Allowed: plain, guard, sealed, strict.",
        ),
        (GOOD.replace("clients = 3", "report_only = ['all', 'lock-tabel']"), "\"lock-table\"?"),
        (GOOD.replace("clients = 3", "report_only = ['bind']"), "\"…\" is not a rule"),
    ];
    for (text, part) in cases.into_iter().chain(levels) {
        let shown = refused(&text);
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let issuer =
        "[issuers.x]\nissuer = 'i'\naudience = 'a'\nalgorithm = 'HS256'\nkey_file = 'none'";
    assert!(refused(&format!("{GOOD}{issuer}")).contains("cannot read …"));
    let vouches = |more: &str| refused(&format!("{GOOD}{issuer}\n{more}"));
    assert!(vouches("acts_for_claim = 'a'").contains("acts_for_claim has no service to go with"));
    assert!(vouches("service = 'a'").contains("service has no acts_for_claim to go with"));
    let unknown = vouches("acts_for_claim = 'a'\nservice = 'backend'");
    assert!(unknown.contains("service \"…\" does not exist"), "{unknown}");
    let same = vouches("acts_for_claim = 'tenant_id'\nservice = 'backend'");
    assert!(same.contains("acts_for_claim is the claim of something else too"), "{same}");
}

#[test]
fn a_good_file_is_read_as_written() {
    let config = read_good(&format!("{GOOD}[gate]\nlog_format = 'json'\nclients = 7"));
    assert_eq!((config.gate.clients, config.log.format), (7, LogFormat::Json));
    assert!(config.http.is_none() && config.issuers.is_empty());
    let error = load(Path::new("/nowhere/gate.toml")).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/gate.toml: "));
}

#[test]
fn a_unix_socket_is_a_listener_without_tls() {
    let more = "\n[[listen]]\nunix = '/run/tenantgate'\nmode = '0770'\n\
                [[listen]]\nunix = '@gate'\n\
                [[listen]]\nunix = 'sockets'\nport = 7\n";
    let config = read_good(&format!("{GOOD}{more}"));
    let unix = config.listen.get(1).unwrap();
    assert_eq!((unix.tls, unix.plaintext_password), (TlsPolicy::Disable, true));
    let shown: Vec<String> = config.listen.iter().map(|it| it.address.to_string()).collect();
    assert_eq!(shown[1..3], ["/run/tenantgate/.s.PGSQL.6432", "@gate/.s.PGSQL.6432"]);
    assert!(shown[3].starts_with('/') && shown[3].ends_with("/sockets/.s.PGSQL.7"), "{shown:?}");
    let table = config.table();
    let shown = |key: &str| table.iter().find(|setting| setting.key == key).unwrap();
    assert_eq!(shown("listen.1.mode").value, "0770");
    assert_eq!(shown("listen.2.port").default.as_deref(), Some("6432"));
}

#[test]
fn what_makes_no_sense_for_a_unix_socket_is_refused() {
    let folder = "unix = '/run/tenantgate'\n";
    let long = format!("unix = '/{}'\n", "long/".repeat(20));
    let cases = [
        ("port = 1\n", "missing key \"address\""),
        ("address = '127.0.0.1:1'\nunix = '/x'\n", "address and unix in one entry"),
        ("address = '127.0.0.1:1'\ntls = 'disable'\nport = 1\n", "port is for Unix sockets"),
        ("address = '127.0.0.1:1'\ntls = 'disable'\nmode = '0700'\n", "mode is for Unix sockets"),
        (&format!("{folder}tls = 'require'\n"), "tls is for TCP listeners"),
        (&format!("{folder}plaintext_password = false\n"), "plaintext_password is for TCP"),
        (&format!("{folder}port = 0\n"), "port is 0"),
        (&format!("{folder}mode = '888'\n"), "\"…\" is not a file mode"),
        (&format!("{folder}mode = '1777'\n"), "not a file mode"),
        (&format!("{folder}[[listen]]\n{folder}mode = '0700'"), "already"),
        ("unix = '@x'\nmode = '0700'\n", "an abstract socket has no file"),
        (&long, "longer than 107 bytes"),
    ];
    for (lines, part) in cases {
        let shown = refused(&format!("{GOOD}\n[[listen]]\n{lines}"));
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
}

#[test]
fn the_table_shows_what_holds_and_what_a_reload_cannot_change() {
    let running = read_good(GOOD);
    let table = running.table();
    let shown = |key: &str| table.iter().find(|setting| setting.key == key).unwrap();
    assert_eq!(shown("gate.startup_bytes").value, "10.0 KiB");
    assert_eq!(shown("listen.0.tls").default.as_deref(), Some("require"));
    assert!(shown("clusters.main.capacity").live && !shown("gate.workers").live);
    let defaulted = table.iter().filter(|setting| setting.key.starts_with("gate."));
    assert!(defaulted.clone().all(|setting| setting.default.as_ref() == Some(&setting.value)));
    assert!(!format!("{table:?}").contains("hunter2"));
    let live = read_good(&GOOD.replace("capacity = 2", "capacity = 3"));
    assert!(live.needs_restart(&running).is_empty());
    let http = read_good(&format!(
        "{GOOD}[http]\naddress = '127.0.0.1:1'\n[gate]\nlog_format = 'json'\nclients = 7"
    ));
    let fixed = ["gate.log_format", "http.address", "http.tenants_top", "http.tenants"];
    assert_eq!(http.needs_restart(&running), fixed);
    assert_eq!(running.needs_restart(&http), fixed);
}

#[test]
fn no_text_panics() {
    let mut random = fastrand::Rng::with_seed(0x7e4a_17ed);
    let signs: Vec<char> = "[]={}\"'\n\t.,#\\ü0".chars().collect();
    for _ in 0..300 {
        let mut text: Vec<char> = GOOD.chars().collect();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..text.len());
            match random.usize(..3) {
                0 => text.insert(at, random.choice(signs.iter().copied()).unwrap()),
                1 => text.truncate(at.max(1)),
                _ => drop(text.remove(at)),
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(problems) = read(&text, Path::new("")) {
            let shown = Error::Invalid { path: "x".into(), problems }.to_string();
            assert!(!shown.is_empty());
        }
    }
}

/// The good file with lines for its cluster, and a tenant with a schema.
fn with_logins(lines: &str, tenant: &str) -> String {
    let schema = format!("\n[tenants.{tenant}]\nisolation = \"schema\"\ncluster = \"main\"\n");
    GOOD.replace("capacity = 2", &format!("capacity = 2\n{lines}")) + &schema
}

const LOGINS: &str = "tenant_login = \"t_{tenant}\"\ntenant_schema = \"s_{tenant}\"\n\
                      tenant_login_secret_file = \"logins.key\"";

#[test]
fn tenants_without_a_connection_string_get_the_login_the_template_makes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logins.key");
    secret_file(&path, &format!("{}\n", "s".repeat(32)));
    let read =
        |text: &str| read(text, folder.path()).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let config = read(&with_logins(LOGINS, "beta"));
    let tenant = |id| config.catalog.known(id).unwrap().clone();
    let (acme, beta) = (tenant("acme"), tenant("beta"));
    assert_eq!((acme.route.conninfo.user.as_str(), acme.isolation.name()), ("tg", "row"));
    assert_eq!(beta.route.conninfo.user, "t_beta");
    assert_eq!(beta.context.value("search_path"), Some("\"s_beta\""));
    let password = beta.route.conninfo.password.clone().unwrap();
    assert_ne!(Some(&password), acme.route.conninfo.password.as_ref());
    assert!(!format!("{config:?}").contains(std::str::from_utf8(password.expose()).unwrap()));
    // Another secret is another password, at the next reload.
    secret_file(&path, &"t".repeat(32));
    let again = read(&with_logins(LOGINS, "beta"));
    assert_ne!(again.catalog.known("beta").unwrap().route.conninfo.password, Some(password));
}

#[test]
fn a_secret_that_others_may_read_is_refused_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logins.key");
    let refused = |wanted: &str| {
        let problems = read(&with_logins(LOGINS, "beta"), folder.path()).err().unwrap();
        let shown = Error::Invalid { path: "gate.toml".into(), problems }.to_string();
        assert!(shown.starts_with("gate.toml:11:28: ") && shown.contains(wanted), "{shown}");
        assert_eq!(shown.matches("gate.toml:").count(), 1, "no echo: {shown}");
    };
    refused("No such file");
    secret_file(&path, "short");
    refused("has 5 bytes, allowed: 32 or more");
    secret_file(&path, &"s".repeat(32));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    refused("is open to others than its owner (mode 0644)");
}

#[test]
fn a_template_that_cannot_be_used_is_refused_with_its_place() {
    let long = "t".repeat(62);
    let none = "tenant_login = \"t_{tenant}\"";
    let free = "tenant_login = \"X{tenant}\"\ntenant_schema = \"Y{tenant}\"";
    let of = |login: &str, schema: &str| free.replace("X", login).replace("Y", schema);
    let cases = [
        (none.to_owned(), "beta", ":9:16: the logins of tenant_login have nothing to log in with"),
        (of("{tenant}", "s_"), "beta", ":9:16: tenant_login is not a template: it has {tenant} 2"),
        (of("", "{"), "beta", ":10:17: tenant_schema is not a template: it has a brace"),
        (of("t_", "s_"), &long, ":21:10: login \"t_ttt"),
        (of("pg_", "s_"), "beta", ":21:10: login \"pg_beta\" is PostgreSQL's own"),
        (of("t_", "PG_"), "beta", ":21:10: schema \"PG_beta\" is PostgreSQL's own"),
        (of("", "s_"), "public", ":21:10: login \"public\" is PostgreSQL's own"),
        (
            "tenant_database = \"d_{tenant}\"".into(),
            "x",
            ":9:19: tenant_database has no tenant_login",
        ),
    ];
    for (lines, tenant, wanted) in cases {
        let text = with_logins(&lines, tenant);
        let text = match wanted.contains("nothing to log in") {
            true => text,
            false => text.replace("5432/app", "5432/app?require_auth=none"),
        };
        let shown = refused(&text);
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    // Without a password, for a server that takes a certificate.
    let text =
        with_logins(&of("t_", "s_"), "beta").replace("5432/app", "5432/app?require_auth=none");
    let config = read_good(&text);
    let beta = &config.catalog.known("beta").unwrap().route.conninfo;
    assert_eq!((beta.user.as_str(), &beta.password), ("t_beta", &None));
}

#[test]
fn a_login_that_the_template_makes_and_another_tenant_has_is_refused() {
    let text = with_logins("tenant_login = \"t_{tenant}\"\ntenant_schema = \"s_{tenant}\"", "beta");
    let text = text.replace("5432/app", "5432/app?require_auth=none");
    let thief = "\n[tenants.thief]\nisolation = \"silo\"\ncluster = \"main\"\n\
                 connection_string = \"postgresql://t_beta@127.0.0.1:5432/other\"\n";
    let shown = refused(&(text + thief));
    assert!(shown.contains("login \"t_beta\" is schema tenant \"beta\"'s"), "{shown}");
}
