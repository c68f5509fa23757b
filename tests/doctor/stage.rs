//! A cluster with the broken databases, the settings of a gate in front of them, and the doctor
//! as a program.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tenantgate::demo::{Cluster, Plan, SUPERUSER};
use tokio::process::Command;

use crate::harness::cluster::{superuser, template};

/// The attic's login needs no password, which is one of the findings.
const HBA: &str = "host attic tg_attic 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
";

/// The broken databases and a folder for settings.
pub struct Stage {
    pub cluster: Cluster,
    folder: TempDir,
    /// The role of the attic's tenants, once there is one.
    attic_role: &'static str,
}

/// How the doctor ended, and what it said.
pub struct Seen {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}", self.stderr))
    }
}

impl Stage {
    pub async fn new() -> Self {
        let plan = Plan { hba: Some(HBA.to_owned()), ..Plan::default() };
        let cluster = Cluster::start(template(), &plan).unwrap_or_else(|error| panic!("{error:#}"));
        let postgres = superuser(&cluster, "postgres").await;
        for dbname in ["shop", "attic", "vault"] {
            postgres.batch_execute(&format!("CREATE DATABASE {dbname}")).await.unwrap();
        }
        let shop = superuser(&cluster, "shop").await;
        shop.batch_execute(include_str!("broken.sql")).await.unwrap();
        Self { cluster, folder: tempfile::tempdir().unwrap(), attic_role: "" }
    }

    /// Runs the doctor with an administrator.
    pub async fn look(&self, level: &str, arguments: &[&str]) -> Seen {
        let admin = self.cluster.superuser_conninfo("postgres");
        self.run(level, &[&["--admin", admin.as_str()], arguments].concat()).await
    }

    /// Runs it without.
    pub async fn look_as_login(&self, level: &str, arguments: &[&str]) -> Seen {
        self.run(level, arguments).await
    }

    async fn run(&self, level: &str, arguments: &[&str]) -> Seen {
        let settings = self.settings(level, self.cluster.port());
        self.run_with(&settings, arguments).await
    }

    /// Runs it with any settings.
    pub async fn run_with(&self, settings: &str, arguments: &[&str]) -> Seen {
        self.program("doctor", settings, arguments).await
    }

    async fn program(&self, command: &str, settings: &str, arguments: &[&str]) -> Seen {
        let file = self.folder.path().join("gate.toml");
        std::fs::write(&file, settings).unwrap();
        let key = format!("k1:{}\n", "5e".repeat(32));
        let key_file = self.folder.path().join("seal.key");
        std::fs::write(&key_file, key).unwrap();
        std::fs::set_permissions(&key_file, Permissions::from_mode(0o600)).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
        program.arg(command).arg("--config").arg(&file).args(arguments);
        let output = program.env_remove("TENANTGATE_ADMIN").output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        Seen { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub fn settings(&self, level: &str, port: u16) -> String {
        let conninfo = |dbname: &str, login: &str| {
            format!(
                "connection_string = \"host=127.0.0.1 port={port} dbname={dbname} user={login} \
                 password=secret sslmode=disable require_auth=none,scram-sha-256\"\n"
            )
        };
        let tenant = |id: &str, isolation: &str, lines: &str| {
            format!("[tenants.{id}]\nisolation = \"{isolation}\"\ncluster = \"main\"\n{lines}\n")
        };
        let row = "schema = \"app\"\nrole = \"shop_rw\"\n".to_owned();
        let bad = "schema = \"app\"\nrole = \"bad_rw\"\n".to_owned() + &conninfo("shop", "tg_bad");
        let wayne = self.attic_role.to_owned() + &conninfo("attic", "tg_attic");
        let own = |name: &str| {
            format!("schema = \"{name}\"\n{}", conninfo("shop", &format!("tg_{name}")))
        };
        let listen = "[[listen]]\naddress = \"127.0.0.1:6432\"\ntls = \"disable\"\n\
                      plaintext_password = true\n[clusters.main]\ncapacity = 4\n";
        let seal = if level == "sealed" { "seal_key_file = \"seal.key\"\n" } else { "" };
        let shop = conninfo("shop", "tg_shop");
        let cluster = format!("level = \"{level}\"\n{seal}{shop}\n");
        [
            listen.to_owned(),
            cluster,
            tenant("acme", "row", &row),
            tenant("globex", "row", &row),
            tenant("hooli", "row", &bad),
            tenant("wayne", "row", &wayne),
            tenant("alpha", "schema", &own("alpha")),
            tenant("beta", "schema", &own("beta")),
            tenant("vault", "silo", &conninfo("vault", "tg_vault")),
        ]
        .concat()
    }

    /// Runs the doctor's SQL, then what it leaves to a person.
    pub async fn repair(&mut self, level: &str) {
        let script = self.look(level, &["--fix-sql"]).await;
        self.psql("postgres", &script.stdout).await;
        self.psql("shop", include_str!("by_hand.sql")).await;
        self.psql("attic", include_str!("attic.sql")).await;
        self.attic_role = "role = \"attic_rw\"\n";
        // TG952 and TG953.
        let hba = self.cluster.folder().join("data/pg_hba.conf");
        let lines: Vec<&str> = HBA.lines().filter(|line| !line.ends_with("trust")).collect();
        std::fs::write(hba, lines.join("\n") + "\n").unwrap();
        self.psql("postgres", "ALTER ROLE tg_attic PASSWORD 'secret'").await;
        self.cluster.restart().unwrap();
        if level == "sealed" {
            self.install(level).await;
        }
    }

    /// Puts the carrier in its place, as the doctor says.
    async fn install(&self, level: &str) {
        let settings = self.settings(level, self.cluster.port());
        let admin = self.cluster.superuser_conninfo("postgres");
        let arguments = ["--cluster", "main", "--admin", admin.as_str()];
        let done = self.program("install", &settings, &arguments).await;
        assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    }

    /// Runs a script as the superuser.
    pub async fn psql(&self, dbname: &str, sql: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), sql).unwrap();
        let mut psql = Command::new(template().binaries().program("psql"));
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-f"]).arg(file.path());
        psql.arg(self.cluster.superuser_conninfo(dbname)).stdin(Stdio::null());
        let output = psql.env("PGPASSWORD", self.cluster.password()).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{sql}");
    }
}
