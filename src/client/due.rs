//! What was sent to the server and not yet answered, in order: every reply is held against it, so
//! that a server that is out of step is noticed at the first message.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::client::act::Said;
use crate::client::carry::Touched;
use crate::client::prepared::Known;
use crate::error::Error;
use crate::server::Held;

/// One message on its way, and what its reply means to the gate.
#[derive(Debug)]
pub enum Due {
    /// A Query, up to its ReadyForQuery.
    Query(Option<Box<Script>>),
    /// A Parse; on failure the statement of this name is forgotten.
    Parse(Option<Rc<[u8]>>),
    /// A Parse of a name the session has: if the server lets it pass, something that cannot be
    /// read, a function, has deallocated it.
    ParseAgain(Box<Again>),
    /// Messages of the gate's own, so that the server has what the session prepared elsewhere: the
    /// tags of the answers still to come, none of them for the client, and the statement's name.
    OwnPrepare(&'static [u8], Rc<[u8]>),
    /// A Describe of the gate's own, to learn what a statement takes and gives.
    OwnDescribe(Box<Asked>),
    /// A Close of the gate's own.
    OwnClose(Box<Closed>),
    Bind,
    DescribeStatement,
    DescribePortal,
    Execute(Option<Box<Step>>),
    Close(Option<Box<Closed>>),
    Sync,
    /// A Sync of the gate's own, behind what a Query needs that waits for it.
    OwnSync,
    /// A FunctionCall, up to its ReadyForQuery.
    Call,
    /// So many Syncs among copy data: swallowed by the copy, unless that failed before one was
    /// read. A copy answers none of them, so nothing else keeps their number down.
    CopySync(u64),
    /// CopyDone or CopyFail; never answered itself.
    CopyEnd,
    /// An empty Query of the gate's own, to see whether a CopySync is answered. Its answer is not
    /// for the client.
    Probe,
    /// A statement that fails, sent in a refused one's place.
    Refused(Box<Error>),
    /// A message of the gate's own that leaves nothing in any book, and the tag of its answer.
    Own(u8),
}

/// A statement the server is asked about.
#[derive(Debug)]
pub struct Asked {
    pub name: Rc<[u8]>,
    pub known: Rc<Known>,
    /// The types of its parameters, which come first.
    pub types: Box<[u8]>,
}

/// A statement whose name the session has.
#[derive(Debug)]
pub struct Again {
    pub name: Rc<[u8]>,
    pub known: Rc<Known>,
}

/// A statement on its way out, with what it was: a Close that the server skips closes nothing.
#[derive(Debug)]
pub struct Closed {
    pub name: Rc<[u8]>,
    /// What the session meant by the name.
    pub known: Option<Rc<Known>>,
    /// What the server held under it.
    pub held: Option<Held>,
}

/// What to do about the statements of a Query the gate has a part in, one step per statement.
#[derive(Debug, Default)]
pub struct Script {
    pub steps: VecDeque<Step>,
    /// The Query is a failing one in a refused one's place.
    pub refused: Option<Error>,
}

/// What the end of one statement means.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The command tag the client shall see in place of the server's.
    pub tag: Option<&'static str>,
    pub effect: Option<Effect>,
    pub executes: Option<Box<Executes>>,
    /// Settings it may change.
    pub touched: Touched,
    /// It is one of several in the place of the client's, and not the last: not for the client.
    pub silent: bool,
    /// It fails, and the client is told this.
    pub fails: Option<Error>,
    /// It is SHOW tenantgate.tenant: what it shows is put in its place at each server.
    pub shows_tenant: bool,
}

impl Step {
    /// Whether it resets the session.
    pub fn resets(&self) -> bool {
        matches!(self.effect, Some(Effect::ResetAll | Effect::DiscardAll))
    }

    /// Whether it is more than a query that may change settings.
    pub fn is_command(&self) -> bool {
        let query = matches!(self.effect, None | Some(Effect::UnlockAll));
        !query || self.tag.is_some() || self.executes.is_some() || self.fails.is_some()
    }
}

/// The statement that an EXECUTE names.
#[derive(Clone, Debug)]
pub struct Executes {
    pub name: Rc<[u8]>,
    /// Values that may be names of settings.
    pub named: Vec<String>,
}

