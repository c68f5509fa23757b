//! Acquire, on a real server: by the session that used it last, by another session of the same
//! tenant, and by another tenant, which scrubs it and binds it anew.

use std::cell::Cell;
use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use tenantgate::budget::Account;
use tenantgate::catalog::Tenant;
use tenantgate::config;
use tenantgate::demo::{Cluster, Plan, Template};
use tenantgate::net::{Buffers, Clock};
use tenantgate::pool::{Arbiters, Mail, Pools, Want};
use tenantgate::server::Settings;
use tokio_postgres::NoTls;

use crate::timing::Case;

/// Acquires and parks so often; how often it got a server.
pub type Turns<'floor> = Pin<Box<dyn Future<Output = Result<u64>> + 'floor>>;

/// A worker's pools in front of a cluster with one place.
pub struct Floor {
    pools: Pools,
    tenants: Vec<Arc<Tenant>>,
    account: Arc<Account>,
    settings: Rc<Settings>,
    _mail: Vec<Mail>,
    _cluster: Cluster,
    _template: Template,
}

impl Floor {
    pub async fn set() -> Result<Self> {
        let template = Template::new()?;
        let cluster = Cluster::start(&template, &Plan::default())?;
        let conninfo = cluster.superuser_conninfo("postgres");
        let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await?;
        let connection = tokio::spawn(connection);
        client.batch_execute("CREATE ROLE gate LOGIN PASSWORD 'gate'").await?;
        drop(client);
        connection.await??;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("tenantgate.toml");
        let port = cluster.port();
        fs::write(
            &file,
            format!(
                "[[listen]]\naddress = \"127.0.0.1:6432\"\ntls = \"disable\"\n\
                 [clusters.main]\ncapacity = 1\nlinger = \"1h\"\nconnection_string = \
                 \"postgresql://gate:gate@127.0.0.1:{port}/postgres?sslmode=disable\"\n\
                 [tenants.acme]\nisolation = \"row\"\ncluster = \"main\"\n\
                 [tenants.globex]\nisolation = \"row\"\ncluster = \"main\"\n"
            ),
        )?;
        let config = config::load(&file)?;
        let tenants = config.catalog.tenants().cloned().collect();
        let (arbiters, mail) = Arbiters::new(1);
        Ok(Self {
            pools: Pools::new(Buffers::default(), Clock::start()?, 0, arbiters),
            tenants,
            account: Arc::default(),
            settings: Rc::new(Settings::default()),
            _mail: mail,
            _cluster: cluster,
            _template: template,
        })
    }

    /// `wait` runs a future to its end, with the tasks that it starts.
    pub fn cases<'floor>(
        &'floor self,
        wait: impl Fn(Turns<'floor>) -> Result<u64> + Copy + 'floor,
    ) -> Vec<Case<'floor>> {
        let case = |name, tenants: usize, sessions: u64| {
            Case::new(name, move |times| wait(Box::pin(self.turns(times, tenants, sessions))))
        };
        vec![
            case("acquire: by the same session, and park", 1, 1),
            case("acquire: by another session of the tenant, and park", 1, 2),
            case("acquire: by another tenant (scrub, bind), and park", 2, 2),
        ]
    }

    async fn turns(&self, times: u64, tenants: usize, sessions: u64) -> Result<u64> {
        let binding = Cell::new(false);
        for number in 0..times {
            let at = (number % tenants as u64) as usize;
            let tenant = self.tenants.get(at).context("no such tenant")?;
            let want = Want {
                tenant,
                account: &self.account,
                session: number % sessions,
                settings: &self.settings,
                since: None,
                binding: &binding,
            };
            let mut lease = self
                .pools
                .of(tenant)
                .acquire(want)
                .await
                .map_err(|error| anyhow!("no server: {error:?}"))?;
            if lease.bound().is_none() {
                bail!("a lease without a server");
            }
            lease.park(true);
        }
        Ok(times)
    }
}
