//! What the storm's clients ask, and what must come back.

use crate::harness::messages::{
    bind, close, describe, execute, extended, flush, parse, query, sync,
};
use crate::isolation::oracle::{Actor, canary};

/// What the session becomes when all went well.
pub type Then = Box<dyn FnOnce(&mut Actor) + Send>;

/// Bytes to send and the answer to each ReadyForQuery in them.
pub struct Request {
    pub what: &'static str,
    pub bytes: Vec<u8>,
    pub expected: Vec<String>,
    pub then: Option<Then>,
    /// A cancel request follows at once.
    pub cancel: bool,
}

impl Request {
    fn new(what: &'static str, bytes: Vec<u8>, expected: &[String]) -> Self {
        Self { what, bytes, expected: expected.to_vec(), then: None, cancel: false }
    }
}

/// A request at random.
pub fn random(actor: &mut Actor) -> Request {
    match actor.rng.usize(..16) {
        0 => rows(actor),
        1 => echo(actor, true),
        2 => echo(actor, false),
        3 | 4 => named(actor),
        5 | 6 => pipeline(actor),
        7 => transaction(actor),
        8 => failed_transaction(actor),
        9 => set(actor),
        10 => show(actor),
        11 => reset(actor),
        12 => copy_out(actor),
        13 => write(actor),
        14 => leave_things(actor),
        _ => cancelled(actor),
    }
}

fn nonce(actor: &mut Actor) -> String {
    format!("{}{:x}", canary(actor.tenant), actor.rng.u64(..))
}

const ROWS: &str = "SELECT body FROM notes WHERE id <= 3 ORDER BY id";

fn own_rows(actor: &Actor) -> String {
    let canary = canary(actor.tenant);
    format!("D({canary}1) D({canary}2) D({canary}3) C(SELECT 3)")
}

fn rows(actor: &mut Actor) -> Request {
    let rows = own_rows(actor);
    match actor.rng.bool() {
        true => Request::new("rows", query(ROWS), &[format!("T {rows} Z(I)")]),
        false => Request::new("rows", extended(ROWS, &[]), &[format!("1 2 T {rows} Z(I)")]),
    }
}

fn echo(actor: &mut Actor, simple: bool) -> Request {
    let nonce = nonce(actor);
    if simple {
        let sql = format!("SELECT '{nonce}', current_setting('app.tenant_id'), current_user");
        let expected = format!("T D({nonce},storm{},app_rw) C(SELECT 1) Z(I)", actor.tenant);
        return Request::new("echo", query(&sql), &[expected]);
    }
    let sql = "SELECT $1::text, count(*) FROM notes WHERE body NOT LIKE $2";
    let like = format!("{}%", canary(actor.tenant));
    let bytes = extended(sql, &[Some(&nonce), Some(&like)]);
    Request::new("echo", bytes, &[format!("1 2 T D({nonce},0) C(SELECT 1) Z(I)")])
}

/// A named statement, prepared now or long ago on whichever server; or closed.
fn named(actor: &mut Actor) -> Request {
    let name = format!("s{}", actor.rng.u8(..4));
    let nonce = nonce(actor);
    let run = |head: &str| {
        let run = [bind("", &name, &[Some(&nonce)]), execute("", 0), sync()].concat();
        (run, format!("2 D({head},{nonce}) C(SELECT 1) Z(I)"))
    };
    if let Some(head) = actor.prepared.get(&name) {
        if actor.rng.usize(..4) == 0 {
            let closing = [close(b'S', &name), sync()].concat();
            let mut request = Request::new("close", closing, &["3 Z(I)".to_owned()]);
            request.then = Some(Box::new(move |actor| {
                actor.prepared.remove(&name);
            }));
            return request;
        }
        let (bytes, expected) = run(head);
        if actor.rng.bool() {
            let bytes = [describe(b'S', &name), bytes].concat();
            return Request::new("named", bytes, &[format!("t T {expected}")]);
        }
        return Request::new("named", bytes, &[expected]);
    }
    if actor.rng.usize(..3) == 0 {
        let (bytes, _) = run("");
        return Request::new("unknown", bytes, &["E(26000) Z(I)".to_owned()]);
    }
    let head = format!("{}{}", canary(actor.tenant), actor.rng.u16(..));
    let (bytes, expected) = run(&head);
    let sql = format!("SELECT '{head}', $1::text");
    let bytes = [parse(&name, &sql), bytes].concat();
    let mut request = Request::new("prepare", bytes, &[format!("1 {expected}")]);
    request.then = Some(Box::new(move |actor| {
        actor.prepared.insert(name, head);
    }));
    request
}

