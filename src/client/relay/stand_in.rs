//! A batch that parses, binds and runs an unnamed statement, run with a statement that the server
//! has prepared already. The client's batch is kept until PostgreSQL has bound it; on any error
//! before that it is sent as it came, so that the client hears what it would have heard. See
//! `docs/decisions/prepare-threshold.md`.

use std::rc::Rc;

use crate::client::back::Fate;
use crate::client::due::Due;
use crate::client::prepared::Known;
use crate::client::relay::{Ahead, Exchange};
use crate::guard::{self, Suspicion};
use crate::server::StandIn;
use crate::wire::backend;
use crate::wire::frame::{self, HEADER_BYTES, Header};
use crate::wire::frontend::{self, Parse};

/// Longest batch that is kept until it is confirmed.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Longest text of a stand-in, with the types of its parameters.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// A session that wishes to hear more than notices hears the names of statements.
const HEARS_MORE: &str = "client_min_messages";

const PLANS: &str = "plan_cache_mode";

/// The path must be the context's own, which is one schema: then nothing can come to stand in front
/// of what a name means.
const PATH: &str = "search_path";

/// Most bytes of notices that are kept; more are told, and then the answer is the stand-in's.
const HEARD_BYTES_MAX: usize = 64 * 1024;

/// A batch on its way whose messages are still at the front of the client's input.
#[derive(Debug)]
pub struct Trial {
    known: Rc<Known>,
    name: Rc<[u8]>,
    /// How long the batch is.
    length: usize,
    /// Notices that came before it was confirmed, whole.
    heard: Vec<u8>,
    /// They were told, and that the statement was parsed.
    told: bool,
}

/// The messages behind a Parse, up to the Sync.
struct Batch<'input> {
    /// The Bind's body behind the two names, which are empty.
    values: &'input [u8],
    /// Describe of the portal, if it is there, Execute and Sync.
    rest: &'input [u8],
    describes: bool,
}

