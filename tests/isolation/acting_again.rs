//! What a session prepared while it had one tenant is judged again, and written again, when it has
//! another; and no token ever goes to a server.

use crate::guard::level::GUARDED;
use crate::harness::gate::Gate;
use crate::harness::messages::{
    bind, describe, execute, flush, frame, parse, query, sync, transcript,
};
use crate::harness::tenants::{Estate, Tenant, Tweaks, jwt};
use crate::harness::wire::Wire;
use crate::isolation::NOTES;
use crate::isolation::acting::{NO_TENANT, by_id, by_token, rows, stage, stage_with};

/// Bind, Execute, Sync.
fn run(name: &str) -> Vec<u8> {
    [bind("", name, &[]), execute("", 0), sync()].concat()
}

/// A FunctionCall with one value, as text.
fn function_call(function: u32, value: &str) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend(0_i16.to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    body.extend((value.len() as i32).to_be_bytes());
    body.extend(value.as_bytes());
    body.extend(0_i16.to_be_bytes());
    frame(b'F', &body)
}

#[tokio::test]
async fn a_statement_written_for_one_tenant_is_written_anew_for_the_next() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    for prepared in ["s", ""] {
        let mut wire = service.wire(&gate).await;
        wire.query("BEGIN").await;
        wire.query(&by_id(&estate.umbrella)).await;
        let reset = [parse(prepared, "RESET search_path"), sync()].concat();
        assert_eq!(wire.ask(reset).await, "1 Z(T)");
        let path = |id: &str| format!("T D({id}) C(SHOW) Z(T)");
        assert_eq!(wire.ask(run(prepared)).await, "2 C(RESET) Z(T)");
        let own = wire.ask(query("SHOW search_path")).await;
        assert_eq!(own, path(&estate.umbrella.id));
        if prepared.is_empty() {
            // A Query forgets it.
            wire.ask([parse("", "RESET search_path"), sync()].concat()).await;
        }
        let end = [parse("end", "COMMIT"), bind("", "end", &[]), execute("", 0), sync()].concat();
        assert_eq!(wire.ask(end).await, "1 2 C(COMMIT) Z(I)");
        let begin = ["BEGIN".to_owned(), by_id(&estate.stark)];
        for (number, text) in begin.iter().enumerate() {
            let name = format!("b{number}");
            let sent = [parse(&name, text), bind("", &name, &[]), execute("", 0), sync()].concat();
            assert!(wire.ask(sent).await.ends_with("Z(T)"));
        }
        assert_eq!(wire.ask([describe(b'S', prepared), sync()].concat()).await, "t n Z(T)");
        assert_eq!(wire.ask(run(prepared)).await, "2 C(RESET) Z(T)");
        assert_eq!(wire.query("SHOW search_path").await, path(&estate.stark.id));
        assert_eq!(wire.query(NOTES).await, rows(&estate.stark));
        wire.query("ROLLBACK").await;
    }
}

