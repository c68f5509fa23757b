//! Pins: a server stays with its session while it holds something that no other could take over,
//! and no longer. Suspicious statements are noted as they are sent; when their transaction is over
//! the server is asked once what it holds.

use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use crate::client::back::is_hidden;
use crate::client::relay::Exchange;
use crate::client::session::Session;
use crate::client::session::front::Front;
use crate::client::session::sender;
use crate::client::session::wanted::want;
use crate::error::{Budget, Ending, Error};
use crate::guard::Suspicion;
use crate::isolation::Isolation;
use crate::pool::Lease;
use crate::server::{BindError, Pins};
use crate::wire::backend;
use crate::wire::frame::{self, HEADER_BYTES};

/// Longest message that an idle server may send: a notification has at most 8000 bytes.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// What an exchange may have left on its server.
#[derive(Debug, Default)]
pub struct Left {
    /// A statement ran after which the server must be asked.
    pub suspect: bool,
    /// Something ran after which the server may hold less than before.
    pub trace: bool,
    /// A statement ran that may take a lock for the session.
    pub locks: bool,
    /// The session was reset, and all that the server holds for it must go.
    pub release: bool,
    /// What the client is told when the server has been asked, or cleared.
    owed: Vec<u8>,
}

impl Exchange<'_> {
    /// Notes a statement that is about to be sent. A session that may not keep a server may not
    /// make anything it would have to keep one for.
    pub(in crate::client) fn note_suspicion(&mut self, suspicion: Suspicion) -> Result<(), Error> {
        if suspicion <= Suspicion::Release {
            self.relay.left.trace |= suspicion == Suspicion::Release;
            return Ok(());
        }
        if self.talk.act.as_ref().is_some_and(|act| act.is_local()) {
            // Whatever it makes ends with the transaction: see `clear`.
            self.relay.left.suspect = true;
            return Ok(());
        }
        let pins = self.talk.shared.pins.get();
        if self.talk.pin.is_none() && !pins.has(Pins::SESSION) {
            let pin = self.lease.pin(&self.talk.account, &self.talk.limits());
            self.talk.pin = Some(pin.map_err(|full| self.talk.no_pin(full))?);
        }
        self.talk.locked |= suspicion == Suspicion::Lock;
        self.relay.left.locks |= suspicion == Suspicion::Lock;
        self.relay.left.suspect = true;
        Ok(())
    }

    pub(in crate::client) fn is_pinned(&self) -> bool {
        !self.talk.shared.pins.get().is_empty()
    }

    /// Whether a notification is for this session: nobody but its tenant can have sent it, and
    /// nobody but this session can have listened for it.
    pub(in crate::client) fn hears(&self) -> bool {
        let listens = self.relay.left.suspect || self.is_pinned();
        listens && self.talk.tenant.isolation == Isolation::Silo
    }

    /// DISCARD ALL succeeded.
    pub(in crate::client) fn let_go(&mut self) {
        self.relay.left.release |= self.relay.left.suspect || self.is_pinned();
    }

    /// Whether ReadyForQuery waits until the server has been asked what it holds: who is told that
    /// a lock is gone may count on it, and on what that frees.
    pub(in crate::client) fn holds_ready(&mut self) -> bool {
        let pins = self.talk.shared.pins.get();
        let asked = self.relay.left.suspect || !pins.is_empty() && self.relay.left.trace;
        let last = self.relay.status == b'I' && self.relay.due.is_empty();
        let held = last && asked && !pins.has(Pins::SESSION);
        if held {
            backend::put_ready(&mut self.relay.left.owed, b'I');
        }
        held
    }

    /// Before anything more is sent to the server: the client gets what it is owed.
    pub(in crate::client) fn pay(&mut self) {
        if !self.relay.left.owed.is_empty() {
            self.client.output.append(&mut self.relay.left.owed);
        }
    }

    /// What is to be told now of a reset: nothing while the server still holds something.
    pub(in crate::client) fn owes(&mut self, told: Vec<u8>) -> Option<Vec<u8>> {
        let relay = &mut self.relay;
        if relay.left.release && relay.status == b'I' && relay.due.is_empty() {
            relay.left.owed = told;
            return None;
        }
        Some(told)
    }
}

