//! Every setting a session may have follows it: also those of extensions and of its own making,
//! computed ones, and what the start-up packet asks for.

use super::{Both, Step, Table, ask, flight, play, queries};
use crate::harness::cluster::shared;
use crate::harness::messages::{bind, execute, extended, parse, sync, transcript};
use crate::harness::tenants::LOGIN_PASSWORD;
use crate::harness::wire::{Login, Wire};

fn steps(parts: &[&[Step]]) -> Vec<Step> {
    parts.concat()
}

#[tokio::test]
async fn any_setting_follows_the_session() {
    let rows: Table = vec![
        (
            "of the planner",
            queries(&["SET geqo TO off", "SHOW geqo", "RESET geqo", "SHOW geqo"]),
            "C(SET) Z(I) T D(off) C(SHOW) Z(I) C(RESET) Z(I) T D(on) C(SHOW) Z(I)",
        ),
        (
            "of its own making",
            queries(&[
                "SET myapp.locale TO 'de, \'\'x\'\' \\ \u{e4}'",
                "SHOW myapp.locale",
                "SET \"MyApp\".LOCALE = 'fr'",
                "SELECT current_setting('myapp.Locale')",
                "RESET myapp.locale",
                "SELECT current_setting('myapp.locale')",
            ]),
            "C(SET) Z(I) T D(de, 'x' \\ \u{e4}) C(SHOW) Z(I) C(SET) Z(I) T D(fr) C(SELECT 1) Z(I) \
             C(RESET) Z(I) T D() C(SELECT 1) Z(I)",
        ),
        (
            "of its own making, by function",
            queries(&[
                "SELECT set_config('myapp.tenant', 'x', false)",
                "SHOW myapp.tenant",
                "BEGIN",
                "SELECT set_config('myapp.tenant', 'y', true)",
                "COMMIT",
                "SHOW myapp.tenant",
            ]),
            "T D(x) C(SELECT 1) Z(I) T D(x) C(SHOW) Z(I) C(BEGIN) Z(T) T D(y) C(SELECT 1) Z(T) \
             C(COMMIT) Z(I) T D(x) C(SHOW) Z(I)",
        ),
        (
            "rolled back, and never there",
            queries(&[
                "SET myapp.one TO '1'",
                "BEGIN; SET myapp.one TO '2'; SET myapp.two TO '2'",
                "ROLLBACK",
                "SHOW myapp.one",
                "SELECT coalesce(current_setting('myapp.two', true), '')",
            ]),
            "C(SET) Z(I) C(BEGIN) C(SET) C(SET) Z(T) C(ROLLBACK) Z(I) T D(1) C(SHOW) Z(I) \
             T D() C(SELECT 1) Z(I)",
        ),
        (
            "that nobody may set",
            queries(&[
                "SET max_connections TO 5",
                "SET log_statement TO 'all'",
                "SET no_such_thing TO 1",
                "SELECT set_config('server_version', '1', false)",
                "SET work_mem TO 'much'",
                "SHOW block_size",
                "SHOW no_such_thing",
            ]),
            "E(55P02) Z(I) E(42501) Z(I) E(42704) Z(I) T E(55P02) Z(I) E(22023) Z(I) \
             T D(8192) C(SHOW) Z(I) E(42704) Z(I)",
        ),
        (
            "of one transaction",
            queries(&[
                "SET transaction_isolation TO 'serializable'",
                "SHOW transaction_isolation",
                "BEGIN; SET transaction_read_only TO on",
                "SHOW transaction_read_only",
                "COMMIT",
                "SHOW transaction_read_only",
            ]),
            "C(SET) Z(I) T D(read committed) C(SHOW) Z(I) C(BEGIN) C(SET) Z(T) \
             T D(on) C(SHOW) Z(T) C(COMMIT) Z(I) T D(off) C(SHOW) Z(I)",
        ),
        (
            "to its default, for a transaction",
            queries(&[
                "SET work_mem TO '3MB'",
                "BEGIN",
                "SET LOCAL work_mem TO DEFAULT",
                "SHOW work_mem",
                "COMMIT",
                "SHOW work_mem",
                "SET work_mem TO DEFAULT",
                "SHOW work_mem",
            ]),
            "C(SET) Z(I) C(BEGIN) Z(T) C(SET) Z(T) T D(4MB) C(SHOW) Z(T) C(COMMIT) Z(I) \
             T D(3MB) C(SHOW) Z(I) C(SET) Z(I) T D(4MB) C(SHOW) Z(I)",
        ),
    ];
    Both::new().await.moving_table(&rows).await;
}

