//! What a session of a service may send: to a server of the tenant it acts for, and before it acts
//! for any to a login that may only look.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::client::act::deed::resets;
use crate::client::act::deed::{self, Deed, is_show};
use crate::client::due::{Due, Script, Step};
use crate::client::forward::Went;
use crate::client::prepared::{Known, Needs};
use crate::client::relay::{Ended, Exchange};
use crate::client::talk::Talk;
use crate::error::Error;
use crate::guard::{self, Act, Command, OWN_PREFIX, Part, ReadOptions, Reading, Suspicion};
use crate::server::Statement;
use crate::wire::frame::{HEADER_BYTES, Header};
use crate::wire::frontend;

impl Talk {
    /// What a text says about whom the session acts for. A text that could be read in two ways is
    /// none of the gate's, and forbidden.
    pub(super) fn act_of(&self, text: &[u8], reading: &Reading) -> Result<Act, Error> {
        if let Some(options) = self.read_options() {
            return Ok(guard::act(text, options, reading));
        }
        let as_if = |standard_conforming_strings| {
            let options = ReadOptions { standard_conforming_strings, watch: self.tenant.watch() };
            guard::act(text, options, reading)
        };
        let act = as_if(true);
        if as_if(false) == act { Ok(act) } else { Err(deed::hidden()) }
    }

    /// Refuses what may not run before a tenant is chosen: all but a look at what everybody may
    /// see, and the session's own settings.
    pub(super) fn may_look(&self, text: &[u8], act: &Act, reading: &Reading) -> Result<(), Error> {
        let in_block = self.act.as_ref().is_some_and(|act| act.in_block());
        let looks = || {
            let options = self.read_options();
            options.is_some_and(|options| guard::only_looks(text, options))
        };
        let may = match (act, reading) {
            (Act::Empty | Act::Call(_), _) => true,
            (_, Reading::Ordinary(ordinary)) => {
                let harmless = ordinary.harmless && ordinary.suspicion == Suspicion::None;
                harmless && !ordinary.control && looks()
            }
            (_, Reading::Special(parts)) => {
                parts.iter().all(|part| self.may_settle(text, part, in_block))
            }
            (_, Reading::Refused { .. }) => false,
        };
        if may { Ok(()) } else { Err(Error::NoTenant) }
    }

    /// Whether a part of a text only concerns the session itself.
    fn may_settle(&self, text: &[u8], part: &Part, in_block: bool) -> bool {
        let calls = || {
            let statement = text.get(part.range.clone()).unwrap_or_default();
            let options = self.read_options();
            options.is_some_and(|it| guard::set_config_calls(statement, it).is_some())
        };
        match &part.command {
            // It would be gone at once: the transaction has not begun.
            Command::Set { local: true, .. } => false,
            // It would keep the server, which is not the next tenant's.
            Command::Set { names, .. } if names.iter().any(|name| is_role(name)) => false,
            Command::Set { .. } | Command::Reset { .. } => true,
            Command::Other { unknown_settings: true, .. } => false,
            Command::Other { touches, .. } => !touches.is_empty() && calls(),
            Command::ResetAll | Command::DiscardAll | Command::DiscardPart => !in_block,
            Command::Listen | Command::Prepare { .. } | Command::Execute { .. } => false,
            Command::DeallocateAll
            | Command::Deallocate { .. }
            | Command::CloseAll
            | Command::UnlistenAll
            | Command::AdvisoryUnlockAll
            | Command::ShowIdle => true,
        }
    }

    /// SHOW tenantgate.tenant, as a server can answer it.
    fn shown(&self) -> Vec<u8> {
        let home = self.act.as_ref().is_none_or(|act| act.is_at_home());
        let id = if home { "" } else { self.tenant.id.as_str() };
        // Ids have no quotes.
        format!("SELECT '{id}'::pg_catalog.text AS \"tenantgate.tenant\"").into_bytes()
    }

