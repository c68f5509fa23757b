//! What the books keep of a statement that was judged, and the judgement of it once more when the
//! session has another tenant than then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::client::due::Effect;
use crate::client::forward::{bench, control};
use crate::client::judge::{Bench, Judged, judge};
use crate::client::prepared::Known;
use crate::client::relay::Exchange;
use crate::client::talk::Talk;
use crate::error::Error;
use crate::guard::{Denials, ReadOptions};
use crate::server::Statement;
use crate::wire::frontend::Parse;

/// A text that was judged, on its way into the books.
pub(in crate::client) struct Verdict {
    /// How it was read; `None` if that was in doubt.
    pub options: Option<ReadOptions>,
    pub control: bool,
    pub ends_transaction: bool,
    pub judged: Judged,
}

impl Verdict {
    /// What the books keep of it, and which rules would have refused it were they not only
    /// reported.
    ///
    /// # Errors
    ///
    /// It is refused.
    pub fn known(self, talk: &Talk, message: Parse<'_>) -> Result<(Known, Denials), Error> {
        let (plan, harmless, suspicion) = match self.judged {
            Judged::Pass { harmless, suspicion } => (None, harmless, suspicion),
            Judged::Script(plan) => (Some(*plan), true, Default::default()),
            Judged::Refuse(error) => return Err(error),
        };
        let would_refuse = plan.as_ref().map(|plan| plan.would_refuse).unwrap_or_default();
        let harmless = plan.as_ref().map_or(harmless, |plan| plan.harmless);
        let suspicion = plan.as_ref().map_or(suspicion, |plan| plan.suspicion);
        let (mut needs, mut special, mut text) = Default::default();
        if let Some(mut plan) = plan {
            let step = if plan.steps.len() == 1 { plan.steps.pop() } else { None };
            special = Some(Box::new(step.unwrap_or_default()));
            (needs, text) = (plan.needs, plan.text);
        }
        let asked = text.is_some().then(|| message.text.into());
        let text = text.map_or_else(|| message.text.into(), Vec::into_boxed_slice);
        let read_under = talk.reads_under(message.text);
        let types = message.types.into();
        let known = Known {
            statement: Rc::new(Statement { text, types, from_sql: false, read_under }),
            harmless,
            suspicion,
            control: self.control,
            ends_transaction: self.ends_transaction,
            read_as: self.options,
            watch: talk.tenant.watch(),
            audience: Cell::new(talk.audience),
            asked,
            special,
            needs,
            shape: RefCell::default(),
        };
        Ok((known, would_refuse))
    }
}

impl Exchange<'_> {
    /// What the session means by a name, as it is judged for the tenant that it has now.
    ///
    /// # Errors
    ///
    /// That tenant may not have it, or servers may read it as something else by now.
    #[inline]
    pub(in crate::client) fn known(&mut self, name: &[u8]) -> Result<Option<Rc<Known>>, Error> {
        match self.talk.prepared.find(name) {
            None => Ok(None),
            Some(known) if known.audience.get() == self.talk.audience => Ok(Some(known.clone())),
            Some(known) => {
                let known = known.clone();
                self.judge_again(name, known).map(Some)
            }
        }
    }

    /// The session had another tenant when it was judged: what servers get in its place, and
    /// whether they may, is that one's.
    fn judge_again(&mut self, name: &[u8], known: Rc<Known>) -> Result<Rc<Known>, Error> {
        let talk = &self.talk;
        let from_sql = known.statement.from_sql;
        let is_its_own = known.special.is_none() && known.asked.is_none() && !from_sql;
        if known.is_choice() || is_its_own && known.watch == talk.tenant.watch() {
            known.audience.set(talk.audience);
            return Ok(known);
        }
        if let Some(shown) = talk.shown_now(&known) {
            return Ok(self.judged_again(name, &known, shown));
        }
        if !talk.reads_as_before(&known) {
            return Err(read_otherwise());
        }
        let reading = talk.read(known.text());
        let (control, ends_transaction) = control(&reading);
        let options = talk.read_options();
        let bound = self.lease.bound().map(|bound| &*bound);
        let bench = Bench { parsed: !from_sql, ..bench(self.talk, &self.relay, bound) };
        let judged = judge(known.text(), reading, bench);
        let (fresh, would_refuse) = match from_sql {
            true => prepared_by(judged)?,
            false => {
                let verdict = Verdict { options, control, ends_transaction, judged };
                let types = &*known.statement.types;
                verdict.known(self.talk, Parse { name, text: known.text(), types })?
            }
        };
        self.talk.count_would_refuse(known.text(), would_refuse);
        Ok(self.judged_again(name, &known, fresh))
    }

    fn judged_again(&mut self, name: &[u8], known: &Known, mut fresh: Known) -> Rc<Known> {
        if fresh.statement == known.statement {
            // As before: servers that hold it need not be told.
            fresh.statement = known.statement.clone();
            fresh.shape = known.shape.clone();
        }
        let fresh = Rc::new(fresh);
        let name = self.talk.prepared.name(name);
        self.talk.prepared.insert(&name, fresh.clone());
        fresh
    }
}

/// What a PREPARE comes to.
fn prepared_by(judged: Judged) -> Result<(Known, Denials), Error> {
    let plan = match judged {
        Judged::Script(plan) => plan,
        Judged::Refuse(error) => return Err(error),
        Judged::Pass { .. } => return Err(read_otherwise()),
    };
    let would_refuse = plan.would_refuse;
    match plan.steps.into_iter().next().and_then(|step| step.effect) {
        Some(Effect::Prepare(_, known)) => {
            Ok((Rc::into_inner(known).ok_or(Error::Internal)?, would_refuse))
        }
        _ => Err(read_otherwise()),
    }
}

/// A statement that servers may read as something else than it was judged to be.
pub(in crate::client) fn read_otherwise() -> Error {
    let what = "a statement whose text was read under other settings".into();
    let hint = "Prepare it again under the client_encoding and standard_conforming_strings in \
                force.";
    Error::NotSupported { what, hint }
}
