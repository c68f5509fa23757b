//! How long a service may act for whom it chose: rights that are taken away, credentials that run
//! out, choices that are denied, and what of a tenant's session stays behind.

use crate::guard::level::GUARDED;
use crate::harness::gate::Gate;
use crate::harness::messages::{bind, execute, parse, query, sync, transcript};
use crate::harness::services::Service;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant, Tweaks, jwt};
use crate::harness::wire::{Login, Wire, cancel};
use crate::isolation::NOTES;
use crate::isolation::acting::{NO_TENANT, by_id, by_token, rows, stage, stage_with};

const ALL: &str = "acts_for = \"*\"\nsession_wide = true\nacross_databases = true";

fn wide(tenant: &Tenant) -> String {
    by_id(tenant).replace("LOCAL ", "")
}

#[tokio::test]
async fn a_right_that_is_taken_away_ends_at_the_next_transaction() {
    let (estate, service, gate) = stage(ALL).await;
    let lines = |more: &str| {
        let table = service.table.replace(ALL, more);
        estate.settings(&Tweaks { more: &table, ..Tweaks::default() })
    };
    let id = estate.globex.id.as_str();
    for less in [
        format!("acts_for = [\"{id}\"]\nsession_wide = true\nacross_databases = true"),
        "acts_for = \"*\"\nacross_databases = true".to_owned(),
        "acts_for = \"*\"\nsession_wide = true".to_owned(),
    ] {
        // The database is another only for this one.
        let tenant = &estate.initech;
        let (mut for_good, mut local) = (service.wire(&gate).await, service.wire(&gate).await);
        assert_eq!(for_good.query(&wide(tenant)).await, "C(SET) Z(I)");
        assert!(for_good.query(NOTES).await.ends_with("C(SELECT 3) Z(I)"));
        local.query("BEGIN").await;
        assert_eq!(local.query(&by_id(tenant)).await, "C(SET) Z(T)");
        gate.reload_with(&lines(&less)).await;
        assert_eq!(for_good.until_closed().await, "E(57P01)", "{less}");
        let said = local.query(NOTES).await;
        let still = less.starts_with("acts_for = \"*\"\nacross");
        let wanted = if still { rows(tenant) } else { "E(42501) Z(E)".to_owned() };
        assert_eq!(said, wanted, "{less}");
        gate.reload_with(&lines(ALL)).await;
    }
}

#[tokio::test]
async fn a_pinned_listener_ends_with_its_tenant_and_with_what_was_shown() {
    let roomy = Tweaks { capacity: 8, tier: "pins = 4", ..Tweaks::default() };
    let (estate, service, gate) = stage_with(ALL, &roomy).await;
    let table = estate.initech.table();
    let settings = estate.settings(&Tweaks { more: &service.table, ..roomy });
    let key = "key_file = \"login.key\"";
    let settings = settings.replace(key, &format!("{key}\nleeway = \"0s\""));
    gate.reload_with(&settings).await;
    let listening = async |choice: String| {
        let mut wire = service.wire(&gate).await;
        assert_eq!(wire.query(&choice).await, "C(SET) Z(I)");
        assert_eq!(wire.query("LISTEN news").await, "C(LISTEN) Z(I)");
        wire
    };
    let mut by_name = listening(wide(&estate.initech)).await;
    let mut by_token = listening(by_token(&estate.initech).replace("LOCAL ", "")).await;
    let token = jwt(&estate.initech.id, 3);
    let short = format!("SET tenantgate.token = '{token}'");
    let mut expiring = listening(short).await;
    // Past its time, and the leeway.
    assert_eq!(expiring.until_closed().await, "E(57P01)");
    assert!(by_name.query("SELECT 1").await.ends_with("Z(I)"));
    let fresh = tenantgate::catalog::new_token().unwrap().line;
    let (first, rest) = table.split_once("tokens = [\"").unwrap();
    let (_, rest) = rest.split_once('"').unwrap();
    gate.reload_with(&settings.replace(table, &format!("{first}tokens = [\"{fresh}\"{rest}")))
        .await;
    assert_eq!(by_token.until_closed().await, "E(57P01)");
    gate.reload_with(&settings.replace(table, &format!("{table}state = \"disabled\"\n"))).await;
    assert_eq!(by_name.until_closed().await, "E(57P01)");
}

