//! Tenants for a test: two by row, two by schema, one in a database of its own, each with notes
//! nobody else has, and the settings that make a gate serve them.

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tenantgate::catalog::new_token;
use tenantgate::demo::{Cluster, ROWS_SQL};

use crate::harness::{cluster, unique};

/// The key file `login.key` that every test's gate has; see [`jwt`].
pub const JWT_KEY: &str = "a key of more than thirty-two bytes, for tests only";

/// Logins of the estate have this password.
pub const LOGIN_PASSWORD: &str = "login-password-of-tests";

/// A table of notes where row security is not what keeps tenants apart.
const OWN_NOTES: &str = "(id integer PRIMARY KEY, body text)";

/// Makes database `app`, with table `app.notes`, roles `app_owner` and `app_rw`, login `tg_login`.
pub async fn prepare(cluster: &Cluster) {
    let postgres = cluster::superuser(cluster, "postgres").await;
    postgres.batch_execute("CREATE DATABASE app").await.unwrap();
    let app = cluster::superuser(cluster, "app").await;
    app.batch_execute(ROWS_SQL).await.unwrap();
    let password = format!("ALTER ROLE tg_login PASSWORD '{LOGIN_PASSWORD}'");
    app.batch_execute(&password).await.unwrap();
}

/// One tenant: who it is, how it proves that, and what it must see.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub id: String,
    /// `row`, `schema` or `silo`.
    pub isolation: &'static str,
    /// What applications give as `dbname`.
    pub dbname: String,
    /// What they give as password.
    pub token: String,
    /// All rows of its table `notes`, by id.
    pub notes: Vec<(i32, String)>,
    /// Its table in the settings, without tier and limits.
    toml: String,
}

/// Five tenants in one cluster. Ids are unique, so estates of many tests share a cluster.
#[derive(Clone, Debug)]
pub struct Estate {
    pub acme: Tenant,
    pub globex: Tenant,
    pub umbrella: Tenant,
    pub stark: Tenant,
    pub initech: Tenant,
    connection_string: String,
}

/// What a test's settings have instead of the usual: TOML lines for the table named.
#[derive(Clone, Debug)]
pub struct Tweaks<'lines> {
    pub gate: &'lines str,
    /// Under the one `[[listen]]`.
    pub listen: &'lines str,
    pub capacity: usize,
    /// Under `[clusters.main]`, beside capacity and connection_string.
    pub cluster: &'lines str,
    /// Under `[tiers.free]`, which every tenant is in.
    pub tier: &'lines str,
    /// Whole tables at the end.
    pub more: &'lines str,
}

impl Default for Tweaks<'_> {
    fn default() -> Self {
        Self {
            gate: "",
            listen: "tls = \"disable\"\nplaintext_password = true",
            capacity: 4,
            cluster: "",
            tier: "",
            more: "",
        }
    }
}

impl Estate {
    /// Five tenants in the shared cluster.
    pub async fn new() -> Self {
        Self::within(cluster::shared().await).await
    }

    /// Five tenants in a cluster that [`prepare`] has seen.
    pub async fn within(cluster: &Cluster) -> Self {
        let mark = unique();
        let url = |login: &str, dbname: &str| {
            let port = cluster.port();
            format!(
                "postgresql://{login}:{LOGIN_PASSWORD}@127.0.0.1:{port}/{dbname}?sslmode=disable"
            )
        };
        let row = "schema = \"app\"\nrole = \"app_rw\"";
        let acme = Tenant::new("acme", &mark, "row", "app", row);
        let globex = Tenant::new("globex", &mark, "row", "app", row);
        let own_login = |name: &str, more: &str| {
            let id = format!("{name}_{mark}");
            let url = url(&format!("tg_{id}"), "app");
            format!("connection_string = \"{url}\"\nschema = \"{id}\"\n{more}")
        };
        let with_role = format!("role = \"rw_umbrella_{mark}\"");
        let umbrella = own_login("umbrella", &with_role);
        let umbrella = Tenant::new("umbrella", &mark, "schema", "app", &umbrella);
        let stark = Tenant::new("stark", &mark, "schema", "app", &own_login("stark", ""));
        let silo = format!("initech_{mark}");
        let silo_url = url(&format!("tg_{silo}"), &silo);
        let silo_lines = format!("connection_string = \"{silo_url}\"");
        let initech = Tenant::new("initech", &mark, "silo", &silo, &silo_lines);
        let connection_string = url("tg_login", "app");
        let estate = Self { acme, globex, umbrella, stark, initech, connection_string };
        estate.create(cluster).await;
        estate
    }

    /// All five.
    pub fn tenants(&self) -> [&Tenant; 5] {
        [&self.acme, &self.globex, &self.umbrella, &self.stark, &self.initech]
    }

    /// One of each isolation: row, schema, silo.
    pub fn one_of_each(&self) -> [&Tenant; 3] {
        [&self.acme, &self.umbrella, &self.initech]
    }

