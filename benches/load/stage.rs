//! What the figures are taken on: a throw-away cluster with one row-secured table and its tenants,
//! and the proxies in front of it, all on loopback, all ended when their values are dropped.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tenantgate::catalog::{NewToken, new_token};
use tenantgate::demo::{Cluster, Keeper, Plan, Template, User, command, free_port};
use tokio_postgres::NoTls;

/// Tenants in the catalog. Each has [`ROWS`] rows.
pub const TENANTS: usize = 50;
pub const ROWS: usize = 1000;

/// Made for one run and gone after it; it only has to be the same everywhere.
const PASSWORD: &str = "login-password-of-benches";

/// A login that is a tenant by its own start-up settings: PostgreSQL has the same work with it as
/// with a server the gate has bound.
const DIRECT: &str = "direct_login";

/// A login without a tenant: the application sets it in every transaction.
const APPLICATION: &str = "application_login";

const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Where PgBouncer lies when it is not on everybody's PATH.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Names another PgBouncer than the system's.
const PGBOUNCER_VARIABLE: &str = "TENANTGATE_PGBOUNCER";

/// The cluster, the tenants and the programs.
pub struct Stage {
    pub cluster: Cluster,
    pub pgbouncer: PgBouncer,
    tenants: Vec<(String, NewToken)>,
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
}

/// A proxy that was started here.
pub struct Proxy {
    pub port: u16,
    /// Whom it runs as, if not as us.
    pub user: Option<User>,
    child: Child,
    keeper: Keeper,
}

impl Stage {
    /// Starts the cluster and fills the table.
    pub async fn set() -> Result<Self> {
        let pgbouncer = PgBouncer::find()?;
        let template = Template::new()?;
        let cluster = Cluster::start(&template, &Plan::default())?;
        let mut tenants = Vec::new();
        for number in 0..TENANTS {
            let token = new_token().context("the system has no random numbers")?;
            tenants.push((format!("t{number:03}"), token));
        }
        run(&cluster, "postgres", &["CREATE DATABASE app"]).await?;
        run(&cluster, "app", &[&table_sql(), "VACUUM ANALYZE app.accounts"]).await?;
        Ok(Self { cluster, pgbouncer, tenants, _template: template })
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
        door(self.cluster.port(), "app", DIRECT, PASSWORD)
    }

    /// A tenant (counted around) at the gate.
    pub fn tenant(&self, gate: &Proxy, number: usize) -> Door {
        let token = self.tenants.get(number % TENANTS).map_or("", |(_, minted)| &minted.text);
        door(gate.port, "app", "app", token)
    }

    /// The one tenant of the plain scenarios through PgBouncer.
    pub fn bounced(&self, pgbouncer: &Proxy, dbname: &'static str) -> Door {
        door(pgbouncer.port, dbname, DIRECT, PASSWORD)
    }

    /// The application that sets its tenant itself, through PgBouncer.
    pub fn application(&self, pgbouncer: &Proxy) -> Door {
        door(pgbouncer.port, "app", APPLICATION, PASSWORD)
    }

    /// A gate with this many server connections. `wrap` runs it under another program.
    pub fn gate(&self, servers: usize, wrap: &[String]) -> Result<Proxy> {
        self.gate_of(Path::new(env!("CARGO_BIN_EXE_tenantgate")), servers, wrap)
    }

    /// The same, of another build.
    pub fn gate_of(&self, program: &Path, servers: usize, wrap: &[String]) -> Result<Proxy> {
        let keeper = Keeper::new("bench", &["proxy.pid"])?;
        let port = free_port()?;
        let upstream = self.cluster.port();
        let mut settings = format!(
            "[[listen]]\naddress = \"127.0.0.1:{port}\"\ntls = \"disable\"\n\
             plaintext_password = true\n\n\
             [clusters.main]\ncapacity = {servers}\nconnection_string = \
             \"postgresql://tg_login:{PASSWORD}@127.0.0.1:{upstream}/app?sslmode=disable\"\n"
        );
        for (id, minted) in &self.tenants {
            settings.push_str(&format!(
                "\n[tenants.{id}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
                 role = \"app_rw\"\ntokens = [\"{}\"]\n",
                minted.line
            ));
        }
        let file = keeper.folder().join("tenantgate.toml");
        fs::write(&file, settings)?;
        let mut words = wrap.to_vec();
        words.push(program.display().to_string());
        words.extend(["run".to_owned(), "--config".to_owned(), file.display().to_string()]);
        Proxy::start(&words, None, port, keeper)
    }

