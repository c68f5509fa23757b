//! What was sent to the server and not yet answered, in order: every reply is held against it, so
//! that a server that is out of step is noticed at the first message.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::client::prepared::Known;
use crate::error::Error;
use crate::server::Statement;

/// One message on its way, and what its reply means to the gate.
#[derive(Debug)]
pub enum Due {
    /// A Query, up to its ReadyForQuery.
    Query(Option<Box<Script>>),
    /// A Parse; on failure the statement of this name is forgotten.
    Parse(Option<Rc<[u8]>>),
    /// A Parse of the gate's own, so that the server has what the session prepared elsewhere. Its
    /// ParseComplete is not for the client.
    OwnParse(Rc<[u8]>),
    /// A Close of the gate's own.
    OwnClose(Box<Closed>),
    Bind,
    DescribeStatement,
    DescribePortal,
    Execute(Option<Box<Step>>),
    Close(Option<Box<Closed>>),
    Sync,
    /// A Sync of the gate's own, in front of a Query; its ReadyForQuery is not for the client.
    OwnSync,
    /// A statement that fails, sent in a refused one's place.
    Refused(Box<Error>),
}

/// A statement on its way out, with what it was: a Close that the server skips closes nothing.
#[derive(Debug)]
pub struct Closed {
    pub name: Rc<[u8]>,
    /// What the session meant by the name.
    pub known: Option<Rc<Known>>,
    /// What the server held under it.
    pub held: Option<Rc<Statement>>,
}

/// What to do about the statements of a Query the gate has a part in, one step per statement.
#[derive(Debug, Default)]
pub struct Script {
    pub steps: VecDeque<Step>,
    /// The Query is a failing one in a refused one's place.
    pub refused: Option<Error>,
}

/// What the end of one statement means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The command tag the client shall see in place of the server's.
    pub tag: Option<&'static str>,
    pub effect: Option<Effect>,
}

/// What a statement does to the session when it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The settings that statements behind it in the same text may change.
    ResetAll(Vec<String>),
    DiscardAll(Vec<String>),
    DeallocateAll,
    Deallocate(Rc<[u8]>),
}

/// The queue of what is due.
#[derive(Debug, Default)]
pub struct Queue(VecDeque<Due>);

/// Most room an empty queue keeps: for a pipeline of some length.
const ROOM_KEPT_MAX: usize = 64;

impl Queue {
    /// Empties it. Its room stays, for the next exchange, unless it is a lot.
    pub fn clear(&mut self) {
        self.0.clear();
        if self.0.capacity() > ROOM_KEPT_MAX {
            self.0 = VecDeque::new();
        }
    }

    /// Whether every answer has come.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a ReadyForQuery will come by itself.
    pub fn awaits_ready(&self) -> bool {
        let ends = |due: &Due| matches!(due, Due::Query(_) | Due::Sync | Due::OwnSync);
        self.0.iter().any(ends)
    }

    /// Notes one message sent.
    #[inline]
    pub fn push(&mut self, due: Due) {
        self.0.push_back(due);
    }

    /// What the next reply answers.
    #[inline]
    pub fn front(&mut self) -> Option<&mut Due> {
        self.0.front_mut()
    }

    /// Takes the answered one off.
    #[inline]
    pub fn pop(&mut self) -> Option<Due> {
        self.0.pop_front()
    }

    /// After an error the server skips to the next Sync: takes everything before it off. The flag
    /// says whether a Sync was there.
    pub fn skip_to_sync(&mut self) -> (Vec<Due>, bool) {
        let sync = self.0.iter().position(|due| matches!(due, Due::Sync | Due::OwnSync));
        let skipped = self.0.drain(..sync.unwrap_or(self.0.len())).collect();
        (skipped, sync.is_some())
    }

    /// A server that starts COPY FROM STDIN ignores the Syncs that were sent before it said so (a
    /// driver may send one with its Execute). True if nothing but those was sent behind it; then
    /// they are taken off.
    pub fn forget_syncs_behind_front(&mut self) -> bool {
        let only_syncs = self.0.iter().skip(1).all(|due| matches!(due, Due::Sync));
        if only_syncs {
            self.0.truncate(1);
        }
        only_syncs
    }
}
