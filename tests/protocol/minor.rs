//! Protocol 3.2: what is negotiated, held against PostgreSQL 18 itself, and its long cancel keys on
//! both sides of the gate.

use tenantgate::demo::{Cluster, Plan};

use crate::drivers::{Driver, Target};
use crate::harness::cluster::{of, shared, superuser, versions};
use crate::harness::gate::Gate;
use crate::harness::messages::{assert_cancelled, query, startup_version, transcript};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire, cancel_with};
use crate::lifecycle::{login_of, runs};

/// A cluster of the newest PostgreSQL here, and its major version.
async fn newest() -> (u32, Cluster) {
    let (major, template) = versions().iter().max_by_key(|(major, _)| *major).unwrap();
    (*major, of(template, &Plan::default()).await)
}

/// The first message in answer to a start-up packet, and the length of the key at the end.
async fn greeted(port: u16, minor: u16, login: &Login<'_>) -> (Option<Vec<u8>>, usize) {
    let mut wire = Wire::connect(port).await;
    let frames = wire.authenticate_as(minor, login).await;
    assert_eq!(frames.last().unwrap().to_string(), "Z(I)", "{frames:?}");
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    let negotiated = frames.iter().filter(|frame| frame.tag == b'v').collect::<Vec<_>>();
    assert!(negotiated.len() <= 1);
    (negotiated.first().map(|frame| frame.body.clone()), wire.key.len())
}

#[tokio::test]
async fn versions_and_extensions_are_negotiated_as_postgresql_18_does() {
    let (major, cluster) = newest().await;
    let estate = Estate::within(&cluster).await;
    let gate = Gate::for_estate(&estate).await;
    let unknown = [("_pq_.one", "1"), ("_pq_.two", "2")];
    let names = b"\0\0\0\x02_pq_.one\0_pq_.two\0";
    let told = |minor: u8, rest: &[u8]| Some([&[0, 3, 0, minor], rest].concat());
    for (minor, more, negotiated, key) in [
        (0, &[][..], None, 4),
        (1, &[], None, 4),
        (2, &[], None, 32),
        (3, &[], told(2, &[0; 4]), 32),
        (9999, &[], told(2, &[0; 4]), 32),
        (0, &unknown, told(0, names), 4),
        (2, &unknown, told(2, names), 32),
        (3, &unknown, told(2, names), 32),
    ] {
        let login = Login { user: "app", dbname: "app", password: &estate.stark.token, more };
        let said = greeted(gate.port, minor, &login).await;
        assert_eq!(said, (negotiated, key), "3.{minor}");
        if major >= 18 {
            let user = format!("tg_{}", estate.stark.id);
            let login = Login { user: &user, password: LOGIN_PASSWORD, ..login };
            assert_eq!(greeted(cluster.port(), minor, &login).await, said, "3.{minor}");
        }
    }
}

/// A session of the newest protocol.
async fn newest_session(gate: &Gate, tenant: &Tenant) -> Wire {
    let login = Login { user: "app", dbname: &tenant.dbname, password: &tenant.token, more: &[] };
    let mut wire = Wire::connect(gate.port).await;
    wire.authenticate_as(2, &login).await;
    assert_eq!(wire.key.len(), 32);
    wire
}

#[tokio::test]
async fn a_long_key_cancels_and_nothing_that_is_nearly_it_does() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let admin = superuser(shared().await, "app").await;
    let mut wire = newest_session(&gate, &estate.stark).await;
    let other = newest_session(&gate, &estate.stark).await;
    assert_ne!((wire.pid, &wire.key), (other.pid, &other.key));
    wire.send(query("SELECT pg_sleep(0.6), 1")).await;
    runs(&admin, &login_of(&estate.stark), "pg_sleep(0.6)", true).await;
    let key = wire.key.clone();
    let mut last_wrong = key.clone();
    last_wrong[31] ^= 1;
    let longer = [&key[..], b"\0"].concat();
    let longest = [&key[..], &[0; 224]].concat();
    for wrong in [&key[..4], &key[..31], &last_wrong, &longer, &longest, &other.key] {
        cancel_with(gate.port, wire.pid, wrong).await;
    }
    assert_eq!(transcript(&wire.until_ready().await), "T D(,1) C(SELECT 1) Z(I)");
    wire.send(query("SELECT pg_sleep(600)")).await;
    runs(&admin, &login_of(&estate.stark), "pg_sleep(600)", true).await;
    cancel_with(gate.port, wire.pid, &key).await;
    assert_cancelled(&wire.until_ready().await);
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn a_secret_that_is_too_short_or_too_long_is_no_cancel() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    for bytes in [0, 3, 257] {
        let mut wire = Wire::connect(gate.port).await;
        let packet = crate::harness::messages::cancel_request_with(1, &vec![7; bytes]);
        wire.send(packet).await;
        assert_eq!(wire.until_closed().await, "E(08P01)", "{bytes} bytes");
    }
    let mut wire = Wire::connect(gate.port).await;
    wire.send(startup_version(4, 0, &[("user", "app")])).await;
    assert_eq!(wire.until_closed().await, "E(08P01)");
}

/// The same estate, whose gate asks servers for these versions.
async fn asking(estate: &Estate, versions: &str) -> Gate {
    let settings = estate.settings(&Tweaks::default());
    let wish = format!("sslmode=disable&{versions}");
    Gate::start(&settings.replace("sslmode=disable", &wish)).await
}

#[tokio::test]
async fn servers_are_spoken_to_in_the_version_of_the_route() {
    for (major, template) in versions() {
        let cluster = of(template, &Plan::default()).await;
        let estate = Estate::within(&cluster).await;
        let admin = superuser(&cluster, "app").await;
        // Older servers answer that they speak 3.0.
        let gate = asking(&estate, "max_protocol_version=latest").await;
        let mut wire = newest_session(&gate, &estate.stark).await;
        wire.send(query("SELECT pg_sleep(600)")).await;
        runs(&admin, &login_of(&estate.stark), "pg_sleep(600)", true).await;
        cancel_with(gate.port, wire.pid, &wire.key).await;
        assert_cancelled(&wire.until_ready().await);
        assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)", "{major}");
        drop(gate);
        let gate = asking(&estate, "min_protocol_version=3.2").await;
        match *major >= 18 {
            true => drop(gate.wire(&estate.stark).await),
            false => {
                assert!(gate.try_connect(&estate.stark).await.is_err(), "{major}");
                gate.logs("min_protocol_version of this route is 3.2").await;
            }
        }
    }
}

#[tokio::test]
async fn libpq_18_speaks_the_newest_protocol_and_cancels_with_its_key() {
    let driver = Driver::python("psycopg on libpq 18", "libpq_newest.py");
    if !driver.is_here() {
        return;
    }
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let tenant = &estate.stark;
    let user = "sslmode=disable".to_owned();
    let target = Target { port: gate.port, user, token: &tenant.token, tenant };
    driver.ran(&target).await.unwrap_or_else(|said| panic!("{said}"));
}