/// What a statement does to the session when it succeeds.
#[derive(Clone, Debug)]
pub enum Effect {
    ResetAll,
    DiscardAll,
    DeallocateAll,
    /// No advisory lock of the session is left.
    UnlockAll,
    Deallocate(Rc<[u8]>),
    Prepare(Rc<[u8]>, Rc<Known>),
    /// The choice of a tenant: never carried out by a server.
    Act(Said),
}

/// The queue of what is due.
#[derive(Debug, Default)]
pub struct Queue(VecDeque<Due>);

/// Most messages whose answers are awaited at once. Nothing is lost by it: the server has some
/// thousand requests to work at.
const DUES_MAX: usize = 4096;

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

    /// Whether so much is awaited that nothing more is sent until it has come.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.0.len() >= DUES_MAX
    }

    /// Whether a ReadyForQuery will come by itself.
    pub fn awaits_ready(&self) -> bool {
        let ends = |due: &Due| matches!(due, Due::Query(_) | Due::Sync | Due::Call);
        self.0.iter().any(ends)
    }

    /// Whether all of it is the gate's own, ahead of a Query.
    pub fn is_ahead_of_query(&self) -> bool {
        matches!(self.0.back(), Some(Due::OwnSync))
    }

    /// Whether the next answer is to something of the gate's own.
    pub fn is_own(&self) -> bool {
        let front = self.0.front();
        let asks = matches!(front, Some(Due::OwnPrepare(..) | Due::OwnDescribe(_)));
        asks || matches!(front, Some(Due::OwnClose(_) | Due::Own(_)))
    }

    /// Notes one message sent.
    #[inline]
    pub fn push(&mut self, due: Due) {
        self.0.push_back(due);
    }

    /// Notes a Sync among copy data.
    pub fn push_copy_sync(&mut self) {
        match self.0.back_mut() {
            Some(Due::CopySync(count)) => *count += 1,
            _ => self.push(Due::CopySync(1)),
        }
    }

    /// Notes the end of a copy. One behind another is ignored in any case.
    pub fn push_copy_end(&mut self) {
        if !matches!(self.0.back(), None | Some(Due::CopyEnd)) {
            self.push(Due::CopyEnd);
        }
    }

    /// What the next reply answers.
    #[inline]
    pub fn front(&mut self) -> Option<&mut Due> {
        self.0.front_mut()
    }

    /// Takes the answered one off.
    #[inline]
    pub fn pop(&mut self) -> Option<Due> {
        let answered = self.0.pop_front();
        while let Some(Due::CopyEnd) = self.0.front() {
            // The server read it when nothing was copied, and ignored it.
            self.0.pop_front();
        }
        answered
    }

    /// After an error the server skips to the next Sync: takes everything before it off. The flag
    /// says whether a Sync was there. `None` if that cannot be told: whether a Sync counts that may
    /// have been swallowed by a copy.
    pub fn skip_to_sync(&mut self) -> Option<(Vec<Due>, bool)> {
        let is_sync = |due: &Due| matches!(due, Due::Sync | Due::OwnSync);
        let sync = self.0.iter().position(is_sync);
        let end = sync.unwrap_or(self.0.len());
        // No further: of many that fail one after the other each looks at its own part.
        let doubted = self.0.range(..end).position(|due| matches!(due, Due::CopySync(_)));
        if let Some(doubted) = doubted {
            let sure = |due: &Due| !matches!(due, Due::CopySync(_) | Due::CopyEnd);
            if self.0.range(doubted..end).any(sure) {
                return None;
            }
            return Some((self.0.drain(..doubted).collect(), sync.is_some()));
        }
        Some((self.0.drain(..end).collect(), sync.is_some()))
    }

    /// The front begins to copy: Syncs behind it, up to the copy's end, are in doubt. `None` if
    /// something else was sent into the copy data.
    pub fn begin_copy(&mut self) -> Option<Copy> {
        let mut syncs = 0;
        loop {
            match self.0.get(1) {
                Some(Due::Sync) => syncs += 1,
                Some(Due::CopySync(count)) => syncs += count,
                _ => break,
            }
            self.0.remove(1);
        }
        let sent = match (self.0.get(1), self.0.len()) {
            (None, _) => Some(Copy::Open),
            (Some(Due::CopyEnd), 2) => Some(Copy::Ended),
            (Some(Due::CopyEnd), _) => Some(Copy::EndedAndMore),
            _ => None,
        };
        if syncs > 0 {
            self.0.insert(1, Due::CopySync(syncs));
        }
        sent
    }

    /// The front's copy succeeded: the server has read everything up to the copy's end.
    pub fn end_copy(&mut self) {
        while let Some(Due::CopySync(_)) = self.0.get(1) {
            self.0.remove(1);
        }
        if let Some(Due::CopyEnd) = self.0.get(1) {
            self.0.remove(1);
        }
    }

    /// Takes off what a ReadyForQuery answers: among Syncs of which some are in doubt one that is
    /// not, so that the others stay in doubt.
    pub fn pop_ready(&mut self) -> Option<Due> {
        if !self.is_in_doubt() {
            return self.pop();
        }
        let in_doubt = |due: &&Due| matches!(due, Due::CopySync(_) | Due::CopyEnd);
        let sure = self.0.iter().take_while(in_doubt).count();
        if let Some(Due::Sync) = self.0.get(sure) {
            return self.0.remove(sure);
        }
        match self.0.front_mut() {
            Some(Due::CopySync(count)) if *count > 1 => *count -= 1,
            _ => return self.pop(),
        }
        Some(Due::CopySync(1))
    }

    /// Another answer than a ReadyForQuery has come: the Syncs in doubt in front were swallowed.
    pub fn forget_doubts(&mut self) {
        while self.is_in_doubt() {
            self.pop();
        }
    }

    /// Whether anything is in doubt.
    pub fn has_doubts(&self) -> bool {
        self.0.iter().any(|due| matches!(due, Due::CopySync(_)))
    }

    /// Whether there is something, and all of it is in doubt.
    pub fn is_only_doubts(&self) -> bool {
        let in_doubt = |due: &Due| matches!(due, Due::CopySync(_) | Due::CopyEnd);
        !self.0.is_empty() && self.0.iter().all(in_doubt)
    }

    /// Whether the next answer, if it is a ReadyForQuery, is to a Sync in doubt.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self.0.front(), Some(Due::CopySync(_)))
    }
}

