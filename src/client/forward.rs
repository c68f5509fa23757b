//! From the client to the server: walk over the frames that were read, judge those that somebody
//! must judge, and mark the rest as free to go. Bodies are counted, not decoded.

use crate::client::due::{Due, Script};
use crate::client::judge::{Bench, Judged, Plan, judge};
use crate::client::refuse;
use crate::client::relay::{Ahead, Ended, Exchange};
use crate::client::session::front::NAMES_BYTES_MAX;
use crate::error::Error;
use crate::guard::{Reading, Suspicion};
use crate::server::Bound;
use crate::wire::backend;
use crate::wire::frame::{self, HEADER_BYTES, Header};
use crate::wire::frontend::{self, Parse};

/// Longest frame of the kinds that are held whole without being a statement.
pub(super) const SMALL_BYTES_MAX: usize = 64 * 1024;

/// Bytes in the server's output beyond which no more is judged until some are sent.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// The name of the statement that fails in a refused one's place, so that the session's unnamed
/// statement lives on, as it would after a refused Parse of another name.
const REFUSED_NAME: &[u8] = b"tenantgate_refused";

/// A text that fails in every state of a transaction: the parser refuses it before anybody asks
/// whether the transaction is aborted already.
const REFUSED_TEXT: &[u8] = b"tenantgate refused the statement that stood here";

/// What became of one frame.
pub(super) enum Went {
    /// It is on its way; look at the next.
    Next,
    /// It must wait for more bytes, for an answer, or for its budget.
    Wait,
}