#[tokio::test]
async fn a_statement_that_one_tenant_may_run_is_refused_to_the_next() {
    let (estate, service, gate) = stage_with("acts_for = \"*\"", &GUARDED).await;
    // For acme the rule is only reported.
    let table = estate.acme.table();
    let lenient = format!("{table}limits = {{ report_only = [\"do-block\", \"sql-in-text\"] }}\n");
    let settings = estate.settings(&Tweaks { more: &service.table, ..GUARDED });
    let settings = settings.replace(table, &lenient);
    gate.reload_with(&settings).await;
    let mut wire = service.wire(&gate).await;
    wire.query("BEGIN").await;
    wire.query(&by_id(&estate.acme)).await;
    let texts =
        ["DO $$ BEGIN PERFORM 1; END $$", "SELECT query_to_xml('SELECT 1', true, true, '')"];
    let both = [parse("d", texts[0]), parse("x", texts[1]), sync()].concat();
    assert_eq!(wire.ask(both).await, "1 1 Z(T)");
    assert_eq!(wire.ask(run("d")).await, "2 C(DO) Z(T)");
    assert_eq!(wire.query(&format!("PREPARE p AS {}", texts[1])).await, "C(PREPARE) Z(T)");
    assert!(wire.query("EXECUTE p").await.ends_with("C(SELECT 1) Z(T)"));
    wire.query("COMMIT").await;
    for asked in [run("d"), run("x"), query("EXECUTE x")] {
        wire.query("BEGIN").await;
        wire.query(&by_id(&estate.globex)).await;
        assert_eq!(wire.ask(asked).await, "E(42501) Z(E)");
        wire.query("ROLLBACK").await;
    }
    // Back with the first it runs as before; what SQL prepared ended with its transaction.
    wire.query("BEGIN").await;
    wire.query(&by_id(&estate.acme)).await;
    assert_eq!(wire.ask(run("d")).await, "2 C(DO) Z(T)");
    assert_eq!(wire.query("EXECUTE p").await, "E(26000) Z(E)");
}

#[tokio::test]
async fn what_one_tenants_sql_prepares_is_never_the_nexts() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let (acme, globex) = (&estate.acme, &estate.globex);
    let mut wire = service.wire(&gate).await;
    let begin = async |wire: &mut Wire, tenant: &Tenant| {
        wire.query("BEGIN").await;
        assert_eq!(wire.query(&by_id(tenant)).await, "C(SET) Z(T)");
    };
    let driver = "SELECT count(*) FROM notes";
    begin(&mut wire, acme).await;
    assert_eq!(wire.ask([parse("S_1", driver), sync()].concat()).await, "1 Z(T)");
    assert_eq!(wire.ask(run("S_1")).await, "2 D(3) C(SELECT 1) Z(T)");
    // SQL that got in with acme's request puts its own in the place of the driver's.
    let planted = "DEALLOCATE \"S_1\"; PREPARE \"S_1\" AS SELECT 'planted'";
    assert_eq!(wire.query(planted).await, "C(DEALLOCATE) C(PREPARE) Z(T)");
    assert_eq!(wire.ask(run("S_1")).await, "2 D(planted) C(SELECT 1) Z(T)");
    assert_eq!(wire.query("PREPARE mine AS SELECT 'of acme alone'").await, "C(PREPARE) Z(T)");
    let written = [parse("S_2", "SELECT 'written for acme'"), sync()].concat();
    assert_eq!(wire.ask(written).await, "1 Z(T)");
    wire.query("COMMIT").await;
    for asked in [run("S_1"), query("EXECUTE \"S_1\""), query("EXECUTE mine")] {
        begin(&mut wire, globex).await;
        assert_eq!(wire.ask(asked).await, "E(26000) Z(E)");
        wire.query("ROLLBACK").await;
    }
    // Nor are its texts in the list that the next one reads.
    begin(&mut wire, globex).await;
    let list = "SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%acme%'";
    assert_eq!(wire.query(list).await, "T C(SELECT 0) Z(T)");
    assert_eq!(wire.ask(run("S_2")).await, "2 D(written for acme) C(SELECT 1) Z(T)");
}

#[tokio::test]
async fn an_end_that_was_bound_is_the_end_though_another_bind_of_its_name_failed() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    wire.query("BEGIN").await;
    wire.query(&by_id(&estate.acme)).await;
    wire.query("SELECT 1").await;
    let bound = [parse("c", "COMMIT"), bind("p", "c", &[]), sync()].concat();
    assert_eq!(wire.ask(bound).await, "1 2 Z(T)");
    wire.query("SAVEPOINT s").await;
    let again = [parse("x", "SELECT 1"), bind("p", "x", &[]), sync()].concat();
    assert_eq!(wire.ask(again).await, "1 E(42P03) Z(E)");
    wire.query("ROLLBACK TO s").await;
    let slide =
        [execute("p", 0), parse("", "BEGIN"), bind("", "", &[]), execute("", 0), sync()].concat();
    let said = wire.ask(slide).await;
    assert!(said.ends_with("Z(I)") && said.contains("E(0A000)"), "{said}");
    assert_eq!(wire.query("SELECT count(*) FROM notes").await, "E(42501) Z(I)");
}

