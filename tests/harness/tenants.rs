//! Tenants for a test: two by row, two by schema, one in a database of its own, each with notes
//! nobody else has, and the settings that make a gate serve them.

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tenantgate::catalog::new_token;
use tenantgate::demo::{Cluster, ROWS_SQL};
use tenantgate::isolation::{Level, SealKeys, carrier, pack};
use tenantgate::secret::Secret;

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

/// The key file `seal.key` that every test's gate has.
pub const SEAL_KEY: &str = "k1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

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
    level: Level,
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
        let level = Level::Plain;
        let estate = Self { acme, globex, umbrella, stark, initech, connection_string, level };
        estate.create(cluster).await;
        estate
    }

    /// Five tenants in a cluster that [`prepare`] has seen, which is made ready for a level.
    pub async fn at(cluster: &Cluster, level: Level) -> Self {
        let estate = Self { level, ..Self::within(cluster).await };
        let app = cluster::superuser(cluster, "app").await;
        if level >= Level::Sealed {
            app.batch_execute(&seal_sql(level)).await.unwrap();
        }
        if level > Level::Plain {
            let roles = ["tg_login", "app_rw"].into_iter();
            for row in app.query(&pack::revoke_sql(roles), &[]).await.unwrap() {
                app.batch_execute(row.get(1)).await.unwrap();
            }
        }
        if level >= Level::Sealed {
            app.batch_execute(SEALED_NOTES).await.unwrap();
        }
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
        let level = match self.level {
            Level::Plain => String::new(),
            Level::Sealed => "level = \"sealed\"\nseal_key_file = \"seal.key\"\n".to_owned(),
            level => format!("level = \"{}\"\n", level.name()),
        };
        let prepares = match std::env::var("TENANTGATE_TEST_PREPARES") {
            Ok(count) if !tier.contains("prepare_threshold") => {
                format!("prepare_threshold = {count}\n")
            }
            _ => String::new(),
        };
        let mut text = format!(
            "[gate]\n{workers}{gate}\n\n\
             [[listen]]\naddress = \"127.0.0.1:$PORT\"\n{listen}\n\n\
             [issuers.login]\nissuer = \"https://login.test\"\naudience = \"tenantgate\"\n\
             algorithm = \"HS256\"\nkey_file = \"login.key\"\n\n\
             [clusters.main]\ncapacity = {capacity}\n\
             connection_string = \"{connection_string}\"\n{level}{cluster}\n\n\
             [tiers.free]\n{tier}\n{prepares}\n"
        );
        // At strict a cluster has no row tenants.
        let served = |tenant: &&Tenant| self.level < Level::Strict || tenant.isolation != "row";
        for tenant in self.tenants().into_iter().filter(served) {
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

    /// Its table in the settings, for those of another estate.
    pub fn table(&self) -> &str {
        &self.toml
    }

    /// A connection string for an application, at a gate's port.
    pub fn conninfo(&self, port: u16) -> String {
        let Self { dbname, token, .. } = self;
        format!(
            "host=127.0.0.1 port={port} user=app dbname={dbname} password={token} sslmode=disable"
        )
    }
}

/// Policies and defaults of `app.notes` ask for the sealed tenant.
const SEALED_NOTES: &str = "
ALTER TABLE app.notes ALTER tenant_id SET DEFAULT tenantgate.tenant_id();
ALTER POLICY own_rows ON app.notes USING (tenant_id = tenantgate.tenant_id())
  WITH CHECK (tenant_id = tenantgate.tenant_id());";

/// Schema `tenantgate` with its key and functions, as `tenantgate install` makes it.
fn seal_sql(level: Level) -> String {
    let (enter, arguments) = (carrier::ENTER_BODY, carrier::ENTER_ARGUMENTS);
    let tenant_id = carrier::tenant_id_body(level, "app.tenant_id");
    let set_config = carrier::set_config_body("app.tenant_id");
    let set_config_arguments = carrier::SET_CONFIG_ARGUMENTS;
    let stored = SealKeys::parse(SEAL_KEY).unwrap().stored("app");
    let hex = |secret: &Secret| -> String {
        secret.expose().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let keys = stored.iter().map(|key| {
        let (kid, inner, outer) = (&key.kid, hex(&key.inner), hex(&key.outer));
        format!("INSERT INTO tenantgate.keys VALUES ('{kid}', '\\x{inner}', '\\x{outer}');")
    });
    let keys: String = keys.collect();
    format!(
        "CREATE ROLE tenantgate_owner NOLOGIN;
         GRANT SET ON PARAMETER backtrace_functions TO tenantgate_owner;
         GRANT EXECUTE ON FUNCTION set_config(text, text, bool) TO tenantgate_owner;
         GRANT USAGE ON LANGUAGE plpgsql TO tenantgate_owner;
         CREATE SCHEMA tenantgate AUTHORIZATION tenantgate_owner;
         GRANT USAGE ON SCHEMA tenantgate TO PUBLIC;
         SET ROLE tenantgate_owner;
         CREATE TABLE tenantgate.keys (kid text PRIMARY KEY, ikey bytea NOT NULL,
           okey bytea NOT NULL, added_at timestamptz NOT NULL DEFAULT now());
         CREATE FUNCTION tenantgate.tenant_id() RETURNS text LANGUAGE plpgsql STABLE
           PARALLEL SAFE AS $body${tenant_id}$body$;
         CREATE FUNCTION tenantgate.enter({arguments}) RETURNS text LANGUAGE plpgsql
           SECURITY DEFINER AS $body${enter}$body$;
         CREATE FUNCTION tenantgate.set_config({set_config_arguments}) RETURNS text
           LANGUAGE plpgsql SECURITY DEFINER AS $body${set_config}$body$;
         REVOKE EXECUTE ON FUNCTION tenantgate.enter FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION tenantgate.enter TO tg_login;
         {keys}
         RESET ROLE;"
    )
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