    /// A settings file with these tenants. `$PORT` and `$HTTP` stand for ports the gate's start
    /// fills in.
    pub fn settings(&self, tweaks: &Tweaks<'_>) -> String {
        let Tweaks { gate, listen, capacity, cluster, tier, more } = tweaks;
        let workers = match gate.contains("workers") {
            true => String::new(),
            false => format!("workers = {}\n", workers()),
        };
        let connection_string = &self.connection_string;
        let mut text = format!(
            "[gate]\n{workers}{gate}\n\n\
             [[listen]]\naddress = \"127.0.0.1:$PORT\"\n{listen}\n\n\
             [issuers.login]\nissuer = \"https://login.test\"\naudience = \"tenantgate\"\n\
             algorithm = \"HS256\"\nkey_file = \"login.key\"\n\n\
             [clusters.main]\ncapacity = {capacity}\n\
             connection_string = \"{connection_string}\"\n{cluster}\n\n\
             [tiers.free]\n{tier}\n\n"
        );
        for tenant in self.tenants() {
            text.push_str(&tenant.toml);
            text.push('\n');
        }
        text.push_str(more);
        text
    }

    async fn create(&self, cluster: &Cluster) {
        let postgres = cluster::superuser(cluster, "postgres").await;
        let app = cluster::superuser(cluster, "app").await;
        for tenant in [&self.acme, &self.globex] {
            let notes = &tenant.values(&format!("'{}', ", tenant.id));
            app.batch_execute(&format!("INSERT INTO app.notes VALUES {notes}")).await.unwrap();
        }
        for (tenant, role) in [(&self.umbrella, true), (&self.stark, false)] {
            let (id, notes) = (&tenant.id, tenant.values(""));
            // With a role the login itself may do nothing; without one it is given the rights.
            let grantee = if role { format!("rw_{id}") } else { format!("tg_{id}") };
            let role = if role { format!("CREATE ROLE rw_{id} NOLOGIN;") } else { String::new() };
            let member = if role.is_empty() { "" } else { &format!("IN ROLE rw_{id}") };
            app.batch_execute(&format!(
                "{role} CREATE ROLE tg_{id} LOGIN NOINHERIT PASSWORD '{LOGIN_PASSWORD}' {member};
                 CREATE SCHEMA {id} AUTHORIZATION app_owner;
                 SET ROLE app_owner;
                 CREATE TABLE {id}.notes {OWN_NOTES};
                 INSERT INTO {id}.notes VALUES {notes};
                 GRANT USAGE ON SCHEMA {id} TO {grantee};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON {id}.notes TO {grantee};
                 RESET ROLE;"
            ))
            .await
            .unwrap();
        }
        let (id, notes) = (&self.initech.id, self.initech.values(""));
        postgres.batch_execute(&format!("CREATE DATABASE {id}")).await.unwrap();
        let silo = cluster::superuser(cluster, id).await;
        silo.batch_execute(&format!(
            "CREATE ROLE tg_{id} LOGIN NOINHERIT PASSWORD '{LOGIN_PASSWORD}';
             CREATE TABLE notes {OWN_NOTES};
             INSERT INTO notes VALUES {notes};
             GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO tg_{id};"
        ))
        .await
        .unwrap();
    }
}

impl Tenant {
    fn new(name: &str, mark: &str, isolation: &'static str, dbname: &str, lines: &str) -> Self {
        let id = format!("{name}_{mark}");
        let fresh = new_token().unwrap();
        let notes = (1..=3).map(|number| (number, format!("note {number} of {name}"))).collect();
        let toml = format!(
            "[tenants.{id}]\nisolation = \"{isolation}\"\ncluster = \"main\"\ntier = \"free\"\n\
             tokens = [\"{}\"]\n{lines}\n",
            fresh.line
        );
        Self { id, isolation, dbname: dbname.to_owned(), token: fresh.text, notes, toml }
    }

    /// `(1, 'note'), ...` with `first` in front of each id.
    fn values(&self, first: &str) -> String {
        let rows = self.notes.iter().map(|(id, body)| format!("({first}{id}, '{body}')"));
        rows.collect::<Vec<_>>().join(", ")
    }

    /// A connection string for an application, at a gate's port.
    pub fn conninfo(&self, port: u16) -> String {
        let Self { dbname, token, .. } = self;
        format!(
            "host=127.0.0.1 port={port} user=app dbname={dbname} password={token} sslmode=disable"
        )
    }
}

/// How many workers a test's gate has unless the test says otherwise.
fn workers() -> usize {
    match std::env::var("TENANTGATE_TEST_WORKERS") {
        Ok(text) => text.parse().expect("TENANTGATE_TEST_WORKERS is a number"),
        Err(_) => 2,
    }
}

/// A JSON Web Token of issuer `login` for a tenant, valid for `seconds` from now (less than zero:
/// expired).
pub fn jwt(tenant: &str, seconds: i64) -> String {
    let expires = i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap() + seconds;
    let claims = json!({
        "iss": "https://login.test", "aud": "tenantgate", "tenant_id": tenant, "exp": expires,
    });
    jwt_with(JWT_KEY, &claims)
}

/// A JSON Web Token with any claims and key.
pub fn jwt_with(key: &str, claims: &serde_json::Value) -> String {
    let key = EncodingKey::from_secret(key.as_bytes());
    jsonwebtoken::encode(&Header::default(), claims, &key).unwrap()
}