#[tokio::test]
async fn a_transaction_of_a_tenant_that_ends_has_as_long_as_any_other() {
    for (grace, shown) in [("0s", false), ("0s", true), ("1h", true)] {
        let line = format!("credential_grace = \"{grace}\"");
        let tweaks = Tweaks { gate: &line, ..Tweaks::default() };
        let (estate, service, gate) = stage_with(ALL, &tweaks).await;
        let table = estate.initech.table();
        let settings = estate.settings(&Tweaks { more: &service.table, ..tweaks });
        let fresh = tenantgate::catalog::new_token().unwrap().line;
        let (first, rest) = table.split_once("tokens = [\"").unwrap();
        let (_, rest) = rest.split_once('"').unwrap();
        let less = match shown {
            true => format!("{first}tokens = [\"{fresh}\"{rest}"),
            false => format!("{table}state = \"disabled\"\n"),
        };
        let mut wire = service.wire(&gate).await;
        wire.query("BEGIN").await;
        assert_eq!(wire.query(&by_token(&estate.initech)).await, "C(SET) Z(T)");
        assert_eq!(wire.query(NOTES).await, rows(&estate.initech));
        gate.reload_with(&settings.replace(table, &less)).await;
        if grace == "1h" {
            assert_eq!(wire.query(NOTES).await, rows(&estate.initech));
            assert_eq!(wire.ask(query("COMMIT")).await, "C(COMMIT) Z(I)");
        }
        assert_eq!(wire.until_closed().await, "E(57P01)", "{grace} {shown}");
    }
}

#[tokio::test]
async fn a_transaction_does_not_outlive_what_was_shown_for_it() {
    let tweaks = Tweaks { gate: "credential_grace = \"1s\"", ..Tweaks::default() };
    let (estate, service, gate) = stage_with(ALL, &tweaks).await;
    let settings = estate.settings(&Tweaks { more: &service.table, ..tweaks });
    let exact = "key_file = \"login.key\"\nleeway = \"0s\"";
    gate.reload_with(&settings.replace("key_file = \"login.key\"", exact)).await;
    let mut wire = service.wire(&gate).await;
    wire.query("BEGIN").await;
    let token = jwt(&estate.acme.id, 5);
    let choice = format!("SET LOCAL tenantgate.token = '{token}'");
    assert_eq!(wire.query(&choice).await, "C(SET) Z(T)");
    assert_eq!(wire.query(NOTES).await, rows(&estate.acme));
    assert_eq!(wire.until_closed().await, "E(57P01)");
}

#[tokio::test]
async fn a_transaction_does_not_outlive_the_right_to_choose_its_tenant() {
    let tweaks = Tweaks { gate: "credential_grace = \"1s\"", ..Tweaks::default() };
    let (estate, service, gate) = stage_with(ALL, &tweaks).await;
    let acme = estate.acme.table();
    let settings = estate.settings(&Tweaks { more: &service.table, ..tweaks });
    let listed = format!("acts_for = [\"{}\"]", estate.globex.id);
    let unlisted = settings.replace("acts_for = \"*\"", &listed);
    assert_ne!(unlisted, settings);
    let far = settings.replace(acme, &format!("{acme}allow_from = [\"10.0.0.0/8\"]\n"));
    for (choice, taken) in [
        (by_id(&estate.acme), &unlisted),
        (by_id(&estate.acme), &far),
        (by_token(&estate.acme), &far),
    ] {
        gate.reload_with(&settings).await;
        let mut wire = service.wire(&gate).await;
        wire.query("BEGIN").await;
        assert_eq!(wire.query(&choice).await, "C(SET) Z(T)");
        assert_eq!(wire.query(NOTES).await, rows(&estate.acme));
        // Somebody who may go on is not ended with it.
        let mut other = service.wire(&gate).await;
        other.query("BEGIN").await;
        assert_eq!(other.query(&by_id(&estate.globex)).await, "C(SET) Z(T)");
        assert_eq!(other.query(NOTES).await, rows(&estate.globex));
        gate.reload_with(taken).await;
        assert_eq!(wire.until_closed().await, "E(57P01)", "{choice}");
        assert_eq!(other.query(NOTES).await, rows(&estate.globex));
    }
}

