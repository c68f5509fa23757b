//! More tenants than are kept: those that somebody needs are looked up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tenantgate::demo::Plan;
use tokio_postgres::Client;

use super::{Tables, kept_out, let_in, login, notes};
use crate::console::{ADMIN, verifier};
use crate::harness::cluster::{connect, own, shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::{query, transcript};
use crate::harness::services::Service;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks, jwt};
use crate::harness::wire::{Wire, cancel};
use crate::harness::{eventually, http, unique};

/// How many tenants the gates here keep.
const KNOWN: usize = 4;

/// The tables with so many tenants, and their tokens.
async fn many(tables: &Tables, count: usize) -> Vec<(String, String)> {
    let mark = unique();
    let mut all = Vec::new();
    for number in 0..count {
        let id = format!("m{number}_{mark}");
        let token = tables.add(&id).await;
        all.push((id, token));
    }
    all
}

/// What a counter says.
async fn count(gate: &Gate, name: &str) -> u64 {
    let page = http::get(gate.http, "/metrics").await.1;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{page}")).parse().unwrap()
}

/// The SQLSTATE of a refused login.
async fn refused(gate: &Gate, token: &str) -> String {
    let error = login(gate, token).await.err().unwrap();
    error.code().unwrap().code().to_owned()
}

async fn is_up_to_date(gate: &Gate, tables: &Tables) {
    let sql = "SELECT number FROM tenantgate_catalog.version";
    let number: i64 = tables.dba.query_one(sql, &[]).await.unwrap().get(0);
    let line = format!("tenantgate_catalog_version {number}\n");
    let read = async || http::get(gate.http, "/metrics").await.1.contains(&line).then_some(());
    eventually("the gate has read the last change", read).await;
}

#[tokio::test]
async fn who_is_needed_is_looked_up_and_who_has_a_session_stays_known() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let all = many(&tables, 12).await;
    let gate = Gate::start(&tables.settings(&estate, &format!("known = {KNOWN}\n"))).await;
    is_up_to_date(&gate, &tables).await;
    let (first, first_token) = &all[0];
    let client = login(&gate, first_token).await.unwrap();
    client.batch_execute("INSERT INTO notes (id, body) VALUES (1, 'mine')").await.unwrap();
    let file = gate.connect(&estate.acme).await;
    // All the others come by, some more than once, and go.
    for (_, token) in all.iter().chain(&all) {
        assert_eq!(notes(&login(&gate, token).await.unwrap()).await.len(), {
            usize::from(token == first_token)
        });
    }
    let page = http::get(gate.http, "/metrics").await.1;
    let files = 5;
    let known = count(&gate, "tenantgate_catalog_known").await as usize;
    assert!(known <= KNOWN + files + 1, "{page}");
    assert_eq!(count(&gate, "tenantgate_catalog_tenants").await as usize, 12 + files);
    assert_eq!(notes(&client).await, [1], "it was never let go of");
    notes(&file).await;

    // What the tables do not have is asked for once.
    let nobody = tenantgate::catalog::new_token().unwrap();
    kept_out(&gate, &nobody.text).await;
    let asked = count(&gate, "tenantgate_catalog_lookups_total").await;
    kept_out(&gate, &nobody.text).await;
    assert_eq!(count(&gate, "tenantgate_catalog_lookups_total").await, asked);
    // And is there as soon as they have it.
    let (last, line) = (&all[11].0, &nobody.line);
    tables
        .run(&format!(
            "INSERT INTO credentials (kind, tenant, hash) VALUES ('token', '{last}', '{line}')"
        ))
        .await;
    is_up_to_date(&gate, &tables).await;
    notes(&login(&gate, &nobody.text).await.unwrap()).await;

    // Whatever changes reaches those who are in, known or not before.
    tables.run("UPDATE tenants SET state = 'disabled'").await;
    eventually("the session ends", async || client.is_closed().then_some(())).await;
    for (_, token) in &all {
        kept_out(&gate, token).await;
    }
    tables.run(&format!("UPDATE tenants SET state = 'active' WHERE id = '{first}'")).await;
    let client = let_in(&gate, first_token).await;
    tables
        .run(&format!("UPDATE credentials SET revoked_at = now() WHERE tenant = '{first}'"))
        .await;
    eventually("the session ends", async || client.is_closed().then_some(())).await;
    kept_out(&gate, first_token).await;

    // A reload reads all rows again, and who is in stays in.
    tables.run("UPDATE tenants SET state = 'active'").await;
    let client = let_in(&gate, &all[5].1).await;
    gate.reloaded().await;
    let_in(&gate, &all[6].1).await;
    notes(&client).await;
}

