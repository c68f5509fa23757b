//! The gate under test: the real binary as a child process, with its settings in a folder of its
//! own. What it logged is printed when the test fails.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tenantgate::demo::{Keeper, free_port, signal};
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::harness::tenants::{Estate, JWT_KEY, SEAL_KEY, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};
use crate::harness::{cluster, eventually, ports};

const SETTINGS_FILE: &str = "tenantgate.toml";

/// Another process may take a port between our choice and the gate's start.
const PORT_TRIES: usize = 5;

/// A running gate. Dropping it kills it and removes its folder.
pub struct Gate {
    /// What `$PORT` became.
    pub port: u16,
    /// What `$HTTP` became.
    pub http: u16,
    child: Child,
    log: Arc<Mutex<String>>,
    /// Keeps the log until the gate has said its last word.
    listening: JoinHandle<()>,
    keeper: Keeper,
}

impl Gate {
    /// A gate in front of an estate, plaintext on loopback.
    pub async fn for_estate(estate: &Estate) -> Self {
        Self::start(&estate.settings(&Tweaks::default())).await
    }

    /// A gate with these settings, once it accepts connections. `$PORT` and `$HTTP` in them become
    /// free ports; `login.key` lies beside them.
    pub async fn start(settings: &str) -> Self {
        Self::start_with(settings, &[]).await
    }

    /// As [`Gate::start`], with further files (name, text) beside the settings.
    pub async fn start_with(settings: &str, files: &[(&str, &str)]) -> Self {
        Self::start_under(settings, files, &[]).await
    }

    /// The same, with variables (name, value) in its environment beside the test's own.
    pub async fn start_under(
        settings: &str,
        files: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Self {
        for _ in 0..PORT_TRIES {
            let mut gate = Self::launch(settings, files, |mut command| {
                command.envs(environment.iter().copied());
                quiet(command)
            });
            if gate.accepts().await {
                return gate;
            }
            let log = gate.last_words().await;
            assert!(log.contains("in use"), "the gate ended instead of accepting:\n{log}");
        }
        panic!("no port stayed free");
    }

    /// Runs the gate with settings it must refuse, to its end.
    pub fn refused(settings: &str) -> Output {
        let keeper = Keeper::new("gate", &[]).unwrap();
        write_files(keeper.folder(), settings, &[]);
        command(keeper.folder()).stdin(Stdio::null()).output().unwrap()
    }

    /// A gate that somebody else starts, such as a service manager: `start` makes of its command
    /// another one. Nobody waits until it accepts.
    pub fn launched(settings: &str, start: impl FnOnce(Command) -> Command) -> Self {
        Self::launch(settings, &[], start)
    }

    fn launch(
        settings: &str,
        files: &[(&str, &str)],
        start: impl FnOnce(Command) -> Command,
    ) -> Self {
        let keeper = Keeper::new("gate", &["gate.pid"]).unwrap();
        let (port, http) = (free_port().unwrap(), free_port().unwrap());
        write_files(keeper.folder(), &fill(settings, port, http), files);
        let mut child = start(command(keeper.folder())).stderr(Stdio::piped()).spawn().unwrap();
        fs::write(keeper.folder().join("gate.pid"), format!("{}\n", child.id())).unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        let listening = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { port, http, child, log, listening, keeper }
    }

    /// Waits until the gate accepts at its port (true) or has ended (false). It may be another's
    /// port by now, who accepts there as well.
    async fn accepts(&mut self) -> bool {
        let port = self.port;
        let child = &mut self.child;
        eventually("the gate accepts", async || {
            if child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let accepts = TcpStream::connect(("127.0.0.1", port)).await.is_ok();
            (accepts && ports::listens(child.id(), port)).then_some(true)
        })
        .await
    }

    /// All it logged, once it has ended.
    async fn last_words(&self) -> String {
        eventually("the end of the log", async || self.listening.is_finished().then_some(())).await;
        self.log()
    }

    /// A session of tokio-postgres as this tenant.
    pub async fn connect(&self, tenant: &Tenant) -> Client {
        self.try_connect(tenant).await.expect("tenant logs in")
    }

    /// The same, when a refusal is what the test wants to see.
    pub async fn try_connect(&self, tenant: &Tenant) -> Result<Client, tokio_postgres::Error> {
        cluster::connect(&tenant.conninfo(self.port)).await
    }

    /// A session of the raw client as this tenant.
    pub async fn wire(&self, tenant: &Tenant) -> Wire {
        let (dbname, password) = (tenant.dbname.as_str(), tenant.token.as_str());
        Wire::login(self.port, &Login { user: "app", dbname, password, more: &[] }).await
    }

    /// Runs one of PostgreSQL's programs as a tenant of this gate.
    pub async fn program(&self, tenant: &Tenant, name: &str, arguments: &[&str]) -> Output {
        let program = cluster::template().binaries().program(name);
        tokio::process::Command::new(program)
            .args(arguments)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "app")
            .env("PGDATABASE", &tenant.dbname)
            .env("PGPASSWORD", &tenant.token)
            .env("PGSSLMODE", "disable")
            .output()
            .await
            .unwrap()
    }

    /// Writes other settings over the file; the gate reads them when told to ([`Gate::reload`]).
    pub fn write_settings(&self, settings: &str) {
        let text = fill(settings, self.port, self.http);
        fs::write(self.keeper.folder().join(SETTINGS_FILE), text).unwrap();
    }

    /// Sends SIGHUP.
    pub fn reload(&self) {
        signal(self.child.id(), "HUP").expect("the gate runs");
    }

    /// Has it read its settings again; returns when they are in force.
    pub async fn reloaded(&self) {
        let reloads = || self.log().matches("reloaded the catalog").count();
        let before = reloads();
        self.reload();
        eventually("the reload", async || (reloads() > before).then_some(())).await;
    }

    /// The same with other settings.
    pub async fn reload_with(&self, settings: &str) {
        self.write_settings(settings);
        self.reloaded().await;
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        signal(self.child.id(), "TERM").expect("the gate runs");
    }

    /// Sends SIGKILL and waits for the end.
    pub async fn kill(&mut self) {
        signal(self.child.id(), "KILL").expect("the gate runs");
        self.exit().await;
    }

    /// How it ended; waits for that.
    pub async fn exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the gate ends", async || child.try_wait().unwrap()).await
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until its log has this text in it.
    pub async fn logs(&self, text: &str) {
        eventually(text, async || self.log().contains(text).then_some(())).await;
    }

    /// Waits until all listeners are open and all threads started.
    pub async fn is_ready(&self) {
        self.logs("ready tenants=").await;
    }

    /// The process id, for figures about memory and CPU.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder with its settings.
    pub fn folder(&self) -> PathBuf {
        self.keeper.folder().to_owned()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.keeper.folder().join("gate.pid"));
        if std::thread::panicking() {
            eprintln!("--- what the gate on port {} logged ---\n{}---", self.port, self.log());
        }
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
    command.arg("run").arg("--config").arg(folder.join(SETTINGS_FILE));
    command
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn fill(settings: &str, port: u16, http: u16) -> String {
    settings.replace("$PORT", &port.to_string()).replace("$HTTP", &http.to_string())
}

fn write_files(folder: &Path, settings: &str, files: &[(&str, &str)]) {
    let ours = [(SETTINGS_FILE, settings), ("login.key", JWT_KEY), ("seal.key", SEAL_KEY)];
    for (name, text) in ours.iter().chain(files) {
        fs::write(folder.join(name), text).unwrap();
        // Keys must be their owner's only.
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}