#[tokio::test]
async fn a_tenant_that_moved_meets_nothing_that_was_written_for_its_old_place() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&Tweaks::default())).await;
    let mut wire = gate.wire(&estate.acme).await;
    assert_eq!(wire.ask([parse("s", "RESET search_path"), sync()].concat()).await, "1 Z(I)");
    assert_eq!(wire.ask(run("s")).await, "2 C(RESET) Z(I)");
    assert_eq!(wire.query("SHOW search_path").await, "T D(app) C(SHOW) Z(I)");
    let table = estate.acme.table();
    let moved = table.replace("schema = \"app\"", "schema = \"public\"");
    let settings = estate.settings(&Tweaks::default()).replace(table, &moved);
    gate.reload_with(&settings).await;
    let both = [bind("", "s", &[]), execute("", 0), parse("", "SHOW search_path")].concat();
    let both = [both, bind("", "", &[]), execute("", 0), sync()].concat();
    assert_eq!(wire.ask(both).await, "2 C(RESET) 1 2 D(public) C(SHOW) Z(I)");
}

#[tokio::test]
async fn no_token_goes_to_a_server_by_way_of_a_prepared_statement() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let (token, stranger) = (estate.globex.token.as_str(), jwt(&estate.globex.id, 60));
    for secret in [token, stranger.as_str()] {
        let mut wire = service.wire(&gate).await;
        let choices = [
            parse("s", &format!("SET LOCAL tenantgate.token = '{secret}'")),
            parse("c", &format!("SELECT set_config('tenantgate.token', '{secret}', true)")),
            parse("n", "SELECT set_config($1, $2, true)"),
            parse("w", "SHOW tenantgate.tenant"),
            sync(),
        ];
        assert_eq!(wire.ask(choices.concat()).await, "1 1 1 1 Z(I)");
        for asked in ["EXECUTE s", "EXECUTE c", "EXECUTE n('tenantgate.token', 'x')"] {
            assert!(wire.query(asked).await.starts_with("E("), "{asked}");
            wire.query("BEGIN").await;
            wire.query(&by_id(&estate.acme)).await;
            assert_eq!(wire.query(asked).await, "E(25001) Z(E)", "{asked}");
            wire.query("ROLLBACK").await;
        }
        wire.query("BEGIN").await;
        wire.query(&by_id(&estate.acme)).await;
        let listed = "SELECT name FROM pg_prepared_statements WHERE name IN ('s', 'c')";
        assert_eq!(wire.query(listed).await, "T C(SELECT 0) Z(T)");
        let found = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%tg\\_%' \
                     OR statement LIKE '%.token''%'";
        assert_eq!(wire.query(found).await, "T D(0) C(SELECT 1) Z(T)");
        // In one batch behind what went to the server, and described there.
        let asked = [describe(b'S', "s"), sync()].concat();
        assert_eq!(wire.ask(asked).await, "E(25001) Z(E)");
        wire.query("ROLLBACK").await;
        // They are still what they were.
        for name in ["s", "c"] {
            wire.query("BEGIN").await;
            assert!(wire.ask(run(name)).await.ends_with("Z(T)"), "{name}");
            assert_eq!(wire.query(NOTES).await, rows(&estate.globex));
            let shown = wire.ask(run("w")).await;
            assert_eq!(shown, format!("2 D({}) C(SHOW) Z(T)", estate.globex.id));
            wire.query("COMMIT").await;
        }
        // A value beside a name that is bound could be a token.
        let both = parse("", &format!("SELECT set_config($1, '{secret}', true)"));
        assert_eq!(wire.ask([both, sync()].concat()).await, NO_TENANT);
    }
}

