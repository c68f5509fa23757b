//! Where secrets of the settings may stand: in files, in the gate's environment, and among the
//! credentials that systemd hands over.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::is_let_in;
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, JWT_KEY, LOGIN_PASSWORD, Tweaks, jwt};

const VARIABLE: &str = "TENANTGATE_TEST_PASSWORD";

#[tokio::test]
async fn secrets_stand_in_the_environment_and_among_systemds_credentials() {
    let estate = Estate::new().await;
    let settings = estate.settings(&Tweaks::default());
    let credentials = tempfile::tempdir().unwrap();
    for (name, text) in [("issuer", JWT_KEY), ("login", LOGIN_PASSWORD)] {
        let path = credentials.path().join(name);
        fs::write(&path, format!("{text}\n")).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
    }
    let folder = credentials.path().to_str().unwrap();
    let environment = [(VARIABLE, LOGIN_PASSWORD), ("CREDENTIALS_DIRECTORY", folder)];
    let environment = [&environment[..], &[("TENANTGATE_TEST_KEY", JWT_KEY)]].concat();
    for (key, password) in [
        ("credential:issuer", format!("env%3A{VARIABLE}")),
        ("env:TENANTGATE_TEST_KEY", "credential%3Alogin".to_owned()),
        ("file:login.key", "file%3Aown.password".to_owned()),
    ] {
        let settings = settings.replace("\"login.key\"", &format!("\"{key}\""));
        let settings = settings.replace(LOGIN_PASSWORD, &password);
        assert!(!settings.contains(LOGIN_PASSWORD));
        let files = [("own.password", LOGIN_PASSWORD)];
        let gate = Gate::start_under(&settings, &files, &environment).await;
        assert!(is_let_in(&gate, &jwt(&estate.acme.id, 60)).await, "{key}");
        assert!(is_let_in(&gate, &estate.umbrella.token).await, "{password}");
        // A reload reads them again.
        gate.reload_with(&settings).await;
        assert!(is_let_in(&gate, &jwt(&estate.stark.id, 60)).await, "{key}");
        let log = gate.log();
        assert!(!log.contains(LOGIN_PASSWORD) && !log.contains(JWT_KEY), "{log}");
    }
    for (place, why) in [
        ("env:TENANTGATE_NO_SUCH", "the environment has no TENANTGATE_NO_SUCH"),
        ("credential:issuer", "there is no credential issuer: systemd has set no"),
        ("credential:../issuer", "credential: is followed by the name of a credential"),
        ("env:A B", "env: is followed by the name of a variable"),
    ] {
        let output = Gate::refused(&settings.replace("\"login.key\"", &format!("\"{place}\"")));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(why) && !said.contains(LOGIN_PASSWORD), "{place}: {said}");
        let place = place.replace(':', "%3A").replace(' ', "%20").replace('/', "%2F");
        let output = Gate::refused(&settings.replace(LOGIN_PASSWORD, &place));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(why), "{place}: {said}");
    }
}
