//! Unnamed statements that are prepared on the server once they came often (`prepare_threshold`):
//! whatever changes between two runs, the client hears what a server says that parses each time.

use tokio_postgres::Client;

use super::{Both, flight, play};
use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{bind, describe, execute, extended, parse, sync, transcript};
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::{Wire, cancel};

/// So that one server serves all, and what stands in stays on it.
const STAYS: &str = "linger = \"1h\"";

async fn both(threshold: u32) -> Both {
    let estate = Estate::new().await;
    let tier = format!("prepare_threshold = {threshold}");
    let tweaks = Tweaks { capacity: 1, cluster: STAYS, tier: &tier, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    Both { estate, gate }
}

/// What the server of a session holds of the gate's, told by a view, which the gate does not see
/// through. Stark's, and that of row tenants.
async fn make_views(admin: &Client, stark: &Tenant) {
    let id = &stark.id;
    let sql = format!(
        "CREATE VIEW {id}.held AS SELECT name FROM pg_prepared_statements
           WHERE name LIKE 'tenantgate%';
         GRANT SELECT ON {id}.held TO tg_{id};
         CREATE OR REPLACE VIEW app.held_{id} AS SELECT statement FROM pg_prepared_statements;
         GRANT SELECT ON app.held_{id} TO app_rw"
    );
    admin.batch_execute(&sql).await.unwrap();
}

/// How many stand-ins there are, as `D(2)`.
async fn held(wire: &mut Wire) -> String {
    let told = wire.query("SELECT count(name) FROM held").await;
    told.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Runs the same batch so often on both sides, and compares each answer with the other's, byte by
/// byte. What was said the last time.
async fn alike(name: &str, wires: &mut [Wire; 2], batch: &[u8], times: usize) -> Vec<u8> {
    let mut last = Vec::new();
    for time in 0..times {
        let mut said = Vec::new();
        for wire in &mut *wires {
            wire.send(batch).await;
            let frames = wire.until_ready().await;
            said.push(frames.iter().flat_map(|frame| frame.bytes()).collect::<Vec<u8>>());
        }
        let [direct, gated] = [&said[0], &said[1]].map(|bytes| bytes.escape_ascii().to_string());
        assert_eq!(gated, direct, "{name}, time {time}: the gate (left) and the server (right)");
        last = said.swap_remove(0);
    }
    last
}

/// What happens to a statement that stands in.
struct Case {
    name: &'static str,
    text: &'static str,
    value: Option<&'static str>,
    /// By a superuser, between the runs, with the tenant's schema for `S`.
    changes: &'static [&'static str],
    /// What the server says in the end.
    ends: &'static str,
}

const TABLE: &str = "DROP SCHEMA S CASCADE; CREATE SCHEMA S AUTHORIZATION app_owner;
    GRANT USAGE ON SCHEMA S TO tg_S; SET search_path = S;
    CREATE TABLE moving (id int4, body text, price numeric);
    INSERT INTO moving VALUES (1, 'one'), (2, 'two');
    CREATE VIEW seen AS SELECT body FROM moving WHERE id = 1;
    GRANT ALL ON moving, seen TO tg_S; RESET search_path";

const CASES: [Case; 12] = [
    Case {
        name: "a column of another type",
        text: "SELECT id FROM moving WHERE id = $1::int4",
        value: Some("1"),
        changes: &["ALTER TABLE S.moving DROP COLUMN id CASCADE; ALTER TABLE S.moving ADD id int8"],
        ends: "1 2 T C(SELECT 0) Z(I)",
    },
    Case {
        name: "a column of another type that is compared and not given",
        text: "SELECT body FROM moving WHERE price = $1",
        value: Some("2.5"),
        changes: &["ALTER TABLE S.moving ALTER price TYPE int4"],
        ends: "1 E(22P02) Z(I)",
    },
    Case {
        name: "a table that goes",
        text: "SELECT body, id FROM moving WHERE id = $1::int4",
        value: Some("1"),
        changes: &["DROP TABLE S.moving CASCADE"],
        ends: "E(42P01) Z(I)",
    },
    Case {
        name: "a table that goes and comes",
        text: "SELECT id, body FROM moving WHERE id < $1::int4",
        value: Some("9"),
        changes: &[
            "DROP TABLE S.moving CASCADE",
            "CREATE TABLE S.moving AS SELECT 5 AS id, 'five'::varchar(9) AS body;
             GRANT ALL ON S.moving TO tg_S",
        ],
        ends: "1 2 T D(5,five) C(SELECT 1) Z(I)",
    },
    Case {
        name: "a table in another's place",
        text: "UPDATE moving SET body = $1::text WHERE id = 1 RETURNING body",
        value: Some("new"),
        changes: &["ALTER TABLE S.moving RENAME TO old;
             CREATE TABLE S.moving (body text, id int8); GRANT ALL ON S.moving TO tg_S;
             INSERT INTO S.moving VALUES ('b', 1), ('c', 1)"],
        ends: "1 2 T D(new) D(new) C(UPDATE 2) Z(I)",
    },
    Case {
        name: "a column that is renamed",
        text: "SELECT moving.body FROM moving WHERE moving.id = $1::int4",
        value: Some("1"),
        changes: &["ALTER TABLE S.moving RENAME body TO words"],
        ends: "E(42703) Z(I)",
    },
    Case {
        name: "a right that is revoked",
        text: "SELECT body FROM moving WHERE id IN ($1::int4, 2)",
        value: Some("1"),
        changes: &["REVOKE ALL ON S.moving FROM tg_S"],
        ends: "1 E(42501) Z(I)",
    },
    Case {
        name: "a policy that comes",
        text: "SELECT body FROM moving WHERE id > $1::int4",
        value: Some("0"),
        changes: &["ALTER TABLE S.moving ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON S.moving USING (id = 2)"],
        ends: "1 2 T D(two) C(SELECT 1) Z(I)",
    },
    Case {
        name: "a view that gives something else",
        text: "SELECT body FROM seen WHERE $1::int4 = 1",
        value: Some("1"),
        changes: &["CREATE OR REPLACE VIEW S.seen AS SELECT body FROM S.moving WHERE id = 2"],
        ends: "1 2 T D(two) C(SELECT 1) Z(I)",
    },
    Case {
        name: "an operator that fits better",
        text: "SELECT id + $1::int8 FROM moving WHERE id = 1",
        value: Some("1"),
        changes: &["CREATE FUNCTION S.less(int4, int8) RETURNS text LANGUAGE sql
             AS 'SELECT ''less'''; CREATE OPERATOR S.+ (FUNCTION = S.less, LEFTARG = int4,
             RIGHTARG = int8)"],
        ends: "1 2 T D(2) C(SELECT 1) Z(I)",
    },
    Case {
        name: "a function that fits better",
        text: "SELECT upper($1::varchar)",
        value: Some("x"),
        changes: &["CREATE FUNCTION S.upper(varchar) RETURNS text LANGUAGE sql
             AS 'SELECT ''better'''; GRANT EXECUTE ON FUNCTION S.upper TO tg_S"],
        ends: "1 2 T D(better) C(SELECT 1) Z(I)",
    },
    Case {
        name: "all columns, and one more",
        text: "SELECT * FROM moving WHERE id = 1",
        value: None,
        changes: &["ALTER TABLE S.moving ADD more int4 DEFAULT 7"],
        ends: "1 2 T D(1,one,NULL,7) C(SELECT 1) Z(I)",
    },
];

#[tokio::test]
async fn what_changes_between_two_runs_is_heard_as_if_each_were_parsed() {
    let both = both(2).await;
    let admin = superuser(shared().await, "app").await;
    for case in &CASES {
        let Case { name, text, value, changes, ends } = case;
        let of_stark = |sql: &str| {
            let id = &both.estate.stark.id;
            let named = sql.replace("tg_S", &format!("tg_{id}")).replace("S.", &format!("{id}."));
            named
                .replace("SCHEMA S ", &format!("SCHEMA {id} "))
                .replace("= S;", &format!("= {id};"))
        };
        admin.batch_execute(&of_stark(TABLE)).await.unwrap();
        let mut wires = [both.direct(&[]).await, both.gated(&[]).await];
        let values: Vec<Option<&str>> = value.iter().map(|value| Some(*value)).collect();
        let batch = extended(text, &values);
        alike(name, &mut wires, &batch, 3).await;
        for change in *changes {
            admin.batch_execute(&of_stark(change)).await.unwrap();
            alike(name, &mut wires, &batch, 3).await;
        }
        wires[0].send(&batch).await;
        assert_eq!(transcript(&wires[0].until_ready().await), *ends, "{name}");
    }
}

/// A text that may be prepared, with its value.
const TEXT: &str = "SELECT body FROM notes WHERE id = $1::int4";

#[tokio::test]
async fn a_text_that_comes_often_is_prepared_once_and_used() {
    let both = both(2).await;
    make_views(&superuser(shared().await, "app").await, &both.estate.stark).await;
    let mut wires = [both.direct(&[]).await, both.gated(&[]).await];
    let batch = extended(TEXT, &[Some("1")]);
    alike("once", &mut wires, &batch, 1).await;
    assert_eq!(held(&mut wires[1]).await, "D(0)");
    alike("often", &mut wires, &batch, 1).await;
    assert_eq!(held(&mut wires[1]).await, "D(1)");
    // Also when it is prepared anew, and beside others.
    alike("on and on", &mut wires, &batch, 12).await;
    let other = extended("SELECT id FROM notes WHERE id < $1::int4 ORDER BY id", &[Some("2")]);
    alike("another", &mut wires, &other, 7).await;
    let bare =
        [parse("", "SELECT 7 + $1::int4"), bind("", "", &[Some("1")]), execute("", 1), sync()]
            .concat();
    alike("without Describe", &mut wires, &bare, 3).await;
    // The unnamed statement is there all the same, for a Bind of its own.
    let again = [describe(b'S', ""), bind("", "", &[]), execute("", 0), sync()].concat();
    alike("bound again", &mut wires, &again, 2).await;
    assert_eq!(held(&mut wires[1]).await, "D(3)");
    assert_eq!(held(&mut wires[0]).await, "D(0)");
    // Who asks for the list by its name is told of none.
    let list = "SELECT count(*) FROM pg_prepared_statements";
    assert_eq!(wires[1].query(list).await, "T D(0) C(SELECT 1) Z(I)");
    assert_eq!(held(&mut wires[1]).await, "D(0)");
    alike("after that", &mut wires, &batch, 3).await;
    assert_eq!(wires[1].query("DEALLOCATE ALL").await, "C(DEALLOCATE ALL) Z(I)");
    alike("after DEALLOCATE ALL", &mut wires, &batch, 3).await;
}

#[tokio::test]
async fn errors_pipelines_and_notices_are_those_of_a_server_that_parses() {
    let both = both(1).await;
    let admin = superuser(shared().await, "app").await;
    make_views(&admin, &both.estate.stark).await;
    let mut wires = [both.direct(&[]).await, both.gated(&[]).await];
    // It fails while it is planned, between ParseComplete and BindComplete, also when it ran often.
    let divided = |by| extended("SELECT 1 / $1::int4", &[Some(by)]);
    alike("divided", &mut wires, &divided("1"), 9).await;
    assert!(held(&mut wires[1]).await == "D(1)");
    alike("by zero", &mut wires, &divided("0"), 2).await;
    let value = |value| extended(TEXT, &[Some(value)]);
    alike("a value", &mut wires, &value("2"), 2).await;
    alike("no number", &mut wires, &value("x"), 2).await;
    alike("no value", &mut wires, &extended(TEXT, &[]), 2).await;
    alike("a syntax error", &mut wires, &extended("SELECT FROM WHERE 1", &[]), 3).await;
    alike("no such column", &mut wires, &extended("SELECT 1, nothing FROM notes", &[]), 3).await;
    // Fails when it runs, behind BindComplete.
    let late = "SELECT 1 / (id - 1) FROM notes WHERE id < $1::int4";
    alike("while it runs", &mut wires, &extended(late, &[Some("9")]), 3).await;
    let key = "INSERT INTO notes (id, body) VALUES (1, $1::text) RETURNING id";
    alike("a key that is there", &mut wires, &extended(key, &[Some("a")]), 3).await;
    // Several in one flight: one that fails, one that does not, one in pieces.
    let pieces = [parse("", TEXT), bind("", "", &[Some("1")]), execute("", 1)].concat();
    let flight_of = [value("1"), value("x"), value("2"), divided("0"), pieces, sync()].concat();
    for _ in 0..3 {
        let script = flight(flight_of.clone(), 5);
        let [direct, gated] = &mut wires;
        assert_eq!(play(gated, &script).await, play(direct, &script).await);
    }
    // In a transaction, failed or not.
    let within = |value| extended("SELECT id FROM notes WHERE id = $1::int4", &[Some(value)]);
    for sql in ["BEGIN", "ROLLBACK"] {
        for wire in &mut wires {
            wire.query(sql).await;
        }
        alike("around a transaction", &mut wires, &within("1"), 3).await;
        alike("around a transaction", &mut wires, &within("x"), 1).await;
    }
    // A notice while it is planned, between ParseComplete and BindComplete.
    let id = &both.estate.stark.id;
    let loud = format!(
        "CREATE FUNCTION {id}.loud() RETURNS int4 IMMUTABLE LANGUAGE plpgsql
           AS $$BEGIN RAISE NOTICE 'loud'; RETURN 1; END$$;
         CREATE VIEW {id}.heard AS SELECT {id}.loud() AS a;
         GRANT SELECT ON {id}.heard TO tg_{id}"
    );
    admin.batch_execute(&loud).await.unwrap();
    let heard = extended("SELECT a + $1::int4 FROM heard", &[Some("1")]);
    let said = alike("a notice", &mut wires, &heard, 3).await;
    assert!(String::from_utf8_lossy(&said).contains("loud"));
    // More of them than the gate keeps until it knows.
    let louder = format!(
        "CREATE OR REPLACE FUNCTION {id}.loud() RETURNS int4 IMMUTABLE LANGUAGE plpgsql
           AS $$BEGIN FOR i IN 1..100 LOOP RAISE NOTICE '%', repeat('x', 10000); END LOOP;
           RETURN 1; END$$"
    );
    admin.batch_execute(&louder).await.unwrap();
    alike("a million letters", &mut wires, &heard, 3).await;
    admin.batch_execute(&louder.replace("RETURN 1", "RETURN 1 / 0")).await.unwrap();
    alike("and an error", &mut wires, &heard, 3).await;
    // What an IMMUTABLE function of a view says counts at once.
    let sql = format!(
        "CREATE OR REPLACE FUNCTION {id}.loud() RETURNS int4 IMMUTABLE LANGUAGE sql AS 'SELECT 1'"
    );
    admin.batch_execute(&sql).await.unwrap();
    alike("quiet", &mut wires, &heard, 2).await;
    let bare = extended("SELECT a FROM heard", &[]);
    alike("without a parameter", &mut wires, &bare, 2).await;
    admin.batch_execute(&sql.replace("SELECT 1", "SELECT 2")).await.unwrap();
    alike("two", &mut wires, &bare, 2).await;
    alike("two and one", &mut wires, &heard, 2).await;
}

#[tokio::test]
async fn what_a_text_means_by_itself_or_by_a_setting_is_asked_each_time() {
    let both = both(1).await;
    let mut gated = both.gated(&[]).await;
    let mut times = Vec::new();
    for _ in 0..2 {
        gated.send(extended("SELECT 'now'::timestamptz", &[])).await;
        times.push(transcript(&gated.until_ready().await));
    }
    assert_ne!(times[0], times[1]);
    let mut wires = [both.direct(&[]).await, gated];
    let dated = extended("SELECT '2/3/2024'::date::text", &[]);
    let compared = extended("SELECT id FROM notes WHERE id = NULL OR (1 = NULL) IS NULL", &[]);
    let texts = [dated, compared, extended("SELECT current_date - $1::date > 0", &[Some("1/2/3")])];
    for sql in [
        "SELECT 1",
        "SET DateStyle = 'German, DMY'",
        "SET transform_null_equals = on",
        "SET client_min_messages = debug2",
        "RESET ALL",
        "SET plan_cache_mode = force_generic_plan",
    ] {
        for wire in &mut wires {
            wire.query(sql).await;
        }
        for text in &texts {
            alike(sql, &mut wires, text, 3).await;
        }
    }
}

#[tokio::test]
async fn temporary_objects_and_a_path_of_several_schemas_are_looked_up_each_time() {
    let both = both(1).await;
    let mut wires = [both.direct(&[]).await, both.gated(&[]).await];
    // Without a Describe, which tells the number of the table.
    let run = [bind("", "", &[Some("1")]), execute("", 0), sync()].concat();
    let batch = [parse("", TEXT), run].concat();
    alike("before", &mut wires, &batch, 2).await;
    for sql in [
        "CREATE TEMP TABLE unrelated (id int4)",
        "CREATE TEMP TABLE notes AS SELECT 1 AS id, 'mine'::text AS body",
        "DROP TABLE pg_temp.notes",
        "CREATE TEMP VIEW notes AS SELECT 1 AS id, 'seen'::text AS body",
        "DISCARD TEMP",
    ] {
        for wire in &mut wires {
            wire.query(sql).await;
        }
        alike(sql, &mut wires, &batch, 3).await;
    }
    // A silo's path is "$user", public: what is made in the first stands in front of the second.
    let initech = &both.estate.initech;
    let admin = superuser(shared().await, &initech.dbname).await;
    let login = format!("tg_{}", initech.id);
    let schema = format!("CREATE SCHEMA {login}; GRANT USAGE ON SCHEMA {login} TO {login}");
    admin.batch_execute(&schema).await.unwrap();
    let mut wire = both.gate.wire(initech).await;
    let ask = async |wire: &mut Wire| {
        wire.send(&batch).await;
        transcript(&wire.until_ready().await)
    };
    let before = [ask(&mut wire).await, ask(&mut wire).await];
    let table = format!(
        "CREATE TABLE {login}.notes AS SELECT 1 AS id, 'nearer'::text AS body;
         GRANT SELECT ON {login}.notes TO {login}"
    );
    admin.batch_execute(&table).await.unwrap();
    let after = ask(&mut wire).await;
    assert!(before[0] == before[1] && before[0] != after, "{before:?} {after}");
    assert_eq!(after, "1 2 D(nearer) C(SELECT 1) Z(I)");
}

/// The one difference that `docs/compatibility.md` tells of.
#[tokio::test]
async fn a_cast_that_goes_is_noticed_after_five_uses() {
    let both = both(1).await;
    let admin = superuser(shared().await, "app").await;
    let (id, user) = (&both.estate.stark.id, format!("tg_{}", both.estate.stark.id));
    let sql = format!(
        "SET search_path = {id}; CREATE TYPE mark AS (a int4);
         CREATE FUNCTION told(mark) RETURNS text LANGUAGE sql AS 'SELECT ''seven''::text';
         CREATE CAST (mark AS text) WITH FUNCTION told;
         CREATE TABLE marks AS SELECT 1 AS id, ROW(7)::mark AS mark;
         GRANT EXECUTE ON FUNCTION told TO {user}; GRANT SELECT ON marks TO {user}"
    );
    admin.batch_execute(&sql).await.unwrap();
    let mut wires = [both.direct(&[]).await, both.gated(&[]).await];
    let text = "SELECT mark::text FROM marks WHERE id = $1::int4";
    let batch = extended(text, &[Some("1")]);
    alike("with its cast", &mut wires, &batch, 1).await;
    admin.batch_execute(&format!("DROP CAST ({id}.mark AS text)")).await.unwrap();
    for _ in 0..5 {
        wires[1].send(&batch).await;
        let heard = transcript(&wires[1].until_ready().await);
        let known = ["1 2 T D(seven) C(SELECT 1) Z(I)", "1 2 T D((7)) C(SELECT 1) Z(I)"];
        assert!(known.contains(&heard.as_str()), "{heard}");
    }
    alike("without", &mut wires, &batch, 2).await;
}

#[tokio::test]
async fn a_cancel_while_it_is_bound_is_the_answer() {
    let both = both(1).await;
    let mut admin = superuser(shared().await, "app").await;
    let mut wires = [both.direct(&[]).await, both.gated(&[]).await];
    let batch = extended(TEXT, &[Some("1")]);
    alike("before", &mut wires, &batch, 2).await;
    let held = admin.transaction().await.unwrap();
    let lock = format!("LOCK TABLE {}.notes IN ACCESS EXCLUSIVE MODE", both.estate.stark.id);
    held.batch_execute(&lock).await.unwrap();
    let [_, gated] = &mut wires;
    gated.send(&batch).await;
    let waits = format!(
        "SELECT FROM pg_stat_activity
         WHERE wait_event_type = 'Lock' AND usename = 'tg_{}'",
        both.estate.stark.id
    );
    let waiting = async || (!held.query(&waits, &[]).await.unwrap().is_empty()).then_some(());
    eventually("the Bind waits for the table", waiting).await;
    cancel(both.gate.port, gated.pid, gated.secret).await;
    assert_eq!(transcript(&gated.until_ready().await), "E(57014) Z(I)");
    held.rollback().await.unwrap();
    alike("after", &mut wires, &batch, 2).await;
}

#[tokio::test]
async fn nobody_else_meets_what_stands_in() {
    let both = both(1).await;
    let Both { estate, gate } = &both;
    make_views(&superuser(shared().await, "app").await, &estate.stark).await;
    let view = format!("SELECT statement FROM held_{}", estate.stark.id);
    let (mut acme, mut globex) = (gate.wire(&estate.acme).await, gate.wire(&estate.globex).await);
    let [(_, mine), ..] = &estate.acme.notes[..] else { panic!("acme has notes") };
    let text = "SELECT body FROM notes WHERE id > $1::int4 ORDER BY id LIMIT 1";
    let batch = || extended(text, &[Some("0")]);
    for _ in 0..3 {
        let wanted = format!("1 2 T D({mine}) C(SELECT 1) Z(I)");
        assert_eq!(acme.ask(batch()).await, wanted);
    }
    assert_eq!(acme.query(&view).await, format!("T D({text}) C(SELECT 1) Z(I)"));
    // On the same server, which has been scrubbed.
    assert_eq!(globex.query(&view).await, "T C(SELECT 0) Z(I)");
    let [(_, theirs), ..] = &estate.globex.notes[..] else { panic!("globex has notes") };
    let wanted = format!("1 2 T D({theirs}) C(SELECT 1) Z(I)");
    assert_eq!(globex.ask(batch()).await, wanted);
    // Another session of the tenant uses it, and the first one goes on.
    let mut second = gate.wire(&estate.globex).await;
    for wire in [&mut second, &mut globex] {
        assert_eq!(wire.ask(batch()).await, wanted);
        assert_eq!(wire.query(&view).await, format!("T D({text}) C(SELECT 1) Z(I)"));
    }
}

#[tokio::test]
async fn a_session_has_no_more_than_a_hundred_on_a_server() {
    let both = both(1).await;
    make_views(&superuser(shared().await, "app").await, &both.estate.stark).await;
    let mut wires = [both.direct(&[]).await, both.gated(&[]).await];
    for number in (0..130).chain(40..60) {
        let batch = extended(&format!("SELECT {number} + $1::int4"), &[Some("1")]);
        alike("numbers", &mut wires, &batch, 1).await;
    }
    assert_eq!(held(&mut wires[1]).await, "D(100)");
}
