//! Forgery: every plain way to say "I am somebody else" is refused with the right SQLSTATE, and
//! saying who one is already is not. (What functions and DO hide is for higher levels to stop.)

use crate::harness::messages::{bind, execute, extended, parse, query, sync, transcript};
use crate::harness::tenants::Tenant;
use crate::harness::wire::{Login, Wire};
use crate::isolation::{NOTES, one_server, own_notes};

/// `$OTHER` is another tenant's id, `$OWN` one's own.
const REFUSED: [&str; 44] = [
    "SET app.tenant_id = '$OTHER'",
    "SET app.tenant_id TO $OTHER",
    "set App.Tenant_Id = \"$OTHER\"",
    "SET SESSION app.tenant_id = '$OTHER'",
    "SET LOCAL app.tenant_id = '$OTHER'",
    "SET \"app\".\"tenant_id\" = '$OTHER'",
    "SET \"app.tenant_id\" = '$OTHER'",
    "SET \"APP\".tenant_id = '$OTHER'",
    "SET U&\"app\".U&\"tenant\\005fid\" = '$OTHER'",
    "SET/* x */app/* y */./* z */tenant_id -- w\n = '$OTHER'",
    "/* /* nested */ ; */ SET app.tenant_id = '$OTHER'",
    "SET app.tenant_id = E'$OTHER'",
    "SET app.tenant_id = $$$OTHER$$",
    "SET app.tenant_id TO '$OWN', '$OTHER'",
    "SET app.tenant_id TO DEFAULT",
    "SET app.tenant_id = ''",
    "SET app.tenant_id FROM CURRENT",
    "RESET app.tenant_id",
    "RESET \"app\".tenant_id",
    "SELECT 1; SET app.tenant_id = '$OTHER'",
    ";;; SET app.tenant_id = '$OTHER'; SELECT 1",
    "BEGIN; SET LOCAL app.tenant_id = '$OTHER'; SELECT body FROM notes; COMMIT",
    "SELECT '--'; SET app.tenant_id = '$OTHER'; SELECT '--'",
    "SELECT $a$;$a$; SET app.tenant_id = '$OTHER'",
    "SELECT E'\\''; SET app.tenant_id = '$OTHER' --'",
    "SELECT '\\'; SET app.tenant_id = '$OTHER' --'",
    "SELECT set_config('app.tenant_id', '$OTHER', false)",
    "SELECT pg_catalog.set_config('app.tenant_id', '$OTHER', true)",
    "SELECT \"set_config\"('app.tenant_id', '$OTHER', false), body FROM notes",
    "SELECT U&\"set\\005fconfig\"('app.tenant_id', '$OTHER', false)",
    "WITH x AS (SELECT set_config('App.Tenant_id', '$OTHER', false)) SELECT body FROM notes, x",
    "COPY (SELECT set_config('app.tenant_id', '$OTHER', false)) TO STDOUT",
    "EXPLAIN ANALYZE SELECT set_config('app.tenant_id', '$OTHER', false)",
    "INSERT INTO notes (id, body) VALUES (99, set_config('app.tenant_id', '$OTHER', false))",
    "SET ROLE none",
    "SET ROLE tg_login",
    "SET role TO 'tg_login'",
    "SET LOCAL ROLE app_owner",
    "SET SESSION AUTHORIZATION tg_login",
    "SET LOCAL SESSION AUTHORIZATION 'app_owner'",
    "SELECT set_config('role', 'none', false)",
    "SET search_path TO pg_temp, public",
    "SET SCHEMA 'public'",
    "SET row_security TO off",
];

const ACCEPTED: [(&str, &str); 11] = [
    ("SET app.tenant_id = '$OWN'", "C(SET) Z(I)"),
    ("SET LOCAL app.tenant_id TO $OWN", "C(SET) Z(I)"),
    ("SET SESSION \"app\".\"tenant_id\" = '$OWN'; SELECT 1", "C(SET) T D(1) C(SELECT 1) Z(I)"),
    ("SET ROLE app_rw", "C(SET) Z(I)"),
    ("SET search_path TO app", "C(SET) Z(I)"),
    ("SET row_security TO on", "C(SET) Z(I)"),
    ("RESET ROLE", "C(RESET) Z(I)"),
    ("SET ROLE TO DEFAULT", "C(SET) Z(I)"),
    ("RESET SESSION AUTHORIZATION", "C(RESET) Z(I)"),
    ("SET LOCAL SESSION AUTHORIZATION DEFAULT", "C(SET) Z(I)"),
    ("BEGIN; RESET ROLE; RESET ALL; COMMIT", "C(BEGIN) C(RESET) C(RESET) C(COMMIT) Z(I)"),
];

