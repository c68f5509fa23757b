//! What every level shows: sizes, names and waits that tenants of one database or cluster share.
//! None of it is a row, a value or a statement of another tenant.

use super::Class::Shown;
use super::{ALL, Attack, NOWHERE, ONE_DATABASE, ROW, Scene, apart, play};
use crate::harness::messages::query;

/// Whether the attacker's question is answered with this; `$OTHER` and `$OTHERLOGIN` are filled in.
async fn shows(scene: &mut Scene<'_>, question: &str, answer: &str) {
    let (question, answer) = (scene.fill(question), scene.fill(answer));
    let said = scene.send(query(&question)).await;
    if said.contains(&answer) {
        scene.is_changed(said);
    }
}

pub const ATTACKS: [Attack; 5] = [
    play(Shown, "how many rows and bytes a shared table has in all", ROW, NOWHERE, |scene| {
        let rows = "SELECT reltuples > 3, pg_relation_size(oid) > 0 FROM pg_class \
                    WHERE oid = 'app.notes'::regclass";
        Box::pin(shows(scene, rows, "D(t,t)"))
    }),
    play(Shown, "names of schemas and tables", ONE_DATABASE, NOWHERE, |scene| {
        let names = "SELECT 'names ' || string_agg(nspname, ' ') FROM pg_namespace \
                     WHERE nspname ~ '^umbrella'";
        Box::pin(shows(scene, names, "D(names umbrella"))
    }),
    play(Shown, "names of roles and databases of the cluster", ALL, NOWHERE, |scene| {
        let names = "SELECT rolname FROM pg_roles";
        Box::pin(shows(scene, names, "D($OTHERLOGIN)"))
    }),
    play(Shown, "how many values others took from a shared sequence", ROW, NOWHERE, |scene| {
        Box::pin(async {
            let take = "SELECT nextval('app.numbers')";
            let first = scene.send(query(take)).await;
            for _ in 0..3 {
                scene.other.query(take).await;
            }
            let number =
                |said: &str| -> i64 { said[4..said.find(") C").unwrap()].parse().unwrap() };
            let second = scene.send(query(take)).await;
            if number(&second) - number(&first) == 4 {
                scene.is_changed(second);
            }
        })
    }),
    apart(play(
        Shown,
        "that a number is locked, by pg_advisory_xact_lock",
        ONE_DATABASE,
        NOWHERE,
        |scene| {
            Box::pin(async {
                scene.other.query("BEGIN; SELECT pg_advisory_xact_lock(4711)").await;
                shows(scene, "SELECT pg_try_advisory_xact_lock(4711)", "D(f)").await;
                scene.other.query("ROLLBACK").await;
            })
        },
    )),
];
