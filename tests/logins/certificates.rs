//! Client certificates: alone, beside a password, of another tenant, of another authority.

use super::{PASSWORD, psql, psycopg, scram, secured};
use crate::harness::certs::{Authority, Identity, presenting};
use crate::harness::gate::Gate;
use crate::harness::tenants::Estate;
use crate::harness::wire::{Login, Wire};

const NOTE: &str = "SELECT body FROM notes WHERE id = 1";

/// Writes a client's certificate and key into the gate's folder.
fn put(gate: &Gate, name: &str, identity: &Identity) {
    use std::os::unix::fs::PermissionsExt;
    let write = |ending: &str, text: &str| {
        let path = gate.folder().join(format!("{name}.{ending}"));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("crt", &identity.certificate);
    write("key", &identity.key);
}

fn conninfo(gate: &Gate, user: &str, certificate: Option<&str>) -> String {
    let (port, folder) = (gate.port, gate.folder().display().to_string());
    let shown = match certificate {
        Some(name) => format!("sslcert='{folder}/{name}.crt' sslkey='{folder}/{name}.key'"),
        None => format!("sslcert='{folder}/none' sslkey='{folder}/none'"),
    };
    format!(
        "host=gate.test hostaddr=127.0.0.1 port={port} user={user} dbname=app \
         password='{PASSWORD}' sslmode=verify-full sslrootcert='{folder}/ca.crt' {shown}"
    )
}

#[tokio::test]
async fn a_certificate_stands_for_its_tenant_and_no_other() {
    let estate = Estate::new().await;
    let (stark, acme) = (&estate.stark.id, &estate.acme.id);
    let more = format!(
        "[[tenants.{stark}.credentials]]\nkind = \"certificate\"\nsan = \"app.stark.test\"\n\
         [[tenants.{acme}.credentials]]\nkind = \"certificate\"\ncn = \"acme app\"\nname = \"a\"\n\
         {}",
        [scram(stark, "both", PASSWORD), scram(stark, "any", PASSWORD)].concat()
    );
    let listen = "client_ca = \"ca.crt\"\nrules = [\n\
        { user = \"both\", method = \"scram-sha-256\", client_certificate = \"verify-full\" },\n\
        { user = \"any\", method = \"scram-sha-256\", client_certificate = \"verify-ca\" },\n\
        { user = \"app*\", method = \"cert\" },\n]\n";
    let (authority, gate) = secured(&estate, listen, &more).await;
    put(&gate, "stark", &authority.client_of(&["app.stark.test"], "x"));
    put(&gate, "acme", &authority.client("acme app"));
    put(&gate, "nobody", &authority.client("app.stark.test"));
    put(&gate, "foreign", &Authority::new().client_of(&["app.stark.test"], "x"));
    let ask = async |user: &str, certificate: Option<&str>| {
        let conninfo = conninfo(&gate, user, certificate);
        let said = psql(&conninfo, NOTE).await;
        if let Some(other) = psycopg(&conninfo, NOTE).await {
            assert_eq!(other.is_ok(), said.is_ok(), "{user} {certificate:?}: {said:?} {other:?}");
        }
        said
    };
    assert_eq!(ask("app", Some("stark")).await.as_deref(), Ok("note 1 of stark"));
    assert_eq!(ask("app", Some("acme")).await.as_deref(), Ok("note 1 of acme"));
    assert_eq!(ask("both", Some("stark")).await.as_deref(), Ok("note 1 of stark"));
    assert_eq!(ask("any", Some("acme")).await.as_deref(), Ok("note 1 of stark"));
    let named = format!("app.{acme}");
    assert_eq!(ask(&named, Some("acme")).await.as_deref(), Ok("note 1 of acme"));
    for (user, certificate) in
        [("app", "nobody"), ("both", "acme"), ("both", "nobody"), (named.as_str(), "stark")]
    {
        let said = ask(user, Some(certificate)).await.unwrap_err();
        assert!(said.ends_with("FATAL:  authentication failed"), "{user} {certificate}: {said}");
    }
    for user in ["app", "both", "any"] {
        let said = ask(user, None).await.unwrap_err();
        let wanted = "FATAL:  connection requires a valid client certificate";
        assert!(said.contains(wanted), "{user}: {said}");
        let said = ask(user, Some("foreign")).await.unwrap_err();
        assert!(said.contains("SSL") || said.contains("alert"), "{user}: {said}");
    }
    // What comes beside the password counts for as long as the password does.
    let shown = authority.client_of(&["app.stark.test"], "x");
    let config = presenting(&authority.pem(), &shown);
    let mut session = Wire::connect_tls(gate.port, config, "gate.test").await.unwrap();
    let login = Login { user: "both", dbname: "app", password: PASSWORD, more: &[] };
    session.authenticate(&login).await;
    assert_eq!(session.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    let file = gate.folder().join("tenantgate.toml");
    let settings = std::fs::read_to_string(file).unwrap();
    gate.write_settings(&settings.replace("\"app.stark.test\"", "\"other.test\""));
    gate.reload();
    assert_eq!(session.until_closed().await, "E(57P01)");
    // Whoever no rule is for.
    let said = ask("other", Some("stark")).await.unwrap_err();
    assert!(said.contains("the listener takes no login of this user"), "{said}");
    let log = gate.log();
    assert!(log.contains("credential=\"certificate app.stark.test\""), "{log}");
    assert!(log.contains("credential=\"certificate a\""), "{log}");
}