#[tokio::test]
async fn settings_whose_names_are_computed_follow_the_session() {
    let call = "SELECT set_config($1, $2, false)";
    let twice = "SELECT set_config('geqo', v, false) FROM (VALUES ('off'), ('off')) t(v)";
    let bound = |name, value| extended(call, &[Some(name), Some(value)]);
    let rows: Table = vec![
        (
            "bound names",
            steps(&[
                &flight(bound("work_mem", "2MB"), 1),
                &flight(bound("MyApp.bound", "me@example.org"), 1),
                &ask("SELECT current_setting('work_mem'), current_setting('myapp.bound')"),
            ]),
            "1 2 T D(2MB) C(SELECT 1) Z(I) 1 2 T D(me@example.org) C(SELECT 1) Z(I) \
             T D(2MB,me@example.org) C(SELECT 1) Z(I)",
        ),
        (
            "computed names",
            queries(&[
                "SELECT set_config(lower('WORK_MEM'), '2MB', false)",
                "SHOW work_mem",
                "SELECT set_config(name, '3MB', false) FROM pg_settings WHERE name ~ '^work_m'",
                "SHOW work_mem",
            ]),
            "T D(2MB) C(SELECT 1) Z(I) T D(2MB) C(SHOW) Z(I) T D(3MB) C(SELECT 1) Z(I) \
             T D(3MB) C(SHOW) Z(I)",
        ),
        (
            "in the view",
            queries(&["UPDATE pg_settings SET setting = 'off' WHERE name = 'geqo'", "SHOW geqo"]),
            "T D(off) C(UPDATE 0) Z(I) T D(off) C(SHOW) Z(I)",
        ),
        (
            "one row at a time",
            steps(&[
                &ask("BEGIN"),
                &flight([parse("", twice), bind("", "", &[]), execute("", 1), sync()].concat(), 1),
                &ask("COMMIT"),
                &ask("SHOW geqo"),
            ]),
            "C(BEGIN) Z(T) 1 2 D(off) s Z(T) C(COMMIT) Z(I) T D(off) C(SHOW) Z(I)",
        ),
        (
            "in a block, if the server tells of it",
            queries(&[
                "DO $$BEGIN SET TimeZone TO 'Asia/Tokyo'; SET application_name TO 'block'; END$$",
                "SHOW TimeZone",
                "SHOW application_name",
            ]),
            "C(DO) S(application_name=block) S(TimeZone=Asia/Tokyo) Z(I) \
             T D(Asia/Tokyo) C(SHOW) Z(I) T D(block) C(SHOW) Z(I)",
        ),
    ];
    Both::new().await.moving_table(&rows).await;
}

#[tokio::test]
async fn every_parameter_a_server_tells_of_is_told_when_a_server_tells_it() {
    let mut script = Vec::new();
    for (name, value) in [
        ("application_name", "other"),
        ("client_encoding", "LATIN1"),
        ("DateStyle", "German"),
        ("IntervalStyle", "iso_8601"),
        ("TimeZone", "asia/tokyo"),
        ("default_transaction_read_only", "on"),
        ("standard_conforming_strings", "off"),
    ] {
        let set = format!("SET {name} TO '{value}'");
        let (local, show) = (format!("SET LOCAL {name} TO '{value}'"), format!("SHOW {name}"));
        let function = format!("SELECT set_config('{name}', '{value}', false)");
        let reset = format!("RESET {name}");
        script.extend(queries(&["BEGIN", &set, "ROLLBACK", &show, "BEGIN", &local, "COMMIT"]));
        script.extend(queries(&[&show, &set, &show, "SELECT 1", &set, &reset, &show]));
        script.extend(queries(&["BEGIN", "SAVEPOINT a", &set, "ROLLBACK TO a", "COMMIT", &show]));
        script.extend(queries(&[&function, "SELECT 1", "RESET ALL", &show]));
    }
    let both = Both::new().await;
    // Without one the gate's own name is what a session starts with.
    let named = [("application_name", "mine")];
    let direct = play(&mut both.direct(&named).await, &script).await;
    assert!(direct.contains("S(TimeZone=Asia/Tokyo)"), "{direct}");
    assert_eq!(play(&mut both.gated(&named).await, &script).await, direct);
    let mut wire = both.gated(&named).await;
    assert_eq!(both.play_moving(&mut wire, &script).await, direct);
}

