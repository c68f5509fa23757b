//! The host of the TLS handshake: it names a tenant, and it picks the certificate.

use super::{PASSWORD, psql, psycopg, scram};
use crate::harness::certs::{Authority, Identity};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tweaks};

const NOTE: &str = "SELECT body FROM notes WHERE id = 1";

#[tokio::test]
async fn a_host_names_the_tenant_and_picks_the_certificate() {
    let estate = Estate::new().await;
    let (stark, acme) = (&estate.stark.id, &estate.acme.id);
    let authority = Authority::new();
    let plain = authority.server(&["gate.test"]);
    let exact = authority.server(&["other.test"]);
    let star = authority.server(&["*.tenants.test"]);
    let listen = "certificate = \"plain.crt\"\nkey = \"plain.key\"\ncertificates = [\n\
        { certificate = \"exact.crt\", key = \"exact.key\" },\n\
        { certificate = \"star.crt\", key = \"star.key\" },\n]\n\
        sni_suffix = \"tenants.test\"\n\
        rules = [{ user = \"app*\", method = \"scram-sha-256\" }, { method = \"password\" }]\n";
    let more = [scram(stark, "app", PASSWORD), scram(acme, "app", PASSWORD)].concat();
    let tweaks = Tweaks { listen, more: &more, ..Tweaks::default() };
    let ca = authority.pem();
    let mut files = vec![("ca.crt", ca.as_str())];
    let pairs = [
        (("plain.crt", "plain.key"), &plain),
        (("exact.crt", "exact.key"), &exact),
        (("star.crt", "star.key"), &star),
    ];
    for ((crt, key), Identity { certificate, key: private }) in &pairs {
        files.extend([(*crt, certificate.as_str()), (*key, private.as_str())]);
    }
    let gate = Gate::start_with(&estate.settings(&tweaks), &files).await;
    let ask = async |host: &str, user: &str, password: &str| {
        let (port, folder) = (gate.port, gate.folder().display().to_string());
        let conninfo = format!(
            "host='{host}' hostaddr=127.0.0.1 port={port} user='{user}' dbname=app \
             password='{password}' sslmode=verify-full sslrootcert='{folder}/ca.crt' \
             channel_binding={}",
            if user.starts_with("app") { "require" } else { "prefer" },
        );
        let said = psql(&conninfo, NOTE).await;
        if let Some(other) = psycopg(&conninfo, NOTE).await {
            assert_eq!(other.is_ok(), said.is_ok(), "{host} {user}: {said:?} {other:?}");
        }
        said
    };
    // The same user and password: the host says whose.
    let host = |id: &str| format!("{id}.tenants.test");
    assert_eq!(ask(&host(stark), "app", PASSWORD).await.as_deref(), Ok("note 1 of stark"));
    assert_eq!(ask(&host(acme), "app", PASSWORD).await.as_deref(), Ok("note 1 of acme"));
    let upper = host(acme).to_uppercase();
    assert_eq!(ask(&upper, "app", PASSWORD).await.as_deref(), Ok("note 1 of acme"));
    // Hosts without a tenant in them name none; each has its certificate, and is bound to it.
    for plain in ["gate.test", "other.test"] {
        let named = format!("app.{stark}");
        assert_eq!(ask(plain, &named, PASSWORD).await.as_deref(), Ok("note 1 of stark"));
        assert!(ask(plain, "app", PASSWORD).await.is_err(), "two tenants have this user");
        let said = ask(plain, "t", &estate.stark.token).await;
        assert_eq!(said.as_deref(), Ok("note 1 of stark"));
    }
    // Every name must agree with the credential.
    let token = &estate.stark.token;
    assert_eq!(ask(&host(stark), "t", token).await.as_deref(), Ok("note 1 of stark"));
    let (of_stark, of_acme) = (format!("t.{stark}"), format!("app.{acme}"));
    for (host, user, password) in [
        (host(acme), "t", token.as_str()),
        (host(acme), of_stark.as_str(), token.as_str()),
        (host(stark), of_acme.as_str(), PASSWORD),
        (host("nobody"), "app", PASSWORD),
        (host("nobody"), "t", token.as_str()),
    ] {
        let said = ask(&host, user, password).await.unwrap_err();
        assert!(said.ends_with("FATAL:  authentication failed"), "{host} {user}: {said}");
    }
}
