//! What clients ask, at random: rows, names, statements, settings, and what is refused.

use crate::harness::messages::{
    bind, close, describe, execute, extended, flush, frame, parse, query, sync,
};
use crate::torture::actor::Actor;
use crate::torture::plan::Level;
use crate::torture::script::Request;
use crate::torture::town::Kind;
use crate::torture::{copies, dialogs};

/// A request at random.
pub fn random(actor: &mut Actor) -> Request {
    match actor.rng.usize(..30) {
        0 => rows(actor),
        1 => identity(actor),
        2 => echo(actor),
        3 | 4 => named(actor),
        5 | 6 => pipeline(actor),
        7 => show(actor),
        8 => set(actor),
        9 => reset(actor),
        10 => refused(actor),
        11 | 12 => mess(actor),
        13 => own_words(actor),
        14 => strings(actor),
        15 => large(actor),
        16 => write(actor),
        17 => dialogs::transaction(actor),
        18 => dialogs::failed_transaction(actor),
        19 => dialogs::savepoints(actor),
        20 => dialogs::many_statements(actor),
        21 => dialogs::batch_that_fails(actor),
        22 => dialogs::cursor(actor),
        23 => dialogs::portals(actor),
        24 => dialogs::flushed(actor),
        25 => copies::copy_out(actor),
        26 | 27 => copies::copy_in(actor),
        28 => copies::cancelled(actor),
        _ => copies::cancelled_anywhere(actor),
    }
}

/// A text that nobody else ever had, with the tenant's mark.
pub fn nonce(actor: &mut Actor) -> String {
    format!("{}_{:016x}", actor.tenant.id, actor.rng.u64(..))
}

/// A statement by either protocol, and how its answer begins.
pub fn by_either(actor: &mut Actor, what: &'static str, sql: &str, answer: &str) -> Request {
    match actor.rng.bool() {
        true => Request::new(what, query(sql), &[format!("T {answer} Z(I)")]),
        false => Request::new(what, extended(sql, &[]), &[format!("1 2 T {answer} Z(I)")]),
    }
}

pub const ROWS: &str = "SELECT body FROM notes WHERE id <= 3 ORDER BY id";

pub fn own_rows(actor: &Actor) -> String {
    let id = &actor.tenant.id;
    format!("D({id}_1) D({id}_2) D({id}_3) C(SELECT 3)")
}

fn rows(actor: &mut Actor) -> Request {
    let answer = own_rows(actor);
    by_either(actor, "rows", ROWS, &answer)
}

fn identity(actor: &mut Actor) -> Request {
    let (sql, row) = actor.tenant.identity();
    by_either(actor, "identity", sql, &format!("{row} C(SELECT 1)"))
}

fn echo(actor: &mut Actor) -> Request {
    let nonce = nonce(actor);
    let sql = "SELECT $1::text, count(*) FROM notes WHERE body NOT LIKE $2";
    let like = format!("{}%", actor.tenant.id);
    let bytes = extended(sql, &[Some(&nonce), Some(&like)]);
    Request::new("echo", bytes, &[format!("1 2 T D({nonce},0) C(SELECT 1) Z(I)")])
}

/// A named statement, prepared now or long ago on whichever server; or closed, or deallocated.
fn named(actor: &mut Actor) -> Request {
    let name = format!("s{}", actor.rng.u8(..6));
    let nonce = nonce(actor);
    let run = |head: &str| {
        let run = [bind("", &name, &[Some(&nonce)]), execute("", 0), sync()].concat();
        (run, format!("2 D({head},{nonce}) C(SELECT 1) Z(I)"))
    };
    if let Some(head) = actor.prepared.get(&name) {
        let (bytes, expected) = run(head);
        let (what, bytes, expected) = match actor.rng.usize(..6) {
            0 => ("close", [close(b'S', &name), sync()].concat(), "3 Z(I)".to_owned()),
            1 => ("deallocate", query(&format!("DEALLOCATE {name}")), "C(DEALLOCATE) Z(I)".into()),
            2 => {
                let again = [parse(&name, "SELECT 1"), sync()].concat();
                ("prepare a name twice", again, "E(42P05) Z(I)".to_owned())
            }
            3 => {
                let bytes = [describe(b'S', &name), bytes].concat();
                ("named", bytes, format!("t T {expected}"))
            }
            _ => ("named", bytes, expected),
        };
        let gone = matches!(what, "close" | "deallocate");
        return Request::new(what, bytes, &[expected]).then(move |actor| {
            if gone {
                actor.prepared.remove(&name);
            }
        });
    }
    if actor.rng.usize(..3) == 0 {
        let (bytes, _) = run("");
        return Request::new("unknown statement", bytes, &["E(26000) Z(I)".to_owned()]);
    }
    let head = format!("{}_{}", actor.tenant.id, actor.rng.u16(..));
    let (bytes, expected) = run(&head);
    let bytes = [parse(&name, &format!("SELECT '{head}', $1::text")), bytes].concat();
    Request::new("prepare", bytes, &[format!("1 {expected}")]).then(move |actor| {
        actor.prepared.insert(name, head);
    })
}

