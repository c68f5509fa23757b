//! What is verified of a server's certificate, and what the gate shows of its own, with a real
//! server behind it.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tenantgate::net::tls::Pin;
use tokio_postgres::error::SqlState;

use super::{Stage, through};
use crate::harness::certs::{Authority, Identity};
use crate::harness::cluster::superuser;
use crate::harness::eventually;

const REFUSED: Result<bool, SqlState> = Err(SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);

impl Stage {
    /// Changes a setting of the server for the connections to come.
    async fn set(&self, name: &str, value: &str) {
        let admin = superuser(&self.cluster, "postgres").await;
        admin.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await.unwrap();
        self.cluster.reload().unwrap();
        eventually("the setting is in force", async || {
            let fresh = superuser(&self.cluster, "postgres").await;
            let shown = fresh.query_one(&format!("SHOW {name}"), &[]).await.unwrap();
            (shown.get::<_, String>(0) == value).then_some(())
        })
        .await;
    }

    /// Writes a file that the server can read.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.cluster.folder().join("data").join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The server shows this certificate from now on; its key stays.
    async fn shows(&self, name: &str, certificate: &str) {
        let path = self.file(name, certificate);
        self.set("ssl_cert_file", &path).await;
    }
}

fn pin(certificate: &str) -> String {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    format!("{:?}", Pin::of(&certificate).unwrap())
}

#[tokio::test]
async fn a_servers_certificate_must_be_good_its_own_and_the_one_that_is_pinned() {
    let mut stage = Stage::new().await;
    let good = stage.authority.server_until(&stage.key, "localhost", 4000);
    let (own, other) = (pin(&good), pin(&Authority::new().server(&["localhost"]).certificate));
    let full = "sslmode=verify-full sslrootcert=ca.pem";
    let own_and_other = format!("{other},{own}");
    for (options, wanted) in [
        // The key that the server has, whoever signed it; and beside what the mode verifies.
        (format!("sslmode=require sslpin={own}"), Ok(true)),
        (format!("sslmode=require sslpin={own_and_other}"), Ok(true)),
        (format!("sslmode=require sslpin={other}"), REFUSED),
        (format!("{full} sslpin={own}"), Ok(true)),
        (format!("{full} sslpin={other}"), REFUSED),
        (format!("sslmode=verify-full sslrootcert=other.pem sslpin={own}"), REFUSED),
        // The system's authorities are not the server's.
        ("sslmode=verify-full sslrootcert=system".to_owned(), REFUSED),
        ("sslrootcert=system".to_owned(), REFUSED),
    ] {
        assert_eq!(stage.served("localhost", "solo", &options).await, wanted, "{options}");
    }
    // A system that trusts the server's authority.
    let authorities = stage.file("system.pem", &stage.authority.pem());
    stage.environment = vec![("SSL_CERT_FILE", authorities), ("SSL_CERT_DIR", String::new())];
    for (host, wanted) in [("localhost", Ok(true)), ("elsewhere", REFUSED)] {
        let options = "sslmode=verify-full sslrootcert=system";
        assert_eq!(stage.served(host, "solo", options).await, wanted, "{host}");
    }
    stage.environment.clear();
    // Each version alone; a channel is bound in both.
    for version in ["TLSv1.2", "TLSv1.3"] {
        stage.set("ssl_max_protocol_version", "").await;
        stage.set("ssl_min_protocol_version", version).await;
        stage.set("ssl_max_protocol_version", version).await;
        for binding in ["require", "prefer", "disable"] {
            let options = format!("{full} channel_binding={binding}");
            let served = stage.served("localhost", "solo", &options).await;
            assert_eq!(served, Ok(true), "{version} {binding}");
        }
    }
    // What no TLS or no SCRAM can bind.
    for (user, options) in [
        ("bare", "sslmode=prefer channel_binding=require"),
        ("clear", "sslmode=require channel_binding=require require_auth=password"),
        ("hashed", "sslmode=require channel_binding=require require_auth=md5"),
        ("trusted", "sslmode=require channel_binding=require require_auth=none"),
    ] {
        assert_eq!(stage.served("localhost", user, options).await, REFUSED, "{user} {options}");
    }
    // A certificate that has run out, of another name, and of another authority.
    let stranger = Authority::new();
    for (name, certificate, by_full, by_authority) in [
        ("old", stage.authority.server_until(&stage.key, "localhost", 2020), REFUSED, REFUSED),
        ("named", stage.authority.server_until(&stage.key, "other.test", 4000), REFUSED, Ok(true)),
        ("foreign", stranger.server_until(&stage.key, "localhost", 4000), REFUSED, REFUSED),
    ] {
        stage.shows(name, &certificate).await;
        assert_eq!(stage.served("localhost", "solo", full).await, by_full, "{name}");
        let authority = "sslmode=verify-ca sslrootcert=ca.pem";
        assert_eq!(stage.served("localhost", "solo", authority).await, by_authority, "{name}");
        // Who verifies no chain is served, and a pin holds all the same: it is the key's.
        let pinned = format!("sslmode=require sslpin={own}");
        assert_eq!(stage.served("localhost", "solo", &pinned).await, Ok(true), "{name}");
    }
}

#[tokio::test]
async fn the_gate_shows_its_own_certificate_and_reads_it_again_when_it_changes() {
    let mut stage = Stage::new().await;
    let clients = Authority::new();
    let admin = superuser(&stage.cluster, "postgres").await;
    admin.batch_execute("CREATE ROLE mapped LOGIN").await.unwrap();
    let authority = stage.file("clients.pem", &clients.pem());
    stage.set("ssl_ca_file", &authority).await;
    stage.file("pg_ident.conf", "gate gate.test mapped\n");
    let hba = "host all postgres 127.0.0.1/32 scram-sha-256\n\
               hostssl all mapped 127.0.0.1/32 cert map=gate\n";
    stage.file("pg_hba.conf", hba);
    stage.set("log_min_messages", "error").await;
    let shown =
        |identity: Identity| vec![("gate.crt", identity.certificate), ("gate.key", identity.key)];
    let common = stage.files.clone();
    let options = "sslmode=verify-full sslrootcert=ca.pem require_auth=none";
    let own = format!("{options} sslcert=gate.crt sslkey=gate.key");
    let (gate, token) = stage.gate("localhost", "mapped", options).await;
    assert_eq!(through(&gate, &token).await, REFUSED, "no certificate");
    let wrong = [clients.client("other.test"), Authority::new().client("gate.test")];
    for identity in wrong {
        stage.files = [common.clone(), shown(identity)].concat();
        let (gate, token) = stage.gate("localhost", "mapped", &own).await;
        assert_eq!(through(&gate, &token).await, REFUSED, "another name, another authority");
        // New files are read with the next connection, without a reload.
        for (name, text) in shown(clients.client("gate.test")) {
            std::fs::write(gate.folder().join(name), text).unwrap();
        }
        let served =
            eventually("the new certificate is shown", async || through(&gate, &token).await.ok());
        assert!(served.await);
        // A method that asks for nothing more must still be allowed.
        let (gate, token) = stage.gate("localhost", "mapped", &own.replace("none", "!none")).await;
        assert_eq!(through(&gate, &token).await, REFUSED);
    }
}
