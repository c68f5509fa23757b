//! COPY in both directions, and cancels in every phase.

use std::time::Duration;

use crate::harness::messages::{
    bind, copy_data, copy_done, copy_fail, execute, flush, parse, query, sync,
};
use crate::torture::actor::Actor;
use crate::torture::requests::{self, nonce};
use crate::torture::script::{Cancel, Hears, Request, Step};
use crate::torture::town::Kind;

pub fn copy_out(actor: &mut Actor) -> Request {
    let sql = "COPY (SELECT body FROM notes WHERE id <= 3 ORDER BY id) TO STDOUT";
    match actor.rng.bool() {
        true => Request::new("copy out", query(sql), &["H d d d c C(COPY 3) Z(I)".to_owned()]),
        false => {
            let bytes = [parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat();
            Request::new("copy out", bytes, &["1 2 H d d d c C(COPY 3) Z(I)".to_owned()])
        }
    }
}

const IN: &str = "COPY ledger (nonce) FROM STDIN";

/// COPY FROM is not for row tenants: PostgreSQL refuses it where row security is.
pub fn copy_in(actor: &mut Actor) -> Request {
    let nonces = [nonce(actor), nonce(actor)];
    let data: Vec<u8> =
        nonces.iter().flat_map(|nonce| copy_data(format!("{nonce}\n").as_bytes())).collect();
    if actor.tenant.kind == Kind::Row {
        let bytes = [query(IN), data, copy_done(), query("SELECT 1")].concat();
        let answers = ["E(0A000) Z(I)".to_owned(), "T D(1) C(SELECT 1) Z(I)".to_owned()];
        let mut request = Request::new("copy in, refused", bytes, &answers);
        request.never.extend(nonces);
        return request;
    }
    let (what, end, answer, kept) = match actor.rng.usize(..4) {
        0 => ("copy in, failed", copy_fail("enough"), "E(57014) Z(I)", false),
        1 => {
            let bad = [copy_data(b"one\ttoo many\n"), copy_done()].concat();
            ("copy in, bad data", bad, "E(22P04) Z(I)", false)
        }
        _ => ("copy in", copy_done(), "C(COPY 2) Z(I)", true),
    };
    let end = [data, end].concat();
    let steps = match actor.rng.usize(..3) {
        // All at once, in step, and by the extended protocol.
        0 => vec![Step {
            bytes: [query(IN), end].concat(),
            hears: vec![Hears::ready(&format!("G {answer}"))],
        }],
        1 => vec![
            Step { bytes: query(IN), hears: vec![Hears::part("G")] },
            Step { bytes: end, hears: vec![Hears::ready(answer)] },
        ],
        _ => vec![
            Step {
                bytes: [parse("", IN), bind("", "", &[]), execute("", 0), flush()].concat(),
                hears: vec![Hears::part("1 2 G")],
            },
            Step { bytes: [end, sync()].concat(), hears: vec![Hears::ready(answer)] },
        ],
    };
    let mut request = Request::of_steps(what, steps);
    if kept {
        request.commits.extend(nonces);
    } else {
        request.never.extend(nonces);
    }
    request
}

/// A query that a cancel meets while it waits, runs, or is over; with the wrong key it meets none.
pub fn cancelled(actor: &mut Actor) -> Request {
    let nonce = nonce(actor);
    let sql = format!("SELECT '{nonce}' FROM pg_sleep(0.0{})", actor.rng.u8(..9));
    let answer = format!("T D({nonce}) C(SELECT 1) Z(I)");
    let (what, cancel) = match actor.rng.usize(..5) {
        0 => ("cancelled with a wrong key", Cancel::Wrong),
        1 => ("cancelled too late", Cancel::Late),
        2 => ("cancelled at once", Cancel::After(Duration::ZERO)),
        _ => {
            let after = Duration::from_millis(actor.rng.u64(1..60));
            ("cancelled while it runs", Cancel::After(after))
        }
    };
    let mut hears = Hears::ready(&answer);
    if matches!(cancel, Cancel::After(_)) {
        hears = hears.or("E(57014) Z(I)").or("T E(57014) Z(I)");
    }
    let mut request =
        Request::of_steps(what, vec![Step { bytes: query(&sql), hears: vec![hears] }]);
    request.cancel = Some(cancel);
    request
}

/// Any other request, and a cancel in the middle of it.
pub fn cancelled_anywhere(actor: &mut Actor) -> Request {
    let mut request = loop {
        let request = requests::random(actor);
        if request.cancel.is_none() {
            break request;
        }
    };
    let cancel = match actor.rng.usize(..4) {
        0 => Cancel::Late,
        1 => Cancel::Wrong,
        _ => Cancel::After(Duration::from_micros(actor.rng.u64(..3000))),
    };
    request.cancel = Some(cancel);
    request
}