#[tokio::test]
async fn start_up_packets_may_ask_for_any_setting() {
    let both = Both::new().await;
    let script = queries(&[
        "SELECT current_setting('geqo'), current_setting('work_mem')",
        "SELECT current_setting('myapp.lang'), current_setting('IntervalStyle')",
        "SET geqo TO on",
        "SET myapp.lang TO 'fr'",
        "SELECT current_setting('geqo'), current_setting('myapp.lang')",
        "RESET geqo",
        "SET myapp.lang TO DEFAULT",
        "SELECT current_setting('geqo'), current_setting('myapp.lang')",
        "SET work_mem TO '5MB'",
        "RESET ALL",
        "SELECT current_setting('work_mem'), current_setting('myapp.lang')",
    ]);
    let id = both.estate.stark.id.clone();
    let options = r"--geqo=off -c work\_mem=3MB -cmyapp.lang=de";
    let with_path = format!("-c search_path={id} {options}");
    let login = |options| [("options", options), ("IntervalStyle", "iso_8601")];
    let user = format!("tg_{id}");
    let more = login(with_path.as_str());
    let direct = Login { user: &user, dbname: "app", password: LOGIN_PASSWORD, more: &more };
    let mut direct = Wire::login(shared().await.port(), &direct).await;
    let wanted = play(&mut direct, &script).await;
    assert!(wanted.contains("D(off,3MB)"), "{wanted}");
    assert_eq!(play(&mut both.gated(&login(options)).await, &script).await, wanted);
    let mut moving = both.gated(&login(options)).await;
    assert_eq!(both.play_moving(&mut moving, &script).await, wanted);
}

#[tokio::test]
async fn a_path_from_the_start_up_packet_is_what_reset_returns_to() {
    let both = Both::new().await;
    let silo = &both.estate.initech;
    let more = [("options", r"-c search_path=pg_catalog,\ public")];
    let login = Login { user: "app", dbname: &silo.dbname, password: &silo.token, more: &more };
    let mut wire = Wire::login(both.gate.port, &login).await;
    let mut other = both.gate.wire(&both.estate.globex).await;
    let shown = "T D(pg_catalog, public) C(SHOW) Z(I)";
    for change in
        ["SELECT 1", "SET search_path TO public", "SELECT set_config('search_path', '', false)"]
    {
        wire.query(change).await;
        other.query("SELECT 1").await;
        if change.starts_with("SET ") {
            assert_eq!(wire.query("SHOW search_path").await, "T D(public) C(SHOW) Z(I)");
        }
        wire.query("RESET search_path").await;
        other.query("SELECT 1").await;
        assert_eq!(wire.query("SHOW search_path").await, shown, "{change}");
    }
}

#[tokio::test]
async fn bad_start_up_settings_are_refused_as_a_server_refuses_them_and_are_not_remembered() {
    let both = Both::new().await;
    let id = both.estate.stark.id.clone();
    let (user, path) = (format!("tg_{id}"), format!("-c search_path={id}"));
    let cases = [
        ("TimeZone", "Nowhere/Land"),
        ("work_mem", "much"),
        ("geqo", "perhaps"),
        ("no_such_thing", "1"),
        ("max_connections", "5"),
        ("log_statement", "all"),
        ("default_transaction_isolation", "none"),
    ];
    for (name, value) in cases {
        let more = [("options", path.as_str()), (name, value)];
        let direct = Login { user: &user, dbname: "app", password: LOGIN_PASSWORD, more: &more };
        let direct = refused(shared().await.port(), &direct).await;
        let token = &both.estate.stark.token;
        let gated = Login { user: "app", dbname: "app", password: token, more: &more[1..] };
        assert_eq!(refused(both.gate.port, &gated).await, direct, "{name}");
        let mut next = both.gated(&[]).await;
        assert_eq!(next.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)", "{name}");
    }
}

/// Severity, SQLSTATE and message of the error a login ends with.
async fn refused(port: u16, login: &Login<'_>) -> [String; 3] {
    let mut wire = Wire::connect(port).await;
    let frames = wire.authenticate(login).await;
    let said = transcript(&frames);
    let Some(error) = frames.iter().find(|frame| frame.tag == b'E') else {
        panic!("the login was not refused: {said}");
    };
    ['S', 'C', 'M'].map(|field| error.field(field).unwrap_or_default())
}
