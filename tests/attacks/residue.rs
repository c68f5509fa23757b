//! Residue: what an attacker leaves in the session of the one server, for the next to stumble over.
//! Every answer of the victim's session must be as it was.

use super::Class::Residue;
use super::{
    ALL, Attack, HARMLESS, ONE_DATABASE, ROW, SILO, from_guard, pins, play, refused_from_guard,
    sql, stopped,
};
use crate::harness::messages::{bind, close, describe, execute, parse, sync};

pub const ATTACKS: [Attack; 24] = [
    sql(
        Residue,
        "what another tenant's PREPARE has made",
        ALL,
        stopped("26000"),
        &[
            "victim: PREPARE p AS SELECT 'CANARY'\n\
             EXECUTE p\nvictim: DEALLOCATE p",
            "victim: PREPARE p AS SELECT 'CANARY'\n\
             EXPLAIN VERBOSE EXECUTE p\nvictim: DEALLOCATE p",
            "victim: PREPARE p AS SELECT 'CANARY'\n\
             DEALLOCATE p\nvictim: DEALLOCATE p",
        ],
    ),
    sql(
        Residue,
        "the list of what another tenant has prepared",
        ALL,
        HARMLESS,
        &[
            "victim: PREPARE p AS SELECT 'CANARY'\n\
             SELECT statement FROM pg_prepared_statements\nvictim: DEALLOCATE p",
            "victim: PREPARE p AS SELECT 'CANARY'\n\
             SELECT pg_prepared_statement()::text\nvictim: DEALLOCATE p",
        ],
    ),
    sql(
        Residue,
        "settings of every kind, carried from server to server",
        ALL,
        HARMLESS,
        &[
            "SET debug_print_plan TO on",
            "SET log_parameter_max_length_on_error TO -1",
            "SET evil.mark TO 'x'",
        ],
    ),
    sql(
        Residue,
        "the role and the path, taken away",
        ROW,
        TAKEN,
        &[
            "DO $$BEGIN PERFORM set_config('search_path', 'pg_temp', false); END$$",
            "DO $$BEGIN RESET ROLE; END$$",
        ],
    ),
    sql(
        Residue,
        "row_security, taken away",
        ROW,
        stopped("42501"),
        &["DO $$BEGIN SET row_security TO off; END$$"],
    ),
    sql(
        Residue,
        "a temporary table in a silo, for a transaction",
        SILO,
        HARMLESS,
        &["BEGIN\nCREATE TEMP TABLE notes (body text) ON COMMIT DROP\nCOMMIT"],
    ),
    sql(
        Residue,
        "ordinary settings",
        ALL,
        HARMLESS,
        &[
            "SET TIME ZONE 'Europe/Paris'",
            "SET DateStyle TO 'German'",
            "SET work_mem TO '64kB'",
            "SET statement_timeout TO '7s'",
            "SET client_encoding TO 'LATIN1'",
            "SET standard_conforming_strings TO off",
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY DEFERRABLE",
            "SET default_transaction_read_only TO on",
            "SET application_name TO 'evil'",
            "SET client_min_messages TO debug5",
            "SET lock_timeout TO 1",
            "SET transform_null_equals TO on",
        ],
    ),
    sql(
        Residue,
        "a setting of one's own name",
        ALL,
        HARMLESS,
        &["BEGIN\nSET LOCAL evil.mark TO 'x'\nCOMMIT"],
    ),
    sql(
        Residue,
        "settings, behind the gate's back",
        ROW,
        refused_from_guard("42501"),
        &[
            "DO $$BEGIN PERFORM set_config('evil.mark', 'x', false); END$$",
            "DO $$BEGIN PERFORM set_config('geqo_threshold', '7', false); END$$",
            "DO $$BEGIN SET client_encoding TO 'LATIN1'; END$$",
            "DO $$BEGIN SET transaction_timeout TO 1; EXCEPTION WHEN OTHERS THEN NULL; END$$",
            "DO $$BEGIN EXECUTE 'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY'; END$$",
        ],
    ),
    sql(
        Residue,
        "the context of the attacker, or none",
        ROW,
        refused_from_guard("42501"),
        &["DO $$BEGIN PERFORM set_config('app.tenant_id', '', false); END$$"],
    ),
    sql(
        Residue,
        "temporary objects in front of real ones",
        ROW,
        refused_from_guard("42501"),
        &[
            "DO $$BEGIN CREATE TEMP TABLE notes AS SELECT 0 AS id, 'planted' AS body; END$$",
            "DO $$BEGIN CREATE TEMP VIEW notes AS SELECT 0 AS id, 'planted' AS body; END$$",
            "DO $$BEGIN EXECUTE 'CREATE FUNCTION pg_temp.now() RETURNS int RETURN 1'; END$$",
            "DO $$BEGIN EXECUTE 'CREATE DOMAIN pg_temp.text AS int'; END$$",
            "DO $$BEGIN EXECUTE 'CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, \
         FUNCTION = pg_catalog.textne)'; END$$",
        ],
    ),
    sql(
        Residue,
        "a temporary table that ends with its transaction",
        ONE_DATABASE,
        refused_from_guard("42501"),
        &["BEGIN\nCREATE TEMP TABLE notes (body text) ON COMMIT DROP\nCOMMIT"],
    ),
    sql(
        Residue,
        "statements prepared by SQL",
        ROW,
        refused_from_guard("42501"),
        &[
            "DO $$BEGIN EXECUTE 'PREPARE \"__tg_1\" AS SELECT ''planted'''; END$$",
            "DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$",
        ],
    ),
    play(Residue, "protocol statements and portals, and their names", ALL, HARMLESS, |scene| {
        Box::pin(async {
            let mine = [parse("mine", "SELECT body FROM notes"), sync()].concat();
            scene.other.ask(mine).await;
            for name in ["mine", "__tg_1", "s1", ""] {
                let planted = [
                    parse(name, "SELECT 'planted' AS body"),
                    bind("mine", name, &[]),
                    describe(b'P', "mine"),
                    execute("mine", 1),
                    sync(),
                ];
                scene.send(planted.concat()).await;
            }
            let run = [bind("", "mine", &[]), execute("", 0), sync()].concat();
            let said = scene.other.ask(run).await;
            if said.contains("planted") || said.matches("D(").count() != 3 {
                scene.is_changed(said);
            }
        })
    }),
    play(Residue, "a statement of the last tenant, by its name", ALL, stopped("26000"), |scene| {
        Box::pin(async {
            let theirs = [parse("theirs", "SELECT 'CANARY'"), sync()].concat();
            scene.other.ask(theirs).await;
            for name in ["theirs", "__tg_1", "__tg_2"] {
                scene.send([bind("", name, &[]), execute("", 0), sync()].concat()).await;
                scene.send([describe(b'S', name), sync()].concat()).await;
                scene.send([close(b'S', name), sync()].concat()).await;
            }
        })
    }),
    play(Residue, "the unnamed statement of the last tenant", ALL, stopped("26000"), |scene| {
        Box::pin(async {
            let theirs = [parse("", "SELECT 'CANARY'"), sync()].concat();
            scene.other.ask(theirs).await;
            scene.send([bind("", "", &[]), execute("", 0), sync()].concat()).await;
        })
    }),
    pins(sql(
        Residue,
        "cursors that outlive their transaction",
        ALL,
        HARMLESS,
        &[
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "BEGIN\nDECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 1\nCOMMIT",
        ],
    )),
    pins(sql(
        Residue,
        "advisory locks of the session",
        ALL,
        HARMLESS,
        &["SELECT pg_advisory_lock(42)", "SELECT pg_try_advisory_lock_shared(4, 2)"],
    )),
    sql(
        Residue,
        "cursors and locks, in a DO block",
        ROW,
        refused_from_guard("42501"),
        &[
            "DO $$BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'; END$$",
            "DO $$BEGIN PERFORM pg_advisory_lock(42); END$$",
            "DO $$BEGIN PERFORM pg_advisory_lock_shared(4, 2); END$$",
        ],
    ),
    play(Residue, "what a sequence gave last", ROW, stopped("55000"), |scene| {
        Box::pin(async {
            scene.other.query("SELECT nextval('app.numbers')").await;
            scene.send(crate::harness::messages::query("SELECT lastval()")).await;
            scene.send(crate::harness::messages::query("SELECT currval('app.numbers')")).await;
        })
    }),
    play(Residue, "the seed of random numbers, by setseed()", ROW, from_guard("42501"), |scene| {
        Box::pin(seeded(scene, "SELECT setseed(0.5)"))
    }),
    play(
        Residue,
        "the seed of random numbers, for a transaction",
        ROW,
        stopped("0A000"),
        |scene| Box::pin(seeded(scene, "BEGIN; SET LOCAL SEED TO 0.5; COMMIT")),
    ),
    play(Residue, "the seed of random numbers, by set_config", ROW, NO_SEED, |scene| {
        Box::pin(seeded(scene, "SELECT set_config('seed', '0.5', true)"))
    }),
    play(
        Residue,
        "the seed of random numbers, by SET SEED",
        ONE_DATABASE,
        stopped("0A000"),
        |scene| Box::pin(seeded(scene, "SET SEED TO 0.5")),
    ),
];

const NO_SEED: super::Expected = stopped("0A000");

const TAKEN: super::Expected = [
    super::Verdict::Stopped("42P01"),
    super::Verdict::Stopped("42501"),
    super::Verdict::Stopped("42501"),
];

/// Seeds twice; the victim's numbers must not be the same twice.
async fn seeded(scene: &mut super::Scene<'_>, sql: &str) {
    let mut drawn = Vec::new();
    for _ in 0..2 {
        scene.send(crate::harness::messages::query(sql)).await;
        drawn.push(scene.other.query("SELECT random()").await);
    }
    if drawn[0] == drawn[1] {
        scene.is_changed(format!("random() is {}", drawn[0]));
    }
}