#[tokio::test]
async fn a_tenant_cannot_say_that_it_is_another_one() {
    let (estate, gate) = one_server().await;
    let mut wire = gate.wire(&estate.acme).await;
    let own = own_notes(&estate.acme);
    let fill =
        |sql: &str| sql.replace("$OTHER", &estate.globex.id).replace("$OWN", &estate.acme.id);
    for sql in REFUSED {
        let sql = fill(sql);
        assert_eq!(wire.query(&sql).await, "E(42501) Z(I)", "{sql}");
        assert_eq!(wire.query(NOTES).await, own, "{sql}");
        if !sql.contains(';') {
            assert_eq!(wire.ask(extended(&sql, &[])).await, "E(42501) Z(I)", "{sql}");
            let named = [parse("s", &sql), bind("", "s", &[]), execute("", 0), sync()].concat();
            assert_eq!(wire.ask(named).await, "E(42501) Z(I)", "{sql}");
            // Behind a good message of the same batch, and with a server attached.
            let batch = [parse("", "SELECT 1"), extended(&sql, &[])].concat();
            assert_eq!(wire.ask(batch).await, "1 E(42501) Z(I)", "{sql}");
        }
        wire.query("BEGIN").await;
        assert_eq!(wire.query(&sql).await, "E(42501) Z(E)", "{sql}");
        assert_eq!(wire.query("COMMIT").await, "C(ROLLBACK) Z(I)", "{sql}");
    }
    for (sql, expected) in ACCEPTED {
        let sql = fill(sql);
        assert_eq!(wire.query(&sql).await, expected, "{sql}");
        assert_eq!(wire.query(NOTES).await, own, "{sql}");
    }
    assert_eq!(gate.wire(&estate.globex).await.query(NOTES).await, own_notes(&estate.globex));
}

#[tokio::test]
async fn quotes_hide_nothing_whatever_becomes_of_standard_conforming_strings() {
    let (estate, gate) = one_server().await;
    let mut wire = gate.wire(&estate.acme).await;
    let other = &estate.globex.id;
    // What hides under the one reading and what hides under the other.
    let texts = [
        format!(r"SELECT 'a\' || '; SET app.tenant_id = $${other}$$; --'"),
        format!(r"SELECT '\'; SET app.tenant_id = $${other}$$; --'"),
    ];
    for scope in ["LOCAL", "SESSION"] {
        for value in ["on", "off", "default"] {
            for text in &texts {
                wire.query("BEGIN").await;
                let set = format!("SET {scope} standard_conforming_strings TO {value}");
                assert_eq!(wire.query(&set).await.split(' ').next(), Some("C(SET)"), "{set}");
                let heard = wire.query(text).await;
                let refused = heard.starts_with("E(0A000) ") && heard.ends_with("Z(E)");
                assert!(refused, "{set}; {text}: {heard}");
                assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
                assert_eq!(wire.query(NOTES).await, own_notes(&estate.acme), "{set}; {text}");
            }
        }
    }
    // Both readings agree on texts like these.
    wire.query("BEGIN; SET LOCAL standard_conforming_strings TO off").await;
    assert_eq!(wire.query("SELECT 'plain', 'it''s'").await, "T D(plain,it's) C(SELECT 1) Z(T)");
}

#[tokio::test]
async fn resetting_the_session_keeps_the_context() {
    let (estate, gate) = one_server().await;
    for tenant in estate.tenants() {
        let mut wire = gate.wire(tenant).await;
        for sql in [
            "RESET ALL",
            "DISCARD ALL",
            "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL",
            "DEALLOCATE ALL",
            "DISCARD TEMP",
            "DISCARD PLANS",
            "DISCARD SEQUENCES",
            "BEGIN; SET work_mem = '9MB'; RESET ALL; COMMIT",
            "SET search_path = ''; SELECT 1; RESET ALL",
            "BEGIN; SAVEPOINT s; SET search_path = ''; RESET ALL; ROLLBACK TO s; RESET ALL; END",
        ] {
            let simple = wire.query(sql).await;
            assert!(!simple.contains("E(") && simple.ends_with("Z(I)"), "{sql}: {simple}");
            assert_eq!(wire.query(NOTES).await, own_notes(tenant), "{sql}");
            if !sql.contains(';') {
                let asked = wire.ask(extended(sql, &[])).await;
                assert!(!asked.contains("E(") && asked.ends_with("Z(I)"), "{sql}: {asked}");
                assert_eq!(wire.query(NOTES).await, own_notes(tenant), "{sql}");
            }
        }
        for sql in ["RESET ALL", "DISCARD ALL"] {
            for bytes in [query(sql), extended(sql, &[])] {
                wire.query("BEGIN").await;
                wire.query("SET LOCAL work_mem = '9MB'").await;
                let said = wire.ask(bytes).await;
                let refused = sql == "DISCARD ALL";
                assert_eq!(said.contains("E(25001)"), refused, "{said}");
                let seen = wire.query(NOTES).await;
                let own = own_notes(tenant).replace("Z(I)", "Z(T)");
                assert_eq!(seen == own, !refused, "{sql}: {seen}");
                wire.query("END").await;
                assert_eq!(wire.query(NOTES).await, own_notes(tenant), "{sql}");
            }
        }
        wire.send([query("RESET ALL"), query(NOTES), query("DISCARD ALL"), query(NOTES)].concat())
            .await;
        for turn in 0..4 {
            let heard = transcript(&wire.until_ready().await);
            assert!(turn % 2 == 0 || heard == own_notes(tenant), "{heard}");
        }
    }
}

