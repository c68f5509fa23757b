//! Settings of a session: carried to the next server, rolled back, reset to the start-up values.

use super::{Both, Ready, Send, Step, Table, ask, flight, play, queries};
use crate::harness::messages::{bind, execute, extended, parse, query, sync};

fn steps(parts: &[&[Step]]) -> Vec<Step> {
    parts.concat()
}

/// What asyncpg's pool sends when it takes a connection back.
const ASYNCPG_RESET: &str = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";

#[tokio::test]
async fn settings_and_their_rollback_are_what_they_are_without_the_gate() {
    let set = "SET TimeZone TO 'Asia/Tokyo'";
    let rows: Table = vec![
        (
            "set, show, reset",
            queries(&[set, "SHOW TimeZone", "SELECT 1", "RESET TimeZone"]),
            "C(SET) S(TimeZone=Asia/Tokyo) Z(I) T D(Asia/Tokyo) C(SHOW) Z(I) \
             T D(1) C(SELECT 1) Z(I) C(RESET) S(TimeZone=Etc/UTC) Z(I)",
        ),
        (
            "rolled back",
            queries(&["BEGIN", set, "ROLLBACK", "SHOW TimeZone"]),
            "C(BEGIN) Z(T) C(SET) S(TimeZone=Asia/Tokyo) Z(T) C(ROLLBACK) S(TimeZone=Etc/UTC) Z(I) \
             T D(Etc/UTC) C(SHOW) Z(I)",
        ),
        (
            "kept by commit",
            queries(&["BEGIN", set, "COMMIT", "SHOW TimeZone"]),
            "C(BEGIN) Z(T) C(SET) S(TimeZone=Asia/Tokyo) Z(T) C(COMMIT) Z(I) \
             T D(Asia/Tokyo) C(SHOW) Z(I)",
        ),
        (
            "rolled back to a savepoint",
            queries(&["BEGIN", "SAVEPOINT a", set, "ROLLBACK TO a", "COMMIT", "SHOW TimeZone"]),
            "C(BEGIN) Z(T) C(SAVEPOINT) Z(T) C(SET) S(TimeZone=Asia/Tokyo) Z(T) \
             C(ROLLBACK) S(TimeZone=Etc/UTC) Z(T) C(COMMIT) Z(I) T D(Etc/UTC) C(SHOW) Z(I)",
        ),
        (
            "local",
            queries(&[
                "BEGIN",
                "SET LOCAL work_mem = '1MB'",
                "SHOW work_mem",
                "COMMIT",
                "SHOW work_mem",
            ]),
            "C(BEGIN) Z(T) C(SET) Z(T) T D(1MB) C(SHOW) Z(T) C(COMMIT) Z(I) T D(4MB) C(SHOW) Z(I)",
        ),
        (
            "by function",
            queries(&["SELECT set_config('work_mem', '2MB', false)", "SHOW work_mem"]),
            "T D(2MB) C(SELECT 1) Z(I) T D(2MB) C(SHOW) Z(I)",
        ),
        (
            "several, the last fails",
            queries(&["SET work_mem = '3MB'; SELECT 1/0", "SHOW work_mem"]),
            "C(SET) E(22012) Z(I) T D(4MB) C(SHOW) Z(I)",
        ),
    ];
    Both::new().await.moving_table(&rows).await;
}

#[tokio::test]
async fn settings_of_every_form_are_what_they_are_without_the_gate() {
    let rows: Table = vec![
        (
            "extended, with a parameter",
            steps(&[
                &flight(
                    extended("SELECT set_config('DateStyle', $1, false)", &[Some("German")]),
                    1,
                ),
                &ask("SHOW DateStyle"),
            ]),
            "1 2 T D(German, DMY) C(SELECT 1) S(DateStyle=German, DMY) Z(I) \
             T D(German, DMY) C(SHOW) Z(I)",
        ),
        (
            "wrong value",
            queries(&["SET TimeZone TO 'Nowhere/Land'", "SHOW TimeZone"]),
            "E(22023) Z(I) T D(Etc/UTC) C(SHOW) Z(I)",
        ),
        (
            "several in one message",
            queries(&["SET work_mem = '3MB'; SET TimeZone = 'UTC'; SELECT 1", "SHOW work_mem"]),
            "C(SET) C(SET) T D(1) C(SELECT 1) S(TimeZone=UTC) Z(I) T D(3MB) C(SHOW) Z(I)",
        ),
        (
            "characteristics",
            queries(&[
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY",
                "DELETE FROM notes",
                "SHOW transaction_isolation",
            ]),
            "C(SET) S(default_transaction_read_only=on) Z(I) E(25006) Z(I) \
             T D(serializable) C(SHOW) Z(I)",
        ),
        (
            "client_encoding",
            queries(&["SET client_encoding TO 'LATIN1'", "SELECT 1", "SET NAMES 'UTF8'"]),
            "C(SET) S(client_encoding=LATIN1) Z(I) T D(1) C(SELECT 1) Z(I) \
             C(SET) S(client_encoding=UTF8) Z(I)",
        ),
        (
            "backslashes",
            queries(&[
                "SET standard_conforming_strings TO off",
                "SELECT 'a\\'b'",
                "RESET standard_conforming_strings",
                "SELECT 'a\\'",
            ]),
            "C(SET) S(standard_conforming_strings=off) Z(I) N(22P06) T D(a'b) C(SELECT 1) Z(I) \
             C(RESET) S(standard_conforming_strings=on) Z(I) T D(a\\) C(SELECT 1) Z(I)",
        ),
    ];
    Both::new().await.moving_table(&rows).await;
}