/// Several batches at once, some of which fail or are refused.
fn pipeline(actor: &mut Actor) -> Request {
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..actor.rng.usize(1..6) {
        let nonce = nonce(actor);
        let good = extended("SELECT $1::text", &[Some(&nonce)]);
        let heard = format!("1 2 T D({nonce}) C(SELECT 1) Z(I)");
        let (more, answer) = match actor.rng.usize(..8) {
            0 => (extended("SELECT 1/0", &[]), "1 E(22012) Z(I)".to_owned()),
            1 => (extended("SELECT nonsense", &[]), "E(42703) Z(I)".to_owned()),
            2 => (extended("SET app.tenant_id TO 'storm0x'", &[]), "E(42501) Z(I)".to_owned()),
            3 => (extended("LISTEN x", &[]), "E(0A000) Z(I)".to_owned()),
            4 => (query(&format!("SELECT '{nonce}'")), heard.replacen("1 2 ", "", 1)),
            5 => (sync(), "Z(I)".to_owned()),
            6 => ([flush(), good].concat(), heard),
            _ => (good, heard),
        };
        bytes.extend(more);
        expected.push(answer);
    }
    Request::new("pipeline", bytes, &expected)
}

/// BEGIN … COMMIT or ROLLBACK, in one flight or as one string, with a SET that counts only if it
/// was committed.
fn transaction(actor: &mut Actor) -> Request {
    let (kilobytes, commit) = (actor.rng.u16(64..999), actor.rng.bool());
    let set = format!("SET work_mem TO '{kilobytes}kB'");
    let (end, tag) = if commit { ("COMMIT", "COMMIT") } else { ("ABORT", "ROLLBACK") };
    let rows = own_rows(actor);
    let mut request = if actor.rng.bool() {
        let sql = format!("BEGIN; {set}; {ROWS}; {end}");
        let expected = format!("C(BEGIN) C(SET) T {rows} C({tag}) Z(I)");
        Request::new("transaction", query(&sql), &[expected])
    } else {
        let bytes = [query("BEGIN"), query(&set), extended(ROWS, &[]), query(end)].concat();
        let expected = [
            "C(BEGIN) Z(T)".to_owned(),
            "C(SET) Z(T)".to_owned(),
            format!("1 2 T {rows} Z(T)"),
            format!("C({tag}) Z(I)"),
        ];
        Request::new("transaction", bytes, &expected)
    };
    if commit {
        request.then = Some(Box::new(move |actor| {
            actor.now.insert("work_mem", format!("{kilobytes}kB"));
        }));
    }
    request
}

fn failed_transaction(actor: &mut Actor) -> Request {
    let nonce = nonce(actor);
    let insert = format!("INSERT INTO notes (id, body) VALUES (5000, '{nonce}')");
    let (wrong, code) =
        [("SELECT 1/0", "22012"), ("LISTEN x", "0A000"), ("SET ROLE none", "42501")]
            [actor.rng.usize(..3)];
    let bytes = [
        query("BEGIN"),
        query(&insert),
        query("SET DateStyle TO 'German'"),
        query(wrong),
        extended("SELECT 1", &[]),
        query("COMMIT"),
        query("SELECT count(*) FROM notes WHERE id = 5000"),
    ];
    let expected = [
        "C(BEGIN) Z(T)".to_owned(),
        "C(INSERT 0 1) Z(T)".to_owned(),
        "C(SET) Z(T)".to_owned(),
        format!("E({code}) Z(E)"),
        "E(25P02) Z(E)".to_owned(),
        "C(ROLLBACK) Z(I)".to_owned(),
        "T D(0) C(SELECT 1) Z(I)".to_owned(),
    ];
    Request::new("failed transaction", bytes.concat(), &expected)
}

fn a_setting(actor: &mut Actor) -> (&'static str, String) {
    let number = actor.rng.u16(64..999);
    match actor.rng.usize(..5) {
        0 => ("work_mem", format!("{number}kB")),
        1 => ("statement_timeout", format!("{}s", u32::from(number) * 60 + 1)),
        2 => ("application_name", format!("{}{number}", canary(actor.tenant))),
        3 => ("DateStyle", ["German, DMY", "SQL, DMY", "ISO, MDY"][usize::from(number % 3)].into()),
        _ => {
            ("TimeZone", ["Asia/Tokyo", "Europe/Berlin", "Etc/UTC"][usize::from(number % 3)].into())
        }
    }
}

fn set(actor: &mut Actor) -> Request {
    let (name, value) = a_setting(actor);
    let sql = match actor.rng.bool() {
        true => format!("SET {name} TO '{value}'"),
        false => format!("SELECT set_config('{name}', '{value}', false)"),
    };
    // A list is not one quoted constant to SET.
    let sql = if name == "DateStyle" { sql.replacen("TO '", "TO ", 1) } else { sql };
    let sql =
        if name == "DateStyle" && sql.starts_with("SET") { sql.replace('\'', "") } else { sql };
    let answer = match sql.starts_with("SET") {
        true => ("C(SET)".to_owned(), "n C(SET)".to_owned()),
        false => (format!("T D({value}) C(SELECT 1)"), format!("T D({value}) C(SELECT 1)")),
    };
    let mut request = match actor.rng.bool() {
        true => Request::new("set", query(&sql), &[format!("{} Z(I)", answer.0)]),
        false => Request::new("set", extended(&sql, &[]), &[format!("1 2 {} Z(I)", answer.1)]),
    };
    request.then = Some(Box::new(move |actor| {
        actor.now.insert(name, value);
    }));
    request
}