#[tokio::test]
async fn start_up_packets_cannot_choose_a_tenant() {
    let (estate, gate) = one_server().await;
    let (own, other) = (&estate.acme, &estate.globex);
    let option = |text: &str| vec![("options", text.replace("$OTHER", &other.id))];
    let direct = |name: &'static str, value: &str| vec![(name, value.replace("$OTHER", &other.id))];
    let cases = [
        (option("-c app.tenant_id=$OTHER"), "42501"),
        (option("-capp.tenant_id=$OTHER"), "42501"),
        (option("--App.Tenant-ID=$OTHER"), "42501"),
        (option(r"-c app.tenant\_id=$OTHER"), "42501"),
        (direct("APP.tenant_id", "$OTHER"), "42501"),
        (option("-c role=app_owner"), "42501"),
        (option("-c ROLE=none"), "42501"),
        (direct("role", "app_owner"), "42501"),
        (option("-c session_authorization=postgres"), "42501"),
        (direct("session_authorization", "postgres"), "42501"),
        (option("-c search_path=$OTHER"), "42501"),
        (direct("search_path", "$OTHER"), "42501"),
        (direct("SEARCH_PATH", "$OTHER"), "42501"),
        (option("-c row_security=off"), "42501"),
        (direct("row_security", "off"), "42501"),
        (direct("session_replication_role", "replica"), "42501"),
        (direct("backtrace_functions", "$OTHER"), "42501"),
        (direct("idle_session_timeout", "soon"), "22023"),
        (option("-c tcp_user_timeout=1"), "0A000"),
        (direct("replication", "database"), "0A000"),
        (direct("replication", "true"), "0A000"),
        (option("-c tenantgate.tenant=$OTHER"), "28P01"),
        (direct("tenantgate.tenant", "$OTHER"), "28P01"),
        (direct("tenantgate.token", "x"), "42501"),
        (option("-c"), "42601"),
        (option("-x"), "42601"),
        (option("-c client_encoding=SJIS"), "0A000"),
    ];
    for (more, sqlstate) in cases {
        let more: Vec<(&str, &str)> =
            more.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(login(gate.port, "app", own, &more).await, refusal(sqlstate), "{more:?}");
    }
    let users = [
        (format!("app.{}", other.id), "28P01"),
        (format!("app.{}.x", own.id), "28P01"),
        (format!("app.{}", own.id.to_uppercase()), "28P01"),
    ];
    for (user, sqlstate) in users {
        assert_eq!(login(gate.port, &user, own, &[]).await, refusal(sqlstate), "{user}");
    }
    // The names agree with the token: let in, and still only as itself.
    let (user, option) = (format!("x.{}", own.id), format!("-c tenantgate.tenant={}", own.id));
    let mut wire = Wire::connect(gate.port).await;
    let more = [("options", option.as_str())];
    let (dbname, password) = (own.dbname.as_str(), own.token.as_str());
    let login = Login { user: &user, dbname, password, more: &more };
    assert!(transcript(&wire.authenticate(&login).await).ends_with("Z(I)"));
    assert_eq!(wire.query(NOTES).await, own_notes(own));
}

/// What a login ends with, after the question for the password if it came to that.
async fn login(port: u16, user: &str, tenant: &Tenant, more: &[(&str, &str)]) -> String {
    let mut wire = Wire::connect(port).await;
    let (dbname, password) = (tenant.dbname.as_str(), tenant.token.as_str());
    let frames = wire.authenticate(&Login { user, dbname, password, more }).await;
    let heard = transcript(&frames);
    assert_eq!(frames.last().and_then(|frame| frame.field('S')).as_deref(), Some("FATAL"));
    heard.trim_start_matches("R ").to_owned()
}

fn refusal(sqlstate: &str) -> String {
    format!("E({sqlstate})")
}
