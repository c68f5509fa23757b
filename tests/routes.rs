//! The way to the server: libpq's sslmode with its exact meaning, channel binding, and which ways
//! of logging in a route allows.

mod tls;

use tenantgate::catalog::new_token;
use tenantgate::demo::{Cluster, Plan};
use tokio_postgres::error::SqlState;

use crate::harness::certs::Authority;
use crate::harness::cluster::{connect, own, superuser};
use crate::harness::gate::Gate;

/// TLS only for those who log in by SCRAM; the others show what a route must allow.
const HBA: &str = "host all postgres 127.0.0.1/32 scram-sha-256
hostssl all solo 127.0.0.1/32 scram-sha-256
hostnossl all bare 127.0.0.1/32 scram-sha-256
host all plain 127.0.0.1/32 scram-sha-256
host all clear 127.0.0.1/32 password
host all hashed 127.0.0.1/32 md5
host all trusted 127.0.0.1/32 trust
";

struct Stage {
    cluster: Cluster,
    authority: Authority,
    /// Of the server's certificate, PEM.
    key: String,
    /// What lies beside the gate's settings.
    files: Vec<(&'static str, String)>,
    /// The gate's environment.
    environment: Vec<(&'static str, String)>,
}

impl Stage {
    async fn new() -> Self {
        let authority = Authority::new();
        let identity = authority.server(&["localhost"]);
        let tls = Some((identity.certificate, identity.key.clone()));
        let hba = Some(HBA.to_owned());
        let cluster = own(&Plan { tls, hba, ..Plan::default() }).await;
        let admin = superuser(&cluster, "postgres").await;
        for sql in [
            "CREATE ROLE solo LOGIN PASSWORD 'secret'; CREATE ROLE plain LOGIN PASSWORD 'secret'",
            "CREATE ROLE bare LOGIN PASSWORD 'secret'",
            "CREATE ROLE clear LOGIN PASSWORD 'secret'; CREATE ROLE trusted LOGIN",
            "SET password_encryption = md5; CREATE ROLE hashed LOGIN PASSWORD 'secret'",
            "CREATE DATABASE solo",
        ] {
            admin.batch_execute(sql).await.unwrap();
        }
        let stranger = Authority::new().pem();
        let files = vec![("ca.pem", authority.pem()), ("other.pem", stranger)];
        Self { cluster, authority, key: identity.key, files, environment: Vec::new() }
    }

    /// A gate with a silo tenant of this route, and the tenant's token.
    async fn gate(&self, host: &str, user: &str, options: &str) -> (Gate, String) {
        let token = new_token().unwrap();
        let port = self.cluster.port();
        let settings = format!(
            "[[listen]]\naddress = \"127.0.0.1:$PORT\"\ntls = \"disable\"\n\
             plaintext_password = true\n[clusters.main]\ncapacity = 2\n[tenants.solo]\n\
             isolation = \"silo\"\ncluster = \"main\"\ntokens = [\"{}\"]\nconnection_string = \
             \"host={host} hostaddr=127.0.0.1 port={port} dbname=solo user={user} {options}\"\n",
            token.line
        );
        let files: Vec<_> = self.files.iter().map(|(name, text)| (*name, &**text)).collect();
        let environment: Vec<_> = self.environment.iter().map(|(a, b)| (*a, &**b)).collect();
        (Gate::start_under(&settings, &files, &environment).await, token.text)
    }

    /// Whether a silo tenant with this route is served: over TLS (true) or not (false), or why not.
    async fn served(&self, host: &str, user: &str, options: &str) -> Result<bool, SqlState> {
        let options = format!("password=secret {options}");
        let (gate, token) = self.gate(host, user, &options).await;
        through(&gate, &token).await
    }
}

/// Whether a session through the gate has TLS behind it, or why there is none.
async fn through(gate: &Gate, token: &str) -> Result<bool, SqlState> {
    let port = gate.port;
    let conninfo = format!("host=127.0.0.1 port={port} user=app dbname=solo password={token}");
    match connect(&conninfo).await {
        Ok(client) => {
            let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            Ok(client.query_one(sql, &[]).await.unwrap().get(0))
        }
        Err(error) => Err(error.code().unwrap().clone()),
    }
}

#[tokio::test]
async fn sslmode_towards_servers_means_what_it_means_to_libpq() {
    let stage = Stage::new().await;
    let refused = Err(SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);
    for (host, options, wanted) in [
        ("localhost", "sslmode=verify-full sslrootcert=ca.pem", Ok(true)),
        ("elsewhere", "sslmode=verify-full sslrootcert=ca.pem", refused.clone()),
        ("localhost", "sslmode=verify-full sslrootcert=other.pem", refused.clone()),
        ("elsewhere", "sslmode=verify-ca sslrootcert=ca.pem", Ok(true)),
        ("elsewhere", "sslmode=verify-ca sslrootcert=other.pem", refused.clone()),
        ("elsewhere", "sslmode=require", Ok(true)),
        // With a root file require verifies the authority, as in libpq.
        ("elsewhere", "sslmode=require sslrootcert=ca.pem", Ok(true)),
        ("elsewhere", "sslmode=require sslrootcert=other.pem", refused.clone()),
        ("localhost", "sslmode=prefer", Ok(true)),
        ("localhost", "sslmode=disable", refused.clone()),
        ("localhost", "sslmode=require channel_binding=require", Ok(true)),
        ("localhost", "sslmode=require channel_binding=disable", Ok(true)),
    ] {
        assert_eq!(stage.served(host, "solo", options).await, wanted, "{host} {options}");
    }
    // The modes that try twice: who may log in without TLS, with it, or either way.
    for (user, mode, wanted) in [
        ("plain", "disable", Ok(false)),
        ("plain", "allow", Ok(false)),
        ("plain", "prefer", Ok(true)),
        ("solo", "allow", Ok(true)),
        ("bare", "allow", Ok(false)),
        ("bare", "prefer", Ok(false)),
        ("bare", "require", refused.clone()),
        ("absent", "allow", refused.clone()),
        ("absent", "prefer", refused),
    ] {
        let options = format!("sslmode={mode}");
        assert_eq!(stage.served("localhost", user, &options).await, wanted, "{user} {mode}");
    }
}

#[tokio::test]
async fn a_server_gets_a_password_only_in_the_ways_its_route_allows() {
    let stage = Stage::new().await;
    let refused = Err(SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);
    for (user, method) in [("clear", "password"), ("hashed", "md5"), ("trusted", "none")] {
        let plain = "sslmode=disable";
        assert_eq!(stage.served("localhost", user, plain).await, refused, "{user} by default");
        let allowed = format!("{plain} require_auth={method}");
        assert_eq!(stage.served("localhost", user, &allowed).await, Ok(false), "{user}");
        let other = format!("{plain} require_auth=scram-sha-256");
        assert_eq!(stage.served("localhost", user, &other).await, refused, "{user} by SCRAM");
    }
}