impl Session {
    /// At the end of an exchange: keeps the server if it holds something. Otherwise it comes back.
    pub(in crate::client) async fn settle_pin(
        &mut self,
        mut lease: Box<Lease>,
        left: Left,
        reset: bool,
    ) -> Result<Option<Box<Lease>>, Error> {
        let before = self.talk.shared.pins.get();
        let settled = self.ask_pins(&mut lease, &left, reset, before).await;
        let pins = settled.map_err(|error| {
            tracing::warn!(tenant = %self.talk.tenant.id, %error, "could not settle a pinned server");
            Error::PinLost
        })?;
        let heard = lease.bound().map(|bound| std::mem::take(&mut bound.heard));
        if self.talk.tenant.isolation == Isolation::Silo {
            let heard =
                sender::retold_all(&heard.unwrap_or_default(), |pid| self.pool.user_of(pid));
            self.client.output.extend(heard);
        }
        self.client.output.extend(left.owed);
        self.talk.shared.pins.set(pins);
        self.talk.locked = pins.has(Pins::LOCK);
        if pins.is_empty() {
            self.talk.pin = None;
            return Ok(Some(lease));
        }
        self.keep(lease);
        Ok(None)
    }

    /// Takes off the server what a transaction made that would have pinned it, before the client is
    /// told that the transaction is over.
    pub(in crate::client) async fn clear(
        &mut self,
        lease: &mut Lease,
        left: Left,
    ) -> Result<(), Error> {
        if left.suspect {
            let renewed = lease.renew(want(&self.talk)).await;
            renewed.map_err(|error| {
                tracing::warn!(tenant = %self.talk.tenant.id, %error, "could not clear a server");
                Error::PinLost
            })?;
        }
        self.client.output.extend(left.owed);
        Ok(())
    }

    /// Takes everything off a server that another session may have used, before this one has it for
    /// life.
    pub(in crate::client) async fn renew(&mut self, lease: &mut Lease) -> Result<(), Error> {
        lease.renew(want(&self.talk)).await.map_err(|error| {
            tracing::warn!(tenant = %self.talk.tenant.id, %error, "could not renew a server");
            Error::ServerLost
        })
    }

    /// The session has this server until it ends.
    pub(in crate::client) fn keep_for_life(&mut self, mut lease: Box<Lease>) {
        self.talk.shared.pins.set(Pins::SESSION);
        if let Some(bound) = lease.bound() {
            self.entry.take_pid(bound.facts().pid);
        }
        self.keep(lease);
    }

    /// Keeps the server for the next request.
    pub(in crate::client) fn keep(&mut self, mut lease: Box<Lease>) {
        lease.rest();
        let facts = lease.bound().map(|bound| bound.facts().clone());
        *self.talk.shared.server.borrow_mut() = facts;
        self.pinned = Some(lease);
    }

    async fn ask_pins(
        &mut self,
        lease: &mut Lease,
        left: &Left,
        reset: bool,
        before: Pins,
    ) -> Result<Pins, BindError> {
        let whole = before.has(Pins::SESSION);
        if left.release {
            lease.renew(want(&self.talk)).await?;
            return Ok(if whole { before } else { Pins::NONE });
        }
        let mut pins = before;
        if !whole && (left.suspect || left.trace) {
            let limit = self.pool.cluster().scrub_timeout;
            let bound = lease.bound().ok_or(BindError::Unexpected('?'))?;
            pins = bound.ask_pins(self.talk.locked, limit).await?;
            if self.talk.tenant.isolation != Isolation::Silo {
                // A function listened; nothing it might hear is for this session alone. Or it
                // changed the role, which is the context's.
                pins = pins.without(Pins::LISTEN | Pins::ROLE);
            }
        }
        if reset && !pins.is_empty() {
            // RESET ALL: the settings of the server go back, what it holds stays.
            lease.refresh(want(&self.talk)).await?;
        }
        Ok(pins)
    }

