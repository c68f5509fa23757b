//! Schema tenants with logins that a template makes: each is a user of PostgreSQL's own, and its
//! password is written down nowhere.

mod eviction;
mod logins;
mod made;
mod reach;
mod shared;

use std::fmt::Write;

use tenantgate::catalog::{NewToken, new_token};
use tenantgate::isolation::tenancy::{LoginSecret, SchemaTenant, verifier};
use tenantgate::secret::Secret;

use crate::harness::cluster::{shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::unique;
use crate::harness::wire::{Login, Wire};

const SECRET: &str = "a secret of more than thirty-two bytes, for tests only";

/// What a cluster's table says so that tenants have these logins.
const TEMPLATES: &str = "tenant_login = \"t_{tenant}\"\ntenant_schema = \"s_{tenant}\"\n\
                         tenant_login_secret_file = \"logins.key\"\n";

/// Schema tenants in the shared cluster that no connection string names.
struct Crowd {
    estate: Estate,
    tenants: Vec<(String, NewToken)>,
}

impl Crowd {
    /// So many, each with a table `notes` that holds its id.
    async fn new(count: usize) -> Self {
        let mark = unique();
        let id = |number| format!("c{number}_{mark}");
        let tenants = (0..count).map(|number| (id(number), new_token().unwrap())).collect();
        let crowd = Self { estate: Estate::new().await, tenants };
        crowd.install(SECRET).await;
        let admin = superuser(shared().await, "app").await;
        for (id, _) in &crowd.tenants {
            let sql = format!(
                "CREATE TABLE s_{id}.notes AS SELECT '{id}'::text AS body;
                 GRANT SELECT, INSERT ON s_{id}.notes TO t_{id}"
            );
            admin.batch_execute(&sql).await.unwrap();
        }
        crowd
    }

    /// Makes their logins, with the passwords of this secret; a second time it changes those.
    async fn install(&self, secret: &str) {
        let secret = LoginSecret::new(Secret::new(secret)).unwrap();
        let admin = superuser(shared().await, "app").await;
        for (id, _) in &self.tenants {
            let (login, schema) = (format!("t_{id}"), format!("s_{id}"));
            let verifier = verifier(&secret.password("main", &login));
            let tenant = SchemaTenant {
                dbname: "app",
                login: &login,
                role: None,
                schema: &schema,
                verifier: Some(&verifier),
            };
            admin.batch_execute(&tenant.sql()).await.unwrap();
        }
    }

    fn settings(&self, tweaks: &Tweaks<'_>) -> String {
        let cluster = format!("{TEMPLATES}{}", tweaks.cluster);
        let mut more = tweaks.more.to_owned();
        for (id, token) in &self.tenants {
            // Writing to a String cannot fail.
            let _ = writeln!(
                more,
                "[tenants.{id}]\nisolation = \"schema\"\ncluster = \"main\"\ntier = \"free\"\n\
                 tokens = [\"{}\"]",
                token.line
            );
        }
        self.estate.settings(&Tweaks { cluster: &cluster, more: &more, ..tweaks.clone() })
    }

    async fn gate(&self, tweaks: &Tweaks<'_>) -> Gate {
        Gate::start_with(&self.settings(tweaks), &[("logins.key", SECRET)]).await
    }

    async fn wire(&self, gate: &Gate, number: usize) -> Wire {
        let password = self.tenants[number].1.text.as_str();
        Wire::login(gate.port, &Login { user: "app", dbname: "app", password, more: &[] }).await
    }
}
