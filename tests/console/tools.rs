//! Tools that know PgBouncer: the columns they expect, as a PgBouncer beside shows them, and what
//! drivers and a scraper make of ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::{ADMIN, gate};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{Frame, query};
use crate::harness::tenants::{LOGIN_PASSWORD, Tweaks};
use crate::harness::wire::{Login, Wire};

/// What PgBouncer 1.18 shows, as `name:oid` (25 text, 23 int4, 1700 numeric). Columns of later
/// releases are not in it.
const PGBOUNCER: [(&str, &str); 12] = [
    ("LISTS", "list:25 items:23"),
    (
        "STATS",
        "database:25 total_xact_count:1700 total_query_count:1700 total_received:1700 \
         total_sent:1700 total_xact_time:1700 total_query_time:1700 total_wait_time:1700 \
         avg_xact_count:1700 avg_query_count:1700 avg_recv:1700 avg_sent:1700 avg_xact_time:1700 \
         avg_query_time:1700 avg_wait_time:1700",
    ),
    (
        "STATS_TOTALS",
        "database:25 xact_count:1700 query_count:1700 bytes_received:1700 bytes_sent:1700 \
         xact_time:1700 query_time:1700 wait_time:1700",
    ),
    (
        "STATS_AVERAGES",
        "database:25 xact_count:1700 query_count:1700 bytes_received:1700 bytes_sent:1700 \
         xact_time:1700 query_time:1700 wait_time:1700",
    ),
    (
        "DATABASES",
        "name:25 host:25 port:23 database:25 force_user:25 pool_size:23 min_pool_size:23 \
         reserve_pool:23 pool_mode:25 max_connections:23 current_connections:23 paused:23 \
         disabled:23",
    ),
    ("USERS", "name:25 pool_mode:25"),
    (
        "POOLS",
        "database:25 user:25 cl_active:23 cl_waiting:23 cl_active_cancel_req:23 \
         cl_waiting_cancel_req:23 sv_active:23 sv_active_cancel:23 sv_being_canceled:23 \
         sv_idle:23 sv_used:23 sv_tested:23 sv_login:23 maxwait:23 maxwait_us:23 pool_mode:25",
    ),
    ("CLIENTS", SOCKET),
    ("SERVERS", SOCKET),
    ("MEM", "name:25 size:23 used:23 free:23 memtotal:23"),
    ("CONFIG", "key:25 value:25 default:25 changeable:25"),
    ("VERSION", "version:25"),
];

const SOCKET: &str = "type:25 user:25 database:25 state:25 addr:25 port:23 local_addr:25 \
                      local_port:23 connect_time:25 request_time:25 wait:23 wait_us:23 \
                      close_needed:23 ptr:25 link:25 remote_pid:23 tls:25 application_name:25";

/// The columns of a SHOW, as in [`PGBOUNCER`].
async fn columns(wire: &mut Wire, what: &str) -> String {
    wire.send(query(&format!("SHOW {what}"))).await;
    let frames = wire.until_ready().await;
    described(frames.iter().find(|frame| frame.tag == b'T').expect(what))
}

fn described(frame: &Frame) -> String {
    let mut rest = &frame.body[2..];
    let mut columns = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(&rest[..end]);
        let oid = u32::from_be_bytes(rest[end + 7..end + 11].try_into().unwrap());
        columns.push(format!("{name}:{oid}"));
        rest = &rest[end + 19..];
    }
    columns.join(" ")
}

#[tokio::test]
async fn columns_are_pgbouncers_and_ours_behind_them() {
    let (_estate, gate) = gate(&Tweaks::default()).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    for (what, wanted) in PGBOUNCER {
        let ours = columns(&mut console, what).await;
        assert!(format!("{ours} ").starts_with(&format!("{wanted} ")), "SHOW {what}: {ours}");
    }
}

