//! COPY FROM STDIN and what was sent ahead of it. A server that reads copy data ignores Syncs up to
//! the copy's end; one that does not ignores copy data. Which of the two it does when it reads a
//! message that is on its way already only its answers tell.

use crate::client::back::out_of_step;
use crate::client::due::{Copy, Due};
use crate::client::relay::{Ended, Exchange};
use crate::wire::frontend;

impl Exchange<'_> {
    /// The server asks for copy data.
    pub(in crate::client) fn copy_begins(&mut self) -> Result<(), Ended> {
        let relay = &mut self.relay;
        let execute = match relay.due.front() {
            Some(Due::Query(_)) => false,
            Some(Due::Execute(_)) => true,
            _ => return Err(out_of_step()),
        };
        let sent = relay.due.begin_copy().ok_or_else(out_of_step)?;
        relay.copying = true;
        relay.doubts = true;
        relay.copy_in = sent == Copy::Open;
        // The Sync that should have closed the batch was swallowed.
        if execute && sent != Copy::EndedAndMore {
            relay.batch_open = true;
            relay.batch_runs = true;
        }
        Ok(())
    }

    /// A statement is complete; if it was a copy, what the server swallowed with it is done.
    pub(in crate::client) fn copy_ends(&mut self) {
        if std::mem::take(&mut self.relay.copying) {
            self.relay.copy_in = false;
            self.relay.due.end_copy();
        }
    }

    /// The copy's end (CopyDone or CopyFail) is on its way, or what looks like one.
    pub(in crate::client) fn send_copy_end(&mut self) {
        self.relay.copy_in = false;
        self.relay.due.push_copy_end();
    }

    /// A Sync among copy data: answered only if the copy has failed before the server reads it.
    pub(in crate::client) fn send_copy_sync(&mut self) {
        self.relay.due.push_copy_sync();
        self.relay.doubts = true;
    }

    /// Nothing is known to be due, but Syncs that a failed copy may or may not have swallowed. An
    /// empty Query shows it: whatever is answered to them comes ahead of its answer.
    pub(in crate::client) fn probe(&mut self) {
        let relay = &mut self.relay;
        relay.doubts = relay.copying || relay.due.has_doubts();
        let open = relay.batch_open || relay.copying || relay.client_left > 0;
        if open || !relay.due.is_only_doubts() {
            return;
        }
        self.flush_judged();
        if let Some(bound) = self.lease.bound() {
            // It drops the server's unnamed statement.
            bound.statements.remove(b"");
            frontend::put_query(&mut bound.connection().output, b"");
        }
        self.relay.due.push(Due::Probe);
    }
}
