//! What the commands print.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::CommandFactory;

use super::*;
use crate::auth::Authenticator;

const SETTINGS: &str = r#"
[[listen]]
address = "127.0.0.1:6432"
tls = "disable"

[issuers.login]
issuer = "i"
audience = "a"
algorithm = "HS256"
key_file = "login.key"
tenant_claim = "app.tenant"

[clusters.main]
capacity = 2
connection_string = "postgresql://tg:hunter2@127.0.0.1/app"

[tenants.acme]
isolation = "row"
cluster = "main"
role = "o'role"

[clusters.far]
capacity = 2

[tenants.beta]
isolation = "silo"
cluster = "far"
connection_string = "postgresql://beta:hunter2@db/beta"
"#;

fn settings() -> (tempfile::TempDir, PathBuf, Config) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.toml");
    std::fs::write(&path, SETTINGS).unwrap();
    let key = folder.path().join("login.key");
    std::fs::write(&key, [7; 32]).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    (folder, path, config)
}

fn usage(failure: Failure) -> String {
    match failure {
        Failure::Usage(text) => text,
        Failure::Ran(text) => panic!("not a usage error: {text}"),
    }
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn check_shows_every_tenant_and_no_password() {
    let (_folder, _, config) = settings();
    let table = check::table(&config);
    let json = check::json(&config);
    assert!(table.contains("beta  silo       far      beta      beta"), "{table}");
    assert!(table.ends_with("good: 2 tenants, 2 clusters, 1 issuer, 1 listener"), "{table}");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["tenants"][0]["role"], "o'role");
    assert_eq!(value["tenants"][1]["role"], serde_json::Value::Null);
    assert!(!table.contains("hunter2") && !json.contains("hunter2"));
}

#[test]
fn install_prints_sql_for_the_logins_of_row_tenants() {
    let (_folder, _, config) = settings();
    let places = |cluster: &str| install::places(&config, cluster, None).map_err(usage);
    let sql = install::sql("main", &places("main").unwrap(), false);
    assert!(sql.contains("\nALTER ROLE \"tg\" LOGIN NOINHERIT;\n"), "{sql}");
    assert!(sql.contains("E'GRANT \"o''role\" TO \"tg\"'"), "{sql}");
    assert!(!sql.contains("hunter2"));
    assert!(places("far").is_err_and(|text| text.contains("no row tenant")));
    assert!(places("mian").is_err_and(|text| text.contains("did you mean \"main\"?")));
}

#[test]
fn a_signed_token_is_one_the_gate_accepts() {
    let (_folder, path, config) = settings();
    let sign = |issuer: &str, tenant: &str| {
        let command = token::TokenCommand::Sign {
            file: File { path: path.clone() },
            issuer: issuer.to_owned(),
            tenant: crate::catalog::TenantId::new(tenant).unwrap(),
            expires: Duration::from_secs(60),
        };
        token::run(command).map_err(usage)
    };
    let signed = sign("login", "beta").unwrap();
    let authenticator = Authenticator::new(&config.issuers).unwrap();
    let now = SystemTime::now();
    let named = [crate::catalog::TenantName::Exact("beta".to_owned())];
    let answer = authenticator.authenticate(&config.catalog, signed.as_bytes(), &named, now);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let identity = runtime.block_on(answer).unwrap();
    assert_eq!(identity.tenant.id.as_str(), "beta");
    assert!(sign("lgoin", "beta").unwrap_err().contains("did you mean \"login\"?"));
}

#[test]
fn a_new_token_comes_with_the_lines_to_paste() {
    let new = |tenant: Option<&str>, service: Option<&str>| {
        let [tenant, service] =
            [tenant, service].map(|it| it.and_then(crate::catalog::TenantId::new));
        token::run(token::TokenCommand::New { tenant, service, json: false }).unwrap_or_default()
    };
    let tenant = new(Some("a.b"), None);
    let line = tenant.split('"').rev().nth(1).unwrap();
    assert!(tenant.contains("at [tenants.\"a.b\"]:") && line.contains(":sha256:"), "{tenant}");
    assert!(tenant.contains(&format!("VALUES ('token', 'a.b', '{line}');")), "{tenant}");
    let service = new(None, Some("backend"));
    assert!(service.contains("at [services.backend]:"), "{service}");
    assert!(!service.contains("INSERT"), "{service}");
    assert!(new(None, None).contains("at [tenants.NAME] or [services.NAME]:"));
}