#[tokio::test]
async fn choices_count_against_the_services_rate_and_denials_are_throttled() {
    let audit = "[audit]\nfile = \"audit.jsonl\"\n";
    let more = "acts_for = \"*\"\nlimits = { queries_per_second = 2, queries_burst = 4 }";
    let tweaks = Tweaks { more: audit, ..Tweaks::default() };
    let (estate, service, gate) = stage_with(more, &tweaks).await;
    let mut wire = service.wire(&gate).await;
    let mut said = Vec::new();
    for _ in 0..6 {
        wire.query("BEGIN").await;
        said.push(wire.query(&by_id(&estate.acme)).await);
        wire.query("ROLLBACK").await;
    }
    assert_eq!(said[0], "C(SET) Z(T)");
    assert!(said.contains(&"E(53400) Z(E)".to_owned()), "{said:?}");
    let tweaks = Tweaks { gate: "failures_per_tenant = 3", ..tweaks };
    let (estate, service, gate) = stage_with("acts_for = \"*\"", &tweaks).await;
    let mut wires = [service.wire(&gate).await, service.wire(&gate).await];
    let mut said = Vec::new();
    for number in 0..6 {
        let wire = &mut wires[number % 2];
        wire.query("BEGIN").await;
        said.push(wire.query("SET LOCAL tenantgate.token = 'tg_no'").await);
        wire.query("ROLLBACK").await;
    }
    assert_eq!(&said[..3], ["E(42501) Z(E)"; 3]);
    assert_eq!(&said[3..], ["E(53400) Z(E)"; 3]);
    assert_eq!(gate.log().matches("choice of a tenant denied").count(), 3);
    // Nobody else pays for it, the service's own logins included.
    service.wire(&gate).await;
    gate.connect(&estate.acme).await;
}

#[tokio::test]
async fn a_service_comes_from_where_the_tenants_clients_may_come() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let table = estate.acme.table();
    let settings = estate.settings(&Tweaks { more: &service.table, ..Tweaks::default() });
    let from = |network| settings.replace(table, &format!("{table}allow_from = [\"{network}\"]\n"));
    let mut wire = service.wire(&gate).await;
    for (network, said) in [("10.0.0.0/8", "E(42501) Z(E)"), ("127.0.0.0/8", "C(SET) Z(T)")] {
        gate.reload_with(&from(network)).await;
        for choice in [by_id(&estate.acme), by_token(&estate.acme)] {
            wire.query("BEGIN").await;
            assert_eq!(wire.query(&choice).await, said, "{network}");
            wire.query("ROLLBACK").await;
        }
    }
}

#[tokio::test]
async fn a_tenant_with_roles_is_chosen_by_its_name_with_the_least_of_them() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let table = estate.acme.table();
    let roles = format!("{table}roles = {{ viewer = {{ read_only = true }}, boss = {{}} }}\n");
    let settings = estate.settings(&Tweaks { more: &service.table, ..Tweaks::default() });
    gate.reload_with(&settings.replace(table, &roles)).await;
    let mut wire = service.wire(&gate).await;
    wire.query("BEGIN").await;
    assert_eq!(wire.query(&by_id(&estate.acme)).await, "C(SET) Z(T)");
    let insert = "INSERT INTO notes (id, body) VALUES (93, 'x')";
    assert_eq!(wire.query(insert).await, "E(25006) Z(E)");
}

#[tokio::test]
async fn what_a_tenants_server_tells_is_never_the_services_setting() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    let hidden = "DO $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false), \
                  set_config('application_name', 'CANARY', false); END $$";
    for end in ["COMMIT", "ROLLBACK"] {
        for made in ["SELECT 1", "CREATE TEMP TABLE kept ()"] {
            wire.query("BEGIN").await;
            wire.query(&by_id(&estate.acme)).await;
            assert!(wire.query(made).await.ends_with("Z(T)"));
            assert!(wire.query(hidden).await.contains("S(TimeZone=Asia/Tokyo)"), "{made}");
            assert!(wire.query(end).await.ends_with("Z(I)"), "{made}");
            let zone = wire.query("SHOW TimeZone").await;
            assert!(!zone.contains("Tokyo") && zone.ends_with("C(SHOW) Z(I)"), "{zone}");
            let name = wire.query("SHOW application_name").await;
            assert!(!name.contains("CANARY"), "{name}");
            wire.query("BEGIN").await;
            wire.query(&by_id(&estate.globex)).await;
            let zone = wire.query("SHOW TimeZone").await;
            assert!(!zone.contains("Tokyo") && zone.ends_with("C(SHOW) Z(T)"), "{zone}");
            wire.query("ROLLBACK").await;
        }
    }
}

