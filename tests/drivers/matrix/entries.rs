//! The drivers of the matrix, and how the script of each is started.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::installed;

/// A driver and its script.
pub struct Entry {
    pub name: &'static str,
    pub language: &'static str,
    /// What has to be installed for it.
    pub comes_with: &'static str,
    script: &'static str,
    kind: Kind,
}

/// What runs a script. The text is what the driver is called where it is looked for.
enum Kind {
    Python(&'static str),
    Node(&'static str),
    Ruby(&'static str),
    Perl(&'static str),
    Php(&'static str),
    Java,
    /// The argument that chooses the driver.
    Go(&'static str),
    C,
}

use Kind::{C, Go, Java, Node, Perl, Php, Python, Ruby};

pub fn all() -> Vec<Entry> {
    let entry = |name, script, kind| {
        let (language, comes_with) = match &kind {
            Python(_) => ("Python", "tests/drivers/requirements.txt"),
            Node(_) => ("JavaScript", "tests/drivers/package.json"),
            Ruby(_) => ("Ruby", "Debian's ruby-pg"),
            Perl(_) => ("Perl", "Debian's libdbd-pg-perl"),
            Php(_) => ("PHP", "Debian's php-cli and php-pgsql"),
            Java => ("Java", "a JDK, Debian's libpostgresql-jdbc-java and libhikaricp-java"),
            Go(_) => ("Go", "Debian's golang-go, golang-github-jackc-pgx-v4-dev and -lib-pq-dev"),
            C => ("C", "a C compiler and Debian's libpq-dev"),
        };
        Entry { name, language, comes_with, script, kind }
    };
    vec![
        entry("libpq", "of_libpq.c", C),
        entry("psycopg 3", "python/of_psycopg3.py", Python("psycopg_pool")),
        entry("psycopg 3, asyncio", "python/of_psycopg3_asyncio.py", Python("psycopg_pool")),
        entry("psycopg2", "python/of_psycopg2.py", Python("psycopg2")),
        entry("asyncpg", "python/of_asyncpg.py", Python("asyncpg")),
        entry("pg8000", "python/of_pg8000.py", Python("pg8000")),
        entry("SQLAlchemy", "python/of_sqlalchemy.py", Python("sqlalchemy")),
        entry("Django", "python/of_django.py", Python("django")),
        entry("ODBC (psqlODBC)", "python/of_pyodbc.py", Python("pyodbc")),
        entry("node-postgres", "node/of_node_postgres.js", Node("pg-copy-streams")),
        entry("postgres.js", "node/of_postgres_js.js", Node("postgres")),
        entry("Knex", "node/of_knex.js", Node("knex")),
        entry("Drizzle", "node/of_drizzle.js", Node("drizzle-orm")),
        entry("pgjdbc, HikariCP", "OfPgjdbc.java", Java),
        entry("pgx", "go", Go("pgx")),
        entry("lib/pq", "go", Go("pq")),
        entry("pg", "of_ruby_pg.rb", Ruby("pg")),
        entry("PDO", "of_php_pdo.php", Php("pdo_pgsql")),
        entry("DBD::Pg", "of_dbd_pg.pl", Perl("DBD::Pg")),
    ]
}

impl Entry {
    /// Whether the driver is on this machine. What has to be compiled is compiled by this.
    pub fn is_here(&self) -> bool {
        let output = self.probe().stdin(Stdio::null()).output();
        let here = output.as_ref().is_ok_and(|output| output.status.success());
        if let (false, Ok(output)) = (here, &output) {
            println!("{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        here
    }

    fn probe(&self) -> Command {
        let script = self.path();
        match self.kind {
            // ODBC has its driver in a library of its own.
            Python("pyodbc") if odbc().is_none() => Command::new("no ODBC driver"),
            Python(module) => command(python(), &["-c", &format!("import {module}")]),
            Node(module) => {
                let mut node = command("node", &["-e", &format!("require({module:?})")]);
                node.env("NODE_PATH", installed("node_modules"));
                node
            }
            Ruby(module) => command("ruby", &["-e", &format!("require {module:?}")]),
            Perl(module) => command("perl", &[&format!("-M{module}"), "-e1"]),
            Php(module) => {
                command("php", &["-r", &format!("exit(!extension_loaded({module:?}));")])
            }
            Java => {
                let mut javac = command("javac", &["-cp", JARS, "-d"]);
                javac.arg(installed("java")).arg(script);
                javac
            }
            Go(_) => {
                let mut go = command("go", &["build", "-o"]);
                go.arg(installed("matrix_go")).arg(".").current_dir(script);
                go_sources(&mut go);
                go
            }
            C => {
                let mut cc =
                    command("cc", &["-Wall", "-Wextra", "-I/usr/include/postgresql", "-o"]);
                cc.arg(installed("matrix_c")).arg(script).arg("-lpq");
                cc
            }
        }
    }

    /// What runs the script.
    pub fn command(&self) -> Command {
        let script = self.path();
        let mut run = match self.kind {
            Python(_) => Command::new(python()),
            Node(_) => Command::new("node"),
            Ruby(_) => Command::new("ruby"),
            Perl(_) => Command::new("perl"),
            Php(_) => Command::new("php"),
            Java => {
                // A program of seconds is not worth the best code.
                let mut java = command("java", &["-XX:TieredStopAtLevel=1", "-cp"]);
                java.arg(format!("{JARS}:{}", installed("java").display())).arg("OfPgjdbc");
                return java;
            }
            Go(driver) => return command(installed("matrix_go"), &[driver]),
            C => return Command::new(installed("matrix_c")),
        };
        run.arg(script)
            .env("NODE_PATH", installed("node_modules"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TG_ODBC", odbc().unwrap_or_default());
        run
    }

    fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/matrix").join(self.script)
    }
}

/// Where Debian has them.
pub const JARS: &str = "/usr/share/java/postgresql.jar:/usr/share/java/HikariCP.jar:\
                    /usr/share/java/slf4j-api.jar";

pub fn python() -> PathBuf {
    installed("python/bin/python")
}

/// psqlODBC's library, which is under the name of the machine's architecture.
fn odbc() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut libraries = folders.map(|folder| folder.path().join("odbc/psqlodbcw.so"));
    libraries.find(|library| library.exists())
}

/// Where Debian's packages of Go sources lie, which know nothing of modules.
pub fn go_sources(go: &mut Command) -> &mut Command {
    go.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode");
    go.env("GOCACHE", installed("go-cache"))
}

fn command(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
