//! Reload under load, and of everything that is said to change live: no request fails, no client
//! is dropped, and what could not change is said.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::process::Command;

use crate::harness::certs::{Authority, Identity};
use crate::harness::cluster::{shared, superuser, template};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{ONE, query};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};
use crate::harness::wire::{Login, Wire};

const ADMIN: Login<'static> =
    Login { user: "admin", dbname: "tenantgate", password: LOGIN_PASSWORD, more: &[] };

/// A table with the console's user.
async fn console_table() -> String {
    let admin = superuser(shared().await, "app").await;
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'tg_login'";
    let verifier: String = admin.query_one(sql, &[]).await.unwrap().get(0);
    format!("[console.users]\nadmin = \"{verifier}\"\n")
}

/// The setting in force, and whether a reload changes it.
async fn setting(console: &mut Wire, key: &str) -> (String, String) {
    console.send(query("SHOW CONFIG")).await;
    let rows = console.until_ready().await.into_iter().filter(|frame| frame.tag == b'D');
    let mut rows = rows.map(|row| row.columns().into_iter().map(Option::unwrap_or_default));
    let mut found = rows.find_map(|mut row| (row.next()? == key).then_some(row)).expect(key);
    (found.next().unwrap(), found.next_back().unwrap())
}

#[tokio::test]
async fn pgbench_notices_nothing_of_many_reloads() {
    let estate = Estate::new().await;
    let more = console_table().await;
    let tweaks = Tweaks { capacity: 10, more: &more, ..Tweaks::default() };
    let good = estate.settings(&tweaks);
    let gate = Gate::start(&good).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let script = gate.folder().join("bench.sql");
    std::fs::write(&script, "BEGIN;\nSELECT count(*) FROM notes;\nCOMMIT;\nSELECT 1;\n").unwrap();
    let url = format!("host=127.0.0.1 port={} user=app dbname=app sslmode=disable", gate.port);
    let mut benches = Vec::new();
    for (tenant, mode) in [(&estate.acme, "simple"), (&estate.stark, "prepared")] {
        let bench = Command::new(template().binaries().program("pgbench"))
            .args(["-n", "-c", "4", "-T", "6", "-M", mode, "-f"])
            .args([script.as_os_str(), url.as_ref()])
            .env("PGPASSWORD", &tenant.token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        benches.push(bench);
    }
    // Every other file has other limits, of tenants too, and another log level.
    let other = good
        .replace("[tiers.free]\n", "[tiers.free]\nqueries_per_second = 1000000\n")
        .replace("[gate]\n", "[gate]\nclients = 500\nlog_level = \"warn\"\n");
    assert_ne!(other, good);
    let running = |benches: &mut Vec<tokio::process::Child>| {
        benches.iter_mut().all(|bench| bench.try_wait().unwrap().is_none())
    };
    let mut reloads = 0;
    while running(&mut benches) {
        gate.write_settings(if reloads % 2 == 0 { &other } else { &good });
        assert_eq!(console.query("RELOAD").await, "C(RELOAD) Z(I)");
        gate.write_settings("[gate");
        assert_eq!(console.query("RELOAD").await, "E(F0000) Z(I)");
        reloads += 1;
    }
    assert!(reloads >= 20, "{reloads}");
    for bench in benches {
        let output = bench.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !wrong.contains("ERROR"), "{said}{wrong}");
        let done = said.lines().find(|line| line.contains("number of transactions actually"));
        let done: u64 = done.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(done > 20, "{said}");
        assert!(said.contains("number of failed transactions: 0 (0.000%)"), "{said}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_for_new_handshakes_and_drops_nobody() {
    let (old, new) = (Authority::new(), Authority::new());
    let estate = Estate::new().await;
    let listen = "certificate = \"gate.crt\"\nkey = \"gate.key\"";
    let more = console_table().await;
    let settings = estate.settings(&Tweaks { listen, more: &more, ..Tweaks::default() });
    let settings = settings.replace("tls = \"disable\"\n", "");
    let Identity { certificate, key } = old.server(&["gate.test"]);
    let files = [("gate.crt", certificate.as_str()), ("gate.key", key.as_str())];
    let gate = Gate::start_with(&settings, &files).await;
    let write = |identity: &Identity| {
        std::fs::write(gate.folder().join("gate.crt"), &identity.certificate).unwrap();
        std::fs::write(gate.folder().join("gate.key"), &identity.key).unwrap();
    };
    let login = Login { user: "app", dbname: "app", password: &estate.stark.token, more: &[] };
    let connect = async |authority: &Authority| {
        let config = authority.client_config();
        let mut wire = Wire::connect_tls(gate.port, config, "gate.test").await.ok()?;
        let frames = wire.authenticate(&login).await;
        (frames.last()?.to_string() == "Z(I)").then_some(wire)
    };
    let mut console = Wire::connect_tls(gate.port, old.client_config(), "gate.test").await.unwrap();
    console.authenticate(&ADMIN).await;
    let mut kept = connect(&old).await.expect("the first certificate");
    // Who works all the time works on, and some come and go: they trust whichever it is.
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut busy = connect(&old).await.expect("the first certificate");
    let (stopped, counted) = (stop.clone(), done.clone());
    let works = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            assert_eq!(busy.query("SELECT 1").await, ONE);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    for round in 0..20 {
        let (authority, other) = if round % 2 == 0 { (&new, &old) } else { (&old, &new) };
        write(&authority.server(&["gate.test"]));
        assert_eq!(console.query("RELOAD").await, "C(RELOAD) Z(I)");
        let mut fresh = connect(authority).await.expect("the new certificate");
        assert_eq!(fresh.query("SELECT 1").await, ONE);
        assert!(connect(other).await.is_none(), "the other certificate is still shown");
        assert_eq!(kept.query("SELECT 1").await, ONE);
    }
    // A key that is not the certificate's changes nothing.
    let mixed = Identity { key: old.server(&["gate.test"]).key, ..old.server(&["gate.test"]) };
    write(&mixed);
    assert_eq!(console.query("RELOAD").await, "E(F0000) Z(I)");
    assert!(connect(&old).await.is_some());
    stop.store(true, Ordering::Relaxed);
    works.await.expect("no request failed");
    assert!(done.load(Ordering::Relaxed) > 20);
}

#[tokio::test]
async fn limits_and_the_log_level_of_the_gate_change_live() {
    let estate = Estate::new().await;
    let more = console_table().await;
    let with = |gate: &str| estate.settings(&Tweaks { gate, more: &more, ..Tweaks::default() });
    let gate = Gate::start(&with("")).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let mut client = gate.wire(&estate.stark).await;
    let long = format!("SELECT 1 /* {} */", "x".repeat(2000));
    assert_eq!(client.query(&long).await, ONE);
    gate.write_settings(&with(
        "statement_bytes = 1024\nclients = 2\nlog_level = \"debug\"\nworkers = 3",
    ));
    console.send(query("RELOAD")).await;
    let frames = console.until_ready().await;
    // What takes a restart comes as a notice, and stays as it was.
    let notice = frames[0].field('M').unwrap();
    assert_eq!(notice, "only a restart applies: gate.workers");
    let workers = setting(&mut console, "gate.workers").await;
    assert!(workers.0 != "3" && workers.1 == "no", "{workers:?}");
    assert_eq!(setting(&mut console, "gate.clients").await, ("2".to_owned(), "yes".to_owned()));
    gate.logs("keys=\"gate.workers\"").await;
    eventually("the shorter limit", async || {
        (client.query(&long).await == "E(54000) Z(I)").then_some(())
    })
    .await;
    // With the one above they are two.
    let _second = gate.wire(&estate.acme).await;
    let error = eventually("the lower number of clients", async || {
        gate.try_connect(&estate.acme).await.err()
    })
    .await;
    assert_eq!(error.code().unwrap().code(), "53300");
    gate.write_settings(&with("log_level = \"error\""));
    assert_eq!(console.query("RELOAD").await, "C(RELOAD) Z(I)");
    assert_eq!(client.query(&long).await, ONE);
    let before = gate.log().lines().count();
    for _ in 0..3 {
        gate.wire(&estate.stark).await;
    }
    assert_eq!(gate.log().lines().count(), before, "{}", gate.log());
}

#[tokio::test]
async fn the_answer_to_a_bad_file_names_file_line_and_key_and_changes_nothing() {
    let estate = Estate::new().await;
    let more = console_table().await;
    let good = estate.settings(&Tweaks { more: &more, ..Tweaks::default() });
    let gate = Gate::start(&good).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let before = setting(&mut console, "clusters.main.capacity").await;
    let bad = good.replace("capacity = 4", "capacity = 9\nlinger = \"soon\"");
    let line = bad.lines().position(|line| line.contains("\"soon\"")).unwrap() + 1;
    gate.write_settings(&bad);
    console.send(query("RELOAD")).await;
    let frames = console.until_ready().await;
    let detail = frames[0].field('D').unwrap();
    assert!(detail.contains(&format!("tenantgate.toml:{line}:")), "{detail}");
    assert!(detail.contains("linger = …") && !detail.contains("soon"), "{detail}");
    assert_eq!(setting(&mut console, "clusters.main.capacity").await, before);
    // A user that the file takes away is out at its next command.
    let without = good.replace("\nadmin = ", "\nother = ");
    gate.write_settings(&without);
    assert_eq!(console.query("RELOAD").await, "C(RELOAD) Z(I)");
    console.send(query("SHOW VERSION")).await;
    assert_eq!(console.until_closed().await, "E(57P01)");
}
