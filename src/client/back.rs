//! From the server to the client: walk over the frames that were read, hold each against what is
//! due, keep back what is not for the client, and mark the rest as free to go.

use crate::client::carry::resets::FAILING_SQLSTATE;
use crate::client::carry::{decides_reading, idle};
use crate::client::due::{Due, Effect, Script, Step};
use crate::client::refuse;
use crate::client::relay::{Ahead, Ended, Exchange};
use crate::client::session::sender;
use crate::error::{Budget, Error};
use crate::wire::backend;
use crate::wire::frame::{self, HEADER_BYTES, Header};

/// Longest frame that is held whole before it is passed on. Rows and copy data are not held.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How much of a longer error or notice is read: severity and SQLSTATE come first.
const LONG_FRONT_BYTES: usize = 4 * 1024;

/// ParameterStatus of these would tell the client how its tenant is kept, or is a label of ours.
const HIDDEN: [&str; 3] = ["role", "session_authorization", "is_superuser"];

/// The path tells it where the context owns it.
pub(super) const PATH: &str = "search_path";

/// Whether a client is not told of this parameter.
pub(super) fn is_hidden(name: &str) -> bool {
    HIDDEN.contains(&name)
}

/// Every error has a code of so many characters (PostgreSQL manual, 55.8).
const SQLSTATE_BYTES: usize = 5;

/// What becomes of a frame that is complete.
pub(super) enum Fate {
    Pass,
    /// It is for the gate only.
    Keep,
    /// This goes to the client in its place.
    Replace(Vec<u8>),
}

