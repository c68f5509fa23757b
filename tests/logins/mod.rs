//! Ways to prove who one is, each with drivers that people have: SCRAM with and without channel
//! binding, client certificates, names that must agree, rules of a listener.

mod certificates;
mod guessing;
mod names;
mod proxied;
mod rules;
mod scram;
mod timing;

use std::process::{Output, Stdio};

use postgres_protocol::password::scram_sha_256;
use tokio::process::Command;

use crate::drivers::installed;
use crate::harness::certs::{Authority, Identity};
use crate::harness::cluster::template;
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tweaks};

/// A password that people choose.
const PASSWORD: &str = "correct horse";

/// A credential's table for a tenant.
fn scram(id: &str, user: &str, password: &str) -> String {
    let verifier = scram_sha_256(password.as_bytes());
    format!(
        "[[tenants.{id}.credentials]]\nkind = \"scram\"\nuser = \"{user}\"\n\
         verifier = \"{verifier}\"\n"
    )
}

/// A gate with a certificate for `gate.test`, its authority's in `ca.crt`, and one listener with
/// these lines.
async fn secured(estate: &Estate, listen: &str, more: &str) -> (Authority, Gate) {
    let authority = Authority::new();
    let Identity { certificate, key } = authority.server(&["gate.test"]);
    let listen = format!("certificate = \"gate.crt\"\nkey = \"gate.key\"\n{listen}");
    let tweaks = Tweaks { listen: &listen, more, ..Tweaks::default() };
    let files = [
        ("gate.crt", certificate.as_str()),
        ("gate.key", key.as_str()),
        ("ca.crt", &authority.pem()),
    ];
    let gate = Gate::start_with(&estate.settings(&tweaks), &files).await;
    (authority, gate)
}

/// What psql says to a query; its complaint if it is refused.
async fn psql(conninfo: &str, sql: &str) -> Result<String, String> {
    let mut psql = Command::new(template().binaries().program("psql"));
    said(psql.args(["-X", "-q", "-A", "-t", "-c", sql, conninfo])).await
}

/// The same through another driver: `None` where it is not installed.
async fn script(program: &str, script: &str, arguments: &[&str]) -> Option<Result<String, String>> {
    let (program, here) = match program {
        "node" => ("node".into(), installed("node_modules/pg").exists()),
        python => {
            let program = installed("python/bin").join(python);
            let here = program.exists();
            (program, here)
        }
    };
    if !here {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is missing", program.display());
        return None;
    }
    let flag = if program.ends_with("node") { "-e" } else { "-c" };
    let mut command = Command::new(program);
    command.args([flag, script]).args(arguments).env("NODE_PATH", installed("node_modules"));
    Some(said(&mut command).await)
}

/// psycopg 3, which brings a libpq of its own.
const PSYCOPG: &str = "
import psycopg, sys
try:
    with psycopg.connect(sys.argv[1]) as c:
        print(c.execute(sys.argv[2]).fetchone()[0])
except psycopg.OperationalError as e:
    sys.exit(str(e))
";

async fn psycopg(conninfo: &str, sql: &str) -> Option<Result<String, String>> {
    script("python", PSYCOPG, &[conninfo, sql]).await
}

async fn said(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
}