#[tokio::test]
async fn a_json_web_token_of_a_tenant_chooses_it() {
    let (estate, service, gate) = stage("").await;
    let mut wire = service.wire(&gate).await;
    for tenant in [&estate.acme, &estate.stark] {
        wire.query("BEGIN").await;
        let token = jwt(&tenant.id, 60);
        let choice = format!("SET LOCAL tenantgate.token = '{token}'");
        assert_eq!(wire.query(&choice).await, "C(SET) Z(T)");
        assert_eq!(wire.query(NOTES).await, rows(tenant));
        wire.query("COMMIT").await;
        let forged = format!("{}x", &token[..token.len() - 1]);
        wire.query("BEGIN").await;
        assert_eq!(wire.query(&choice.replace(&token, &forged)).await, "E(42501) Z(E)");
        wire.query("ROLLBACK").await;
    }
}

#[tokio::test]
async fn whom_a_session_acts_for_is_shown_wherever_it_asks() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    let show = [parse("w", "SHOW tenantgate.tenant"), sync()].concat();
    // Between the choice and the first statement, for one that runs behind it.
    wire.query("BEGIN").await;
    wire.query(&by_id(&estate.acme)).await;
    assert_eq!(wire.ask(show).await, "1 Z(T)");
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(wire.ask(run("w")).await, format!("2 D({}) C(SHOW) Z(T)", estate.acme.id));
    wire.query("COMMIT").await;
    // In a batch that runs at no tenant.
    let one = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let batch = [one("SELECT 1"), one("SHOW tenantgate.tenant"), run("w")].concat();
    let said = wire.ask(batch).await;
    assert_eq!(said, "1 2 D(1) C(SELECT 1) 1 2 D() C(SHOW) 2 D() C(SHOW) Z(I)");
}

#[tokio::test]
async fn names_too_long_for_postgresql_are_cut_wherever_they_are_looked_up() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    let (long, longer) = ("n".repeat(63), "n".repeat(70));
    let parsed = [parse(&longer, "BEGIN"), bind("", &long, &[]), execute("", 0), sync()].concat();
    assert_eq!(wire.ask(parsed).await, "1 2 C(BEGIN) Z(T)");
    assert_eq!(wire.ask([parse(&long, "COMMIT"), sync()].concat()).await, "E(42P05) Z(E)");
    wire.query("ROLLBACK").await;
    wire.query("BEGIN").await;
    wire.query(&by_token(&estate.acme)).await;
    let again = wire.query(&format!("PREPARE {longer}x AS SELECT 7")).await;
    assert!(again.ends_with("E(42P05) Z(E)"), "{again}");
}

/// A session of a service with a transaction that runs at acme, with a portal bound to its end.
async fn with_an_end(
    service: &crate::harness::services::Service,
    gate: &Gate,
    estate: &Estate,
) -> crate::harness::wire::Wire {
    let mut wire = service.wire(gate).await;
    wire.query("BEGIN").await;
    wire.query(&by_id(&estate.acme)).await;
    let bound = [parse("end", "COMMIT"), bind("p", "end", &[]), sync()].concat();
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(wire.ask(bound).await, "1 2 Z(T)");
    wire
}

#[tokio::test]
async fn nothing_runs_behind_the_end_of_a_transaction_that_was_bound_before() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let insert = "INSERT INTO notes (id, body) VALUES (91, 'behind')";
    let long = function_call(871, &"x".repeat(70_000));
    for behind in [
        [parse("", insert), bind("", "", &[]), execute("", 0), sync()].concat(),
        [bind("", "put", &[]), execute("", 0), sync()].concat(),
        [execute("put", 0), sync()].concat(),
        query(insert),
        function_call(871, "x"),
        long,
    ] {
        let mut wire = with_an_end(&service, &gate, &estate).await;
        let before = [parse("put", insert), bind("put", "put", &[]), sync()].concat();
        assert_eq!(wire.ask(before).await, "1 2 Z(T)");
        let said = wire.ask([execute("p", 0), behind].concat()).await;
        let refused = said.starts_with("C(COMMIT) E(") && said.ends_with("Z(I)");
        assert!(refused, "{said}");
        assert_eq!(wire.query(NOTES).await, NO_TENANT);
        let mut acme = gate.wire(&estate.acme).await;
        let count = "SELECT count(*) FROM notes WHERE id = 91";
        assert_eq!(acme.query(count).await, "T D(0) C(SELECT 1) Z(I)", "{said}");
    }
}