    /// SHOW tenantgate.tenant in the books, as a server answers it now; `None` for anything else.
    pub(in crate::client) fn shown_now(&self, known: &Known) -> Option<Known> {
        is_show(known).then(|| self.show_known(&self.shown(), &known.statement.types))
    }

    /// SHOW tenantgate.tenant for the books, with the text a server gets in its place.
    pub(in crate::client) fn show_known(&self, text: &[u8], types: &[u8]) -> Known {
        let step = Step { tag: Some(deed::SHOW), shows_tenant: true, ..Step::default() };
        let (text, types) = (text.into(), types.into());
        let statement = Statement { text, types, from_sql: false, read_under: Box::default() };
        Known {
            statement: Rc::new(statement),
            harmless: true,
            suspicion: Suspicion::None,
            control: false,
            ends_transaction: false,
            read_as: self.read_options(),
            watch: self.tenant.watch(),
            audience: Cell::new(self.audience),
            asked: None,
            special: Some(Box::new(step)),
            needs: Needs::default(),
            shape: RefCell::default(),
        }
    }

    /// In the place of SHOW tenantgate.tenant, if that is what a text is.
    pub(in crate::client) fn show_text(&self, text: &[u8], reading: &Reading) -> Option<Vec<u8>> {
        self.act.as_ref()?;
        let act = self.act_of(text, reading).ok()?;
        (act == Act::Show).then(|| self.shown())
    }
}

