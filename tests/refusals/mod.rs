//! Every refusal, provoked: its SQLSTATE, severity and words, and what the session is afterwards.

mod budgets;
mod clusters;
mod facts;
mod logins;
mod malformed;
mod spending;
mod statements;

use crate::harness::messages::{Frame, query, transcript};
use crate::harness::wire::Wire;

/// Sends, and reads to ReadyForQuery or the end of the connection: the one error among the answers.
pub async fn refusal(wire: &mut Wire, bytes: impl AsRef<[u8]>) -> Refusal {
    wire.send(bytes).await;
    let frames = wire.until_ready().await;
    Refusal::among(&frames)
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub sqlstate: String,
    pub severity: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
    /// Transaction status afterwards, or nothing where the connection ended.
    pub status: String,
}

impl Refusal {
    pub fn among(frames: &[Frame]) -> Self {
        let errors: Vec<&Frame> = frames.iter().filter(|frame| frame.tag == b'E').collect();
        let [error] = errors.as_slice() else { panic!("one error is due: {frames:?}") };
        let field = |letter| error.field(letter).unwrap_or_default();
        assert_eq!(field('S'), field('V'));
        let last = frames.last().filter(|frame| frame.tag == b'Z');
        Self {
            sqlstate: field('C'),
            severity: field('S'),
            message: field('M'),
            detail: field('D'),
            hint: field('H'),
            status: last.map(|frame| frame.to_string()).unwrap_or_default(),
        }
    }

    /// SQLSTATE, severity and status in one.
    pub fn brief(&self) -> String {
        format!("{} {} {}", self.sqlstate, self.severity, self.status).trim_end().to_owned()
    }
}

/// The session still answers what it is asked, one answer to one question.
pub async fn is_in_step(wire: &mut Wire) {
    for number in 0..3 {
        let said = wire.query(&format!("SELECT {number}")).await;
        assert_eq!(said, format!("T D({number}) C(SELECT 1) Z(I)"));
    }
}

/// In a transaction that wrote a note, `refused` must make it fail as a whole: COMMIT answers
/// ROLLBACK and the note is not there.
pub async fn aborts_the_transaction(wire: &mut Wire, refused: impl AsRef<[u8]>) -> Refusal {
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(wire.query("INSERT INTO notes VALUES (800, 'x')").await, "C(INSERT 0 1) Z(T)");
    let refusal = refusal(wire, refused).await;
    assert_eq!(refusal.status, "Z(E)", "{refusal:?}");
    assert_eq!(wire.query("SELECT 1").await, "E(25P02) Z(E)");
    assert_eq!(wire.query("COMMIT").await, "C(ROLLBACK) Z(I)");
    let gone = wire.query("SELECT count(*) FROM notes WHERE id = 800").await;
    assert_eq!(gone, "T D(0) C(SELECT 1) Z(I)");
    refusal
}

/// As many queries as it takes to be over the rate.
async fn spend(wire: &mut Wire) -> Refusal {
    for _ in 0..1000 {
        wire.send(query("SELECT 1")).await;
        let frames = wire.until_ready().await;
        if frames.iter().any(|frame| frame.tag == b'E') {
            return Refusal::among(&frames);
        }
    }
    panic!("the rate has no end");
}

/// Frames of a refused login.
fn told(frames: &[Frame]) -> String {
    transcript(frames)
}
