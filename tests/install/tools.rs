//! Settings for one cluster, the command run as a person would, and signatures made as the gate
//! does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tenantgate::demo::Cluster;
use tenantgate::isolation::{Seal, SealKeys};
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::harness::cluster::{connect, template};
use crate::harness::tenants::LOGIN_PASSWORD;

/// Lines of a key file.
pub const OLD: &str = "old:0101010101010101010101010101010101010101010101010101010101010101\n";
pub const NEW: &str = "new:0202020202020202020202020202020202020202020202020202020202020202\n";

/// A folder with settings for database `app` of a cluster.
pub struct Setup {
    folder: TempDir,
    admin: String,
    conninfo: String,
    dbname: String,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Setup {
    /// At a level, with a key file if there are lines for one.
    pub fn new(cluster: &Cluster, level: &str, keys: &str) -> Self {
        let setup = Self {
            folder: tempfile::tempdir().unwrap(),
            admin: cluster.superuser_conninfo("postgres"),
            conninfo: cluster.conninfo("tg_login", LOGIN_PASSWORD, "app"),
            dbname: "app".to_owned(),
        };
        setup.write(level, keys);
        setup
    }

    /// Another administrator.
    pub fn admin(mut self, conninfo: String) -> Self {
        self.admin = conninfo;
        self
    }

    pub fn write(&self, level: &str, keys: &str) {
        let (conninfo, file) = (&self.conninfo, "seal_key_file = \"seal.key\"");
        let file = if keys.is_empty() { "" } else { file };
        let settings = format!(
            "[[listen]]\naddress = \"127.0.0.1:6432\"\ntls = \"disable\"\n\n\
             [clusters.main]\ncapacity = 2\nlevel = \"{level}\"\n{file}\n\
             connection_string = \"{conninfo}\"\n\n\
             [tenants.acme]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
             role = \"app_rw\"\ntokens = []\n"
        );
        fs::write(self.folder.path().join("gate.toml"), settings).unwrap();
        let file = self.folder.path().join("seal.key");
        fs::write(&file, keys).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn settings(&self) -> PathBuf {
        self.folder.path().join("gate.toml")
    }

    /// `tenantgate install` with more words.
    pub fn install(&self, more: &[&str]) -> Said {
        let admin = (!more.contains(&"--print")).then_some(self.admin.as_str());
        install(&self.settings(), admin, more)
    }

    /// What `--print` prints, run by psql as the administrator.
    pub fn psql(&self, more: &[&str]) {
        let printed = self.install(&[&["--print"], more].concat());
        assert_eq!(printed.code, 0, "{printed:?}");
        let file = self.folder.path().join("install.sql");
        fs::write(&file, printed.out).unwrap();
        let mut psql = Command::new(template().binaries().program("psql"));
        psql.args(["-X", "-q", "-f"]).arg(&file).arg(&self.admin);
        let output = psql.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    }

    /// What signs as the gate would with these keys.
    pub fn seal(&self, keys: &str) -> Seal {
        SealKeys::parse(keys).unwrap().seal(&self.dbname).unwrap()
    }
}

/// `tenantgate install` with these settings, as a person would call it.
pub fn install(settings: &Path, admin: Option<&str>, more: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
    command.args(["install", "--cluster", "main", "--config"]).arg(settings).args(more);
    if let Some(admin) = admin {
        command.env("TENANTGATE_ADMIN", admin);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    Said { code, out: text(&output.stdout), err: text(&output.stderr) }
}

impl Said {
    /// What became of a step.
    pub fn of(&self, what: &str) -> &str {
        let line = self.out.lines().find_map(|line| line.trim().strip_prefix(what));
        line.unwrap_or_else(|| panic!("no {what} in {self:?}")).trim()
    }

    /// What became of every step, each once.
    pub fn outcomes(&self) -> Vec<&str> {
        let steps = |line: &&str| line.len() > 37 && !line.starts_with("  as ");
        let lines = self.out.lines().filter(steps);
        let mut outcomes: Vec<&str> = lines.map(|line| line[37..].trim()).collect();
        outcomes.sort_unstable();
        outcomes.dedup();
        outcomes
    }
}

/// The gate's login.
pub async fn login(cluster: &Cluster) -> Client {
    connect(&cluster.conninfo("tg_login", LOGIN_PASSWORD, "app")).await.unwrap()
}

pub async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// The server's clock, in seconds since 1970.
pub async fn now(client: &Client) -> i64 {
    let sql = "SELECT extract(epoch FROM clock_timestamp())::bigint";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Enters a tenant for the next half minute.
pub async fn enter(client: &Client, seal: &Seal, tenant: &str) -> Result<String, Error> {
    let (expires, pid) = (now(client).await + 30, pid(client).await);
    let signature = seal.sign(tenant, expires, pid);
    call(client, tenant, &seal.kid, expires, &signature).await
}

pub async fn call(
    client: &Client,
    tenant: &str,
    kid: &str,
    expires: i64,
    signature: &[u8],
) -> Result<String, Error> {
    let sql = "SELECT tenantgate.enter($1, $2, $3, $4)";
    let row = client.query_one(sql, &[&tenant, &kid, &expires, &signature]).await?;
    Ok(row.get(0))
}

pub async fn tenant_id(client: &Client) -> Option<String> {
    client.query_one("SELECT tenantgate.tenant_id()", &[]).await.unwrap().get(0)
}

/// The SQLSTATE of a statement's error; empty if it has none.
pub async fn state(client: &Client, sql: &str) -> String {
    match client.batch_execute(sql).await {
        Ok(()) => String::new(),
        Err(error) => code(&error),
    }
}

pub fn code(error: &Error) -> String {
    error.code().map(|code| code.code().to_owned()).unwrap_or_else(|| panic!("{error}"))
}

/// The rows of a query, as texts.
pub async fn rows(client: &Client, sql: &str) -> Vec<Vec<String>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    rows.map(|row| (0..row.len()).map(|at| text(row.get(at))).collect()).collect()
}