impl Exchange<'_> {
    /// A Query may be about whom the session acts for, or not be for the server it has.
    pub(in crate::client) fn query_as_service(&mut self, header: Header) -> Result<Went, Ended> {
        let start = self.relay.to_server;
        let frame = self.client.input.data().get(start + HEADER_BYTES..start + header.length);
        let waits = self.relay.barrier_at_sync && !self.relay.due.is_empty();
        let text = frame.filter(|_| !waits).and_then(frontend::query);
        let (shown, error) = match text {
            None => (None, None),
            Some(text) => match self.forbids(text, self.relay.batch_open) {
                None => (self.talk.show_text(text, &self.talk.read(text)), None),
                error => (None, error),
            },
        };
        if shown.is_some() || error.is_some() {
            self.loses_no_work()?;
        }
        match (shown, error) {
            (_, Some(error)) => self.refuse_query(header, error),
            (Some(shown), _) => Ok(self.show_query(header, &shown)),
            _ => self.query(header),
        }
    }

    /// SHOW of whom the session acts for.
    fn show_query(&mut self, header: Header, text: &[u8]) -> Went {
        self.relay.front = None;
        self.end_batch_with_query();
        self.replace_frame(header, |out| frontend::put_query(out, text));
        let step = Step { tag: Some(deed::SHOW), ..Step::default() };
        let script = Script { steps: [step].into(), refused: None };
        self.begin(Due::Query(Some(Box::new(script))));
        Went::Next
    }

    /// Behind the end of a transaction, in one batch, there is no tenant any more.
    pub(in crate::client) fn is_behind_end(&self) -> Option<Error> {
        let act = self.talk.act.as_ref()?;
        (act.ended.get() && act.is_local()).then(deed::control)
    }

    /// Whether a function may not be called, of which nobody knows what it does. `body` is as much
    /// of the call as has come: no choice, and so no token, goes to a server as its first value.
    pub(in crate::client) fn forbids_call(&self, body: &[u8]) -> Option<Error> {
        let act = self.talk.act.as_ref()?;
        let chooses = frontend::call_value(body).is_some_and(is_own);
        let late = chooses.then_some(Error::ActTooLate);
        self.is_behind_end().or(act.is_at_home().then_some(Error::NoTenant)).or(late)
    }

    /// Whether a text may not go to the server the session has.
    pub(in crate::client) fn forbids(&self, text: &[u8], in_batch: bool) -> Option<Error> {
        let act = self.talk.act.as_ref()?;
        if let Some(error) = self.is_behind_end() {
            return Some(error);
        }
        let reading = self.talk.read(text);
        let said = match self.talk.act_of(text, &reading) {
            Ok(said) => said,
            Err(error) => return Some(error),
        };
        match &said {
            Act::Set { .. } => return Some(Error::ActTooLate),
            Act::Call(call) if call.name.text().is_some() || !in_batch => {
                return Some(Error::ActTooLate);
            }
            Act::Chain | Act::Mixed | Act::Hidden => return Deed::of(said).err(),
            _ => {}
        }
        if act.is_session_wide() && resets(&reading) {
            let what = "a reset of the session, and of its tenant, inside of a transaction".into();
            return Some(Error::NotSupported {
                what,
                hint: "Send it when the transaction is over.",
            });
        }
        if act.is_at_home() {
            return self.talk.may_look(text, &said, &reading).err();
        }
        None
    }

    /// The same for a statement that was prepared earlier and the values it is given.
    pub(in crate::client) fn forbids_bind(
        &self,
        known: Option<&Known>,
        name: &[u8],
        body: &[u8],
    ) -> Option<Error> {
        self.talk.act.as_ref()?;
        if let Some(error) = self.is_behind_end() {
            return Some(error);
        }
        let Some(known) = known else {
            // Who knows what it does.
            return Some(deed::unknown(name));
        };
        let computes = known.special.as_deref().is_some_and(|it| it.touched.unknown);
        let own = |values: Vec<&[u8]>| values.into_iter().any(is_own);
        if computes && frontend::bind_values(body).is_none_or(own) {
            return Some(Error::ActTooLate);
        }
        self.forbids_known(known)
    }

    /// Whether the server may describe a statement.
    pub(in crate::client) fn forbids_describe(&self, name: &[u8]) -> Option<Error> {
        self.talk.act.as_ref()?;
        let known = self.talk.prepared.find(name);
        self.is_behind_end().or_else(|| match known {
            Some(known) => self.forbids_known(known),
            None => Some(deed::unknown(name)),
        })
    }

    fn forbids_known(&self, known: &Known) -> Option<Error> {
        if known.is_choice() {
            return Some(Error::ActTooLate);
        }
        if is_show(known) {
            return None;
        }
        self.forbids(known.text(), true)
    }

    /// Refuses an EXECUTE that hands a choice to a call of set_config.
    pub(in crate::client) fn forbids_values(&self, named: &[String]) -> Result<(), Error> {
        let own = named.iter().any(|name| name.to_ascii_lowercase().starts_with(OWN_PREFIX));
        match own && self.talk.act.is_some() {
            true => Err(Error::ActTooLate),
            false => Ok(()),
        }
    }

    /// Whoever is told that there is no such table, or that it may not be read, has most likely
    /// forgotten to choose a tenant.
    pub(in crate::client) fn forgotten_choice(&self, sqlstate: &str) -> Option<Error> {
        let act = self.talk.act.as_ref().filter(|act| act.is_at_home())?;
        let denied = matches!(sqlstate, "42P01" | "42501" | "3F000");
        (denied && act.service().is_some()).then_some(Error::NoTenant)
    }

    /// What ReadyForQuery says where the client sees a transaction that is on no server.
    pub(in crate::client) fn status_of_block(&self, status: u8) -> Option<u8> {
        let act = self.talk.act.as_ref()?;
        (status == b'I' && act.is_at_home() && act.in_block()).then(|| act.status())
    }

    /// Whether the session must first be seen to have left its transaction, or not to have: until
    /// then nobody knows whom it acts for.
    pub(in crate::client) fn holds_boundary(&self) -> bool {
        let relay = &self.relay;
        self.talk.act.is_some() && (!relay.due.is_empty() || relay.begun && relay.status == b'I')
    }
}

/// Whether a value is the name of a setting of the gate's.
fn is_own(value: &[u8]) -> bool {
    let start = value.get(..OWN_PREFIX.len()).unwrap_or_default();
    start.eq_ignore_ascii_case(OWN_PREFIX.as_bytes())
}

fn is_role(name: &str) -> bool {
    matches!(name, "role" | "session_authorization")
}