    /// A PgBouncer with as many server connections for each of its logins.
    pub fn pgbouncer(&self, servers: usize, wrap: &[String]) -> Result<Proxy> {
        let keeper = Keeper::new("bench", &["proxy.pid"])?;
        let port = free_port()?;
        let upstream = self.cluster.port();
        let folder = keeper.folder().to_owned();
        let users = folder.join("users.txt");
        let statements = match self.pgbouncer.keeps_statements {
            true => "max_prepared_statements = 200\n",
            false => "",
        };
        // Clear-text passwords on loopback, as at the gate, so that logins are alike too.
        let settings = format!(
            "[databases]\n\
             app = host=127.0.0.1 port={upstream} dbname=app\n\
             session = host=127.0.0.1 port={upstream} dbname=app pool_mode=session\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = plain\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {servers}\nmax_client_conn = 5000\n{statements}",
            users.display()
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, settings)?;
        let logins = [DIRECT, APPLICATION].map(|login| format!("\"{login}\" \"{PASSWORD}\"\n"));
        fs::write(&users, logins.concat())?;
        // It does not run as root either.
        let user = User::to_drop_to()?;
        if let Some(user) = user {
            for path in [&folder, &file, &users] {
                user.own(path)?;
            }
        }
        let mut words = wrap.to_vec();
        words.extend([self.pgbouncer.program.display().to_string(), file.display().to_string()]);
        Proxy::start(&words, user, port, keeper)
    }
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
        let mut proxy = Self { port, user, child, keeper };
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

fn door(port: u16, dbname: &'static str, user: &str, password: &str) -> Door {
    Door { port, dbname, user: user.to_owned(), password: password.to_owned() }
}

async fn run(cluster: &Cluster, dbname: &str, statements: &[&str]) -> Result<()> {
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

fn table_sql() -> String {
    let tenant = "nullif(current_setting('app.tenant_id', true), '')";
    let login = |name: &str| {
        format!("CREATE ROLE {name} LOGIN NOINHERIT PASSWORD '{PASSWORD}' IN ROLE app_rw;\n")
    };
    let logins = ["tg_login", DIRECT, APPLICATION].map(login).concat();
    let last = TENANTS - 1;
    format!(
        "CREATE ROLE app_owner NOLOGIN;
         CREATE ROLE app_rw NOLOGIN;
         {logins}
         ALTER ROLE {DIRECT} SET app.tenant_id = 't000';
         ALTER ROLE {DIRECT} SET role = 'app_rw';
         ALTER ROLE {DIRECT} SET search_path = 'app';
         ALTER ROLE {APPLICATION} SET role = 'app_rw';
         ALTER ROLE {APPLICATION} SET search_path = 'app';
         CREATE SCHEMA app AUTHORIZATION app_owner;
         SET ROLE app_owner;
         CREATE TABLE app.accounts (
             tenant_id text NOT NULL,
             aid integer NOT NULL,
             abalance integer NOT NULL,
             filler character(84) NOT NULL DEFAULT '',
             PRIMARY KEY (tenant_id, aid));
         INSERT INTO app.accounts
             SELECT 't' || lpad(tenant::text, 3, '0'), aid, aid
             FROM generate_series(0, {last}) tenant, generate_series(1, {ROWS}) aid;
         ALTER TABLE app.accounts ENABLE ROW LEVEL SECURITY;
         ALTER TABLE app.accounts FORCE ROW LEVEL SECURITY;
         CREATE POLICY own_rows ON app.accounts USING (tenant_id = {tenant});
         GRANT USAGE ON SCHEMA app TO app_rw;
         GRANT SELECT ON app.accounts TO app_rw;
         RESET ROLE;"
    )
}