#[tokio::test]
async fn resets_of_the_whole_session_look_as_without_the_gate() {
    let set = "SET TimeZone TO 'Asia/Tokyo'";
    let rows: Table = vec![
        (
            "reset all",
            queries(&[set, "RESET ALL", "SHOW TimeZone"]),
            "C(SET) S(TimeZone=Asia/Tokyo) Z(I) C(RESET) S(TimeZone=Etc/UTC) Z(I) \
             T D(Etc/UTC) C(SHOW) Z(I)",
        ),
        (
            "discard all",
            queries(&[set, "SET work_mem = '3MB'", "DISCARD ALL", "SHOW work_mem"]),
            "C(SET) S(TimeZone=Asia/Tokyo) Z(I) C(SET) Z(I) \
             C(DISCARD ALL) S(TimeZone=Etc/UTC) Z(I) T D(4MB) C(SHOW) Z(I)",
        ),
        (
            "asyncpg's reset",
            steps(&[&ask(set), &ask(ASYNCPG_RESET), &ask("SHOW TimeZone")]),
            "C(SET) S(TimeZone=Asia/Tokyo) Z(I) T D() C(SELECT 1) C(CLOSE CURSOR ALL) C(UNLISTEN) \
             C(RESET) S(TimeZone=Etc/UTC) Z(I) T D(Etc/UTC) C(SHOW) Z(I)",
        ),
        (
            "Npgsql's reset ahead of a batch",
            steps(&[
                &ask(set),
                &flight([query("DISCARD ALL"), extended("SHOW TimeZone", &[])].concat(), 2),
            ]),
            "C(SET) S(TimeZone=Asia/Tokyo) Z(I) C(DISCARD ALL) S(TimeZone=Etc/UTC) Z(I) \
             1 2 T D(Etc/UTC) C(SHOW) Z(I)",
        ),
        (
            "reset all, extended",
            steps(&[&ask(set), &flight(extended("RESET ALL", &[]), 1), &ask("SHOW TimeZone")]),
            "C(SET) S(TimeZone=Asia/Tokyo) Z(I) 1 2 n C(RESET) S(TimeZone=Etc/UTC) Z(I) \
             T D(Etc/UTC) C(SHOW) Z(I)",
        ),
        (
            "discard all twice in one write",
            flight([query("DISCARD ALL"), query("DISCARD ALL"), query("SELECT 1")].concat(), 3)
                .into(),
            "C(DISCARD ALL) Z(I) C(DISCARD ALL) Z(I) T D(1) C(SELECT 1) Z(I)",
        ),
    ];
    Both::new().await.moving_table(&rows).await;
}

#[tokio::test]
async fn deallocations_look_as_without_the_gate() {
    let rows: Table = vec![
        (
            "deallocate all",
            steps(&[
                &flight([parse("s", "SELECT 1"), sync()].concat(), 1),
                &ask("DEALLOCATE ALL"),
                &flight([bind("", "s", &[]), sync()].concat(), 1),
            ]),
            "1 Z(I) C(DEALLOCATE ALL) Z(I) E(26000) Z(I)",
        ),
        (
            "deallocate one",
            steps(&[
                &flight([parse("s", "SELECT 1"), parse("t", "SELECT 2"), sync()].concat(), 1),
                &ask("DEALLOCATE s"),
                &ask("DEALLOCATE PREPARE s"),
                &flight([bind("", "t", &[]), execute("", 0), sync()].concat(), 1),
                &flight([bind("", "s", &[]), sync()].concat(), 1),
            ]),
            "1 1 Z(I) C(DEALLOCATE) Z(I) E(26000) Z(I) 2 D(2) C(SELECT 1) Z(I) E(26000) Z(I)",
        ),
        (
            "discard all ends prepared statements",
            steps(&[
                &flight([parse("s", "SELECT 1"), sync()].concat(), 1),
                &ask("DISCARD ALL"),
                &flight([bind("", "s", &[]), sync()].concat(), 1),
            ]),
            "1 Z(I) C(DISCARD ALL) Z(I) E(26000) Z(I)",
        ),
        (
            "discard parts",
            queries(&["DISCARD PLANS", "DISCARD SEQUENCES", "DISCARD TEMP"]),
            "C(DISCARD PLANS) Z(I) C(DISCARD SEQUENCES) Z(I) C(DISCARD TEMP) Z(I)",
        ),
    ];
    Both::new().await.moving_table(&rows).await;
}