/// Several batches at once, some of which fail or are refused.
fn pipeline(actor: &mut Actor) -> Request {
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..actor.rng.usize(1..8) {
        let nonce = nonce(actor);
        let good = extended("SELECT $1::text", &[Some(&nonce)]);
        let heard = format!("1 2 T D({nonce}) C(SELECT 1) Z(I)");
        let (more, answer) = match actor.rng.usize(..9) {
            0 => (extended("SELECT 1/0", &[]), "1 E(22012) Z(I)".to_owned()),
            1 => (extended("SELECT nonsense", &[]), "E(42703) Z(I)".to_owned()),
            2 => (extended("SET tenantgate.x TO 1", &[]), "E(42501) Z(I)".to_owned()),
            3 => (extended("LOAD 'x'", &[]), "E(0A000) Z(I)".to_owned()),
            4 => (query(&format!("SELECT '{nonce}'")), heard.replacen("1 2 ", "", 1)),
            5 => (sync(), "Z(I)".to_owned()),
            6 => ([flush(), good].concat(), heard),
            7 => (query(""), "I Z(I)".to_owned()),
            _ => (good, heard),
        };
        bytes.extend(more);
        expected.push(answer);
    }
    Request::new("pipeline", bytes, &expected)
}

fn a_setting(actor: &mut Actor) -> (&'static str, String) {
    let number = actor.rng.u16(64..999);
    let one_of = |values: [&str; 3]| values[usize::from(number % 3)].to_owned();
    match actor.rng.usize(..8) {
        0 => ("work_mem", format!("{number}kB")),
        1 => ("statement_timeout", format!("{}s", u32::from(number) * 60 + 1)),
        2 | 3 => ("application_name", format!("{}_{number}", actor.tenant.id)),
        4 => ("DateStyle", one_of(["German, DMY", "SQL, DMY", "ISO, MDY"])),
        5 => ("standard_conforming_strings", one_of(["on", "off", "on"])),
        6 if actor.tenant.kind == Kind::Silo => {
            ("search_path", format!("public, {}_{number}", actor.tenant.id))
        }
        _ => ("TimeZone", one_of(["Asia/Tokyo", "Europe/Berlin", "Etc/UTC"])),
    }
}

fn set(actor: &mut Actor) -> Request {
    let (name, value) = a_setting(actor);
    // A list is not one quoted constant to SET.
    let list = matches!(name, "DateStyle" | "search_path");
    // At level guard set_config is taken away, in the database that is prepared; at sealed another
    // function stands in for it.
    let revoked = actor.stage.plan.level == Level::Guard && actor.tenant.kind != Kind::Silo;
    let (sql, simple, extended_answer) = match revoked || actor.rng.bool() {
        true => {
            let quoted = if list { value.clone() } else { format!("'{value}'") };
            let sql = format!("SET {name} TO {quoted}");
            (sql, "C(SET) Z(I)".to_owned(), "1 2 n C(SET) Z(I)".to_owned())
        }
        false => {
            let answer = format!("T D({value}) C(SELECT 1) Z(I)");
            let sql = format!("SELECT set_config('{name}', '{value}', false)");
            (sql, answer.clone(), format!("1 2 {answer}"))
        }
    };
    let request = match actor.rng.bool() {
        true => Request::new("set", query(&sql), &[simple]),
        false => Request::new("set", extended(&sql, &[]), &[extended_answer]),
    };
    request.then(move |actor| {
        actor.now.insert(name, value);
    })
}

/// All settings, as the session has set them.
fn show(actor: &mut Actor) -> Request {
    let names: Vec<String> =
        actor.now.keys().map(|name| format!("current_setting('{name}')")).collect();
    let values: Vec<&str> = actor.now.values().map(String::as_str).collect();
    let answer = format!("D({}) C(SELECT 1)", values.join(","));
    by_either(actor, "show", &format!("SELECT {}", names.join(", ")), &answer)
}

fn reset(actor: &mut Actor) -> Request {
    if actor.rng.bool() {
        let (name, _) = a_setting(actor);
        let answer = "C(RESET) Z(I)".to_owned();
        return Request::new("reset", query(&format!("RESET {name}")), &[answer]).then(
            move |actor| {
                actor.now.insert(name, actor.start[name].clone());
            },
        );
    }
    let discard = actor.rng.bool();
    let (what, sql, answer) = match discard {
        true => ("discard all", "DISCARD ALL", "C(DISCARD ALL) Z(I)"),
        false => (
            "reset all",
            "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL",
            "T D() C(SELECT 1) C(CLOSE CURSOR ALL) C(UNLISTEN) C(RESET) Z(I)",
        ),
    };
    Request::new(what, query(sql), &[answer.to_owned()]).then(move |actor| {
        actor.now = actor.start.clone();
        if discard {
            actor.prepared.clear();
        }
    })
}

