//! The tenants of the demonstration: what is loaded into the clusters for them, the settings that
//! make a gate serve them, and what each must see.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use jsonwebtoken::{EncodingKey, Header};
use tokio_postgres::NoTls;

use crate::catalog::new_token;
use crate::demo::cluster::Cluster;
use crate::demo::keeper;

/// How long the JSON Web Tokens are good for, in seconds; longer than anybody watches.
const JWT_SECONDS: u64 = 12 * 3600;

/// Id, isolation and notes. Hooli and wonka share one server connection, hurried has a tier that
/// allows next to nothing.
const TENANTS: [(&str, &str, &[&str]); 8] = [
    ("acme", "row", &["anvil", "rocket skates", "giant magnet"]),
    ("globex", "row", &["weather machine", "hammock"]),
    ("hooli", "row", &["middle-out", "nucleus"]),
    ("wonka", "row", &["everlasting gobstopper"]),
    ("hurried", "row", &["one request a second"]),
    ("umbrella", "schema", &["green herb", "red herb"]),
    ("stark", "schema", &["arc reactor"]),
    ("initech", "silo", &["cover sheet", "stapler"]),
];

/// Roles, a login without a password, and table `app.notes` with row security.
pub const ROWS_SQL: &str = include_str!("rows.sql");

/// One tenant as an application knows it, and what its notes say.
pub struct Tenant {
    pub id: &'static str,
    pub isolation: &'static str,
    pub dbname: &'static str,
    /// An opaque token, or for globex a JSON Web Token.
    pub token: String,
    pub notes: &'static [&'static str],
    /// The line in the settings for an opaque token.
    catalog: String,
}

/// All of it.
pub struct Estate {
    tenants: Vec<Tenant>,
    /// The key that JSON Web Tokens are signed with.
    pub login_key: String,
    /// For the lines to paste.
    pub psql: PathBuf,
    login_password: String,
    shared_port: u16,
    narrow_port: u16,
}

impl Estate {
    /// Loads both clusters and mints a token per tenant.
    pub async fn create(shared: &Cluster, narrow: &Cluster) -> Result<Self> {
        let login_key = keeper::hex(&keeper::random::<32>()?);
        let login_password = keeper::hex(&keeper::random::<16>()?);
        let mut tenants = Vec::new();
        for (id, isolation, notes) in TENANTS {
            let dbname = if isolation == "silo" { id } else { "app" };
            let fresh = new_token().context("the system has no random numbers")?;
            let token = if id == "globex" { jwt(id, &login_key)? } else { fresh.text };
            let catalog = fresh.line;
            tenants.push(Tenant { id, isolation, dbname, token, notes, catalog });
        }
        let psql = shared.binaries().program("psql");
        let (shared_port, narrow_port) = (shared.port(), narrow.port());
        let estate = Self { tenants, login_key, psql, login_password, shared_port, narrow_port };
        for (cluster, is_narrow) in [(shared, false), (narrow, true)] {
            run(cluster, "postgres", "CREATE DATABASE app").await?;
            run(cluster, "app", &estate.app_sql(is_narrow)).await?;
        }
        run(narrow, "postgres", "CREATE DATABASE initech").await?;
        run(narrow, "initech", &estate.silo_sql()?).await?;
        Ok(estate)
    }

    /// A tenant by its id.
    pub fn tenant(&self, id: &str) -> Result<&Tenant> {
        let found = self.tenants.iter().find(|tenant| tenant.id == id);
        found.with_context(|| format!("no tenant {id} in the demonstration"))
    }

    /// The tenants that a visitor may play with: those without a tight budget.
    pub fn visible(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.iter().filter(|tenant| tenant.id != "hurried")
    }

    /// The settings file.
    pub fn settings(&self, port: u16, http_port: u16) -> String {
        let main = self.url("tg_login", self.shared_port, "app");
        let narrow = self.url("tg_login", self.narrow_port, "app");
        let mut text = format!(
            r#"# Written by `tenantgate demo`; gone when it ends.

[[listen]]
address = "127.0.0.1:{port}"
tls = "disable"
plaintext_password = true

[http]
address = "127.0.0.1:{http_port}"

[issuers.login]
issuer = "https://login.example.com"
audience = "tenantgate"
algorithm = "HS256"
key_file = "login.key"

[clusters.main]
capacity = 8
connection_string = "{main}"

# One server connection for a silo tenant and two row tenants.
[clusters.narrow]
capacity = 1
connection_string = "{narrow}"

[tiers.free]
clients = 20
queries_per_second = 200

[tiers.tiny]
queries_per_second = 1
queries_burst = 3
"#
        );
        for tenant in &self.tenants {
            text.push_str(&self.tenant_table(tenant));
        }
        text
    }

