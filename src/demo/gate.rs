//! The gate of the demonstration: this same program, started as `tenantgate run`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;

use crate::demo::cluster::{self, free_port};
use crate::demo::estate::Estate;
use crate::demo::keeper::{self, Keeper};

/// PgBouncer's port and ours; taken if it is free.
const USUAL_PORT: u16 = 6432;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// A gate as a child process, ended when the value is dropped or this process ends.
pub struct Gate {
    child: Child,
    port: u16,
    http_port: u16,
    keeper: Keeper,
}

impl Gate {
    /// Writes the settings and waits until the gate accepts connections.
    pub async fn start(estate: &Estate) -> Result<Self> {
        let keeper = Keeper::new("demo", &["gate.pid"])?;
        let folder = keeper.folder().to_owned();
        let port = if is_free(USUAL_PORT) { USUAL_PORT } else { free_port()? };
        let http_port = free_port()?;
        fs::write(folder.join("tenantgate.toml"), estate.settings(port, http_port))?;
        cluster::write(&folder.join("login.key"), &estate.login_key, None)?;
        let log = fs::File::create(folder.join("gate.log"))?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let child = keeper::command(&program, None)
            .args(["run", "--config"])
            .arg(folder.join("tenantgate.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the gate")?;
        let mut gate = Self { child, port, http_port, keeper };
        fs::write(folder.join("gate.pid"), format!("{}\n", gate.child.id()))?;
        gate.accepts().await?;
        Ok(gate)
    }

    async fn accepts(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if self.child.try_wait()?.is_some() || Instant::now() >= deadline {
                bail!("the gate did not start:\n{}", self.log().trim_end());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Where applications connect to on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where `/metrics` and `/ready` are.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The file to look at, and to change while it runs.
    pub fn settings_file(&self) -> PathBuf {
        self.folder().join("tenantgate.toml")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("gate.log")).unwrap_or_default()
    }

    fn folder(&self) -> &Path {
        self.keeper.folder()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Nobody is left to drain for. Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.folder().join("gate.pid"));
    }
}

fn is_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}
