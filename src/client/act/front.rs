//! A service's session between two transactions, message by message: what the gate answers itself,
//! what goes on to a server, what is refused.

use crate::client::act::deed::{self, Deed, Portal, is_show, known, parameter_types, resets};
use crate::client::act::{Acting, PORTALS_MAX, answer};
use crate::client::prepared::Known;
use crate::client::session::Session;
use crate::client::session::front::{Look, NAMES_BYTES_MAX};
use crate::error::Error;
use crate::guard::{Act, Mark};
use crate::wire::backend;
use crate::wire::frame::{HEADER_BYTES, Header};
use crate::wire::frontend;

/// What becomes of a message.
enum Way {
    /// The gate answers it.
    Own,
    /// As for every session.
    Usual,
    /// More of it must come.
    More,
    Refused(Error),
}

impl Session {
    /// Looks at the message at the front; `None` if it goes the way of every session's.
    pub(in crate::client) fn look_as_service(&mut self, header: Header) -> Option<Look> {
        self.talk.act.as_ref()?;
        if header.tag == b'S' && header.length == HEADER_BYTES {
            return Some(self.sync_as_service(header));
        }
        if self.skipping || !matches!(header.tag, b'Q' | b'P' | b'B' | b'D' | b'C' | b'E' | b'F') {
            return None;
        }
        match self.way_of(header) {
            Way::Own => Some(Look::Act(header)),
            Way::Usual => None,
            Way::More => Some(Look::More),
            Way::Refused(error) => Some(self.refuse_frame(header, error)),
        }
    }

    fn sync_as_service(&mut self, header: Header) -> Look {
        self.skipping = false;
        self.client.input.consume(header.length);
        let status = self.talk.act.as_mut().map_or(b'I', |act| {
            act.end_batch();
            act.status()
        });
        backend::put_ready(&mut self.client.output, status);
        Look::Done
    }

    fn way_of(&mut self, header: Header) -> Way {
        let held = self.client.input.data();
        let Some(body) = held.get(HEADER_BYTES..header.length) else {
            let bytes_max = self.talk.env.settings.borrow().statement_bytes;
            let text = matches!(header.tag, b'Q' | b'P') && header.length <= bytes_max;
            let short = header.length <= NAMES_BYTES_MAX;
            let names = held.get(HEADER_BYTES..).and_then(frontend::bind_names);
            return match header.tag {
                b'Q' | b'P' if text => Way::More,
                b'Q' | b'P' => Way::Usual,
                b'B' => match names {
                    Some((_, name)) if !short => self.way_of_long_bind(name),
                    _ if short => Way::More,
                    _ => Way::Usual,
                },
                _ if short => Way::More,
                b'F' => self.way_of_call(),
                _ => Way::Usual,
            };
        };
        let Some(act) = &self.talk.act else { return Way::Usual };
        match header.tag {
            b'Q' => frontend::query(body).map_or(Way::Usual, |text| self.way_of_text(text)),
            b'P' => frontend::parse(body).map_or(Way::Usual, |it| self.way_of_text(it.text)),
            b'B' => self.way_of_bind(body),
            b'F' => self.way_of_call(),
            b'C' if act.is_session_wide() => Way::Usual,
            b'C' => Way::Own,
            b'E' => match frontend::execute_portal(body) {
                Some(name) if act.portal(name).is_some() => Way::Own,
                _ => self.way_of_rest(),
            },
            _ => match frontend::target(body) {
                Some((b'P', name)) if act.portal(name).is_some() => Way::Own,
                Some((b'S', name)) => match self.talk.prepared.find(name) {
                    Some(known) if self.is_own(known) => Way::Own,
                    Some(known) => self.way_of_known(known),
                    None => Way::Refused(deed::unknown(name)),
                },
                _ => self.way_of_rest(),
            },
        }
    }

    fn way_of_call(&self) -> Way {
        match self.talk.act.as_ref().is_some_and(|act| act.is_at_home() && !act.has_failed()) {
            true => Way::Refused(Error::NoTenant),
            false => self.way_of_rest(),
        }
    }

    fn way_of_rest(&self) -> Way {
        match self.talk.act.as_ref().is_some_and(|act| act.has_failed()) {
            true => Way::Refused(Error::FailedTransaction),
            false => Way::Usual,
        }
    }

    fn way_of_text(&self, text: &[u8]) -> Way {
        let Some(act) = &self.talk.act else { return Way::Usual };
        let reading = self.talk.read(text);
        let said = match self.talk.act_of(text, &reading) {
            Ok(said) => said,
            Err(error) => return Way::Refused(error),
        };
        let of_session = matches!(said, Act::Set { .. } | Act::Call(_) | Act::Show | Act::Hidden);
        if act.is_session_wide() && !of_session {
            return if resets(&reading) { Way::Own } else { Way::Usual };
        }
        let returns = matches!(said, Act::Mark { mark: Mark::Return, .. });
        let ends = matches!(said, Act::End { .. } | Act::Empty) || returns;
        if act.has_failed() && !ends {
            return Way::Refused(Error::FailedTransaction);
        }
        match &said {
            Act::Other if act.is_at_home() => match self.talk.may_look(text, &said, &reading) {
                Ok(()) => Way::Usual,
                Err(error) => Way::Refused(error),
            },
            Act::Other => Way::Usual,
            Act::Mark { .. } if !act.is_at_home() && !act.has_failed() => Way::Usual,
            Act::Chain | Act::Mixed | Act::Hidden => match Deed::of(said) {
                Err(error) => Way::Refused(error),
                Ok(_) => Way::Usual,
            },
            _ => Way::Own,
        }
    }

