//! Transactions, batches and portals: what belongs together, and what becomes of it when a part
//! fails. What is committed is in the ledger at the end, and what is not never is.

use crate::harness::messages::{
    bind, close, describe, execute, extended, flush, parse, query, sync,
};
use crate::torture::actor::Actor;
use crate::torture::requests::{ROWS, nonce, own_rows};
use crate::torture::script::{Hears, Request, Step, says};

fn insert(nonce: &str) -> String {
    format!("INSERT INTO ledger (nonce) VALUES ('{nonce}')")
}

/// Parse, Bind and Execute without a Sync.
fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), execute("", 0)].concat()
}

/// BEGIN … COMMIT or ROLLBACK, with a SET that counts only if it was committed.
pub fn transaction(actor: &mut Actor) -> Request {
    let (kilobytes, commit) = (actor.rng.u16(64..999), actor.rng.bool());
    let nonce = nonce(actor);
    let (set, insert) = (format!("SET work_mem TO '{kilobytes}kB'"), insert(&nonce));
    let (end, tag) = if commit { ("COMMIT", "COMMIT") } else { ("ABORT", "ROLLBACK") };
    let rows = own_rows(actor);
    let mut request = if actor.rng.usize(..3) == 0 {
        let sql = format!("BEGIN; {set}; {ROWS}; {insert}; {end}");
        let answer = format!("C(BEGIN) C(SET) T {rows} C(INSERT 0 1) C({tag}) Z(I)");
        Request::new("transaction", query(&sql), &[answer])
    } else {
        let parts = vec![
            says("BEGIN", "C(BEGIN) Z(T)"),
            says(&set, "C(SET) Z(T)"),
            (extended(ROWS, &[]), format!("1 2 T {rows} Z(T)")),
            says("SET LOCAL my.own TO 'x'", "C(SET) Z(T)"),
            says(&insert, "C(INSERT 0 1) Z(T)"),
            says(end, &format!("C({tag}) Z(I)")),
        ];
        Request::dialog(actor, "transaction", parts)
    };
    if !commit {
        request.never.push(nonce);
        return request;
    }
    request.commits.push(nonce);
    request.then(move |actor| {
        actor.now.insert("work_mem", format!("{kilobytes}kB"));
    })
}

pub fn failed_transaction(actor: &mut Actor) -> Request {
    let nonce = nonce(actor);
    let (wrong, code) =
        [("SELECT 1/0", "22012"), ("LOAD 'x'", "0A000"), ("SET tenantgate.x TO 1", "42501")]
            [actor.rng.usize(..3)];
    let counted = format!("SELECT count(*) FROM ledger WHERE nonce = '{nonce}'");
    let parts = vec![
        says("BEGIN", "C(BEGIN) Z(T)"),
        says(&insert(&nonce), "C(INSERT 0 1) Z(T)"),
        says("SET DateStyle TO 'German'", "C(SET) Z(T)"),
        says(wrong, &format!("E({code}) Z(E)")),
        (extended("SELECT 1", &[]), "E(25P02) Z(E)".to_owned()),
        says("COMMIT", "C(ROLLBACK) Z(I)"),
        says(&counted, "T D(0) C(SELECT 1) Z(I)"),
    ];
    let mut request = Request::dialog(actor, "failed transaction", parts);
    request.never.push(nonce);
    request
}

pub fn savepoints(actor: &mut Actor) -> Request {
    let (kept, undone, also) = (nonce(actor), nonce(actor), nonce(actor));
    let refused = if actor.rng.bool() { ("LOAD 'x'", "0A000") } else { ("SELECT 1/0", "22012") };
    let parts = vec![
        says("BEGIN ISOLATION LEVEL REPEATABLE READ", "C(BEGIN) Z(T)"),
        says(&insert(&kept), "C(INSERT 0 1) Z(T)"),
        says("SAVEPOINT a", "C(SAVEPOINT) Z(T)"),
        (extended(&insert(&undone), &[]), "1 2 n C(INSERT 0 1) Z(T)".to_owned()),
        says(refused.0, &format!("E({}) Z(E)", refused.1)),
        says("ROLLBACK TO a", "C(ROLLBACK) Z(T)"),
        says(&insert(&also), "C(INSERT 0 1) Z(T)"),
        says("RELEASE a", "C(RELEASE) Z(T)"),
        says("COMMIT", "C(COMMIT) Z(I)"),
    ];
    let mut request = Request::dialog(actor, "savepoints", parts);
    request.commits.extend([kept, also]);
    request.never.push(undone);
    request
}