impl Exchange<'_> {
    /// Judges frames until none is complete or one must wait. True if anything was judged.
    pub(super) fn walk_client(&mut self) -> Result<bool, Ended> {
        let mut walked = false;
        loop {
            if self.relay.client_drop > 0 {
                let step = self.client.input.len().min(self.relay.client_drop);
                self.client.input.consume(step);
                self.relay.client_drop -= step;
                if self.relay.client_drop > 0 {
                    return Ok(walked);
                }
            }
            if self.relay.client_left > 0 {
                let ahead = self.client.input.len() - self.relay.to_server;
                let step = ahead.min(self.relay.client_left);
                self.relay.to_server += step;
                self.relay.client_left -= step;
                walked |= step > 0;
                if self.relay.client_left > 0 {
                    return Ok(walked);
                }
            }
            match self.walk_frame()? {
                Went::Next => walked = true,
                Went::Wait => {
                    let relay = &mut self.relay;
                    relay.starved &= !relay.is_barred() && relay.held_until.is_none();
                    return Ok(walked);
                }
            }
        }
    }

    fn walk_frame(&mut self) -> Result<Went, Ended> {
        if self.relay.goodbye || self.must_wait() {
            self.relay.starved = false;
            return Ok(Went::Wait);
        }
        self.pay();
        let rest = self.client.input.data().get(self.relay.to_server..).unwrap_or_default();
        let header = match frame::header(rest) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Went::Wait),
            Err(error) => return Err(violation(error.to_string())),
        };
        if self.relay.due.is_full() && !self.relay.copy_in && !self.relay.skipping {
            return Ok(self.wait_for_answers(None));
        }
        self.belongs_in_copy(header)?;
        let went = self.walk_message(header)?;
        if matches!(went, Went::Wait) {
            self.belongs_in_copy(header)?;
        }
        Ok(went)
    }

    fn walk_message(&mut self, header: Header) -> Result<Went, Ended> {
        match header.tag {
            // The server will not answer it; only the Sync behind it counts.
            b'P' | b'B' | b'D' | b'C' | b'E' | b'Q' | b'F' if self.relay.skipping => {
                self.skip(header)
            }
            b'Q' if self.talk.act.is_some() => self.query_as_service(header),
            b'Q' => self.query(header),
            b'P' => self.parse(header),
            b'B' => self.bind(header),
            b'D' | b'C' => self.describe_or_close(header),
            b'E' => self.execute(header),
            b'S' => self.sync(header),
            b'H' => self.pass_whole(header),
            b'd' => Ok(self.pass_any(header)),
            b'c' | b'f' => {
                self.send_copy_end();
                Ok(self.pass_any(header))
            }
            b'X' => self.goodbye(),
            b'F' => self.function_call(header),
            tag => Err(violation(format!("invalid frontend message type {tag}"))),
        }
    }

    /// What must wait for answers would wait for ever while the server reads copy data, and the
    /// server refuses it there.
    fn belongs_in_copy(&self, header: Header) -> Result<(), Ended> {
        let waits = self.relay.barrier && self.relay.copy_in;
        let tag = header.tag;
        if !waits || matches!(tag, b'd' | b'c' | b'f' | b'H' | b'S' | b'X') {
            return Ok(());
        }
        Err(violation(format!("unexpected message type 0x{tag:02X} during COPY from stdin")))
    }

    /// Whether the client is held back: nothing it sends may be judged now.
    pub(super) fn must_wait(&mut self) -> bool {
        let relay = &mut self.relay;
        if relay.barrier && relay.due.is_empty() {
            relay.barrier = false;
        }
        if relay.is_barred() || relay.held_until.is_some() {
            return true;
        }
        let begun = !matches!(relay.ahead, Ahead::None) || relay.trial.is_some();
        let boundary = !relay.batch_open && !relay.copy_in && !begun;
        let shared = &self.talk.shared;
        if boundary && relay.status == b'I' && shared.ending.borrow().is_some() {
            // The session ends at its next boundary: nothing new is begun.
            return true;
        }
        if boundary && shared.is_held() && (relay.status == b'I' || !relay.due.is_empty()) {
            // Nothing new is begun here: see first whether the transaction ends.
            return true;
        }
        if boundary && shared.cancels.get() > 0 {
            // It is meant for what runs now and must not hit what comes next.
            return true;
        }
        if boundary && !relay.due.is_empty() && self.lease.is_wanted() {
            // Others wait: see first whether the transaction ends here.
            return true;
        }
        if boundary && self.holds_boundary() {
            return true;
        }
        self.lease.bound().is_none_or(|it| it.connection().output.len() > OUTPUT_BYTES_MAX)
    }

    /// The whole frame, if it is there. A longer one than `bytes_max` is a violation.
    pub(super) fn whole(&self, header: Header, bytes_max: usize) -> Result<Option<&[u8]>, Ended> {
        if header.length > bytes_max {
            return Err(violation(format!("message of type {} is too long", header.tag)));
        }
        let start = self.relay.to_server;
        let frame = self.client.input.data().get(start..start + header.length);
        Ok(frame.and_then(|frame| frame.get(HEADER_BYTES..)))
    }

    /// A message that the server will not answer.
    fn skip(&mut self, header: Header) -> Result<Went, Ended> {
        if self.relay.due.is_in_doubt() {
            // It may be answered after all.
            return Err(violation("a batch goes on behind a COPY that failed".to_owned()));
        }
        self.relay.front = None;
        self.relay.ahead = Ahead::None;
        Ok(self.pass_any(header))
    }

    pub(super) fn query(&mut self, header: Header) -> Result<Went, Ended> {
        if let Ahead::Failed(error) = std::mem::replace(&mut self.relay.ahead, Ahead::None) {
            return Ok(self.answer_query(header, &error));
        }
        if self.relay.barrier_at_sync && !self.relay.due.is_empty() {
            return Ok(self.wait_for_answers(None));
        }
        self.loses_no_work()?;
        let bytes_max = self.talk.env.settings.borrow().statement_bytes;
        let start = self.relay.to_server + HEADER_BYTES;
        let end = self.relay.to_server + header.length;
        if header.length > bytes_max {
            return self.refuse_query(header, Error::StatementTooLong { bytes_max });
        }
        let Some(body) = self.client.input.data().get(start..end) else { return Ok(Went::Wait) };
        let Some(text) = frontend::query(body) else {
            return Err(violation("invalid Query message".to_owned()));
        };
        let reading = self.relay.front.take().unwrap_or_else(|| self.talk.read(text));
        // Only a text the gate has a part in is copied.
        let special = matches!(reading, Reading::Special(_)).then(|| text.to_vec());
        let (free, ends) = control(&reading);
        if special.is_some() && !self.relay.due.is_empty() {
            return Ok(self.wait_for_answers(Some(reading)));
        }
        self.relay.charged &= !self.relay.batch_open;
        match self.charge(free || ends) {
            Ok(true) => {}
            Ok(false) => {
                self.relay.front = Some(reading);
                return Ok(Went::Wait);
            }
            Err(error) => return self.refuse_query(header, error),
        }
        let text = special.unwrap_or_default();
        let bound = self.lease.bound().map(|bound| &*bound);
        let mut bench = bench(self.talk, &self.relay, bound);
        // What was only prepared or described has begun nothing that a Query could be inside of.
        let begun = !self.relay.due.is_empty() || self.relay.batch_runs;
        bench.outside_transaction |= self.relay.status == b'I' && !begun;
        match judge(&text, reading, bench) {
            Judged::Pass { harmless, suspicion } => {
                if let Err(error) = self.note_suspicion(suspicion) {
                    return self.refuse_query(header, error);
                }
                self.note_trace(harmless);
                self.end_batch_with_query();
                self.send_frame(header, Due::Query(None));
                Ok(Went::Next)
            }
            Judged::Refuse(error) => self.refuse_query(header, error),
            Judged::Script(mut plan) => {
                let suspicion = match self.ensure_ahead(&plan.needs) {
                    Ok(true) => self.resolve(&mut plan.steps),
                    Ok(false) => return Ok(Went::Wait),
                    Err(error) => Err(error),
                };
                let noted = suspicion.and_then(|it| self.note_suspicion(it.max(plan.suspicion)));
                if let Err(error) = noted {
                    return self.refuse_query(header, error);
                }
                self.talk.count_would_refuse(&text, plan.would_refuse);
                self.end_batch_with_query();
                self.send_script(header, *plan);
                Ok(Went::Next)
            }
        }
    }

    /// PostgreSQL 18 loses work that was acknowledged when a Query or a function call follows an
    /// Execute without its Sync (measured on 18.0 and 18.4), so there the session ends before it.
    pub(super) fn loses_no_work(&mut self) -> Result<(), Ended> {
        let runs = self.relay.batch_runs;
        let Some(bound) = self.lease.bound().filter(|_| runs) else { return Ok(()) };
        let version = bound.facts().parameter("server_version").unwrap_or_default();
        let major = version.split(|it: char| !it.is_ascii_digit()).next().unwrap_or_default();
        match major.parse::<u32>() {
            Ok(..=17) => Ok(()),
            _ => Err(violation("simple query inside an extended query batch".to_owned())),
        }
    }

    /// A Query ends a batch that has no Sync, and the transaction that the batch began by itself
    /// (asyncpg's COPY prepares, describes, flushes, and goes on with a Query). It destroys the
    /// unnamed statement, unless the server skips it together with the batch.
    pub(super) fn end_batch_with_query(&mut self) {
        if self.relay.batch_open {
            self.close_unnamed();
            self.relay.end_batch();
        } else {
            self.forget_unnamed();
        }
    }

    /// What a special text means depends on whether a transaction is open: wait until that is
    /// known.
    pub(super) fn wait_for_answers(&mut self, reading: Option<Reading>) -> Went {
        self.relay.front = reading.or(self.relay.front.take());
        self.relay.barrier = true;
        if self.relay.batch_open {
            // Without it the server keeps the answers of an open batch to itself.
            self.flush_judged();
            if let Some(bound) = self.lease.bound() {
                frontend::put_flush(&mut bound.connection().output);
            }
        }
        Went::Wait
    }

    fn send_script(&mut self, header: Header, plan: Plan) {
        self.note_trace(plan.harmless);
        plan.steps.iter().for_each(|step| self.talk.touches_soon(&step.touched));
        self.relay.barrier |= plan.has_effect();
        let script = Script { steps: plan.steps.into(), refused: None };
        let due = Due::Query(Some(Box::new(script)));
        match plan.text {
            Some(text) => {
                self.replace_frame(header, |out| frontend::put_query(out, &text));
                self.begin(due);
            }
            None => self.send_frame(header, due),
        }
    }

    /// Answers a Query in the server's place, with an error it would give.
    fn answer_query(&mut self, header: Header, error: &[u8]) -> Went {
        self.relay.front = None;
        self.hand_judged();
        backend::put_raw_error(&mut self.client.output, error);
        let status = self.relay.status;
        let status = self.status_of_block(status).unwrap_or(status);
        backend::put_ready(&mut self.client.output, status);
        self.drop_frame(header);
        if self.relay.status == b'I' {
            self.talk.count_transaction();
        }
        self.relay.charged = false;
        Went::Next
    }

    pub(super) fn refuse_query(&mut self, header: Header, error: Error) -> Result<Went, Ended> {
        self.relay.front = None;
        if self.relay.batch_open {
            self.relay.end_batch();
        }
        self.replace_frame(header, |out| frontend::put_query(out, REFUSED_TEXT));
        let script = Script { refused: Some(error), ..Script::default() };
        self.begin(Due::Query(Some(Box::new(script))));
        Ok(Went::Next)
    }

    /// The fast path: a function by its number. Nobody reads what it does, so it is for tenants
    /// whose server connections have no rights but their own.
    fn function_call(&mut self, header: Header) -> Result<Went, Ended> {
        let start = self.relay.to_server;
        let held = self.client.input.data().get(start..).unwrap_or_default();
        let short = header.length.min(NAMES_BYTES_MAX);
        if self.talk.act.is_some() && held.len() < short {
            return Ok(Went::Wait);
        }
        let body = held.get(HEADER_BYTES..held.len().min(header.length)).unwrap_or_default();
        let refused = self.forbids_call(body);
        let refused = refused.or_else(|| refuse::function_call(&self.talk.tenant));
        if let Some(error) = refused {
            return self.refuse_query(header, error);
        }
        self.loses_no_work()?;
        self.relay.charged &= !self.relay.batch_open;
        match self.charge(false) {
            Ok(true) => {}
            Ok(false) => return Ok(Went::Wait),
            Err(error) => return self.refuse_query(header, error),
        }
        // Not as a lock: where locks cannot be looked at, every call would keep its server.
        if let Err(error) = self.note_suspicion(Suspicion::Some) {
            return self.refuse_query(header, error);
        }
        self.note_trace(false);
        if self.relay.batch_open {
            self.relay.end_batch();
        }
        self.send_frame(header, Due::Call);
        Ok(Went::Next)
    }

    /// Terminate: what was sent before it is still carried out, as PostgreSQL does.
    fn goodbye(&mut self) -> Result<Went, Ended> {
        if self.relay.due.is_empty() && self.relay.to_server == 0 {
            return Err(Ended::ClientGone);
        }
        self.relay.goodbye = true;
        self.relay.starved = false;
        Ok(Went::Wait)
    }

    /// Flush: whole and empty.
    fn pass_whole(&mut self, header: Header) -> Result<Went, Ended> {
        if header.length != HEADER_BYTES {
            return Err(violation("invalid Flush message".to_owned()));
        }
        Ok(self.pass_any(header))
    }

    /// A frame that nobody has to look at; a long one flows through.
    pub(super) fn pass_any(&mut self, header: Header) -> Went {
        self.relay.client_left = header.length;
        Went::Next
    }

    /// Sends a frame as it is and notes what is due for it.
    pub(super) fn send_frame(&mut self, header: Header, due: Due) {
        self.relay.client_left = header.length;
        self.begin(due);
    }

    /// Drops the client's frame and sends something else in its place.
    pub(super) fn replace_frame(&mut self, header: Header, write: impl FnOnce(&mut Vec<u8>)) {
        self.drop_frame(header);
        if let Some(bound) = self.lease.bound() {
            write(&mut bound.connection().output);
        }
    }

    /// Takes a frame off the input; what has not arrived of it is dropped as it comes.
    fn drop_frame(&mut self, header: Header) {
        self.flush_judged();
        let held = self.client.input.len().min(header.length);
        self.client.input.consume(held);
        self.relay.client_drop = header.length - held;
    }

    /// Moves what was judged behind what waits, so that something may be put after it.
    pub(super) fn flush_judged(&mut self) {
        let judged = std::mem::take(&mut self.relay.to_server);
        if let Some(bound) = self.lease.bound() {
            let bytes = self.client.input.data().get(..judged).unwrap_or_default();
            bound.connection().output.extend_from_slice(bytes);
        }
        self.client.input.consume(judged);
    }

    pub(super) fn begin(&mut self, due: Due) {
        let query = matches!(due, Due::Query(_) | Due::Call);
        self.relay.begun = true;
        self.relay.batch_runs |= match &due {
            Due::Bind | Due::Execute(_) | Due::Refused(_) => true,
            Due::OwnPrepare(answers, _) => answers.len() > 1,
            _ => false,
        };
        self.relay.executed |= matches!(due, Due::Execute(_));
        self.relay.due.push(due);
        match query {
            true => self.relay.charged = false,
            false => self.relay.batch_open = true,
        }
        self.talk.begin_work();
        if self.relay.query_term.is_none() {
            self.start_clocks();
        }
    }

    /// Puts a statement that fails in a refused one's place: the transaction really fails, and the
    /// server itself skips to the next Sync.
    pub(super) fn refuse_in_batch(&mut self, header: Header, error: Error) -> Went {
        self.relay.front = None;
        let types: &[u8] = &[0, 0];
        let message = Parse { name: REFUSED_NAME, text: REFUSED_TEXT, types };
        self.replace_frame(header, |out| frontend::put_parse(out, message));
        self.begin(Due::Refused(Box::new(error)));
        Went::Next
    }

    pub(super) fn note_trace(&mut self, harmless: bool) {
        if !harmless {
            self.lease.leaves_trace();
            self.relay.left.trace = true;
        }
    }
}

pub(super) fn bench<'talk>(
    talk: &'talk crate::client::talk::Talk,
    relay: &crate::client::relay::Relay,
    bound: Option<&'talk Bound>,
) -> Bench<'talk> {
    let outside = relay.status == b'I' && relay.due.is_empty() && !relay.batch_open;
    Bench {
        tenant: &talk.tenant,
        talk,
        outside_transaction: outside,
        parsed: false,
        stand_in: bound.filter(|bound| bound.facts().stand_in).and_then(|_| talk.read_options()),
    }
}

/// Whether a text is free of the tenant's rate.
pub(super) fn control(reading: &Reading) -> (bool, bool) {
    match reading {
        Reading::Ordinary(it) => (it.control || it.empty, it.ends_transaction),
        Reading::Special(_) | Reading::Refused { .. } => (false, false),
    }
}

pub(super) fn violation(what: String) -> Ended {
    Ended::Fatal(Error::Protocol { what: what.into() })
}
