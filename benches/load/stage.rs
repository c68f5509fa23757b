//! What the figures are taken on: a throw-away cluster with one row-secured table and its tenants,
//! and the proxies in front of it, all on loopback, all ended when their values are dropped.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tenantgate::catalog::{NewToken, new_token};
use tenantgate::demo::{Cluster, Keeper, Plan, Template, User, command, free_port};
use tokio_postgres::NoTls;

use crate::{levels, tables};

/// Tenants in the catalog. Each has [`ROWS`] rows.
pub const TENANTS: usize = 1000;
pub const ROWS: usize = 100;

/// Made for one run and gone after it; it only has to be the same everywhere.
pub const PASSWORD: &str = "login-password-of-benches";

/// What tenants of level sealed are sealed with.
const SEAL_KEY: &str = "k1:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

/// A login that is a tenant by its own start-up settings: PostgreSQL has the same work with it as
/// with a server the gate has bound.
pub const DIRECT: &str = "direct_login";

/// A login without a tenant: the application sets it in every transaction.
pub const APPLICATION: &str = "application_login";

/// The login of a service that has not chosen a tenant.
pub const SERVICE: &str = "service_login";

/// The login to the database of the one tenant that has one of its own.
pub const SILO: &str = "silo_login";

const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Where PgBouncer lies when it is not on everybody's PATH.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Names another PgBouncer than the system's.
const PGBOUNCER_VARIABLE: &str = "TENANTGATE_PGBOUNCER";

/// The cluster, the tenants and the programs.
pub struct Stage {
    pub cluster: Cluster,
    /// None only where no figures are taken, as in a test.
    pub pgbouncer: Option<PgBouncer>,
    workers: Option<usize>,
    tenants: Vec<(String, NewToken)>,
    silo: NewToken,
    /// Certificate and key, PEM.
    certificate: (String, String),
    /// What PostgreSQL keeps of the password.
    verifier: String,
    _template: Template,
}

/// The program and what it can do.
pub struct PgBouncer {
    program: PathBuf,
    /// `1.25.2`
    pub version: String,
    /// Named prepared statements in transaction mode, since 1.21.
    pub keeps_statements: bool,
}

/// Where a client connects, and as whom.
#[derive(Clone, Debug)]
pub struct Door {
    pub port: u16,
    pub dbname: &'static str,
    pub user: String,
    pub password: String,
    pub tls: bool,
}

/// A proxy that was started here.
pub struct Proxy {
    pub port: u16,
    pub tls: bool,
    /// The database of its row tenants.
    dbname: &'static str,
    /// Whom it runs as, if not as us.
    pub user: Option<User>,
    child: Child,
    keeper: Keeper,
}

impl Stage {
    /// Starts the cluster and fills its tables.
    pub async fn set(needs_pgbouncer: bool, workers: Option<usize>) -> Result<Self> {
        let pgbouncer = match PgBouncer::find() {
            Err(_) if !needs_pgbouncer => None,
            found => Some(found?),
        };
        let template = Template::new()?;
        let settings = "max_connections = 400\nshared_buffers = 256MB\nmax_wal_size = 4GB";
        let plan = Plan { settings: settings.to_owned(), ..Plan::default() };
        let cluster = Cluster::start(&template, &plan)?;
        let new = || new_token().context("the system has no random numbers");
        let tenants = (0..TENANTS).map(|number| Ok((tenant_id(number), new()?)));
        let tenants = tenants.collect::<Result<Vec<_>>>()?;
        run(&cluster, "postgres", &["CREATE DATABASE app", "CREATE DATABASE silo"]).await?;
        run(&cluster, "app", &[&tables::roles(), &tables::tables(), "VACUUM ANALYZE"]).await?;
        let sink = format!("CREATE TABLE sink (line text); GRANT ALL ON sink TO {SILO}");
        run(&cluster, "silo", &[&sink]).await?;
        let verifier = verifier(&cluster).await?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        let certificate = (made.cert.pem(), made.signing_key.serialize_pem());
        let silo = new()?;
        let _template = template;
        let stage =
            Self { cluster, pgbouncer, workers, tenants, silo, certificate, verifier, _template };
        levels::prepare(&stage).await?;
        Ok(stage)
    }

