//! Throw-away PostgreSQL clusters for the demonstration and for the tests: real servers in a
//! temporary folder, on loopback, gone when the value is dropped or the process ends.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::demo::binaries::Binaries;
use crate::demo::keeper::{self, Keeper, User};

/// The superuser of every cluster made here.
pub const SUPERUSER: &str = "postgres";

/// How long a server may take to say that it is ready; a loaded machine with two cores needs
/// seconds, an ordinary one 100 ms.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks at the server's state.
const POLL: Duration = Duration::from_millis(5);

/// Where ports are looked for: none of these is ever what the system chooses by itself, for another
/// listener or for a connection, between our look and the server's start.
const PORTS: Range<u16> = 10_000..32_000;

/// Another program may take the port nevertheless.
const PORT_TRIES: usize = 5;

/// Speed before safety: nothing in these clusters outlives the process. What was committed is still
/// there after a crash of the server, though not of the machine. The limits are what tests
/// need and what a machine with little shared memory still grants.
const SETTINGS: &str = "
fsync = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
shared_buffers = 32MB
max_connections = 120
max_prepared_transactions = 4
password_encryption = 'scram-sha-256'
jit = off
autovacuum = off
logging_collector = off
log_line_prefix = '%m [%p] %u@%d '
log_checkpoints = off
lc_messages = 'C'
";

/// A data folder fresh from initdb, which each cluster copies instead of running initdb again.
#[derive(Debug)]
pub struct Template {
    binaries: Binaries,
    user: Option<User>,
    password: String,
    keeper: Keeper,
}

impl Template {
    /// Finds PostgreSQL and runs initdb, which takes a second or two. Not being able to find it is
    /// an error of one line that says what to install.
    pub fn new() -> Result<Self> {
        Self::of(Binaries::find()?)
    }

    /// The same with these programs.
    pub fn of(binaries: Binaries) -> Result<Self> {
        let user = User::to_drop_to()?;
        let keeper = Keeper::new("template", &[])?;
        let password = keeper::hex(&keeper::random::<16>()?);
        let template = Self { binaries, user, password, keeper };
        let password_file = template.keeper.folder().join("password");
        write(&password_file, &template.password, user)?;
        if let Some(user) = user {
            user.own(template.keeper.folder())?;
        }
        let initdb = template.binaries.program("initdb");
        let output = keeper::command(&initdb, user)
            .arg("--pgdata")
            .arg(template.data())
            .args(["--username", SUPERUSER, "--auth", "scram-sha-256", "--encoding", "UTF8"])
            .args(["--no-locale", "--no-sync", "--no-instructions"])
            .arg(format!("--pwfile={}", password_file.display()))
            .current_dir("/")
            .output()
            .with_context(|| format!("cannot run {}", initdb.display()))?;
        if !output.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(template)
    }

    /// PostgreSQL's programs on this machine.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    fn data(&self) -> PathBuf {
        self.keeper.folder().join("data")
    }
}

/// How a cluster differs from the plain one.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Certificate chain and key, both PEM. With them the server accepts TLS, and plaintext too
    /// unless `hba` says otherwise.
    pub tls: Option<(String, String)>,
    /// Lines of pg_hba.conf instead of SCRAM for everybody.
    pub hba: Option<String>,
    /// Further lines of postgresql.conf.
    pub settings: String,
}

/// A running PostgreSQL cluster of ours.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    user: Option<User>,
    password: String,
    port: u16,
    server: Option<Child>,
    // Dropped after the server has been waited for: it removes the folder.
    keeper: Keeper,
}

impl Cluster {
    /// Copies the template and starts a server on a free port of 127.0.0.1 and a Unix socket in the
    /// cluster's folder.
    pub fn start(template: &Template, plan: &Plan) -> Result<Self> {
        let keeper = Keeper::new("cluster", &["data/postmaster.pid"])?;
        let user = template.user;
        if let Some(user) = user {
            user.own(keeper.folder())?;
        }
        let mut cluster = Self {
            binaries: template.binaries.clone(),
            user,
            password: template.password.clone(),
            port: 0,
            server: None,
            keeper,
        };
        cluster.copy(&template.data())?;
        cluster.configure(plan)?;
        for tries_left in (0..PORT_TRIES).rev() {
            cluster.port = free_port()?;
            match cluster.launch() {
                Err(error) if tries_left == 0 || !error.to_string().contains("in use") => {
                    return Err(error);
                }
                Err(_) => {}
                Ok(()) => break,
            }
        }
        Ok(cluster)
    }

