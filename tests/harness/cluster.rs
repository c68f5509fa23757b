//! Clusters for tests: one that all tests of a process share, and others of their own for tests
//! that stop or crash it. Also of other PostgreSQL versions, where `.ci/install versions` put some.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use tenantgate::demo::{Binaries, Cluster, Keeper, Plan, Template, User, command};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::harness::tenants;

/// The data folder that every cluster of this process is copied from.
pub fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| Template::new().unwrap_or_else(|error| panic!("{error:#}")))
}

/// The cluster that tests share, with database `app` in it (see `tenants`). Whoever needs another
/// `Plan`, or stops the server, starts one with [`own`].
pub async fn shared() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_init(async || own(&Plan::default()).await).await
}

/// A cluster for one test, with database `app` in it.
pub async fn own(plan: &Plan) -> Cluster {
    of(template(), plan).await
}

/// A template of every PostgreSQL here, by major version: the one that other tests use, the one of
/// each folder in `target/postgresql`, and Debian's. What is not there is said, once.
pub fn versions() -> &'static [(u32, Template)] {
    static VERSIONS: OnceLock<Vec<(u32, Template)>> = OnceLock::new();
    VERSIONS.get_or_init(|| {
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgresql");
        let mut found = vec![template().binaries().clone()];
        for major in 15..=18 {
            let debian = Path::new("/usr/lib/postgresql").join(format!("{major}/bin"));
            let folders = [debian, ours.join(format!("{major}/bin"))];
            found.extend(folders.iter().find_map(|folder| Binaries::within(folder)));
        }
        let mut versions: Vec<(u32, Template)> = Vec::new();
        for binaries in found {
            let major = binaries.major().unwrap();
            if !versions.iter().any(|(known, _)| *known == major) {
                versions.push((major, Template::of(reachable(binaries)).unwrap()));
            }
        }
        for lacking in (15..=18).filter(|major| !versions.iter().any(|(it, _)| it == major)) {
            let line = "SKIPPED PostgreSQL";
            let _ = writeln!(std::io::stderr(), "{line} {lacking}: make versions installs it");
        }
        versions
    })
}

/// Programs below a folder of root's are copied to where the user of our servers can run them.
fn reachable(binaries: Binaries) -> Binaries {
    static COPIES: OnceLock<Keeper> = OnceLock::new();
    let user = User::to_drop_to().unwrap();
    let mut version = command(&binaries.program("postgres"), user);
    if version.arg("--version").output().is_ok_and(|output| output.status.success()) {
        return binaries;
    }
    let copies = COPIES.get_or_init(|| Keeper::new("programs", &[]).unwrap());
    if let Some(user) = user {
        user.own(copies.folder()).unwrap();
    }
    let from = binaries.folder().parent().unwrap();
    let to = copies.folder().join(from.file_name().unwrap());
    let copied = Command::new("cp").arg("-R").arg(from).arg(&to).status().unwrap();
    assert!(copied.success(), "cannot copy {}", from.display());
    Binaries::within(&to.join("bin")).unwrap()
}

/// A cluster of one of the [`versions`], with database `app` in it.
pub async fn of(template: &Template, plan: &Plan) -> Cluster {
    let cluster = Cluster::start(template, plan).unwrap_or_else(|error| panic!("{error:#}"));
    tenants::prepare(&cluster).await;
    cluster
}

/// The superuser's connection to a database of the cluster.
pub async fn superuser(cluster: &Cluster, dbname: &str) -> Client {
    connect(&cluster.superuser_conninfo(dbname)).await.expect("superuser connects")
}

/// A connection whose other half runs in a task of this test's runtime.
pub async fn connect(conninfo: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
