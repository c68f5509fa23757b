//! Clusters for tests: one that all tests of a process share, and others of their own for tests
//! that stop or crash it.

use std::sync::OnceLock;

use tenantgate::demo::{Cluster, Plan, Template};
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
    let cluster = Cluster::start(template(), plan).unwrap_or_else(|error| panic!("{error:#}"));
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