    /// One too long for the gate to answer: its name says that it is none.
    fn way_of_long_bind(&self, name: &[u8]) -> Way {
        match self.talk.prepared.find(name) {
            Some(known) if self.is_own(known) || is_call(known) => Way::Refused(deed::hidden()),
            Some(known) => self.way_of_known(known),
            None => Way::Refused(deed::unknown(name)),
        }
    }

    fn way_of_bind(&self, body: &[u8]) -> Way {
        let Some(bind) = frontend::bind(body) else { return Way::Usual };
        let Some(known) = self.talk.prepared.find(bind.statement) else {
            return Way::Refused(deed::unknown(bind.statement));
        };
        if self.is_own(known) {
            return Way::Own;
        }
        if let (true, Some(Act::Call(call))) = (is_call(known), self.said_by(known)) {
            match Deed::call(&call, Some(&bind)) {
                Ok(Some(_)) => return Way::Own,
                Ok(None) => {}
                Err(error) => return Way::Refused(error),
            }
        }
        self.way_of_known(known)
    }

    fn way_of_known(&self, known: &Known) -> Way {
        match self.way_of_text(known.text()) {
            // Calls of set_config with another setting's name.
            Way::Own if is_call(known) => Way::Usual,
            way => way,
        }
    }

    /// What a statement in the books says.
    fn said_by(&self, known: &Known) -> Option<Act> {
        if is_show(known) {
            return Some(Act::Show);
        }
        if let Some(choice) = known.choice() {
            return Some(choice.clone());
        }
        let text = known.text();
        self.talk.act_of(text, &self.talk.read(text)).ok()
    }

    /// Whether the gate answers a statement in the books whatever its values are.
    fn is_own(&self, known: &Known) -> bool {
        let wide = self.talk.act.as_ref().is_some_and(|act| act.is_session_wide());
        match self.said_by(known) {
            Some(Act::Set { .. } | Act::Show) => true,
            Some(Act::Call(call)) => call.name.text().is_some(),
            Some(Act::Empty | Act::Begin { .. } | Act::End { .. }) => !wide,
            Some(Act::Mark { .. }) => self.talk.act.as_ref().is_some_and(|act| act.is_at_home()),
            _ => false,
        }
    }

    /// Answers the message at the front, which is there whole.
    pub(in crate::client) async fn act(&mut self, header: Header) {
        let input = self.client.input.data();
        let body = input.get(HEADER_BYTES..header.length).unwrap_or_default().to_vec();
        let done = match header.tag {
            b'Q' => self.act_on_query(&body).await,
            b'P' => self.act_on_parse(&body),
            b'B' => self.act_on_bind(&body),
            b'D' => self.act_on_describe(&body),
            b'C' => self.act_on_close(&body),
            _ => self.act_on_execute(&body).await,
        };
        match done {
            Ok(true) => self.client.input.consume(header.length),
            // It has changed nothing but whom the session acts for; the message is looked at again.
            Ok(false) => {}
            Err(error) => drop(self.refuse_frame(header, error)),
        }
    }

    async fn act_on_query(&mut self, body: &[u8]) -> Result<bool, Error> {
        let text = frontend::query(body).unwrap_or_default();
        let reading = self.talk.read(text);
        if self.talk.act.as_ref().is_some_and(|act| act.is_session_wide()) && resets(&reading) {
            self.leave();
            return Ok(false);
        }
        let act = self.talk.act_of(text, &reading)?;
        let Some(deed) = Deed::of(act)? else { return Err(deed::hidden()) };
        self.talk.prepared.forget_unnamed();
        let column = deed.column().map(str::to_owned);
        let start = self.client.output.len();
        if let Some(column) = &column {
            answer::put_column(&mut self.client.output, column, 0);
        }
        if let Err(error) = self.perform(deed).await {
            self.client.output.truncate(start);
            return Err(error);
        }
        let status = self.talk.act.as_ref().map_or(b'I', |act| act.status());
        backend::put_ready(&mut self.client.output, status);
        Ok(true)
    }