/// The table above is what a PgBouncer says, where there is one of that release.
#[tokio::test]
async fn a_pgbouncer_beside_shows_the_same_columns() {
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].map(Path::new);
    let Some(program) = program.into_iter().find(|it| it.exists()) else {
        println!("there is no pgbouncer here");
        return;
    };
    let port = tenantgate::demo::free_port().unwrap();
    let settings = format!(
        "[databases]\napp = host=127.0.0.1 port=1 dbname=app\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         admin_users = admin\nlogfile =\npidfile =\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgbouncer.ini");
    std::fs::write(&file, settings).unwrap();
    // It refuses to run as root.
    let mut command = Command::new(program);
    if std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0)
    {
        command.args(["-u", "nobody"]);
    }
    let quiet = command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = quiet.kill_on_drop(true).spawn().unwrap();
    eventually("pgbouncer accepts", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    let login = Login { user: "admin", dbname: "pgbouncer", password: "", more: &[] };
    let mut wire = Wire::login(port, &login).await;
    wire.send(query("SHOW VERSION")).await;
    let version = crate::harness::messages::transcript(&wire.until_ready().await);
    for (what, wanted) in PGBOUNCER {
        let theirs = columns(&mut wire, what).await;
        if version.contains("PgBouncer 1.18.") {
            assert_eq!(theirs, wanted, "SHOW {what}");
        }
    }
    running.kill().await.unwrap();
}

/// Runs a script against the console of a gate with some traffic.
async fn run(program: &Path, arguments: &[PathBuf], gate: &Gate) {
    let output = Command::new(program)
        .args(arguments)
        .env("TG_PORT", gate.port.to_string())
        .env("TG_PASSWORD", LOGIN_PASSWORD)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(120), output);
    let output = output.await.expect("it ends in time").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("ok"), "{said}{wrong}");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console").join(name)
}

fn installed(path: &str, what: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/drivers").join(path);
    let found = [found, PathBuf::from(path)].into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("SKIPPED {what}: make drivers installs it");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{what} is missing");
    }
    found
}

#[tokio::test]
async fn a_scraper_for_pgbouncer_finds_every_column_it_reads() {
    let Some(python) = installed("python/bin/python", "the scraper") else { return };
    let (estate, gate) = gate(&Tweaks::default()).await;
    for tenant in estate.tenants() {
        gate.wire(tenant).await.query("SELECT 1").await;
    }
    let _held = gate.wire(&estate.stark).await;
    run(&python, &[script("scraper.py")], &gate).await;
}

#[tokio::test]
async fn psycopg_looks_and_acts() {
    let Some(python) = installed("python/bin/python", "psycopg") else { return };
    let (estate, gate) = gate(&Tweaks::default()).await;
    let _held = gate.wire(&estate.stark).await;
    run(&python, &[script("psycopg_console.py")], &gate).await;
}

#[tokio::test]
async fn pgjdbc_looks_and_acts() {
    let jar = "/usr/share/java/postgresql.jar";
    // A Java that compiles, and the driver: there if the system has them, never asked for.
    let java = Path::new("/usr/bin/javac").exists() && Path::new(jar).exists();
    if !java {
        println!("SKIPPED pgJDBC: neither a JDK nor libpostgresql-jdbc-java is installed for it");
        return;
    }
    let (estate, gate) = gate(&Tweaks::default()).await;
    let _held = gate.wire(&estate.stark).await;
    let arguments = [PathBuf::from("-cp"), PathBuf::from(jar), script("Console.java")];
    run(Path::new("java"), &arguments, &gate).await;
}

/// pgcli reads its input through prompt_toolkit, so a command is given it as one.
#[tokio::test]
async fn pgcli_looks_and_acts() {
    let Some(pgcli) = installed("python/bin/pgcli", "pgcli") else { return };
    let (estate, gate) = gate(&Tweaks::default()).await;
    gate.wire(&estate.acme).await.query("SELECT 1").await;
    let home = tempfile::tempdir().unwrap();
    let port = gate.port.to_string();
    let run = async |command: &str| {
        let arguments = ["-h", "127.0.0.1", "-p", &port, "-u", "admin", "-w", "tenantgate"];
        let running = Command::new(&pgcli)
            .args(arguments)
            .args(["--less-chatty", "-c", command])
            .env("PGPASSWORD", LOGIN_PASSWORD)
            .env("HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), running);
        let output = ended.await.expect("it ends in time").unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let wrong = String::from_utf8_lossy(&output.stderr);
        (output.status.success(), format!("{said}{wrong}"))
    };
    for (command, wanted) in [
        ("SHOW POOLS", "cl_active"),
        ("SHOW TENANTS", estate.acme.id.as_str()),
        ("PAUSE", "PAUSE"),
        ("RESUME", "RESUME"),
    ] {
        let (ended_well, said) = run(command).await;
        assert!(ended_well && said.contains(wanted), "{command}: {said}");
    }
    let (_, said) = run("KILL nobody").await;
    assert!(said.contains("no tenant or database"), "{said}");
}