#[tokio::test]
async fn a_reset_that_cannot_leave_the_tenant_is_refused() {
    let (estate, service, gate) = stage("acts_for = \"*\"\nsession_wide = true").await;
    for reset in ["RESET ALL", "DISCARD ALL"] {
        let one = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
        let batches = [
            [query("BEGIN"), query(reset), query("ROLLBACK")].to_vec(),
            [[one("SELECT 1"), one(reset), sync()].concat()].to_vec(),
        ];
        for batch in batches {
            let mut wire = service.wire(&gate).await;
            wire.query(&wide(&estate.acme)).await;
            let mut said = String::new();
            for sent in batch {
                said.push_str(&wire.ask(sent).await);
            }
            assert!(said.contains("E(0A000)"), "{reset}: {said}");
            assert_eq!(wire.query(NOTES).await, rows(&estate.acme).replace("Z(T)", "Z(I)"));
            assert!(wire.query(reset).await.ends_with("Z(I)"));
            assert_eq!(wire.query(NOTES).await, NO_TENANT, "{reset}");
        }
    }
}

#[tokio::test]
async fn a_cap_holds_for_what_a_session_starts_with() {
    let (estate, service, gate) = stage_with("acts_for = \"*\"", &GUARDED).await;
    let (dbname, password) = ("app", service.token.as_str());
    for (start, said) in [("1GB", "E(42501) Z(E)"), ("4MB", "C(SET) Z(T)")] {
        let more = [("options", format!("-c work_mem={start}"))];
        let more = [(more[0].0, more[0].1.as_str())];
        let login = Login { user: "app", dbname, password, more: &more };
        let mut wire = Wire::login(gate.port, &login).await;
        assert_eq!(wire.query("SET work_mem = '4MB'").await, "C(SET) Z(I)");
        wire.query("BEGIN").await;
        assert_eq!(wire.query(&by_id(&estate.acme)).await, said, "{start}");
        wire.query("ROLLBACK").await;
    }
}

#[tokio::test]
async fn a_token_of_a_service_has_no_role() {
    let cluster = crate::harness::cluster::shared().await;
    let (estate, service) = (Estate::within(cluster).await, Service::new(cluster, "").await);
    let (_, line) = service.table.split_once("tokens = [\"").unwrap();
    let (line, _) = line.split_once('"').unwrap();
    for words in ["role = \"boss\"", "read_only = true"] {
        let table = format!("{{ hash = \"{line}\", {words} }}");
        let table = service.table.replace(&format!("\"{line}\""), &table);
        let settings = estate.settings(&Tweaks { more: &table, ..Tweaks::default() });
        let output = Gate::refused(&settings);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("a service's token has no role"), "{said}");
        assert!(!said.contains(LOGIN_PASSWORD));
    }
}

#[tokio::test]
async fn a_choice_that_waits_hears_a_cancel_and_a_client_that_hangs_up() {
    let more = "acts_for = \"*\"\nlimits = { database_time = \"1ms/1s\", budget_wait = \"24h\" }";
    let tweaks = Tweaks { gate: "log_level = \"debug\"", ..Tweaks::default() };
    let (estate, service, gate) = stage_with(more, &tweaks).await;
    let mut wire = service.wire(&gate).await;
    let long = "SELECT count(*) > 1 FROM pg_catalog.pg_class a, pg_catalog.pg_class b";
    assert_eq!(wire.query(long).await, "T D(t) C(SELECT 1) Z(I)");
    // Until the budget's window has passed, every choice waits.
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    wire.send(query(&by_id(&estate.acme))).await;
    let (port, pid, secret) = (gate.port, wire.pid, wire.secret);
    // One that comes before the choice is looked at is for nothing.
    let cancels = async {
        loop {
            cancel(port, pid, secret).await;
        }
    };
    let answered = tokio::select! {
        frames = wire.until_ready() => transcript(&frames),
        () = cancels => String::new(),
    };
    assert_eq!(answered, "E(57014) Z(E)");
    assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    wire.send(query(&by_id(&estate.acme))).await;
    drop(wire);
    gate.logs("client closed the connection").await;
}