    fn act_on_parse(&mut self, body: &[u8]) -> Result<bool, Error> {
        let malformed = || Error::Protocol { what: "invalid Parse message".into() };
        let message = frontend::parse(body).ok_or_else(malformed)?;
        let reading = self.talk.read(message.text);
        if self.talk.act.as_ref().is_some_and(|act| act.is_session_wide()) && resets(&reading) {
            self.leave();
            return Ok(false);
        }
        let act = self.talk.act_of(message.text, &reading)?;
        self.talk.read_options().ok_or_else(deed::hidden)?;
        if message.text.len() > NAMES_BYTES_MAX {
            // A portal holds its value.
            return Err(Error::StatementTooLong { bytes_max: NAMES_BYTES_MAX });
        }
        if !message.name.is_empty() {
            let name = String::from_utf8_lossy(message.name).into_owned();
            if self.talk.prepared.find(message.name).is_some() {
                return Err(Error::DuplicateStatement { name });
            }
            self.talk.prepared.check_room(1, message.text.len())?;
        }
        let known = known(act, message, &self.talk);
        let name = self.talk.prepared.name(message.name);
        self.talk.prepared.insert(&name, known);
        answer::put_empty(&mut self.client.output, b'1');
        Ok(true)
    }

    fn act_on_bind(&mut self, body: &[u8]) -> Result<bool, Error> {
        let malformed = || Error::Protocol { what: "invalid Bind message".into() };
        let bind = frontend::bind(body).ok_or_else(malformed)?;
        let known = self.talk.prepared.find(bind.statement).ok_or(Error::Internal)?;
        let reading = self.talk.read(known.text());
        if self.talk.act.as_ref().is_some_and(|act| act.is_session_wide()) && resets(&reading) {
            self.leave();
            return Ok(false);
        }
        let said = self.said_by(known).ok_or_else(deed::hidden)?;
        let wanted = parameter_types(&said, &known.statement.types).len();
        if wanted != bind.values.len() {
            let found = bind.values.len();
            let what = format!(
                "bind message supplies {found} parameters, but the statement requires {wanted}"
            );
            return Err(Error::Protocol { what: what.into() });
        }
        let deed = match said {
            Act::Call(call) => Deed::call(&call, Some(&bind))?,
            other => Deed::of(other)?,
        };
        let deed = deed.ok_or_else(deed::hidden)?;
        let format = bind.results.first().copied().unwrap_or(0);
        let portal = Portal { name: bind.portal.into(), deed, format };
        let Some(act) = &mut self.talk.act else { return Err(Error::Internal) };
        act.portals.retain(|old| old.name != portal.name);
        if act.portals.len() >= PORTALS_MAX {
            return Err(deed::hidden());
        }
        act.portals.push(portal);
        answer::put_empty(&mut self.client.output, b'2');
        Ok(true)
    }

    fn act_on_describe(&mut self, body: &[u8]) -> Result<bool, Error> {
        let (kind, name) = frontend::target(body).ok_or(Error::Internal)?;
        if kind == b'P' {
            let portal = self.talk.act.as_ref().and_then(|act| act.portal(name));
            let portal = portal.ok_or(Error::Internal)?;
            match portal.deed.column() {
                Some(column) => {
                    answer::put_column(&mut self.client.output, column, portal.format);
                }
                None => answer::put_empty(&mut self.client.output, b'n'),
            }
            return Ok(true);
        }
        let known = self.talk.prepared.find(name).ok_or(Error::Internal)?;
        let said = self.said_by(known).ok_or_else(deed::hidden)?;
        let types = parameter_types(&said, &known.statement.types);
        answer::put_parameters(&mut self.client.output, &types);
        let column = match &said {
            Act::Call(call) => Some(call.label.as_str()),
            Act::Show => Some("tenantgate.tenant"),
            _ => None,
        };
        match column {
            Some(column) => answer::put_column(&mut self.client.output, column, 0),
            None => answer::put_empty(&mut self.client.output, b'n'),
        }
        Ok(true)
    }

    fn act_on_close(&mut self, body: &[u8]) -> Result<bool, Error> {
        let malformed = || Error::Protocol { what: "invalid Close message".into() };
        let (kind, name) = frontend::target(body).ok_or_else(malformed)?;
        if kind == b'S' {
            drop(self.talk.prepared.remove(name));
        } else if let Some(act) = &mut self.talk.act {
            act.portals.retain(|portal| *portal.name != *name);
        }
        answer::put_empty(&mut self.client.output, b'3');
        Ok(true)
    }

    async fn act_on_execute(&mut self, body: &[u8]) -> Result<bool, Error> {
        let name = frontend::execute_portal(body).ok_or(Error::Internal)?;
        let portal = self.talk.act.as_ref().and_then(|act| act.portal(name));
        let deed = portal.map(|portal| portal.deed.clone()).ok_or(Error::Internal)?;
        let start = self.client.output.len();
        let done = self.perform(deed).await;
        if done.is_err() {
            self.client.output.truncate(start);
        }
        done.map(|()| true)
    }
}

impl Acting {
    fn portal(&self, name: &[u8]) -> Option<&Portal> {
        self.portals.iter().find(|portal| *portal.name == *name)
    }
}

/// A call of set_config whose setting is among its values.
fn is_call(known: &Known) -> bool {
    known.special.as_deref().is_some_and(|step| step.touched.unknown)
}