    /// The process id of PostgreSQL's postmaster.
    pub fn postmaster(&self) -> Result<u32> {
        let file = self.cluster.folder().join("data/postmaster.pid");
        let text = fs::read_to_string(file)?;
        text.lines().next().and_then(|line| line.parse().ok()).context("no postmaster.pid")
    }

    /// The version as the server tells it.
    pub fn postgres_version(&self) -> Result<String> {
        let output = Command::new(self.program("postgres")).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split_whitespace().nth(2).unwrap_or("?").to_owned())
    }

    /// One of PostgreSQL's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.cluster.binaries().program(name)
    }

    /// The cluster itself, as the one tenant of the plain scenarios.
    pub fn direct(&self) -> Door {
        door(self.cluster.port(), false, "app", DIRECT, PASSWORD)
    }

    /// The id of a tenant, and what a password of [`Stage::direct`] is verified with.
    pub fn credential(&self, number: usize) -> (&str, &str) {
        (self.tenants.get(number % TENANTS).map_or("", |(id, _)| id), &self.verifier)
    }

    /// A tenant (counted around) at the gate.
    pub fn tenant(&self, gate: &Proxy, number: usize) -> Door {
        let token = self.tenants.get(number % TENANTS).map_or("", |(_, minted)| &minted.text);
        door(gate.port, gate.tls, gate.dbname, "app", token)
    }

    /// The one tenant of the plain scenarios through PgBouncer.
    pub fn bounced(&self, pgbouncer: &Proxy, dbname: &'static str) -> Door {
        door(pgbouncer.port, pgbouncer.tls, dbname, DIRECT, PASSWORD)
    }

    /// The application that sets its tenant itself, through PgBouncer.
    pub fn application(&self, pgbouncer: &Proxy) -> Door {
        door(pgbouncer.port, pgbouncer.tls, "app", APPLICATION, PASSWORD)
    }

    /// A tenant with a login, and so a pool, of its own at PgBouncer.
    pub fn pooled(&self, pgbouncer: &Proxy, number: usize) -> Door {
        door(pgbouncer.port, pgbouncer.tls, "app", &pool_login(number), PASSWORD)
    }

    /// The tenant with a database of its own: at the gate, or else where nobody knows tenants.
    pub fn silo(&self, proxy: Option<&Proxy>, is_gate: bool) -> Door {
        let (port, tls) = proxy.map_or((self.cluster.port(), false), |it| (it.port, it.tls));
        match is_gate {
            true => door(port, tls, "silo", "app", &self.silo.text),
            false => door(port, tls, "silo", SILO, PASSWORD),
        }
    }

    /// What the settings of a gate say of its cluster and tenants.
    pub fn settings(&self, plan: GatePlan<'_>, folder: &Path) -> Result<String> {
        let (upstream, servers) = (self.cluster.port(), plan.servers);
        let workers = self.workers.map(|count| format!("workers = {count}\n"));
        let workers = workers.unwrap_or_default();
        let mut level = plan.level.map(|it| format!("level = \"{it}\"\n")).unwrap_or_default();
        if plan.level == Some("sealed") {
            let key = folder.join("seal.key");
            fs::write(&key, SEAL_KEY)?;
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
            level.push_str("seal_key_file = \"seal.key\"\n");
        }
        let string = |login: &str, dbname: &str| {
            format!(
                "connection_string = \"host=127.0.0.1 port={upstream} user={login} \
                 password={PASSWORD} dbname={dbname} sslmode=disable\"\n"
            )
        };
        let mut settings = format!(
            "[gate]\nclients = 20000\n{workers}\n\
             [clusters.main]\ncapacity = {servers}\n{level}{}",
            string("tg_login", levels::dbname(plan.level))
        );
        if plan.prepares {
            settings.push_str("\n[tiers.default]\nprepare_threshold = 2\n");
        }
        for (id, minted) in &self.tenants {
            settings.push_str(&format!(
                "\n[tenants.{id}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
                 role = \"app_rw\"\ntokens = [\"{}\"]\n",
                minted.line
            ));
        }
        settings.push_str(&format!(
            "\n[tenants.silo]\nisolation = \"silo\"\ncluster = \"main\"\ntokens = [\"{}\"]\n{}",
            self.silo.line,
            string(SILO, "silo")
        ));
        Ok(settings)
    }

    /// A gate.
    pub fn gate(&self, plan: GatePlan<'_>) -> Result<Proxy> {
        let keeper = Keeper::new("bench", &["proxy.pid"])?;
        let port = free_port()?;
        let tls = match plan.tls {
            true => {
                let [certificate, key] = self.identity(keeper.folder(), None)?;
                format!("tls = \"require\"\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n")
            }
            false => "tls = \"disable\"\nplaintext_password = true\n".to_owned(),
        };
        let settings = format!(
            "[[listen]]\naddress = \"127.0.0.1:{port}\"\n{tls}{}\n{}{}",
            plan.listen,
            self.settings(plan, keeper.folder())?,
            plan.more
        );
        let file = keeper.folder().join("tenantgate.toml");
        fs::write(&file, settings)?;
        let own = Path::new(env!("CARGO_BIN_EXE_tenantgate"));
        let mut words = plan.wrap.to_vec();
        words.push(plan.program.unwrap_or(own).display().to_string());
        words.extend(["run".to_owned(), "--config".to_owned(), file.display().to_string()]);
        let mut proxy = Proxy::start(&words, None, port, keeper)?;
        proxy.dbname = levels::dbname(plan.level);
        Ok(proxy)
    }

    /// A PgBouncer with as many server connections for each of its logins.
    pub fn pgbouncer(&self, plan: PgBouncerPlan<'_>) -> Result<Proxy> {
        let found = self.pgbouncer.as_ref().context("there is no PgBouncer on this machine")?;
        let keeper = Keeper::new("bench", &["proxy.pid"])?;
        let port = free_port()?;
        let (upstream, servers) = (self.cluster.port(), plan.servers);
        let folder = keeper.folder().to_owned();
        // It does not run as root either.
        let user = User::to_drop_to()?;
        let users = folder.join("users.txt");
        let mut more = String::new();
        if found.keeps_statements {
            more.push_str("max_prepared_statements = 200\n");
        }
        if let Some(servers) = plan.servers_in_all {
            more.push_str(&format!("max_db_connections = {servers}\n"));
        }
        if plan.tls {
            let [certificate, key] = self.identity(&folder, user)?;
            more.push_str(&format!(
                "client_tls_sslmode = require\nclient_tls_cert_file = {certificate}\n\
                 client_tls_key_file = {key}\n"
            ));
        }
        // Clear-text passwords on loopback, as at the gate, so that logins are alike too.
        let (auth, secret) = match plan.scram {
            true => ("scram-sha-256", self.verifier.as_str()),
            false => ("plain", PASSWORD),
        };
        let settings = format!(
            "[databases]\n\
             app = host=127.0.0.1 port={upstream} dbname=app\n\
             silo = host=127.0.0.1 port={upstream} dbname=silo\n\
             session = host=127.0.0.1 port={upstream} dbname=app pool_mode=session\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = {auth}\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {servers}\nmax_client_conn = 20000\n{more}",
            users.display()
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, settings)?;
        let tenants = (0..TENANTS).map(pool_login);
        let logins = [DIRECT, APPLICATION, SILO].map(str::to_owned).into_iter().chain(tenants);
        let lines: String = logins.map(|login| format!("\"{login}\" \"{secret}\"\n")).collect();
        fs::write(&users, lines)?;
        if let Some(user) = user {
            for path in [&folder, &file, &users] {
                user.own(path)?;
            }
        }
        let mut words = plan.wrap.to_vec();
        words.extend([found.program.display().to_string(), file.display().to_string()]);
        Proxy::start(&words, user, port, keeper)
    }

    /// Certificate and key of this machine, as files in a folder.
    fn identity(&self, folder: &Path, user: Option<User>) -> Result<[String; 2]> {
        let (certificate, key) = &self.certificate;
        let files = [("proxy.crt", certificate), ("proxy.key", key)];
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text)?;
            if let Some(user) = user {
                user.own(&path)?;
            }
        }
        Ok(files.map(|(name, _)| folder.join(name).display().to_string()))
    }
}