#[tokio::test]
async fn a_key_that_the_tables_cannot_have_does_no_harm_to_others() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let all = many(&tables, 6).await;
    let gate = Gate::start(&tables.settings(&estate, "known = 2\n")).await;
    is_up_to_date(&gate, &tables).await;
    kept_out(&gate, &jwt("a\0", 60)).await;
    for (_, token) in &all {
        notes(&login(&gate, token).await.unwrap()).await;
    }
    assert_eq!(count(&gate, "tenantgate_catalog_lookups_failed_total").await, 0);
}

#[tokio::test]
async fn of_many_who_ask_for_the_same_one_asks_the_tables() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let all = many(&tables, 6).await;
    let gate = Gate::start(&tables.settings(&estate, "known = 2\n")).await;
    is_up_to_date(&gate, &tables).await;
    let before = count(&gate, "tenantgate_catalog_questions_total").await;
    let (_, token) = &all[3];
    let clients: Vec<Client> = futures::future::join_all((0..150).map(|_| login(&gate, token)))
        .await
        .into_iter()
        .map(|client| client.unwrap())
        .collect();
    let asked = count(&gate, "tenantgate_catalog_questions_total").await - before;
    // The token, and the tenant should it have left again.
    assert!((1..=3).contains(&asked), "{asked} questions for {} logins", clients.len());
}

#[tokio::test]
async fn a_user_without_a_tenants_name_is_let_in_only_if_it_is_one_tenants_alone() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let all = many(&tables, 6).await;
    let user = format!("u{}", unique());
    let give = async |tenant: &str| {
        let sql = format!(
            "INSERT INTO credentials (kind, tenant, name, scram_verifier)
             SELECT 'scram', '{tenant}', '{user}', rolpassword FROM pg_authid
             WHERE rolname = '{}'",
            tables.reader
        );
        tables.run(&sql).await;
    };
    give(&all[2].0).await;
    let text = format!("[catalog]\nconnection_string = \"{}\"\nknown = 2\n", tables.conninfo);
    let http = "[http]\naddress = \"127.0.0.1:$HTTP\"\n";
    let rules = format!(
        "tls = \"disable\"\nplaintext_password = true\nrules = [{{ user = \"{user}*\", \
         method = \"scram-sha-256\" }}, {{ method = \"password\" }}]\n"
    );
    let settings = estate.settings(&Tweaks {
        listen: &rules,
        more: &format!("{http}\n{text}"),
        ..Tweaks::default()
    });
    let gate = Gate::start(&settings).await;
    is_up_to_date(&gate, &tables).await;
    let enter = async |user: &str, password: &str| {
        let port = gate.port;
        let conninfo = format!("host=127.0.0.1 port={port} dbname=app user={user}");
        connect(&format!("{conninfo} password={password}")).await
    };
    notes(&enter(&user, LOGIN_PASSWORD).await.unwrap()).await;
    assert!(enter(&user, "wrong").await.is_err());
    assert!(enter("nobody", LOGIN_PASSWORD).await.is_err());
    // Another tenant, whom nobody has looked up, has a user of the name.
    give(&all[4].0).await;
    is_up_to_date(&gate, &tables).await;
    assert!(enter(&user, LOGIN_PASSWORD).await.is_err(), "whose?");
    for tenant in [2, 4] {
        let named = format!("{user}.{}", all[tenant].0);
        notes(&enter(&named, LOGIN_PASSWORD).await.unwrap()).await;
    }
    assert!(enter(&user, LOGIN_PASSWORD).await.is_err());
}