    /// Copies a running server with pg_basebackup and starts the copy as its standby. The server
    /// must let its superuser in for replication.
    pub fn standby(primary: &Self) -> Result<Self> {
        let keeper = Keeper::new("standby", &["data/postmaster.pid"])?;
        if let Some(user) = primary.user {
            user.own(keeper.folder())?;
        }
        let mut cluster = Self {
            binaries: primary.binaries.clone(),
            user: primary.user,
            password: primary.password.clone(),
            port: free_port()?,
            server: None,
            keeper,
        };
        let program = cluster.binaries.program("pg_basebackup");
        let output = keeper::command(&program, cluster.user)
            .args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--dbname"])
            .arg(primary.superuser_conninfo("postgres"))
            .arg("-D")
            .arg(cluster.data())
            .current_dir("/")
            .output()
            .context("cannot run pg_basebackup")?;
        if !output.status.success() {
            bail!("pg_basebackup: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        cluster.launch()?;
        Ok(cluster)
    }

    /// Ends the server as a crash would: clients are cut off, no checkpoint is written.
    pub fn crash(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // An error means that the server has ended by itself, which is as good.
        let _ = keeper::signal(server.id(), "QUIT");
        let _ = server.wait();
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
    }

    /// Starts the server again, on the same port, after ending it if it still runs.
    pub fn restart(&mut self) -> Result<()> {
        self.crash();
        self.launch()
    }

    /// Makes the server read pg_hba.conf and postgresql.conf again.
    pub fn reload(&self) -> Result<()> {
        let Some(server) = &self.server else { bail!("the cluster is not running") };
        keeper::signal(server.id(), "HUP").context("the cluster is not running")
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with the Unix socket, the data and the log; only ours.
    pub fn folder(&self) -> &Path {
        self.keeper.folder()
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// PostgreSQL's programs on this machine.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// A connection string for a login made in this cluster, in libpq's keyword form.
    pub fn conninfo(&self, user: &str, password: &str, dbname: &str) -> String {
        let port = self.port;
        format!(
            "host=127.0.0.1 port={port} user={user} password={password} dbname={dbname} \
             sslmode=disable"
        )
    }

    /// The superuser's connection string.
    pub fn superuser_conninfo(&self, dbname: &str) -> String {
        self.conninfo(SUPERUSER, &self.password, dbname)
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn data(&self) -> PathBuf {
        self.keeper.folder().join("data")
    }

    fn copy(&self, template: &Path) -> Result<()> {
        let output = keeper::command(Path::new("cp"), self.user)
            .arg("-Rp")
            .arg(template)
            .arg(self.data())
            .current_dir("/")
            .output()
            .context("cannot run cp")?;
        if !output.status.success() {
            bail!("cp: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn configure(&self, plan: &Plan) -> Result<()> {
        let data = self.data();
        let mut settings = SETTINGS.to_owned();
        let sockets = self.folder().display().to_string().replace('\'', "''");
        settings.push_str("listen_addresses = '127.0.0.1'\n");
        settings.push_str(&format!("unix_socket_directories = '{sockets}'\n"));
        if let Some((certificate, key)) = &plan.tls {
            write(&data.join("server.crt"), certificate, self.user)?;
            write(&data.join("server.key"), key, self.user)?;
            settings.push_str("ssl = on\n");
        }
        settings.push_str(&plan.settings);
        let path = data.join("postgresql.conf");
        let file = fs::OpenOptions::new().append(true).open(&path);
        file.and_then(|mut file| file.write_all(settings.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let scram = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n";
        let hba = plan.hba.as_deref().unwrap_or(scram);
        write(&data.join("pg_hba.conf"), hba, self.user)
    }

    fn launch(&mut self) -> Result<()> {
        let log = self.folder().join("log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let program = self.binaries.program("postgres");
        let mut server = keeper::command(&program, self.user)
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.says_ready() {
            let ended = server.try_wait()?;
            if ended.is_some() || Instant::now() >= deadline {
                let _ = server.kill();
                let _ = server.wait();
                return Err(anyhow!("PostgreSQL did not start: {}", self.last_words()));
            }
            thread::sleep(POLL);
        }
        self.server = Some(server);
        Ok(())
    }

    /// The eighth line of postmaster.pid is the server's state, which pg_ctl waits for as well.
    fn says_ready(&self) -> bool {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|state| ["ready", "standby"].contains(&state.trim()))
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(6).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash();
    }
}

/// A port of 127.0.0.1 that was free a moment ago, for a process that takes it a moment later.
///
/// # Errors
///
/// None of many was free.
pub fn free_port() -> Result<u16> {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut some = (0..1_000).map(|_| fastrand::u16(PORTS));
    some.find(free).context("cannot find a free port")
}

/// Writes a file that only its owner reads, as PostgreSQL demands of keys.
pub(super) fn write(path: &Path, text: &str, user: Option<User>) -> Result<()> {
    let file =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    user.map_or(Ok(()), |user| user.own(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_starts_crashes_starts_again_and_leaves_nothing_behind() {
        let template = Template::new().unwrap();
        let mut cluster = Cluster::start(&template, &Plan::default()).unwrap();
        let port = cluster.port();
        let folder = cluster.folder().to_owned();
        assert!(folder.join(format!(".s.PGSQL.{port}")).exists());
        cluster.crash();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
        cluster.restart().unwrap();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        drop(cluster);
        assert!(!folder.exists());
    }
}