/// What a gate is started with.
#[derive(Clone, Copy, Debug, Default)]
pub struct GatePlan<'plan> {
    pub servers: usize,
    pub tls: bool,
    pub level: Option<&'plan str>,
    /// More of its listener, and of its settings.
    pub listen: &'plan str,
    pub more: &'plan str,
    /// Unnamed statements are prepared when they come for the second time.
    pub prepares: bool,
    /// Another build.
    pub program: Option<&'plan Path>,
    /// Runs it under another program.
    pub wrap: &'plan [String],
}

/// What a PgBouncer is started with.
#[derive(Clone, Copy, Debug, Default)]
pub struct PgBouncerPlan<'plan> {
    /// For each login.
    pub servers: usize,
    /// For all logins of a database together.
    pub servers_in_all: Option<usize>,
    pub tls: bool,
    /// SCRAM from verifiers instead of clear-text passwords.
    pub scram: bool,
    pub wrap: &'plan [String],
}

impl PgBouncer {
    fn find() -> Result<Self> {
        let program = match std::env::var_os(PGBOUNCER_VARIABLE) {
            Some(program) => PathBuf::from(program),
            None => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let folders = std::env::split_paths(&path);
                let folders = folders.chain(SYSTEM_FOLDERS.map(PathBuf::from));
                let mut programs = folders.map(|folder| folder.join("pgbouncer"));
                programs
                    .find(|program| program.is_file())
                    .context("no PgBouncer on this machine: run `make bench`, which installs it")?
            }
        };
        let output = Command::new(&program).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().next().unwrap_or_default().replace("PgBouncer ", "");
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version_of = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        Ok(Self { program, version, keeps_statements: version_of >= (1, 21) })
    }
}