#[tokio::test]
async fn start_up_values_are_told_kept_and_returned_to() {
    let both = Both::new().await;
    let more = [("TimeZone", "Asia/Tokyo"), ("application_name", "mine"), ("DateStyle", "German")];
    let (mut direct, mut gated) = (both.direct(&more).await, both.gated(&more).await);
    let told = |wire: &crate::harness::wire::Wire| {
        let mut told = wire.parameters.clone();
        // A label, and the cluster's business.
        told.remove("session_authorization");
        told
    };
    assert_eq!(told(&gated), told(&direct));
    assert_eq!(gated.parameters["session_authorization"], "app");
    let script = queries(&[
        "SHOW TimeZone",
        "SET TimeZone = 'UTC'",
        "SET application_name = 'other'",
        "SHOW TimeZone",
        "RESET TimeZone",
        "SHOW TimeZone",
        "SET TimeZone = 'UTC'",
        "RESET ALL",
        "SHOW TimeZone",
        "SHOW application_name",
        "SET DateStyle TO DEFAULT",
        "SHOW DateStyle",
        "DISCARD ALL",
        "SHOW DateStyle",
        "SET TIME ZONE LOCAL",
        "SHOW TimeZone",
    ]);
    let (wanted, said) = (play(&mut direct, &script).await, play(&mut gated, &script).await);
    assert_eq!(sorted(&said), sorted(&wanted));
}

/// ParameterStatus of one request come in no promised order.
fn sorted(said: &str) -> Vec<Vec<&str>> {
    let requests = said.split(" Z(I)");
    let words = requests.map(|request| {
        let mut words: Vec<&str> = request.split(' ').collect();
        words.sort_unstable();
        words
    });
    words.collect()
}

#[tokio::test]
async fn settings_follow_the_session_while_another_tenant_uses_the_server() {
    let both = Both::new().await;
    let mut mine = both.gated(&[("DateStyle", "German")]).await;
    let mut other = both.gate.wire(&both.estate.globex).await;
    assert_eq!(mine.query("SET work_mem = '3MB'").await, "C(SET) Z(I)");
    for _ in 0..3 {
        let own = "SELECT current_setting('work_mem'), current_setting('DateStyle')";
        assert_eq!(other.query(own).await, "T D(4MB,ISO, MDY) C(SELECT 1) Z(I)");
        assert_eq!(mine.query(own).await, "T D(3MB,German, DMY) C(SELECT 1) Z(I)");
    }
    let rolled_back = [
        Send(query("BEGIN")),
        Send(query("SET work_mem = '5MB'")),
        Send(query("ROLLBACK")),
        Ready(3),
    ];
    play(&mut mine, &rolled_back).await;
    other.query("SELECT 1").await;
    assert_eq!(mine.query("SHOW work_mem").await, "T D(3MB) C(SHOW) Z(I)");
    assert_eq!(mine.query("RESET ALL").await, "C(RESET) Z(I)");
    other.query("SELECT 1").await;
    assert_eq!(mine.query("SHOW work_mem").await, "T D(4MB) C(SHOW) Z(I)");
    assert_eq!(mine.query("SHOW DateStyle").await, "T D(German, DMY) C(SHOW) Z(I)");
}

#[tokio::test]
async fn emulated_resets_keep_the_tenant_bound() {
    let both = Both::new().await;
    let mut wire = both.gate.wire(&both.estate.acme).await;
    let count = "SELECT count(*) FROM notes";
    for reset in ["RESET ALL", "DISCARD ALL", ASYNCPG_RESET, "DEALLOCATE ALL", "CLOSE ALL"] {
        let pipelined = [query(reset), query(count)].concat();
        wire.send(pipelined).await;
        let first = crate::harness::messages::transcript(&wire.until_ready().await);
        assert!(first.ends_with("Z(I)") && !first.contains("E("), "{reset}: {first}");
        let rows = crate::harness::messages::transcript(&wire.until_ready().await);
        assert_eq!(rows, "T D(3) C(SELECT 1) Z(I)", "{reset}");
    }
    let id = &both.estate.acme.id;
    let own = format!("SET app.tenant_id = '{id}'");
    assert_eq!(wire.query(&own).await, "C(SET) Z(I)");
    let foreign = format!("SET app.tenant_id = '{}'", both.estate.globex.id);
    assert_eq!(wire.query(&foreign).await, "E(42501) Z(I)");
    assert_eq!(wire.query(count).await, "T D(3) C(SELECT 1) Z(I)");
}