/// All settings, as the session has set them.
fn show(actor: &mut Actor) -> Request {
    let names: Vec<String> =
        actor.now.keys().map(|name| format!("current_setting('{name}')")).collect();
    let values: Vec<&str> = actor.now.values().map(String::as_str).collect();
    let expected = format!("D({}) C(SELECT 1) Z(I)", values.join(","));
    let sql = format!("SELECT {}", names.join(", "));
    match actor.rng.bool() {
        true => Request::new("show", query(&sql), &[format!("T {expected}")]),
        false => Request::new("show", extended(&sql, &[]), &[format!("1 2 T {expected}")]),
    }
}

fn reset(actor: &mut Actor) -> Request {
    if actor.rng.bool() {
        let (name, _) = a_setting(actor);
        let sql = format!("RESET {name}");
        let answer = "C(RESET) Z(I)".to_owned();
        let mut request = Request::new("reset", query(&sql), &[answer]);
        request.then = Some(Box::new(move |actor| {
            actor.now.insert(name, actor.start[name].clone());
        }));
        return request;
    }
    let discard = actor.rng.bool();
    let (sql, answer) = match discard {
        true => ("DISCARD ALL", "C(DISCARD ALL) Z(I)"),
        false => (
            "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL",
            "T D() C(SELECT 1) C(CLOSE CURSOR ALL) C(UNLISTEN) C(RESET) Z(I)",
        ),
    };
    let mut request = Request::new("reset all", query(sql), &[answer.to_owned()]);
    request.then = Some(Box::new(move |actor| {
        actor.now = actor.start.clone();
        if discard {
            actor.prepared.clear();
        }
    }));
    request
}

fn copy_out(actor: &mut Actor) -> Request {
    let sql = "COPY (SELECT body FROM notes WHERE id <= 3 ORDER BY id) TO STDOUT";
    match actor.rng.bool() {
        true => Request::new("copy", query(sql), &["H d d d c C(COPY 3) Z(I)".to_owned()]),
        false => {
            let bytes = [parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat();
            Request::new("copy", bytes, &["1 2 H d d d c C(COPY 3) Z(I)".to_owned()])
        }
    }
}

fn write(actor: &mut Actor) -> Request {
    let nonce = nonce(actor);
    let sql = "UPDATE notes SET body = $1 WHERE id = 7";
    let done = "1 2 n C(UPDATE 1) Z(I)".to_owned();
    Request::new("write", extended(sql, &[Some(&nonce)]), &[done])
}

/// Everything a scrub is for, where no reader of texts sees it; and a look for what others left.
fn leave_things(actor: &mut Actor) -> Request {
    let canary = canary(actor.tenant);
    let deed = match actor.rng.usize(..6) {
        0 => format!(
            "EXECUTE 'CREATE TEMP TABLE IF NOT EXISTS left_here AS SELECT ''{canary}'' AS c'"
        ),
        1 => format!("PERFORM set_config('my.secret', '{canary}', false)"),
        2 => format!("EXECUTE 'LISTEN storm'; EXECUTE 'NOTIFY storm, ''{canary}'''"),
        3 => "PERFORM pg_advisory_lock_shared(1)".to_owned(),
        4 => format!("EXECUTE 'NOTIFY storm, ''{canary}'''"),
        _ => format!(
            "EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT ''{canary}'''; EXECUTE 'CLOSE held'"
        ),
    };
    let look = "DO $$DECLARE r record; t text; BEGIN
        FOR r IN SELECT statement FROM pg_prepared_statements LOOP RAISE NOTICE '%', r; END LOOP;
        FOR r IN SELECT statement FROM pg_cursors LOOP RAISE NOTICE '%', r; END LOOP;
        RAISE NOTICE '%', current_setting('my.secret', true);
        IF to_regclass('pg_temp.left_here') IS NOT NULL THEN
            FOR r IN EXECUTE 'SELECT c FROM left_here' LOOP RAISE WARNING '%', r; END LOOP;
        END IF; END$$";
    let deed = format!("DO $$BEGIN {deed}; END$$");
    let (bytes, done) = ([query(&deed), query(look)].concat(), "C(DO) Z(I)".to_owned());
    Request::new("leave", bytes, &[done.clone(), done])
}

fn cancelled(actor: &mut Actor) -> Request {
    let nonce = nonce(actor);
    let sql = format!("SELECT '{nonce}' FROM pg_sleep(0.0{})", actor.rng.u8(..9));
    let mut request =
        Request::new("cancelled", query(&sql), &[format!("T D({nonce}) C(SELECT 1) Z(I)")]);
    request.cancel = actor.rng.usize(..3) > 0;
    request
}