/// How much of a copy was sent before the server asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// Not its end.
    Open,
    Ended,
    /// Its end, and messages behind that.
    EndedAndMore,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts answers one by one, so that it would take for ever if each walked over the rest.
    const MANY: u64 = 200_000;

    #[test]
    fn syncs_that_a_copy_may_swallow_take_no_room_of_their_own() {
        let mut queue = Queue::default();
        queue.push(Due::Query(None));
        assert_eq!(queue.begin_copy(), Some(Copy::Open));
        (0..MANY).for_each(|_| queue.push_copy_sync());
        (0..MANY).for_each(|_| queue.push_copy_end());
        assert_eq!(queue.0.len(), 3);
        // The copy has failed before: all of them may be answered.
        assert!(matches!(queue.pop_ready(), Some(Due::Query(None))));
        for _ in 1..MANY {
            assert!(matches!(queue.pop_ready(), Some(Due::CopySync(1))));
            assert!(queue.is_only_doubts());
        }
        assert!(matches!(queue.pop_ready(), Some(Due::CopySync(1))));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_sync_that_is_sure_is_answered_ahead_of_those_in_doubt() {
        let mut queue = Queue::default();
        [Due::Execute(None), Due::Sync, Due::Sync].into_iter().for_each(|due| queue.push(due));
        assert_eq!(queue.begin_copy(), Some(Copy::Open));
        queue.push_copy_sync();
        queue.push_copy_end();
        queue.push(Due::Sync);
        assert!(queue.skip_to_sync().is_some());
        assert!(matches!(queue.pop_ready(), Some(Due::Sync)));
        assert!(queue.has_doubts() && queue.is_in_doubt());
        (0..3).for_each(|_| assert!(matches!(queue.pop_ready(), Some(Due::CopySync(1)))));
        assert!(queue.is_empty());
        // A copy that succeeded has swallowed them all.
        [Due::Execute(None), Due::Sync].into_iter().for_each(|due| queue.push(due));
        assert_eq!(queue.begin_copy(), Some(Copy::Open));
        queue.push_copy_sync();
        queue.push_copy_end();
        queue.end_copy();
        assert_eq!(queue.0.len(), 1);
    }

    #[test]
    fn what_is_awaited_at_once_is_bounded() {
        let mut queue = Queue::default();
        (1..DUES_MAX).for_each(|_| queue.push(Due::Sync));
        assert!(!queue.is_full());
        queue.push(Due::Sync);
        assert!(queue.is_full());
    }
}