    fn tenant_table(&self, tenant: &Tenant) -> String {
        let Tenant { id, isolation, catalog, .. } = tenant;
        let tier = if *id == "hurried" { "tiny" } else { "free" };
        let tokens = match *id {
            "globex" => String::new(),
            _ => format!("tokens = [\"{catalog}\"]\n"),
        };
        let row = "schema = \"app\"\nrole = \"app_rw\"\n";
        let rest = match (*isolation, *id) {
            ("row", _) if tenant.is_on_narrow() => format!("cluster = \"narrow\"\n{row}"),
            ("row", _) => format!("cluster = \"main\"\n{row}"),
            ("schema", _) => {
                let url = self.url(&format!("tg_{id}"), self.shared_port, "app");
                format!("cluster = \"main\"\nschema = \"{id}\"\nconnection_string = \"{url}\"\n")
            }
            _ => {
                let url = self.url(&format!("tg_{id}"), self.narrow_port, id);
                format!("cluster = \"narrow\"\nconnection_string = \"{url}\"\n")
            }
        };
        format!("\n[tenants.{id}]\nisolation = \"{isolation}\"\ntier = \"{tier}\"\n{tokens}{rest}")
    }

    fn url(&self, login: &str, port: u16, dbname: &str) -> String {
        let password = &self.login_password;
        format!("postgresql://{login}:{password}@127.0.0.1:{port}/{dbname}?sslmode=disable")
    }

    /// Database `app`: the table of row tenants, and a schema for each schema tenant.
    fn app_sql(&self, narrow: bool) -> String {
        let password = &self.login_password;
        let mut sql = format!("{ROWS_SQL}\nALTER ROLE tg_login PASSWORD '{password}';\n");
        for tenant in self.tenants.iter().filter(|tenant| tenant.is_on_narrow() == narrow) {
            let id = tenant.id;
            sql.push_str(&match tenant.isolation {
                "row" => {
                    format!(
                        "INSERT INTO app.notes VALUES {};\n",
                        tenant.values(&format!("'{id}', "))
                    )
                }
                "schema" => format!(
                    "CREATE ROLE tg_{id} LOGIN NOINHERIT PASSWORD '{password}';
                     CREATE SCHEMA {id} AUTHORIZATION app_owner;
                     GRANT USAGE ON SCHEMA {id} TO tg_{id};
                     SET ROLE app_owner;
                     CREATE TABLE {id}.notes (id integer PRIMARY KEY, body text NOT NULL);
                     INSERT INTO {id}.notes VALUES {};
                     GRANT SELECT, INSERT, UPDATE, DELETE ON {id}.notes TO tg_{id};
                     RESET ROLE;\n",
                    tenant.values("")
                ),
                _ => String::new(),
            });
        }
        sql
    }

    fn silo_sql(&self) -> Result<String> {
        let password = &self.login_password;
        let notes = self.tenant("initech")?.values("");
        Ok(format!(
            "CREATE ROLE tg_initech LOGIN NOINHERIT PASSWORD '{password}';
             CREATE TABLE notes (id integer PRIMARY KEY, body text NOT NULL);
             INSERT INTO notes VALUES {notes};
             GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO tg_initech;"
        ))
    }
}

impl Tenant {
    /// A connection string for an application at the gate's port.
    pub fn conninfo(&self, port: u16) -> String {
        let Self { dbname, token, .. } = self;
        format!(
            "host=127.0.0.1 port={port} user=app dbname={dbname} password={token} sslmode=disable"
        )
    }

    /// Whether its data is in the cluster with capacity 1.
    fn is_on_narrow(&self) -> bool {
        matches!(self.id, "hooli" | "wonka" | "initech")
    }

    /// What its token is.
    pub fn credential(&self) -> &'static str {
        if self.token.starts_with("tg_") { "opaque token" } else { "JSON Web Token" }
    }

    /// `(1, 'anvil'), ...` with `first` in front of each number.
    fn values(&self, first: &str) -> String {
        let rows = self.notes.iter().zip(1..).map(|(body, id)| format!("({first}{id}, '{body}')"));
        rows.collect::<Vec<_>>().join(", ")
    }
}

/// A JSON Web Token as an identity provider would sign it.
pub fn jwt(tenant: &str, key: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = serde_json::json!({
        "iss": "https://login.example.com",
        "aud": "tenantgate",
        "tenant_id": tenant,
        "exp": now + JWT_SECONDS,
    });
    let key = EncodingKey::from_secret(key.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).context("cannot sign a token")
}

/// Runs statements as the superuser, around the gate.
async fn run(cluster: &Cluster, dbname: &str, sql: &str) -> Result<()> {
    let conninfo = cluster.superuser_conninfo(dbname);
    let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await?;
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.with_context(|| format!("loading database {dbname}"))?;
    drop(client);
    Ok(connection.await??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cluster::{Plan, Template};

    #[tokio::test]
    async fn the_clusters_take_the_estate_and_the_settings_are_toml() {
        let template = Template::new().unwrap();
        let shared = Cluster::start(&template, &Plan::default()).unwrap();
        let narrow = Cluster::start(&template, &Plan::default()).unwrap();
        let estate = Estate::create(&shared, &narrow).await.unwrap();
        let settings: toml::Table = estate.settings(6432, 9187).parse().unwrap();
        assert_eq!(settings["tenants"].as_table().unwrap().len(), TENANTS.len());
        assert_eq!(estate.visible().count(), 7);
    }
}