#[tokio::test]
async fn a_portal_whose_statement_nobody_knows_is_refused() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wire = service.wire(&gate).await;
    wire.query("BEGIN").await;
    wire.query(&by_id(&estate.acme)).await;
    let hidden = "DO $$ BEGIN EXECUTE 'PREPARE hidden AS SELECT 7'; END $$";
    assert_eq!(wire.query(hidden).await, "C(DO) Z(T)");
    assert_eq!(wire.ask(run("hidden")).await, "E(26000) Z(E)");
}

#[tokio::test]
async fn a_long_function_call_runs_in_its_transaction_or_not_at_all() {
    let (estate, service, gate) = stage("acts_for = \"*\"\nacross_databases = true").await;
    let long = function_call(871, &"x".repeat(70_000));
    let mut wire = service.wire(&gate).await;
    assert_eq!(wire.ask(long.clone()).await, NO_TENANT);
    wire.query("BEGIN").await;
    wire.query(&by_id(&estate.initech)).await;
    assert_eq!(wire.query("SET LOCAL tenantgate.tenant = 'x'").await, "E(25001) Z(E)");
    assert_eq!(wire.ask(long).await, "E(25P02) Z(E)");
    assert_eq!(wire.query("COMMIT").await, "C(ROLLBACK) Z(I)");
}

#[tokio::test]
async fn a_function_call_chooses_nobody_and_brings_no_token_to_a_server() {
    let (estate, service, gate) = stage("acts_for = \"*\"\nacross_databases = true").await;
    let mut wire = service.wire(&gate).await;
    // set_config and current_setting by their numbers, and any other: it is the name that counts.
    for (function, name) in
        [(2078, "tenantgate.token"), (2077, "TenantGate.tenant"), (1257, "tenantgate.token")]
    {
        wire.query("BEGIN").await;
        assert_eq!(wire.query(&by_id(&estate.initech)).await, "C(SET) Z(T)");
        for length in [1, 70_000] {
            let call = function_call(1257, &"x".repeat(length));
            assert_eq!(wire.ask(call).await, "V Z(T)");
        }
        let call = function_call(function, name);
        assert_eq!(wire.ask(call).await, "E(25001) Z(E)", "{function} {name}");
        assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    }
}

#[tokio::test]
async fn the_clients_own_error_is_not_taken_for_one_of_what_an_execute_needs() {
    let (estate, service, gate) = stage("acts_for = \"*\"").await;
    let mut wires = [gate.wire(&estate.acme).await, service.wire(&gate).await];
    for (wire, status) in wires.iter_mut().zip(["I", "E"]) {
        if status == "E" {
            wire.query("BEGIN").await;
            wire.query(&by_id(&estate.acme)).await;
        }
        assert!(wire.query("PREPARE p AS SELECT 7").await.starts_with("C(PREPARE)"));
        let batch =
            [parse("x", "bad"), describe(b'S', "x"), flush(), query("EXECUTE p"), sync()].concat();
        wire.send(batch).await;
        let said = transcript(&wire.until_ready().await);
        assert_eq!(said, format!("E(42601) Z({status})"));
        if status == "E" {
            wire.query("ROLLBACK").await;
        }
        assert!(wire.query("SELECT 8").await.starts_with("T D(8)") || status == "E");
    }
}