impl Exchange<'_> {
    /// Judges frames until none is complete. True if anything was judged.
    pub(super) fn walk_server(&mut self) -> Result<bool, Ended> {
        let mut walked = false;
        loop {
            let Some(bound) = self.lease.bound() else { return Err(Ended::ServerGone) };
            let input = &bound.connection().input;
            let ahead = input.len() - self.relay.to_client;
            if self.relay.server_left > 0 {
                let step = ahead.min(self.relay.server_left);
                self.relay.to_client += step;
                self.relay.server_left -= step;
                walked |= step > 0;
                if self.relay.server_left > 0 {
                    return Ok(walked);
                }
            }
            let rest = input.data().get(self.relay.to_client..).unwrap_or_default();
            let header = match frame::header(rest) {
                Ok(Some(header)) => header,
                Ok(None) => return Ok(walked),
                Err(_) => return Err(out_of_step()),
            };
            if !self.walk_reply(header)? {
                return Ok(walked);
            }
            walked = true;
        }
    }

    /// A report too long to be held. The fields that the gate has to know stand at its front.
    fn pass_long(&mut self, header: Header) -> Result<bool, Ended> {
        if !matches!(header.tag, b'E' | b'N') {
            return Err(out_of_step());
        }
        let Some(bound) = self.lease.bound() else { return Err(Ended::ServerGone) };
        let rest = bound.connection().input.data().get(self.relay.to_client..).unwrap_or_default();
        let Some(front) = rest.get(HEADER_BYTES..LONG_FRONT_BYTES) else { return Ok(false) };
        let front = front.to_vec();
        match self.report(header.tag, &front)? {
            Fate::Pass => self.relay.server_left = header.length,
            Fate::Keep | Fate::Replace(_) => return Err(out_of_step()),
        }
        Ok(true)
    }

    /// One frame; false if more of it must come first.
    fn walk_reply(&mut self, header: Header) -> Result<bool, Ended> {
        if self.relay.server_fatal && !self.relay.due.is_empty() {
            // The client was told that it is over: nothing may come behind that.
            return Err(Ended::ServerGone);
        }
        if self.relay.doubts && !matches!(header.tag, b'Z' | b'N' | b'S' | b'A') {
            self.relay.due.forget_doubts();
        }
        match header.tag {
            b'D' | b'd' | b'T' | b'V' if !self.relay.due.is_own() => {
                self.expect_data(header.tag)?;
                self.relay.server_left = header.length;
                if !matches!(header.tag, b'T' | b'V') {
                    self.pass_rows(header)?;
                }
                return Ok(true);
            }
            _ if header.length > HELD_BYTES_MAX => return self.pass_long(header),
            _ => {}
        }
        let Some(bound) = self.lease.bound() else { return Err(Ended::ServerGone) };
        let start = self.relay.to_client;
        let input = bound.connection().input.data();
        let Some(frame) = input.get(start..start + header.length) else { return Ok(false) };
        let fate = match header.tag {
            b'Z' => {
                let [status @ (b'I' | b'T' | b'E')] = frame.get(HEADER_BYTES..).unwrap_or_default()
                else {
                    return Err(out_of_step());
                };
                let status = *status;
                self.ready(status)?
            }
            b't' | b'T' | b'n' if self.relay.due.is_own() => {
                let body = frame.get(HEADER_BYTES..).unwrap_or_default().to_vec();
                self.described(header.tag, &body)?;
                Fate::Keep
            }
            b'C' => self.complete()?,
            b'1' | b'2' | b'3' | b'n' | b't' | b's' | b'I' => self.progress(header.tag)?,
            b'G' => {
                self.copy_begins()?;
                Fate::Pass
            }
            b'H' | b'c' => {
                self.expect_data(header.tag)?;
                Fate::Pass
            }
            b'E' | b'S' | b'N' | b'A' => {
                let body = frame.get(HEADER_BYTES..).unwrap_or_default().to_vec();
                self.report(header.tag, &body)?
            }
            _ => return Err(out_of_step()),
        };
        self.settle(header, fate);
        Ok(true)
    }

    /// Steps over all that follows of the same kind. Nothing becomes due in between, so what the
    /// first may do they all may; a result of many short rows is walked here.
    fn pass_rows(&mut self, first: Header) -> Result<(), Ended> {
        let Some(bound) = self.lease.bound() else { return Err(Ended::ServerGone) };
        let input = bound.connection().input.data();
        let mut at = self.relay.to_client;
        let mut length = first.length;
        while let Some(rest) = input.get(at + length..) {
            at += length;
            match frame::header(rest) {
                Ok(Some(next)) if next.tag == first.tag => length = next.length,
                Ok(_) => {
                    length = 0;
                    break;
                }
                Err(_) => return Err(out_of_step()),
            }
        }
        self.relay.to_client = at;
        self.relay.server_left = length;
        Ok(())
    }

    fn settle(&mut self, header: Header, fate: Fate) {
        if matches!(fate, Fate::Pass) {
            self.relay.to_client += header.length;
            return;
        }
        // What was judged before goes out first; then this frame is skipped.
        self.hand_judged();
        if let Some(bound) = self.lease.bound() {
            bound.connection().input.consume(header.length);
        }
        if let Fate::Replace(bytes) = fate {
            self.client.output.extend_from_slice(&bytes);
        }
    }

    /// Hands the client what was judged, so that something may be put behind it.
    pub(super) fn hand_judged(&mut self) {
        let judged = std::mem::take(&mut self.relay.to_client);
        let Some(bound) = self.lease.bound() else { return };
        let input = &mut bound.connection().input;
        let bytes = input.data().get(..judged).unwrap_or_default();
        self.client.output.extend_from_slice(bytes);
        input.consume(judged);
    }

    /// Rows and copy data belong to a Query or an Execute; a row description also to a Describe.
    fn expect_data(&mut self, tag: u8) -> Result<(), Ended> {
        match self.relay.due.front() {
            Some(Due::Query(_)) if tag != b'V' => Ok(()),
            Some(Due::Execute(_)) if !matches!(tag, b'T' | b'V') => Ok(()),
            Some(Due::Call) if tag == b'V' => Ok(()),
            Some(Due::DescribeStatement | Due::DescribePortal) if tag == b'T' => {
                self.relay.due.pop();
                Ok(())
            }
            _ => Err(out_of_step()),
        }
    }

    fn progress(&mut self, tag: u8) -> Result<Fate, Ended> {
        let due = match (tag, self.relay.due.front()) {
            // A Query goes on until its ReadyForQuery.
            (b'I', Some(Due::Query(script))) => {
                if let Some(script) = script {
                    script.steps.pop_front();
                }
                return Ok(Fate::Pass);
            }
            (b'I', Some(Due::Probe)) => return Ok(Fate::Keep),
            (_, Some(Due::OwnPrepare(..))) => return self.prepared_part(tag),
            (_, Some(Due::Own(own))) if *own == tag => {
                self.relay.due.pop();
                return Ok(Fate::Keep);
            }
            // The parameter description comes ahead of the row description.
            (b't', Some(Due::DescribeStatement)) => return Ok(Fate::Pass),
            _ => self.relay.due.pop(),
        };
        match (tag, due) {
            (b'3', Some(Due::OwnClose(_))) => Ok(Fate::Keep),
            (b'1', Some(Due::ParseAgain(it))) => {
                self.keep_prepared(&it.name, it.known);
                Ok(Fate::Pass)
            }
            (b'2', Some(Due::Bind)) => Ok(self.confirms_trial().map_or(Fate::Pass, Fate::Replace)),
            (b'1', Some(Due::Parse(_)))
            | (b'3', Some(Due::Close(_)))
            | (b'n', Some(Due::DescribeStatement | Due::DescribePortal))
            | (b'I', Some(Due::Execute(_))) => Ok(Fate::Pass),
            (b's', Some(Due::Execute(step))) => {
                // More rows are to come; what it does to settings may be done already.
                step.iter().for_each(|step| self.talk.touch(&step.touched));
                Ok(Fate::Pass)
            }
            _ => Err(out_of_step()),
        }
    }

    /// One of the answers to messages of the gate's own that prepare a statement.
    fn prepared_part(&mut self, tag: u8) -> Result<Fate, Ended> {
        let Some(Due::OwnPrepare(answers, _)) = self.relay.due.front() else {
            return Err(out_of_step());
        };
        match answers.split_first() {
            Some((due, rest)) if *due == tag => *answers = rest,
            _ => return Err(out_of_step()),
        }
        if answers.is_empty() {
            self.relay.due.pop();
        }
        Ok(Fate::Keep)
    }

    fn complete(&mut self) -> Result<Fate, Ended> {
        if let Some(Due::OwnPrepare(..)) = self.relay.due.front() {
            return self.prepared_part(b'C');
        }
        self.copy_ends();
        let step = match self.relay.due.front() {
            Some(Due::Query(None)) => return Ok(Fate::Pass),
            Some(Due::Query(Some(script))) => script.steps.pop_front().unwrap_or_default(),
            Some(Due::Execute(_)) => match self.relay.due.pop() {
                Some(Due::Execute(Some(step))) => *step,
                _ => return Ok(Fate::Pass),
            },
            _ => return Err(out_of_step()),
        };
        Ok(self.carry_out(step))
    }

    /// A statement the gate has a part in has succeeded.
    fn carry_out(&mut self, step: Step) -> Fate {
        self.talk.touch(&step.touched);
        match step.effect {
            None | Some(Effect::Act(_)) => {}
            Some(Effect::ResetAll) => self.reset_session(),
            Some(Effect::DiscardAll) => {
                self.reset_session();
                // What a function left there goes too.
                self.relay.dismiss |= self.lease.has_trace();
                self.talk.prepared.clear();
                self.let_go();
            }
            // Sent behind it, a lock may be there again.
            Some(Effect::UnlockAll) => self.talk.locked &= self.relay.left.locks,
            Some(Effect::DeallocateAll) => {
                self.talk.prepared.clear();
                if let Some(bound) = self.lease.bound() {
                    bound.statements.clear_named();
                }
            }
            Some(Effect::Deallocate(name)) => {
                self.talk.prepared.remove(&name);
                if let Some(bound) = self.lease.bound() {
                    bound.statements.remove(&name);
                }
            }
            Some(Effect::Prepare(name, known)) => self.keep_prepared(&name, known),
        }
        if step.silent {
            return Fate::Keep;
        }
        let Some(tag) = step.tag else { return Fate::Pass };
        let mut replaced = Vec::new();
        backend::put_complete(&mut replaced, tag);
        Fate::Replace(replaced)
    }

    /// Back to the start-up values. A server that has others is not for this session any more.
    fn reset_session(&mut self) {
        self.relay.was_reset = true;
        self.talk.now = self.talk.start.clone();
        self.talk.idle = idle::limit(&self.talk.now);
        let same = |bound: &mut crate::server::Bound| bound.settings == self.talk.start;
        let untouched = self.talk.touched.take().is_empty();
        let as_before = untouched && self.lease.bound().is_some_and(same);
        let dismiss = self.is_pinned() || !as_before;
        self.relay.dismiss |= dismiss;
        self.talk.in_doubt |= dismiss;
    }

    fn ready(&mut self, status: u8) -> Result<Fate, Ended> {
        let due = self.relay.due.pop_ready();
        // The request itself is still to come, or comes once more.
        let ahead = matches!(due, Some(Due::OwnSync)) || self.relay.trial.is_some();
        let fate = match due {
            Some(Due::Sync) if ahead => Fate::Keep,
            Some(Due::Query(_) | Due::Sync | Due::Call) => Fate::Pass,
            Some(Due::OwnSync) => Fate::Keep,
            Some(Due::CopySync(_)) => {
                // The copy had failed before the server read it: it ended the batch.
                if self.relay.skipping {
                    self.relay.end_batch();
                }
                Fate::Pass
            }
            Some(Due::Probe) => Fate::Keep,
            _ => return Err(out_of_step()),
        };
        self.relay.status = status;
        self.relay.copy_in = false;
        self.relay.copying = false;
        if status == b'I' {
            self.talk.prepared.forget_portals();
            if !ahead {
                self.talk.count_transaction();
            }
        }
        self.end_request(status);
        if !std::mem::take(&mut self.relay.was_reset) {
            if let (Some(status), Fate::Pass) = (self.status_of_block(status), &fate) {
                let mut told = Vec::new();
                backend::put_ready(&mut told, status);
                return Ok(Fate::Replace(told));
            }
            let held = matches!(fate, Fate::Pass) && self.holds_ready();
            return Ok(if held { Fate::Keep } else { fate });
        }
        // Ahead of ReadyForQuery, as PostgreSQL tells what changed.
        let mut told = Vec::new();
        self.talk.put_parameters_of_start(&mut told);
        backend::put_ready(&mut told, status);
        match self.owes(told) {
            Some(told) => Ok(Fate::Replace(told)),
            None => Ok(Fate::Keep),
        }
    }

    /// Messages that may come at any time, and errors.
    fn report(&mut self, tag: u8, body: &[u8]) -> Result<Fate, Ended> {
        match tag {
            b'A' if self.hears() => Ok(self.notification(body)),
            // Whoever sent a notification cannot be known to be of this tenant.
            b'A' => Ok(Fate::Keep),
            b'N' if self.relay.trial.is_some() => Ok(self.holds_notice(body).unwrap_or(Fate::Pass)),
            // Only what the client's own statements caused.
            b'N' if self.relay.due.is_empty() && !self.is_pinned() => Ok(Fate::Keep),
            // It was told when the statement was prepared.
            b'N' if self.relay.due.is_own() => Ok(Fate::Keep),
            b'N' => Ok(Fate::Pass),
            b'S' => match backend::read_parameter_status(body) {
                Some((name, _)) if is_hidden(name) => Ok(Fate::Keep),
                Some((PATH, _)) if self.talk.tenant.context.owns(PATH) => Ok(Fate::Keep),
                Some((name, value)) => {
                    let own = self.lease.bound().is_some_and(|it| it.facts().reported(name, value));
                    if own {
                        self.lease.leaves_trace();
                    }
                    if name == "application_name" {
                        *self.talk.shared.application_name.borrow_mut() = Some(value.into());
                    }
                    if decides_reading(name) {
                        // A function may have set it.
                        self.talk.touched.add(name);
                    }
                    match self.talk.note_reported(name, value) {
                        true => Ok(Fate::Pass),
                        false => Err(out_of_step()),
                    }
                }
                None => Err(out_of_step()),
            },
            _ => self.error(body),
        }
    }

    /// With the sender's own number in it, as it was told that.
    fn notification(&self, body: &[u8]) -> Fate {
        match sender::retold(body, |pid| self.lease.user_of(pid)) {
            Some(frame) => Fate::Replace(frame),
            None => Fate::Pass,
        }
    }

    fn error(&mut self, body: &[u8]) -> Result<Fate, Ended> {
        let read = backend::read_error(body);
        if read.sqlstate.len() != SQLSTATE_BYTES {
            // Drivers rely on it.
            return Err(out_of_step());
        }
        if read.is_fatal() {
            self.relay.server_fatal = true;
            let relay = &self.relay;
            // Between two transactions it is the server that ends, not the session.
            let idle = relay.due.is_empty() && relay.status == b'I' && !relay.batch_open;
            let idle = idle && !self.is_pinned();
            return Ok(if idle { Fate::Keep } else { Fate::Pass });
        }
        self.relay.copy_in = false;
        self.relay.copying = false;
        if self.fails_trial(&read.sqlstate) {
            self.skip_batch()?;
            return Ok(Fate::Keep);
        }
        self.talk.act.iter_mut().for_each(|act| act.fail());
        if self.relay.due.is_ahead_of_query() {
            self.skip_batch()?;
            self.relay.ahead = Ahead::Failed(body.to_vec());
            return Ok(Fate::Keep);
        }
        let refusal = match self.relay.due.front() {
            Some(Due::Query(script)) => {
                script.as_deref_mut().and_then(|script| take_refusal(script, &read.sqlstate))
            }
            // A commit that fails: the batch's implicit transaction ends with its Sync.
            Some(Due::Sync | Due::Call) => None,
            Some(Due::Probe) => return Ok(Fate::Keep),
            None => return Err(out_of_step()),
            Some(_) => self.skip_batch()?,
        };
        let refusal = refusal.or_else(|| {
            let term = self.relay.time_exceeded.filter(|_| read.sqlstate == "57014")?;
            Some(self.talk.overran(Budget::QueryTime, term.limit, term.used()))
        });
        let refusal = refusal.or_else(|| self.forgotten_choice(&read.sqlstate));
        let Some(refusal) = refusal else { return Ok(Fate::Pass) };
        self.talk.count_refusal(&refusal);
        let mut replaced = Vec::new();
        refuse::put(&mut replaced, &refusal, refusal.facts().severity);
        Ok(Fate::Replace(replaced))
    }

    /// The server ignores the rest of the batch. What that rest had entered in the books goes.
    fn skip_batch(&mut self) -> Result<Option<Error>, Ended> {
        let (skipped, has_sync) = self.relay.due.skip_to_sync().ok_or_else(out_of_step)?;
        self.relay.skipping = !has_sync;
        // A Query that was skipped with it did not end the batch.
        self.relay.batch_open |= !has_sync;
        let mut refusal = None;
        // Backwards, so that what stood first in the books stands in them again.
        for (position, due) in skipped.into_iter().enumerate().rev() {
            match due {
                // Only the first of the batch was answered by this error.
                Due::Refused(error) if position == 0 => refusal = Some(*error),
                other => self.undo(other),
            }
        }
        Ok(refusal)
    }
}

/// What the client is told in the place of an error that the gate brought about.
fn take_refusal(script: &mut Script, sqlstate: &str) -> Option<Error> {
    let refused = script.refused.take();
    let running = script.steps.front_mut().filter(|_| sqlstate == FAILING_SQLSTATE);
    refused.or_else(|| running.and_then(|step| step.fails.take()))
}

pub(super) fn out_of_step() -> Ended {
    Ended::Fatal(Error::ServerLost)
}