impl Exchange<'_> {
    /// Runs the batch that begins with this unnamed Parse with a stand-in, if it may have one. The
    /// request was charged already.
    #[inline]
    pub(in crate::client) fn runs_stand_in(&mut self, header: Header, known: &Rc<Known>) -> bool {
        let Some(threshold) = self.talk.tenant.prepare_threshold else { return false };
        if let Some(failed) = self.relay.trial.take() {
            self.forget_stranger(&failed.name);
            return false;
        }
        self.may_have_stand_in(known) && self.try_stand_in(header, known, threshold).is_some()
    }

    /// Whether the server is such that nothing but the text and the session's settings decides what
    /// the text means, and the text is of the kind that has no part in the session.
    fn may_have_stand_in(&self, known: &Known) -> bool {
        let Known { statement, harmless, suspicion, control, ends_transaction, special, .. } =
            known;
        let plain = *harmless && *suspicion == Suspicion::None && special.is_none();
        let plain = plain && !control && !ends_transaction && known.needs.is_empty();
        let plain = plain && statement.read_under.is_empty();
        let (relay, talk) = (&self.relay, &self.talk);
        let fresh = relay.status == b'I' && relay.due.is_empty() && !relay.batch_open;
        let fresh = fresh && matches!(relay.ahead, Ahead::None);
        let same = talk.touched.is_empty() && !talk.told && !talk.in_doubt && !relay.was_reset;
        let alone = !self.lease.has_trace() && !relay.left.suspect && !relay.dismiss;
        let alone = alone && talk.pin.is_none() && !self.is_pinned();
        let path = talk.tenant.context.value(PATH).is_some();
        // A plan for all values would be kept that PostgreSQL makes anew for an unnamed statement.
        let quiet = talk.now.get(HEARS_MORE).is_none() && talk.now.get(PLANS).is_none();
        // Whose tenant may be another one in the next transaction parses each time.
        let quiet = quiet && talk.act.is_none();
        let short = statement.text.len() + statement.types.len() <= TEXT_BYTES_MAX;
        plain && fresh && same && alone && path && quiet && short
    }

    fn try_stand_in(&mut self, header: Header, known: &Rc<Known>, threshold: u32) -> Option<()> {
        self.flush_judged();
        let statement = &known.statement;
        let behind = self.client.input.data().get(header.length..)?;
        let batch = Batch::read(behind)?;
        let length = header.length + behind.len() - batch.after(behind);
        let bound = self.lease.bound()?;
        let lasts = || guard::is_lasting(&statement.text, &statement.types);
        let settings = &self.talk.now;
        let found = bound.statements.stand_in(statement, settings, threshold, lasts)?;
        let StandIn { name, anew } = found;
        let mut batch_as_sent = Vec::with_capacity(length);
        frontend::put_bind(&mut batch_as_sent, &name, batch.values);
        batch_as_sent.extend_from_slice(batch.rest);
        let describes = batch.describes;
        if anew {
            self.prepare_stand_in(&name, known);
        }
        self.lease.bound()?.connection().output.append(&mut batch_as_sent);
        self.begin(Due::Bind);
        if describes {
            self.begin(Due::DescribePortal);
        }
        self.begin(Due::Execute(None));
        self.relay.due.push(Due::Sync);
        self.relay.end_batch();
        self.relay.barrier = true;
        self.talk.prepared.bind(b"", None, Vec::new());
        let unnamed = self.talk.prepared.unnamed_name();
        self.talk.prepared.insert(&unnamed, known.clone());
        let (known, heard) = (known.clone(), Vec::new());
        self.relay.trial = Some(Box::new(Trial { known, name, length, heard, told: false }));
        Some(())
    }

    fn prepare_stand_in(&mut self, name: &Rc<[u8]>, known: &Known) {
        self.forget_stranger(name);
        let Some(bound) = self.lease.bound() else { return };
        let (text, types) = (&known.statement.text, &known.statement.types);
        frontend::put_parse(&mut bound.connection().output, Parse { name, text, types });
        bound.statements.insert(name, known.statement.clone());
        self.begin(Due::OwnPrepare(PARSE_ANSWERS, name.clone()));
    }

    /// A Bind has succeeded. If it was a stand-in's: what the client hears of Parse and Bind.
    #[inline]
    pub(in crate::client) fn confirms_trial(&mut self) -> Option<Vec<u8>> {
        let trial = self.relay.trial.take()?;
        self.client.input.consume(trial.length);
        self.relay.barrier = false;
        let mut told = Vec::with_capacity(2 * HEADER_BYTES + trial.heard.len());
        if !trial.told {
            backend::frame(&mut told, b'1', |_| {});
        }
        told.extend_from_slice(&trial.heard);
        backend::frame(&mut told, b'2', |_| {});
        Some(told)
    }

    /// Keeps a notice until it is known whether the client shall hear it from here.
    pub(in crate::client) fn holds_notice(&mut self, body: &[u8]) -> Option<Fate> {
        let trial = self.relay.trial.as_mut().filter(|trial| !trial.told)?;
        backend::frame(&mut trial.heard, b'N', |out| out.extend_from_slice(body));
        if trial.heard.len() <= HEARD_BYTES_MAX {
            return Some(Fate::Keep);
        }
        trial.told = true;
        let mut told = Vec::with_capacity(HEADER_BYTES + trial.heard.len());
        backend::frame(&mut told, b'1', |_| {});
        told.append(&mut trial.heard);
        Some(Fate::Replace(told))
    }

    /// Before a stand-in was bound the server said that something is wrong. The batch comes once
    /// more, as the client sent it, unless it was stopped: then that is the answer.
    pub(in crate::client) fn fails_trial(&mut self, sqlstate: &str) -> bool {
        let Some(trial) = &mut self.relay.trial else { return false };
        if trial.told || sqlstate.starts_with(STOPPED) || sqlstate == LOCK_NOT_AVAILABLE {
            self.client.input.consume(trial.length);
            self.relay.trial = None;
            return false;
        }
        if let Some(bound) = self.lease.bound() {
            bound.statements.stand_in_failed(&trial.known.statement);
        }
        self.relay.charged = true;
        true
    }
}

/// What answers a Parse of the gate's own.
const PARSE_ANSWERS: &[u8] = b"1";

/// It was waited for already, as long as the client wished.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Operator intervention, as the standard calls it: a cancel, a timeout.
const STOPPED: &str = "57";

impl<'input> Batch<'input> {
    /// Reads Bind, maybe Describe, Execute and Sync, all of them of the unnamed statement and
    /// portal. `None` if that is not what stands there, or not all of it has come.
    fn read(input: &'input [u8]) -> Option<Self> {
        let (values, rest) = frame_of(input, b'B')?;
        let (b"", b"") = frontend::bind_names(values)? else { return None };
        let (describes, behind) = match frame_of(rest, b'D') {
            Some((body, behind)) => {
                let (b'P', b"") = frontend::target(body)? else { return None };
                (true, behind)
            }
            None => (false, rest),
        };
        let (body, behind) = frame_of(behind, b'E')?;
        let b"" = frontend::execute_portal(body)? else { return None };
        let (b"", after) = frame_of(behind, b'S')? else { return None };
        let read = input.len() - after.len();
        let rest = rest.get(..rest.len() - after.len())?;
        (read <= BATCH_BYTES_MAX).then_some(Self { values: values.get(2..)?, rest, describes })
    }

    /// How much of the input it was read from stands behind it.
    fn after(&self, input: &[u8]) -> usize {
        input.len() - self.rest.len() - self.values.len() - 2 - HEADER_BYTES
    }
}

/// The body of the first message, if it is of this kind and all there, and what stands behind it.
fn frame_of(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let header = frame::header(input).ok().flatten().filter(|header| header.tag == tag)?;
    Some((input.get(HEADER_BYTES..header.length)?, input.get(header.length..)?))
}
