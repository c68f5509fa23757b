//! Unix sockets: psql finds them, the file comes and goes as it must, and who connects is known by
//! the kernel's word.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::open_folder;
use crate::harness::cluster::{shared, superuser, template};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{cancel_request, gss_request, query, ssl_request, transcript};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};

const PORT: u16 = 6499;

/// Settings with a Unix socket beside the TCP port, and the further lines.
fn settings(estate: &Estate, unix: &str, more: &str) -> String {
    let more = format!("[[listen]]\nunix = \"{unix}\"\nport = {PORT}\n{more}");
    estate.settings(&Tweaks { more: &more, ..Tweaks::default() })
}

/// A gate whose listeners are all open, not only the first.
async fn started(settings: &str) -> Gate {
    let gate = Gate::start(settings).await;
    gate.is_ready().await;
    gate
}

fn socket(folder: &Path) -> PathBuf {
    folder.join(format!(".s.PGSQL.{PORT}"))
}

async fn logs_in(wire: &mut Wire, tenant: &Tenant) -> String {
    let login = Login { user: "app", dbname: &tenant.dbname, password: &tenant.token, more: &[] };
    transcript(&wire.authenticate(&login).await)
}

/// What psql says to a statement, over the socket in `host`.
async fn psql(
    host: &str,
    login: &Login<'_>,
    uid: Option<u32>,
    sql: &str,
) -> Result<String, String> {
    let mut command = Command::new(template().binaries().program("psql"));
    let Login { user, dbname, password, .. } = login;
    command.args(["-X", "-A", "-t", "-w", "-c", sql]);
    command.arg(format!("host={host} port={PORT} user={user} dbname={dbname}"));
    command.env("PGPASSWORD", password).env("HOME", "/").current_dir("/");
    if let Some(uid) = uid {
        command.uid(uid);
    }
    let output = command.output().await.unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[tokio::test]
async fn a_tenant_sees_its_rows_and_cancels_over_a_unix_socket() {
    let (estate, folder) = (Estate::new().await, open_folder());
    let gate = started(&settings(&estate, folder.path().to_str().unwrap(), "")).await;
    let socket = socket(folder.path());
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o777);
    let mut wire = Wire::connect_unix(&socket).await;
    wire.send(gss_request()).await;
    assert_eq!(wire.byte().await, b'N');
    wire.send(ssl_request()).await;
    assert_eq!(wire.byte().await, b'N', "PostgreSQL has no TLS on Unix sockets either");
    assert!(logs_in(&mut wire, &estate.stark).await.ends_with("Z(I)"));
    assert_eq!(wire.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(I)");
    wire.send(query("SELECT pg_sleep(600)")).await;
    let admin = superuser(shared().await, "app").await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND query LIKE '%sleep%'";
    eventually("it sleeps", async || {
        let row = admin.query_one(sql, &[&format!("tg_{}", estate.stark.id)]).await.unwrap();
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    let mut other = Wire::connect_unix(&socket).await;
    other.send(cancel_request(wire.pid, wire.secret)).await;
    assert_eq!(other.until_closed().await, "");
    assert!(transcript(&wire.until_ready().await).ends_with("E(57014) Z(I)"));
    let uid = fs::metadata("/proc/self").unwrap().uid();
    assert!(gate.log().contains(&format!("peer=unix(uid {uid})")), "{}", gate.log());
    let (token, id) = (&estate.globex.token, &estate.globex.id);
    let login = Login { user: "app", dbname: id, password: token, more: &[] };
    let host = folder.path().to_str().unwrap();
    let said = psql(host, &login, None, "SELECT count(*) FROM notes").await;
    assert_eq!(said.as_deref(), Ok("3"));
    let wrong = Login { password: "tg_wrong", ..login };
    assert!(psql(host, &wrong, None, "SELECT 1").await.unwrap_err().contains("authentication"));
}

#[tokio::test]
async fn the_console_knows_its_own_user_on_a_unix_socket_and_asks_others() {
    let (estate, folder) = (Estate::new().await, open_folder());
    let admin = superuser(shared().await, "app").await;
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'tg_login'";
    let verifier: String = admin.query_one(sql, &[]).await.unwrap().get(0);
    let users =
        format!("[console.users]\nwatcher = {{ scram = \"{verifier}\", rights = \"stats\" }}\n");
    let host = folder.path().to_str().unwrap();
    let gate = started(&settings(&estate, host, &users)).await;
    let login = |user, password| Login { user, dbname: "tenantgate", password, more: &[] };
    let _client = gate.wire(&estate.stark).await;
    let mut unix = Wire::connect_unix(&socket(folder.path())).await;
    assert!(logs_in(&mut unix, &estate.acme).await.ends_with("Z(I)"));
    let clients = "SHOW CLIENTS";
    let said = psql(host, &login("admin", ""), None, clients).await.unwrap();
    let line = said.lines().find(|line| line.contains(&estate.acme.id)).unwrap();
    assert!(line.contains(&format!("|unix|{PORT}|unix|{PORT}|")), "{line}");
    psql(host, &login("watcher", ""), None, clients).await.unwrap();
    // A name that nobody has is asked for a password it cannot know.
    let refused = psql(host, &login("nobody", LOGIN_PASSWORD), None, clients).await;
    assert!(refused.unwrap_err().contains("authentication failed"));
    // The same name over TCP is another matter.
    let mut tcp = Wire::connect(gate.port).await;
    let said = transcript(&tcp.authenticate(&login("admin", "")).await);
    assert!(said.ends_with("E(28P01)"), "{said}");
    let uid = fs::metadata("/proc/self").unwrap().uid();
    if uid != 0 {
        eprintln!("skipped: only root can try the console as another user");
        return;
    }
    let other = Some(65_533);
    let refused = psql(host, &login("admin", ""), other, clients).await.unwrap_err();
    assert!(refused.contains("password"), "{refused}");
    let refused = psql(host, &login("watcher", "wrong"), other, clients).await.unwrap_err();
    assert!(refused.contains("authentication failed"), "{refused}");
    psql(host, &login("watcher", LOGIN_PASSWORD), other, clients).await.unwrap();
    gate.logs("peer=unix(uid 65533)").await;
}

#[tokio::test]
async fn a_socket_is_not_stolen_and_what_a_crash_left_is_taken_over() {
    let (estate, folder) = (Estate::new().await, open_folder());
    let text = settings(&estate, folder.path().to_str().unwrap(), "mode = \"0700\"\n");
    let mut gate = started(&text).await;
    let socket = socket(folder.path());
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o700);
    let refused = Gate::refused(&text.replace("127.0.0.1:$PORT", "127.0.0.1:0"));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let (socket_name, pid) = (socket.display(), gate.pid());
    let wanted =
        format!("could not listen on {socket_name}: address in use: process {pid} listens");
    assert!(said.contains(&wanted), "{said}");
    let mut wire = Wire::connect_unix(&socket).await;
    assert!(logs_in(&mut wire, &estate.acme).await.ends_with("Z(I)"));
    gate.kill().await;
    assert!(socket.exists(), "nobody could remove it");
    let mut gate = started(&text).await;
    let mut wire = Wire::connect_unix(&socket).await;
    assert!(logs_in(&mut wire, &estate.acme).await.ends_with("Z(I)"));
    gate.terminate();
    assert_eq!(gate.exit().await.code(), Some(0));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn psql_finds_an_abstract_socket() {
    let estate = Estate::new().await;
    let name = format!("@{}", estate.acme.id);
    let _gate = started(&settings(&estate, &name, "")).await;
    let Tenant { dbname, token, .. } = &estate.acme;
    let login = Login { user: "app", dbname, password: token, more: &[] };
    let said = psql(&name, &login, None, "SELECT count(*) FROM notes").await;
    assert_eq!(said.as_deref(), Ok("3"));
}
