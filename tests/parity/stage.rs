//! Two clusters that are the same: one is spoken to directly, the other through gates.

use std::collections::BTreeMap;

use tenantgate::catalog::new_token;
use tenantgate::demo::{Cluster, Plan};
use tokio_postgres::Client;

use crate::harness::cluster::{own, superuser};
use crate::harness::gate::Gate;
use crate::harness::tenants::LOGIN_PASSWORD;
use crate::parity::player::Side;

pub const ISOLATIONS: [&str; 3] = ["silo", "schema", "row"];

/// What the logins are and may do.
const ROLES: &str = "
CREATE ROLE tg_silo LOGIN;
CREATE ROLE tg_schema LOGIN;
CREATE DATABASE silo OWNER tg_silo;";

/// The silo's own tables, made afresh before each script.
const SILO: &str = "
DROP OWNED BY tg_silo CASCADE;
SET ROLE tg_silo;";

/// The schema tenant's.
const SCHEMA: &str = "
DROP OWNED BY tg_schema CASCADE;
CREATE SCHEMA own AUTHORIZATION tg_schema;
GRANT TEMP, CONNECT ON DATABASE app TO tg_schema;
SET ROLE tg_schema;
SET search_path = own;";

const TABLES: &str = "
CREATE TABLE notes (id integer PRIMARY KEY, body text);
INSERT INTO notes VALUES (1, 'one'), (2, 'two'), (3, 'three');
CREATE TABLE items (
  id serial PRIMARY KEY,
  name text NOT NULL UNIQUE,
  quantity integer CHECK (quantity >= 0),
  note integer REFERENCES notes
);
RESET ROLE;
RESET search_path;";

const ROW: &str = "
DELETE FROM app.notes;
INSERT INTO app.notes VALUES
  ('row', 1, 'one'), ('row', 2, 'two'), ('row', 3, 'three'), ('other', 1, 'not mine');";

/// A cluster with its superuser, by database.
struct House {
    cluster: Cluster,
    app: Client,
    silo: Client,
}

impl House {
    async fn new() -> Self {
        let cluster = own(&Plan::default()).await;
        let postgres = superuser(&cluster, "postgres").await;
        for sql in ROLES.split_inclusive(';') {
            postgres.batch_execute(sql).await.unwrap();
        }
        for login in ["tg_silo", "tg_schema"] {
            let sql = format!("ALTER ROLE {login} PASSWORD '{LOGIN_PASSWORD}'");
            postgres.batch_execute(&sql).await.unwrap();
        }
        let (app, silo) = (superuser(&cluster, "app").await, superuser(&cluster, "silo").await);
        Self { cluster, app, silo }
    }

    async fn refresh(&self, isolation: &str) {
        let said = match isolation {
            "silo" => self.silo.batch_execute(&[SILO, TABLES].concat()).await,
            "schema" => self.app.batch_execute(&[SCHEMA, TABLES].concat()).await,
            _ => self.app.batch_execute(ROW).await,
        };
        said.unwrap();
    }
}

/// Both houses, and tokens for the one with gates.
pub struct Stage {
    direct: House,
    behind: House,
    /// The text of the token and its line in the settings, by tenant.
    tokens: BTreeMap<&'static str, (String, String)>,
}

impl Stage {
    pub async fn new() -> Self {
        let token = |name| {
            let fresh = new_token().unwrap();
            (name, (fresh.text, fresh.line))
        };
        let tokens = ["silo", "schema", "row", "other"].map(token).into();
        Self { direct: House::new().await, behind: House::new().await, tokens }
    }

    /// Both sides as they were at first.
    pub async fn refresh(&self, isolation: &str) {
        tokio::join!(self.direct.refresh(isolation), self.behind.refresh(isolation));
    }

    /// A gate that has so many servers.
    pub async fn gate(&self, capacity: usize, cluster: &str, tier: &str) -> Gate {
        let url = |login: &str, dbname: &str| {
            let port = self.behind.cluster.port();
            format!(
                "postgresql://{login}:{LOGIN_PASSWORD}@127.0.0.1:{port}/{dbname}?sslmode=disable"
            )
        };
        let mut settings = format!(
            "[gate]\nworkers = 2\n\n[[listen]]\naddress = \"127.0.0.1:$PORT\"\n\
             tls = \"disable\"\nplaintext_password = true\n\n\
             [clusters.main]\ncapacity = {capacity}\n{cluster}\nconnection_string = \"{}\"\n\n\
             [tiers.all]\npins = {capacity}\n{tier}\n\n",
            url("tg_login", "app")
        );
        for (name, (_, line)) in &self.tokens {
            let lines = match *name {
                "silo" => format!("connection_string = \"{}\"", url("tg_silo", "silo")),
                "schema" => {
                    format!("schema = \"own\"\nconnection_string = \"{}\"", url("tg_schema", "app"))
                }
                _ => "schema = \"app\"\nrole = \"app_rw\"".to_owned(),
            };
            let isolation = if *name == "other" { "row" } else { name };
            settings += &format!(
                "[tenants.{name}]\nisolation = \"{isolation}\"\ncluster = \"main\"\n\
                 tier = \"all\"\n\
                 tokens = [\"{line}\"]\n{lines}\n\n"
            );
        }
        Gate::start(&settings).await
    }

    /// The way around the gate, in the context that the gate binds.
    pub fn direct(&self, isolation: &str) -> Side {
        let (user, dbname, options) = match isolation {
            "silo" => ("tg_silo", "silo", ""),
            "schema" => ("tg_schema", "app", "-c search_path=own"),
            _ => ("tg_login", "app", "-c search_path=app -c app.tenant_id=row -c role=app_rw"),
        };
        Side {
            port: self.direct.cluster.port(),
            user: user.to_owned(),
            dbname: dbname.to_owned(),
            password: LOGIN_PASSWORD.to_owned(),
            options: options.to_owned(),
        }
    }

    /// The same tenant through a gate. The user is a label there, which the client is told.
    pub fn gated(&self, isolation: &str, gate: &Gate) -> Side {
        let password = self.tokens[isolation].0.clone();
        Side { port: gate.port, password, options: String::new(), ..self.direct(isolation) }
    }

    /// Who steals from that tenant: its neighbour, where it has one.
    pub fn thief(&self, isolation: &str, gate: &Gate) -> Side {
        let whose = if isolation == "row" { "other" } else { isolation };
        Side { password: self.tokens[whose].0.clone(), ..self.gated(isolation, gate) }
    }
}