#[tokio::test]
async fn while_the_tables_are_away_who_is_known_goes_on_and_nobody_learns_who_is_not() {
    let estate = Estate::new().await;
    let mut control = own(&Plan::default()).await;
    let tables = Tables::new(&control).await;
    let all = many(&tables, 8).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("catalog.copy");
    let admin = format!("\n[console.users]\nadmin = \"{}\"\n", verifier().await);
    let lists = format!("acts_for = [\"{}\", \"{}\"]", all[3].0, all[5].0);
    let service = Service::new(shared().await, &lists).await;
    let more = format!(
        "known = 2\npoll = \"1s\"\ncache_file = \"{}\"\n{admin}\n{}",
        copy.display(),
        service.table
    );
    let settings = tables.settings(&estate, &more);
    let mut gate = Gate::start(&settings).await;
    is_up_to_date(&gate, &tables).await;
    let mut acts = service.wire(&gate).await;
    let client = login(&gate, &all[3].1).await.unwrap();
    // It goes to the copy, though nothing changed in the tables.
    let has = async |text: &str| {
        let read = std::fs::read_to_string(&copy).unwrap_or_default();
        read.contains(text).then_some(())
    };
    eventually("the copy has it", async || has(&all[3].0).await).await;
    control.crash();
    gate.logs("cannot follow the catalog's tables").await;
    notes(&client).await;
    notes(&login(&gate, &all[3].1).await.unwrap()).await;
    let wrong = format!("{}x", &all[3].1[..all[3].1.len() - 1]);
    for token in [&all[5].1, &wrong, "nonsense"] {
        assert_eq!(refused(&gate, token).await, "57P03");
    }
    // What could not be looked at is no guess: those who are known are not locked out by it.
    let tries = (0..70).map(|_| refused(&gate, &all[5].1));
    let told = futures::future::join_all(tries).await;
    assert!(told.iter().all(|code| code == "57P03"), "{told:?}");
    notes(&login(&gate, &all[3].1).await.unwrap()).await;
    // A service may act for who is known. Of whoever it may not, its own list says enough; of the
    // others nobody can tell.
    for (setting, value, said) in [
        ("tenant", &all[3].0, "C(SET) Z(T)"),
        ("tenant", &all[5].0, "E(57P03) Z(E)"),
        ("tenant", &all[6].0, "E(42501) Z(E)"),
        ("token", &all[5].1, "E(57P03) Z(E)"),
        ("token", &wrong, "E(57P03) Z(E)"),
    ] {
        assert_eq!(acts.query("BEGIN").await, "C(BEGIN) Z(T)");
        let choose = format!("SET LOCAL tenantgate.{setting} = '{value}'");
        assert_eq!(acts.query(&choose).await, said, "{setting} {value}");
        assert_eq!(acts.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    }
    // Whoever is to be stopped is, known or not, and nobody is asked for it.
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let (unknown, known) = (&all[5].0, &all[3].0);
    for order in [format!("DISABLE TENANT {unknown}"), format!("DISABLE TENANT {known}")] {
        assert_eq!(console.query(&order).await, "C(DISABLE) Z(I)", "{order}");
    }
    eventually("the session ends", async || client.is_closed().then_some(())).await;
    assert_eq!(console.query("DISABLE TENANT nobody").await, "E(3D000) Z(I)");
    gate.kill().await;

    let gate = Gate::start(&settings).await;
    gate.logs("begins with the last good copy").await;
    notes(&login(&gate, &all[3].1).await.unwrap()).await;
    assert_eq!(refused(&gate, &all[5].1).await, "57P03");
    control.restart().unwrap();
    notes(&let_in(&gate, &all[5].1).await).await;
    let dba = superuser(&control, &tables.dbname).await;
    dba.batch_execute("DELETE FROM tenantgate_catalog.tenants").await.unwrap();
    kept_out(&gate, &all[3].1).await;
}

#[tokio::test]
async fn a_hundred_tenants_change_at_once_and_no_request_fails() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let mark = unique();
    let all = many(&tables, 4).await;
    tables
        .run(&format!(
            "INSERT INTO tenants (id, isolation, cluster, schema, role, tier)
             SELECT 'x' || i || '_{mark}', 'row', 'main', 'app', 'app_rw', 'free'
             FROM generate_series(1, 100) i"
        ))
        .await;
    let gate = Gate::start(&tables.settings(&estate, "known = 10\n")).await;
    is_up_to_date(&gate, &tables).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut work = Vec::new();
    for (_, token) in &all {
        let (client, done) = (login(&gate, token).await.unwrap(), done.clone());
        work.push(tokio::spawn(async move {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                client.batch_execute("SELECT 1").await.unwrap();
                asked += 1;
            }
            asked
        }));
    }
    for limit in 5..10 {
        tables.run(&format!("UPDATE tenants SET overrides = '{{\"clients\": {limit}}}'")).await;
        is_up_to_date(&gate, &tables).await;
    }
    done.store(true, Ordering::Relaxed);
    for work in work {
        assert!(work.await.unwrap() > 0);
    }
}

/// A service's session that may act for so many tenants of tables, of whom two are kept.
async fn acts_for_all(count: usize) -> (Tables, Vec<(String, String)>, Gate, Wire) {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let all = many(&tables, count).await;
    let service = Service::new(shared().await, "acts_for = \"*\"").await;
    let more = format!("known = 2\n\n{}", service.table);
    let gate = Gate::start(&tables.settings(&estate, &more)).await;
    is_up_to_date(&gate, &tables).await;
    let acts = service.wire(&gate).await;
    (tables, all, gate, acts)
}