const AUTHORIZATION: &str = "SET SESSION AUTHORIZATION postgres";

/// What a pooled session may not do, and what would be another tenant's.
fn refused(actor: &mut Actor) -> Request {
    let other = crate::torture::watch::mark(actor.tenant.number ^ 1);
    let forge = format!("SET app.tenant_id TO '{other}'");
    let call = frame(b'F', &[0, 0, 8, 30, 0, 0, 0, 0, 0, 0]);
    let guarded = actor.stage.plan.level != Level::Plain && actor.tenant.kind == Kind::Row;
    let (what, bytes, answer) = match actor.rng.usize(..7) {
        0 if actor.tenant.kind == Kind::Row => ("function call", call, "E(0A000) Z(I)"),
        1 if actor.tenant.kind != Kind::Silo => {
            ("listen", query("LISTEN torture"), "E(0A000) Z(I)")
        }
        2 => ("set role", query("SET ROLE postgres"), "E(42501) Z(I)"),
        3 if actor.tenant.kind == Kind::Silo => {
            ("set authorization", extended(AUTHORIZATION, &[]), "1 2 n E(42501) Z(I)")
        }
        3 => ("set authorization", extended(AUTHORIZATION, &[]), "E(42501) Z(I)"),
        4 => ("two phases", query("PREPARE TRANSACTION 'x'"), "E(0A000) Z(I)"),
        5 if actor.tenant.kind == Kind::Row => ("forge", query(&forge), "E(42501) Z(I)"),
        6 if guarded => ("do", query("DO $$BEGIN END$$"), "E(42501) Z(I)"),
        _ => ("load", query("LOAD 'x'"), "E(0A000) Z(I)"),
    };
    Request::new(what, bytes, &[answer.to_owned()])
}

/// Everything a scrub is for, where no reader of texts sees it; and a look for what others left.
fn mess(actor: &mut Actor) -> Request {
    let (kind, id) = (actor.rng.u8(..10), &actor.tenant.id);
    let mess = query(&format!("SELECT mess({kind}, '{id}')"));
    let look = query("SELECT look()");
    let (made, seen) = ("T D() C(SELECT 1) Z(I)".to_owned(), "T D(*) C(SELECT 1) Z(I)".to_owned());
    match actor.rng.usize(..3) {
        0 => Request::new("mess", mess, &[made]),
        1 => Request::new("look", look, &[seen]),
        _ => Request::new("mess and look", [mess, look].concat(), &[made, seen]),
    }
}

/// Errors and notices that carry the tenant's mark in every field.
fn own_words(actor: &mut Actor) -> Request {
    let nonce = nonce(actor);
    let (bytes, answer) = match actor.rng.usize(..3) {
        0 => (query(&format!("SELECT '{nonce}'::int")), "E(22P02) Z(I)"),
        1 => (extended("SELECT $1::int", &[Some(&nonce)]), "1 E(22P02) Z(I)"),
        _ => (query(&format!("SELECT * FROM \"{nonce}\"")), "E(42P01) Z(I)"),
    };
    Request::new("own words in an error", bytes, &[answer.to_owned()])
}

/// A text that is read differently under either value of standard_conforming_strings.
fn strings(actor: &mut Actor) -> Request {
    let length = if actor.now["standard_conforming_strings"] == "on" { 2 } else { 1 };
    let sql = r"SELECT length('\\') AS as_it_is_read";
    by_either(actor, "strings", sql, &format!("D({length}) C(SELECT 1)"))
}

/// More than a buffer holds, in either direction, to one who may read slowly.
fn large(actor: &mut Actor) -> Request {
    let nonce = nonce(actor);
    if actor.rng.bool() {
        let long = nonce.repeat(actor.rng.usize(1..4000));
        let bytes = extended("SELECT length($1::text)", &[Some(&long)]);
        let answer = format!("1 2 T D({}) C(SELECT 1) Z(I)", long.len());
        return Request::new("large parameter", bytes, &[answer]);
    }
    let count = actor.rng.usize(1..300);
    let sql = format!("SELECT repeat('{nonce}', 20) FROM generate_series(1, {count})");
    let row = format!("D({}) ", nonce.repeat(20)).repeat(count);
    let mut request = by_either(actor, "large result", &sql, &format!("{row}C(SELECT {count})"));
    request.slow = actor.rng.usize(..4) == 0;
    request
}

fn write(actor: &mut Actor) -> Request {
    let nonce = nonce(actor);
    let sql = "UPDATE notes SET body = $1 WHERE id = 7";
    let done = "1 2 n C(UPDATE 1) Z(I)".to_owned();
    Request::new("write", extended(sql, &[Some(&nonce)]), &[done])
}