    /// The server this session kept, with what the session wants in force. None if its requests
    /// were held back meanwhile, or its tenant changed: it is kept then.
    pub(in crate::client) async fn go_on(
        &mut self,
        mut lease: Box<Lease>,
    ) -> Result<Option<Box<Lease>>, Error> {
        lease.resume();
        if !lease.is_bound_as(want(&self.talk)) {
            // Who waits for the tenant to be at rest waits for this as well.
            self.talk.shared.binding.set(true);
            let refreshed = Box::pin(lease.refresh(want(&self.talk))).await;
            self.talk.shared.binding.set(false);
            refreshed.map_err(|error| {
                tracing::warn!(tenant = %self.talk.tenant.id, %error, "could not bind a pinned server");
                Error::PinLost
            })?;
        }
        if self.talk.shared.cancel_wanted.take() {
            // It came while the server was being bound: nothing was sent, so the gate answers.
            self.keep(lease);
            return Err(Error::Cancelled);
        }
        if self.talk.shared.is_held() {
            self.keep(lease);
            return Ok(None);
        }
        Ok(Some(lease))
    }

    /// While the session is idle and keeps a server: passes on what that says. Ready when the
    /// session must end.
    pub(in crate::client) fn poll_pinned(&mut self, cx: &mut Context<'_>) -> Poll<Front> {
        loop {
            let Some(bound) = self.pinned.as_mut().and_then(|lease| lease.bound()) else {
                return Poll::Pending;
            };
            let filled = bound.connection().poll_fill(cx);
            if let Some(front) = self.hear() {
                return Poll::Ready(front);
            }
            match filled {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Front::End(Error::ServerLost)),
                Poll::Pending => break,
            }
        }
        self.poll_pin_limits(cx)
    }

    /// Takes every whole message off the idle server's input.
    fn hear(&mut self) -> Option<Front> {
        loop {
            let bound = self.pinned.as_mut()?.bound()?;
            let input = &mut bound.connection().input;
            let header = match frame::header(input.data()) {
                Ok(Some(header)) if header.length <= FRAME_BYTES_MAX => header,
                Ok(None) => return None,
                Ok(Some(_)) | Err(_) => return Some(Front::End(Error::ServerLost)),
            };
            let frame = input.data().get(..header.length)?.to_vec();
            input.consume(header.length);
            let body = frame.get(HEADER_BYTES..).unwrap_or_default();
            let silo = self.talk.tenant.isolation == Isolation::Silo;
            match header.tag {
                b'A' if silo => {
                    let told = sender::retold(body, |pid| self.pool.user_of(pid));
                    self.client.output.extend(told.unwrap_or(frame));
                }
                b'A' => {}
                b'N' => self.client.output.extend(frame),
                b'S' => {
                    let told = backend::read_parameter_status(body);
                    let known = told.is_some_and(|(name, value)| {
                        is_hidden(name) || self.talk.note_reported(name, value)
                    });
                    if !known {
                        return Some(Front::End(Error::ServerLost));
                    }
                    if !told.is_some_and(|(name, _)| is_hidden(name)) {
                        self.client.output.extend(frame);
                    }
                }
                b'E' if backend::read_error(body).is_fatal() => {
                    self.client.output.extend(frame);
                    return Some(Front::ServerGone);
                }
                _ => return Some(Front::End(Error::ServerLost)),
            }
        }
    }

    /// How long the session may be idle, and may be here at all: a listener hears nothing with a
    /// credential that is past its time.
    fn poll_pin_limits(&mut self, cx: &mut Context<'_>) -> Poll<Front> {
        let Some(lease) = &self.pinned else { return Poll::Pending };
        let idle = self.talk.limits().pin_idle.map(|limit| (lease.since() + limit, Some(limit)));
        let shown = self.talk.act.as_ref().and_then(|act| act.expires_at());
        let expires = self.expires_at().into_iter().chain(shown).min().map(|at| {
            let rest = at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
            (Instant::now() + rest, None)
        });
        let first = [idle, expires].into_iter().flatten().min_by_key(|(at, _)| *at);
        let Some((at, limit)) = first else { return Poll::Pending };
        let since = lease.since();
        self.timer.poll_until(at, &self.talk.env.clock, cx).map(|()| {
            Front::End(match limit {
                Some(limit) => self.talk.overran(Budget::PinIdle, limit, since.elapsed()),
                None => Error::Ended(Ending::CredentialExpired),
            })
        })
    }
}
