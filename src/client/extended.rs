//! The extended protocol's messages on their way to the server: what each prepares, binds, runs or
//! closes, and what of it the gate has to know.

use std::rc::Rc;

use crate::client::carry::carried;
use crate::client::due::{Again, Closed, Due, Step};
use crate::client::forward::{SMALL_BYTES_MAX, Went, bench, control, violation};
use crate::client::judge::verdict::Verdict;
use crate::client::judge::{Bench, judge};
use crate::client::prepared::{self, Known, Need, Needs, key};
use crate::client::relay::{Ended, Exchange};
use crate::error::Error;
use crate::guard::{self, Reading};
use crate::wire::frame::{HEADER_BYTES, Header};
use crate::wire::frontend::{self, Parse};

impl Exchange<'_> {
    pub(super) fn parse(&mut self, header: Header) -> Result<Went, Ended> {
        let bytes_max = self.talk.env.settings.borrow().statement_bytes;
        if header.length > bytes_max {
            return Ok(self.refuse_in_batch(header, Error::StatementTooLong { bytes_max }));
        }
        let Some(body) = self.whole(header, bytes_max)? else { return Ok(Went::Wait) };
        let Some(message) = frontend::parse(body) else {
            return Err(violation("invalid Parse message".to_owned()));
        };
        if let Some(error) = self.forbids(message.text, true) {
            return Ok(self.refuse_in_batch(header, error));
        }
        let options = self.talk.read_options();
        if let Some(known) = self.talk.prepared.same_as_last(message, options) {
            return self.parse_again(header, known);
        }
        let body = body.to_vec();
        let Some(message) = frontend::parse(&body) else { return Ok(Went::Wait) };
        let front = self.relay.front.take();
        let reading = front.unwrap_or_else(|| self.talk.read(message.text));
        if let Some(text) = self.talk.show_text(message.text, &reading) {
            let shown = Rc::new(self.talk.show_known(&text, message.types));
            return self.prepare(header, message.name, shown, true);
        }
        let (control, ends_transaction) = control(&reading);
        let special = matches!(reading, Reading::Special(_));
        if special && !self.relay.batch_open && !self.relay.due.is_empty() {
            return Ok(self.wait_for_answers(Some(reading)));
        }
        match self.charge(control || ends_transaction) {
            Ok(true) => {}
            Ok(false) => {
                self.relay.front = Some(reading);
                return Ok(Went::Wait);
            }
            Err(error) => return Ok(self.refuse_in_batch(header, error)),
        }
        let bound = self.lease.bound().map(|bound| &*bound);
        let bench = Bench { parsed: true, ..bench(self.talk, &self.relay, bound) };
        let judged = judge(message.text, reading, bench);
        let verdict = Verdict { options, control, ends_transaction, judged };
        let (known, would_refuse) = match verdict.known(self.talk, message) {
            Ok(known) => known,
            Err(error) => return Ok(self.refuse_in_batch(header, error)),
        };
        match self.ensure_needs(&known.needs) {
            Ok(true) => {}
            Ok(false) => return Ok(Went::Wait),
            Err(error) => return Ok(self.refuse_in_batch(header, error)),
        }
        self.talk.count_would_refuse(message.text, would_refuse);
        let spliced = known.asked.is_some();
        self.prepare(header, key(message.name), Rc::new(known), spliced)
    }

    /// The text a driver sends over and over without a name: it was read the last time.
    fn parse_again(&mut self, header: Header, known: Rc<Known>) -> Result<Went, Ended> {
        self.relay.front = None;
        match self.charge(known.control || known.ends_transaction) {
            Ok(true) => {}
            Ok(false) => return Ok(Went::Wait),
            Err(error) => return Ok(self.refuse_in_batch(header, error)),
        }
        let name = self.talk.prepared.unnamed_name();
        if self.runs_stand_in(header, &known) {
            return Ok(Went::Next);
        }
        if let Some(bound) = self.lease.bound() {
            bound.statements.insert(&name, known.statement.clone());
        }
        self.talk.prepared.insert(&name, known);
        self.send_frame(header, Due::Parse(Some(name)));
        Ok(Went::Next)
    }

    /// Sends a Parse on its way and enters the statement in the books of session and server.
    fn prepare(
        &mut self,
        header: Header,
        name: &[u8],
        known: Rc<Known>,
        spliced: bool,
    ) -> Result<Went, Ended> {
        let bytes = known.statement.text.len();
        if !name.is_empty() && self.talk.prepared.find(name).is_some() {
            // The server shall say that it exists already, so it must have one.
            let name = self.talk.prepared.name(name);
            let needs = Needs { names: vec![(name.clone(), Need::Any)], all: false };
            match self.ensure_needs(&needs) {
                Ok(true) => {}
                Ok(false) => return Ok(Went::Wait),
                Err(error) => return Ok(self.refuse_in_batch(header, error)),
            }
            self.send_frame(header, Due::ParseAgain(Box::new(Again { name, known })));
            return Ok(Went::Next);
        }
        if !name.is_empty()
            && let Err(error) = self.talk.prepared.check_room(1, bytes)
        {
            return Ok(self.refuse_in_batch(header, error));
        }
        if !name.is_empty() {
            self.forget_stranger(name);
        } else if self.runs_stand_in(header, &known) {
            return Ok(Went::Next);
        }
        let name = self.talk.prepared.name(name);
        self.talk.prepared.insert(&name, known.clone());
        if let Some(bound) = self.lease.bound() {
            bound.statements.insert(&name, known.statement.clone());
        }
        let due = Due::Parse(Some(name.clone()));
        if spliced {
            let (text, types) = (&known.statement.text, &known.statement.types);
            let message = Parse { name: &name, text, types };
            self.replace_frame(header, |out| frontend::put_parse(out, message));
            self.begin(due);
        } else {
            self.send_frame(header, due);
        }
        if !name.is_empty() && guard::is_query(&known.statement.text) {
            self.ask_shape(&name, known);
        }
        Ok(Went::Next)
    }

    pub(super) fn bind(&mut self, header: Header) -> Result<Went, Ended> {
        let start = self.relay.to_server;
        let end = start + header.length.min(SMALL_BYTES_MAX);
        let input = self.client.input.data();
        let body = input.get(start + HEADER_BYTES..end.min(input.len())).unwrap_or_default();
        let Some((portal, name)) = frontend::bind_names(body) else {
            return match input.len() >= end {
                true => Err(violation("invalid Bind message".to_owned())),
                false => Ok(Went::Wait),
            };
        };
        let name = key(name);
        let known = self.talk.prepared.find(name).cloned();
        if known.as_ref().is_some_and(|known| known.audience.get() != self.talk.audience) {
            let name = name.to_vec();
            return match self.known(&name) {
                Ok(_) => self.bind(header),
                Err(error) => Ok(self.refuse_in_batch(header, error)),
            };
        }
        let computes = known.as_ref().and_then(|known| known.special.as_deref());
        let named = match computes.is_some_and(|step| step.touched.unknown) {
            true if input.len() < end => return Ok(Went::Wait),
            true => named_by_values(body),
            false => Vec::new(),
        };
        if let Some(error) = self.forbids_bind(known.as_deref(), name, body) {
            return Ok(self.refuse_in_batch(header, error));
        }
        if let Some(act) = &mut self.talk.act
            && !act.note_bind(portal, known.as_ref().is_some_and(|known| known.ends_transaction))
        {
            return Ok(self.refuse_in_batch(header, prepared::too_many_portals()));
        }
        let free = known.as_ref().is_some_and(|it| it.control || it.ends_transaction);
        let commands = known.as_deref().filter(|known| known.special.is_some());
        if commands.is_some_and(|known| !self.talk.prepared.takes_portal(portal, known)) {
            return Ok(self.refuse_in_batch(header, prepared::too_many_portals()));
        }
        let special = known.as_ref().and_then(|known| known.special.as_deref());
        self.relay.barrier_at_sync |= special.is_some_and(Step::resets);
        self.talk.prepared.bind(portal, known.as_ref(), named);
        if let Some(special) = special {
            self.talk.touches_soon(&special.touched);
        }
        let name = self.talk.prepared.name(name);
        match self.charge(free) {
            Ok(true) => {}
            Ok(false) => return Ok(Went::Wait),
            Err(error) => return Ok(self.refuse_in_batch(header, error)),
        }
        let suspicion = known.as_ref().map(|known| known.suspicion).unwrap_or_default();
        if let Err(error) = self.note_suspicion(suspicion) {
            return Ok(self.refuse_in_batch(header, error));
        }
        self.note_trace(known.is_none_or(|known| known.harmless));
        match self.ensure_prepared(&name) {
            Ok(true) => {}
            Ok(false) => return Ok(Went::Wait),
            Err(error) => return Ok(self.refuse_in_batch(header, error)),
        }
        self.send_frame(header, Due::Bind);
        Ok(Went::Next)
    }

    pub(super) fn describe_or_close(&mut self, header: Header) -> Result<Went, Ended> {
        let Some(body) = self.whole(header, SMALL_BYTES_MAX)? else {
            return Ok(Went::Wait);
        };
        let Some((kind, name)) = frontend::target(body) else {
            return Err(violation("invalid Describe or Close message".to_owned()));
        };
        let name = if kind == b'S' { key(name) } else { name };
        let name = &*self.talk.prepared.name(name);
        match (header.tag, kind) {
            (b'D', b'S') => {
                if let Some(error) = self.forbids_describe(name) {
                    return Ok(self.refuse_in_batch(header, error));
                }
                match self.ensure_prepared(name) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Went::Wait),
                    Err(error) => {
                        if matches!(error, Error::ResultChanged) {
                            self.tell_parameters(name);
                        }
                        return Ok(self.refuse_in_batch(header, error));
                    }
                }
                self.send_frame(header, Due::DescribeStatement);
            }
            (b'D', _) => self.send_frame(header, Due::DescribePortal),
            (_, kind) => {
                let closed = (kind == b'S').then(|| {
                    let known = self.talk.prepared.remove(name);
                    let held = self.lease.bound().and_then(|bound| bound.statements.remove(name));
                    Box::new(Closed { name: name.into(), known, held })
                });
                self.send_frame(header, Due::Close(closed));
            }
        }
        Ok(Went::Next)
    }

    pub(super) fn execute(&mut self, header: Header) -> Result<Went, Ended> {
        let Some(body) = self.whole(header, SMALL_BYTES_MAX)? else {
            return Ok(Went::Wait);
        };
        let Some(portal) = frontend::execute_portal(body) else {
            return Err(violation("invalid Execute message".to_owned()));
        };
        let step = self.talk.prepared.step(portal);
        if let Some(error) = self.is_behind_end() {
            return Ok(self.refuse_in_batch(header, error));
        }
        self.talk.act.iter().for_each(|act| act.note_execute(portal));
        let mut step = match step {
            Some(step) if step.resets() => return self.execute_reset(header, step),
            Some(step) if step.is_command() => step,
            step => {
                self.send_frame(header, Due::Execute(step));
                return Ok(Went::Next);
            }
        };
        let frame = [b"E", &(header.length as u32 - 1).to_be_bytes()[..], body].concat();
        let resolved = self.resolve(std::slice::from_mut(&mut step));
        let noted = resolved.and_then(|suspicion| self.note_suspicion(suspicion));
        if let Err(error) = noted {
            return Ok(self.refuse_in_batch(header, error));
        }
        self.talk.touches_soon(&step.touched);
        if step.effect.is_none() {
            self.send_frame(header, Due::Execute(Some(step)));
            return Ok(Went::Next);
        }
        // What stands behind it in the batch is judged by what it has made of the session.
        self.replace_frame(header, |out| {
            out.extend_from_slice(&frame);
            frontend::put_flush(out);
        });
        self.begin(Due::Execute(Some(step)));
        self.relay.barrier = true;
        Ok(Went::Next)
    }

    pub(super) fn sync(&mut self, header: Header) -> Result<Went, Ended> {
        if header.length != HEADER_BYTES {
            return Err(violation("invalid Sync message".to_owned()));
        }
        if self.relay.copy_in {
            self.send_copy_sync();
            return Ok(self.pass_any(header));
        }
        self.talk.act.iter_mut().for_each(|act| act.end_batch());
        self.relay.to_server += header.length;
        self.relay.begun = true;
        self.relay.due.push(Due::Sync);
        self.relay.end_batch();
        self.talk.begin_work();
        Ok(Went::Next)
    }
}

/// Values that may be the names of settings that no module has defined, which a server does not
/// list: a call of set_config has its name among them.
fn named_by_values(body: &[u8]) -> Vec<String> {
    let values = frontend::bind_values(body).unwrap_or_default();
    let texts = values.into_iter().filter_map(|value| std::str::from_utf8(value).ok());
    texts
        .filter(|text| carried::is_own_name(text))
        .map(str::to_ascii_lowercase)
        .take(NAMES_MAX)
        .collect()
}

/// Most names taken from the values of one Bind.
const NAMES_MAX: usize = 16;
