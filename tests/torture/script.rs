//! What a client sends, step by step, and what it must hear.

use std::time::Duration;

use crate::harness::messages::query;
use crate::torture::actor::Actor;

/// What the session becomes when all went well.
pub type Then = Box<dyn FnOnce(&mut Actor) + Send>;

/// A request, or several that belong together.
pub struct Request {
    pub what: &'static str,
    pub steps: Vec<Step>,
    pub then: Option<Then>,
    pub cancel: Option<Cancel>,
    /// Nonces that are in the ledger when all went well, and such that are not.
    pub commits: Vec<String>,
    pub never: Vec<String>,
    /// Its `never` holds also when it was cut off or cancelled: it is one statement or batch, or
    /// nothing goes out behind a BEGIN that failed.
    pub holds_always: bool,
    /// The client reads slowly.
    pub slow: bool,
}

/// Bytes to send, then what must be heard before the next step.
pub struct Step {
    pub bytes: Vec<u8>,
    pub hears: Vec<Hears>,
}

/// When a cancel request goes out.
#[derive(Clone, Copy, Debug)]
pub enum Cancel {
    /// So long after the first step's bytes.
    After(Duration),
    /// When everything is answered: it must hit nothing.
    Late,
    /// With a wrong secret, in the middle: it must hit nothing.
    Wrong,
}

/// An answer: any of these, up to ReadyForQuery, or just so many messages.
#[derive(Debug)]
pub struct Hears {
    pub any_of: Vec<Vec<String>>,
    pub to_ready: bool,
}

impl Hears {
    /// Up to and with ReadyForQuery.
    pub fn ready(notation: &str) -> Self {
        Self { any_of: vec![tokens(notation)], to_ready: true }
    }

    /// These messages; the batch goes on.
    pub fn part(notation: &str) -> Self {
        Self { any_of: vec![tokens(notation)], to_ready: false }
    }

    pub fn or(mut self, notation: &str) -> Self {
        self.any_of.push(tokens(notation));
        self
    }

    /// Whether this is what was to be heard.
    pub fn is(&self, heard: &[String]) -> bool {
        self.any_of.iter().any(|wanted| wanted.len() == heard.len() && begins(wanted, heard))
    }

    /// Whether something was right as far as it went.
    pub fn begins_with(&self, heard: &[String]) -> bool {
        self.any_of.iter().any(|wanted| begins(wanted, heard))
    }
}

/// `D(*)` is a row of whatever content.
fn begins(wanted: &[String], heard: &[String]) -> bool {
    let same = |(wanted, heard): (&String, &String)| {
        wanted == heard || wanted == "D(*)" && heard.starts_with("D(")
    };
    heard.len() <= wanted.len() && wanted.iter().zip(heard).all(same)
}

/// The notation in its parts. Contents may have blanks, but no `) ` in them.
fn tokens(notation: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = notation;
    while !rest.is_empty() {
        let end = match rest.as_bytes().get(1) {
            Some(b'(') => rest.find(") ").map_or(rest.len(), |at| at + 1),
            _ => rest.find(' ').unwrap_or(rest.len()),
        };
        tokens.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    tokens
}

impl Request {
    /// One flight, and an answer for each ReadyForQuery in it.
    pub fn new(what: &'static str, bytes: Vec<u8>, answers: &[String]) -> Self {
        let hears = answers.iter().map(|answer| Hears::ready(answer)).collect();
        Self::of_steps(what, vec![Step { bytes, hears }])
    }

    pub fn of_steps(what: &'static str, steps: Vec<Step>) -> Self {
        let (commits, never) = (Vec::new(), Vec::new());
        Self {
            what,
            steps,
            then: None,
            cancel: None,
            commits,
            never,
            holds_always: true,
            slow: false,
        }
    }

    /// Simple queries and other messages, each with its answer: one by one, or all in one flight.
    pub fn dialog(actor: &mut Actor, what: &'static str, parts: Vec<(Vec<u8>, String)>) -> Self {
        let one =
            |(bytes, answer): (Vec<u8>, String)| Step { bytes, hears: vec![Hears::ready(&answer)] };
        let mut steps: Vec<Step> = parts.into_iter().map(one).collect();
        let one_flight = actor.rng.bool();
        if one_flight {
            let (bytes, hears): (Vec<_>, Vec<_>) =
                steps.into_iter().map(|step| (step.bytes, step.hears)).unzip();
            let hears = hears.into_iter().flatten().collect();
            steps = vec![Step { bytes: bytes.concat(), hears }];
        }
        Self { holds_always: !one_flight, ..Self::of_steps(what, steps) }
    }

    pub fn then(mut self, then: impl FnOnce(&mut Actor) + Send + 'static) -> Self {
        self.then = Some(Box::new(then));
        self
    }

    /// All bytes, when they are sent without waiting.
    pub fn bytes(&self) -> Vec<u8> {
        self.steps.iter().flat_map(|step| step.bytes.iter().copied()).collect()
    }
}

/// A simple query with its answer.
pub fn says(sql: &str, answer: &str) -> (Vec<u8>, String) {
    (query(sql), answer.to_owned())
}

#[test]
fn an_answer_is_held_against_what_is_due_message_by_message() {
    let hears = Hears::ready("1 2 T D(a b,c) D(*) C(SELECT 2) Z(I)").or("E(57014) Z(I)");
    assert_eq!(hears.any_of[0].len(), 7);
    let heard = |notation| tokens(notation);
    assert!(hears.is(&heard("1 2 T D(a b,c) D(whatever) C(SELECT 2) Z(I)")));
    assert!(hears.is(&heard("E(57014) Z(I)")));
    assert!(!hears.is(&heard("1 2 T D(a b,c) D(x) C(SELECT 2)")));
    assert!(hears.begins_with(&heard("1 2 T D(a b,c)")));
    assert!(!hears.begins_with(&heard("1 2 T D(a b,d)")));
    assert!(!hears.begins_with(&heard("1 2 T D(a b,c) D(x) C(SELECT 2) Z(I) Z(I)")));
}
