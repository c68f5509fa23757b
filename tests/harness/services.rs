//! A service for a test: a login without rights, and its table in the settings.

use tenantgate::catalog::new_token;
use tenantgate::demo::Cluster;

use crate::harness::cluster;
use crate::harness::gate::Gate;
use crate::harness::tenants::LOGIN_PASSWORD;
use crate::harness::unique;
use crate::harness::wire::{Login, Wire};

/// A credential without a tenant of its own.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub token: String,
    /// `[services.NAME]`, for a gate's settings.
    pub table: String,
}

impl Service {
    /// One whose login is made in this cluster; `more` are lines of its table.
    pub async fn new(cluster: &Cluster, more: &str) -> Self {
        let name = format!("backend_{}", unique());
        let app = cluster::superuser(cluster, "app").await;
        let create = format!("CREATE ROLE {name} LOGIN PASSWORD '{LOGIN_PASSWORD}'");
        app.batch_execute(&create).await.unwrap();
        let fresh = new_token().unwrap();
        let (port, line) = (cluster.port(), fresh.line);
        let table = format!(
            "[services.{name}]\ncluster = \"main\"\n\
             connection_string = \"postgresql://{name}:{LOGIN_PASSWORD}@127.0.0.1:{port}/app\
             ?sslmode=disable\"\ntokens = [\"{line}\"]\n{more}\n"
        );
        Self { name, token: fresh.text, table }
    }

    /// A raw session that acts for nobody yet.
    pub async fn wire(&self, gate: &Gate) -> Wire {
        let (dbname, password) = ("app", self.token.as_str());
        Wire::login(gate.port, &Login { user: "app", dbname, password, more: &[] }).await
    }

    /// A connection string for an application.
    pub fn conninfo(&self, port: u16) -> String {
        let token = &self.token;
        format!("host=127.0.0.1 port={port} user=app dbname=app password={token} sslmode=disable")
    }
}