#[tokio::test]
async fn a_service_acts_for_whoever_is_not_known() {
    let (_tables, all, gate, mut acts) = acts_for_all(6).await;
    for (id, _) in &all {
        assert_eq!(acts.query("BEGIN").await, "C(BEGIN) Z(T)");
        let choose = format!("SELECT set_config('tenantgate.tenant', '{id}', true)");
        let said = acts.query(&choose).await;
        assert!(said.ends_with("Z(T)"), "{said}\n{}", gate.log());
        assert_eq!(acts.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    }
}

/// The tables do not answer until COMMIT.
async fn lock(tables: &Tables) {
    let lock = "BEGIN; LOCK TABLE tenantgate_catalog.tenants IN ACCESS EXCLUSIVE MODE";
    tables.dba.batch_execute(lock).await.unwrap();
}

/// Waits until the locked tables are asked.
async fn are_asked(tables: &Tables) {
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted \
                 AND relation = 'tenantgate_catalog.tenants'::regclass \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let waits = async || {
        let count: i64 = tables.dba.query_one(waits, &[]).await.unwrap().get(0);
        (count > 0).then_some(())
    };
    eventually("the tables are asked", waits).await;
}

#[tokio::test]
async fn a_choice_that_waits_for_the_tables_hears_a_cancel() {
    let (tables, all, gate, mut acts) = acts_for_all(8).await;
    lock(&tables).await;
    let mut said = Vec::new();
    // A busy machine may take longer than anybody waits for an answer.
    for (id, _) in &all {
        assert_eq!(acts.query("BEGIN").await, "C(BEGIN) Z(T)");
        acts.send(&query(&format!("SET LOCAL tenantgate.tenant = '{id}'"))).await;
        are_asked(&tables).await;
        cancel(gate.port, acts.pid, acts.secret).await;
        said.push(transcript(&acts.until_ready().await));
        assert_eq!(acts.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
        if said.last().unwrap() == "E(57014) Z(E)" {
            break;
        }
        assert_eq!(said.last().unwrap(), "E(57P03) Z(E)");
    }
    assert_eq!(said.last().unwrap(), "E(57014) Z(E)", "{said:?}");
    tables.dba.batch_execute("COMMIT").await.unwrap();
    // It goes on, and the next choice is not hit.
    assert_eq!(acts.query("BEGIN").await, "C(BEGIN) Z(T)");
    let choose = format!("SET LOCAL tenantgate.tenant = '{}'", all[0].0);
    assert_eq!(acts.query(&choose).await, "C(SET) Z(T)");
}

/// Has a service's session choose a tenant who is not known, and the gate forbid writing while the
/// tables do not answer. False if they did not answer in time.
async fn chosen_while_writing_ends(
    tables: &Tables,
    gate: &Gate,
    acts: &mut Wire,
    id: &str,
) -> bool {
    let mut console = Wire::login(gate.port, &ADMIN).await;
    lock(tables).await;
    let choose = format!("SELECT set_config('tenantgate.tenant', '{id}', false)");
    acts.send(&query(&choose)).await;
    are_asked(tables).await;
    assert_eq!(console.query("READ_ONLY DATABASE app").await, "C(READ_ONLY) Z(I)");
    tables.dba.batch_execute("COMMIT").await.unwrap();
    let chosen = transcript(&acts.until_ready().await);
    if chosen.starts_with('E') {
        assert_eq!(console.query("READ_WRITE DATABASE app").await, "C(READ_WRITE) Z(I)");
    }
    !chosen.starts_with('E')
}

#[tokio::test]
async fn who_is_looked_up_for_a_service_is_seen_as_it_is_when_the_answer_comes() {
    let estate = Estate::new().await;
    let tables = Tables::new(shared().await).await;
    let all = many(&tables, 8).await;
    let service = Service::new(shared().await, "acts_for = \"*\"\nsession_wide = true").await;
    let admin = format!("[console.users]\nadmin = \"{}\"\n", verifier().await);
    let more = format!("known = 2\n\n{}\n{admin}", service.table);
    let gate = Gate::start(&tables.settings(&estate, &more)).await;
    is_up_to_date(&gate, &tables).await;
    let mut acts = service.wire(&gate).await;
    let mut tries = all.iter();
    // A busy machine may take longer than anybody waits for an answer.
    while let Some((id, _)) = tries.next()
        && !chosen_while_writing_ends(&tables, &gate, &mut acts, id).await
    {}
    let sql = "INSERT INTO notes (id, body) VALUES (77, 'late')";
    assert_eq!(acts.query(sql).await, "E(25006) Z(I)", "{}", gate.log());
}