impl Proxy {
    fn start(words: &[String], user: Option<User>, port: u16, keeper: Keeper) -> Result<Self> {
        let Some((program, arguments)) = words.split_first() else { bail!("no program") };
        let log = fs::File::create(keeper.folder().join("log"))?;
        let child = command(Path::new(program), user)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let tls = keeper.folder().join("proxy.crt").exists();
        let mut proxy = Self { port, tls, dbname: "app", user, child, keeper };
        fs::write(proxy.keeper.folder().join("proxy.pid"), format!("{}\n", proxy.pid()))?;
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if proxy.child.try_wait()?.is_some() || Instant::now() >= deadline {
                bail!("{program} did not start:\n{}", proxy.log());
            }
            thread::sleep(POLL);
        }
        Ok(proxy)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end and waits until it has, so that it can write what it has counted.
    pub fn end(mut self) -> Result<()> {
        tenantgate::demo::signal(self.pid(), "INT")?;
        let deadline = Instant::now() + START_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                bail!("a proxy did not end:\n{}", self.log());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.keeper.folder().join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.keeper.folder().join("proxy.pid"));
    }
}

fn door(port: u16, tls: bool, dbname: &'static str, user: &str, password: &str) -> Door {
    Door { port, dbname, user: user.to_owned(), password: password.to_owned(), tls }
}

fn tenant_id(number: usize) -> String {
    format!("t{number:03}")
}

/// The login of a tenant where each has a pool of its own.
fn pool_login(number: usize) -> String {
    format!("pool_t{number:03}")
}

/// What PostgreSQL keeps of the logins' password; all have the same.
async fn verifier(cluster: &Cluster) -> Result<String> {
    let conninfo = cluster.superuser_conninfo("app");
    let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await?;
    let connection = tokio::spawn(connection);
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = $1";
    let verifier = client.query_one(sql, &[&DIRECT]).await?.get(0);
    drop(client);
    connection.await??;
    Ok(verifier)
}

pub async fn run(cluster: &Cluster, dbname: &str, statements: &[&str]) -> Result<()> {
    let conninfo = cluster.superuser_conninfo(dbname);
    let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await?;
    let connection = tokio::spawn(connection);
    for sql in statements {
        client.batch_execute(sql).await?;
    }
    drop(client);
    connection.await??;
    Ok(())
}