/// Several statements in one Query: one transaction, unless they say otherwise.
pub fn many_statements(actor: &mut Actor) -> Request {
    let (one, two) = (nonce(actor), nonce(actor));
    let (insert_one, insert_two) = (insert(&one), insert(&two));
    let done = "C(INSERT 0 1)";
    let (sql, answer, commits, never) = match actor.rng.usize(..3) {
        0 => {
            let answer = format!("{done} T D(1) C(SELECT 1) {done} Z(I)");
            (format!("{insert_one}; SELECT 1; {insert_two}"), answer, vec![one, two], vec![])
        }
        1 => {
            let answer = format!("{done} {done} E(22012) Z(I)");
            (format!("{insert_one}; {insert_two}; SELECT 1/0"), answer, vec![], vec![one, two])
        }
        _ => {
            let sql = format!("{insert_one}; COMMIT; {insert_two}; SELECT 1/0; SELECT 1");
            let answer = format!("{done} C(COMMIT) {done} E(22012) Z(I)");
            (sql, answer, vec![one], vec![two])
        }
    };
    let mut request = Request::new("many statements", query(&sql), &[answer]);
    (request.commits, request.never) = (commits, never);
    request
}

/// A batch of the extended protocol whose middle fails or is refused: nothing of it is kept, and
/// the next batch is.
pub fn batch_that_fails(actor: &mut Actor) -> Request {
    let (one, two, kept) = (nonce(actor), nonce(actor), nonce(actor));
    let (wrong, heard) = match actor.rng.usize(..3) {
        0 => (run("SELECT 1/0"), "1 E(22012)"),
        1 => (run("SET tenantgate.x TO 1"), "E(42501)"),
        _ => (bind("", "never_prepared", &[]), "E(26000)"),
    };
    let batch = [run(&insert(&one)), wrong, run(&insert(&two)), sync()].concat();
    let bytes = [batch, run(&insert(&kept)), sync()].concat();
    let answers = [format!("1 2 C(INSERT 0 1) {heard} Z(I)"), "1 2 C(INSERT 0 1) Z(I)".to_owned()];
    let mut request = Request::new("batch that fails", bytes, &answers);
    request.never.extend([one, two]);
    request.commits.push(kept);
    request
}

pub fn cursor(actor: &mut Actor) -> Request {
    let id = actor.tenant.id.clone();
    let declare = format!("DECLARE c CURSOR FOR {ROWS}");
    let parts = vec![
        says("BEGIN", "C(BEGIN) Z(T)"),
        says(&declare, "C(DECLARE CURSOR) Z(T)"),
        says("FETCH 2 FROM c", &format!("T D({id}_1) D({id}_2) C(FETCH 2) Z(T)")),
        (extended("FETCH ALL FROM c", &[]), format!("1 2 T D({id}_3) C(FETCH 1) Z(T)")),
        says("CLOSE c", "C(CLOSE CURSOR) Z(T)"),
        says("END", "C(COMMIT) Z(I)"),
    ];
    Request::dialog(actor, "cursor", parts)
}

/// Portals that are read in pieces, inside one batch or over several of a transaction.
pub fn portals(actor: &mut Actor) -> Request {
    let id = actor.tenant.id.clone();
    let open = [parse("", ROWS), bind("p", "", &[])].concat();
    if actor.rng.bool() {
        let bytes = [open, execute("p", 2), execute("p", 2), close(b'P', "p"), sync()].concat();
        let answer = format!("1 2 D({id}_1) D({id}_2) s D({id}_3) C(SELECT 1) 3 Z(I)");
        return Request::new("portal in pieces", bytes, &[answer]);
    }
    let nonce = nonce(actor);
    let other = [parse("", "SELECT $1::text"), bind("q", "", &[Some(&nonce)])].concat();
    let parts = vec![
        says("BEGIN", "C(BEGIN) Z(T)"),
        ([open, execute("p", 1), sync()].concat(), format!("1 2 D({id}_1) s Z(T)")),
        ([other, sync()].concat(), "1 2 Z(T)".to_owned()),
        ([execute("p", 1), sync()].concat(), format!("D({id}_2) s Z(T)")),
        (
            [execute("q", 0), execute("p", 0), sync()].concat(),
            format!("D({nonce}) C(SELECT 1) D({id}_3) C(SELECT 1) Z(T)"),
        ),
        says("COMMIT", "C(COMMIT) Z(I)"),
    ];
    Request::dialog(actor, "portals over batches", parts)
}

/// A batch whose parts are asked for before its Sync.
pub fn flushed(actor: &mut Actor) -> Request {
    let (value, kept) = (nonce(actor), nonce(actor));
    let prepare = [parse("", "SELECT $1::text"), describe(b'S', ""), flush()].concat();
    let ask = [bind("", "", &[Some(&value)]), execute("", 0), flush()].concat();
    let end = [run(&insert(&kept)), sync()].concat();
    let part = |bytes: Vec<u8>, heard: &str| Step { bytes, hears: vec![Hears::part(heard)] };
    let steps = vec![
        part(prepare, "1 t T"),
        part(ask, &format!("2 D({value}) C(SELECT 1)")),
        Step { bytes: end, hears: vec![Hears::ready("1 2 C(INSERT 0 1) Z(I)")] },
    ];
    let mut request = Request::of_steps("flushed batch", steps);
    request.commits.push(kept);
    request
}
