//! The end of an exchange: the server goes back at once, or is asked first what the transaction
//! has left on it.

use crate::client::relay::{Ended, Relay};
use crate::client::session::pin::Left;
use crate::client::session::{End, Session};
use crate::error::Error;
use crate::pool::Lease;

/// Statements a server connection may hold before it is scrubbed to be rid of them.
pub(in crate::client) const STATEMENTS_MAX: usize = 1000;

/// A transaction that is over, on a server that must be asked something before anybody has it.
#[derive(Debug)]
pub(super) struct Unsettled {
    lease: Box<Lease>,
    dismiss: bool,
    left: Left,
}

impl Session {
    /// Takes over what the relay knows. What is left to ask comes back.
    pub(super) fn end_exchange(
        &mut self,
        lease: Box<Lease>,
        mut relay: Box<Relay>,
        ended: Ended,
    ) -> Result<Option<Box<Unsettled>>, End> {
        let (dismiss, left) = (relay.dismiss, std::mem::take(&mut relay.left));
        self.talk.env.relays.put_back(relay);
        self.talk.in_doubt = false;
        self.client.unwatch();
        let shared = &self.talk.shared;
        *shared.server.borrow_mut() = None;
        shared.busy.set(false);
        self.talk.meter = None;
        shared.bytes.set((self.client.received, self.client.transmitted));
        self.talk.count_quiet();
        match ended {
            Ended::Ready => {}
            Ended::ClientGone => return Err(End::ClientGone),
            Ended::Fatal(error) => return Err(End::Told(error)),
            Ended::ServerGone => return Err(End::ServerEnded),
        }
        if self.acts_locally() {
            // Nothing that the tenant's servers told is the service's.
            if left.suspect {
                return Ok(Some(Box::new(Unsettled { lease, dismiss, left })));
            }
            self.give_back_and_leave(lease, !dismiss);
            return Ok(None);
        }
        self.talk.notice_told();
        let pinned = left.suspect || !self.talk.shared.pins.get().is_empty();
        if pinned || !self.talk.touched.is_empty() {
            return Ok(Some(Box::new(Unsettled { lease, dismiss, left })));
        }
        self.give_back(lease, dismiss);
        Ok(None)
    }

    /// Asks the server what the transaction has changed and what it holds, then gives it back, if
    /// the session may not keep it.
    pub(super) async fn settle(&mut self, unsettled: Box<Unsettled>) -> Result<(), Error> {
        let Unsettled { mut lease, dismiss, left } = *unsettled;
        if self.acts_locally() {
            self.clear(&mut lease, left).await?;
            self.give_back_and_leave(lease, !dismiss);
            return Ok(());
        }
        if !self.talk.touched.is_empty() {
            let limit = self.pool.cluster().scrub_timeout;
            self.talk.read_back(&mut lease, limit).await?;
        }
        if left.suspect || !self.talk.shared.pins.get().is_empty() {
            match self.settle_pin(lease, left, dismiss).await? {
                Some(unpinned) => lease = unpinned,
                None => return Ok(()),
            }
        }
        self.give_back(lease, dismiss);
        Ok(())
    }

    /// A service's session that has a tenant for this transaction only.
    fn acts_locally(&self) -> bool {
        self.talk.act.as_ref().is_some_and(|act| act.is_local())
    }

    fn give_back(&mut self, mut lease: Box<Lease>, dismiss: bool) {
        if self.talk.shared.cancel_astray.take() {
            // Dropped, it is closed: a late cancel shall not hit the next one's query.
            drop(lease);
            return;
        }
        if self.talk.shared.paused.get() {
            lease.close();
            return;
        }
        let mut stays = !dismiss;
        if let Some(bound) = lease.bound() {
            bound.heard.clear();
            stays &= bound.statements.len() <= STATEMENTS_MAX && bound.settings == self.talk.now;
        }
        let took = lease.park_timed(stays);
        self.talk.env.counts.times.note(&self.talk.tenant.tier, took);
    }
}
