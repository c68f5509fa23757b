//! A session between two transactions: read until there is a request that needs a server. What
//! needs none (an empty batch, a refusal, goodbye) is dealt with here.

use std::task::{Context, Poll};
use std::time::Instant;

use crate::client::forward::control;
use crate::client::judge::{Bench, Judged, judge};
use crate::client::prepared::key;
use crate::client::refuse;
use crate::client::session::life::Job;
use crate::client::session::{End, Patience, Session};
use crate::error::{Budget, Ending, Error, Severity};
use crate::guard::Reading;
use crate::wire::backend;
use crate::wire::frame::{HEADER_BYTES, Header};
use crate::wire::frontend;

/// What comes next.
#[derive(Debug)]
pub enum Front {
    Request(Request),
    /// A message that the gate answers for a service's session.
    Act(Header),
    Gone,
    /// The server the session kept has ended it, in its own words.
    ServerGone,
    End(Error),
}

/// A request whose first message is complete at the front of the input.
#[derive(Debug, Default)]
pub struct Request {
    /// Its text, if the first message has one, was read already.
    pub reading: Option<Reading>,
    /// It costs the tenant nothing of its rate.
    pub free: bool,
    /// It can only end a transaction.
    pub ends_transaction: bool,
}

/// What became of the first frame.
pub(in crate::client) enum Look {
    Request(Request),
    Act(Header),
    /// It is done with; look at the next.
    Done,
    /// More of it must come.
    More,
    End(Front),
}

impl Session {
    /// Waits for a request.
    #[inline]
    pub(super) fn poll_job(&mut self, cx: &mut Context<'_>) -> Poll<Job> {
        self.poll_request(cx).map(|front| match front {
            Front::Request(request) => Job::Serve(request),
            Front::Act(header) => Job::Act(header),
            Front::Gone => Job::Close(End::ClientGone),
            Front::ServerGone => Job::Close(End::ServerEnded),
            Front::End(error) => Job::Close(End::Told(error)),
        })
    }

    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Front> {
        loop {
            self.adopt_news();
            let lost = self.lost_tenant();
            if let Some(error) = self.talk.shared.ending.borrow().as_deref() {
                return Poll::Ready(Front::End(error.clone()));
            }
            if let Some(error) = lost {
                return Poll::Ready(Front::End(error));
            }
            if self.pinned.as_ref().is_some_and(|lease| !lease.is_of(&self.pool)) {
                // What the server holds cannot move with the tenant.
                return Poll::Ready(Front::End(Error::Ended(Ending::TenantEnded)));
            }
            if self.client.output.len() > WAITING_BYTES_MAX {
                // Whoever does not read its answers is not asked for more questions.
                match self.poll_send(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Front::Gone),
                    Poll::Pending => {
                        self.talk.shared.wake_with(cx);
                        return self.poll_stall(cx);
                    }
                }
            }
            if let Poll::Ready(front) = self.poll_pinned(cx) {
                return Poll::Ready(front);
            }
            match self.look() {
                Look::Request(request) => return Poll::Ready(Front::Request(request)),
                Look::Act(header) => return Poll::Ready(Front::Act(header)),
                Look::End(front) => return Poll::Ready(front),
                Look::Done => continue,
                Look::More => {}
            }
            if !self.client.is_sent() && self.poll_send(cx).is_ready_err() {
                return Poll::Ready(Front::Gone);
            }
            match self.client.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => self.stalled_since = None,
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Front::Gone),
                Poll::Pending => {
                    self.talk.shared.wake_with(cx);
                    return self.poll_stall(cx);
                }
            }
        }
    }

    /// Sends what waits; whoever takes some of it has not stalled.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let before = self.client.transmitted;
        let sent = self.client.poll_send(cx);
        let stalled = self.client.transmitted > before && self.stalled_since.take().is_some();
        if stalled && self.pinned.is_none() {
            // Every greeting waits a moment, until the runtime knows that its socket takes it.
            self.timer.let_go();
            self.client.rest();
        }
        sent
    }

    /// An idle client may be silent for as long as its tenant's limit lets it, but not for long in
    /// the middle of a message.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Front> {
        let idle = self.client.input.is_empty() && self.client.is_sent() && self.dropping == 0;
        let own = self.talk.limits().client_idle;
        let limit = match idle {
            true => [own, self.talk.idle].into_iter().flatten().min(),
            false => Some(self.talk.env.settings.borrow().stall_timeout),
        };
        let Some(limit) = limit else {
            self.timer.let_go_if_over();
            return Poll::Pending;
        };
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        self.timer.poll_until(since + limit, &self.talk.env.clock, cx).map(|()| {
            Front::End(match idle {
                true if own == Some(limit) => {
                    self.talk.overran(Budget::ClientIdle, limit, since.elapsed())
                }
                true => Error::ClientIdle,
                false => Error::ClientStalled,
            })
        })
    }

    fn look(&mut self) -> Look {
        if self.dropping > 0 {
            let step = self.dropping.min(self.client.input.len());
            self.client.input.consume(step);
            self.dropping -= step;
            if self.dropping > 0 {
                return Look::More;
            }
        }
        let header = match self.client.peek() {
            Ok(Some(header)) => header,
            Ok(None) => return Look::More,
            Err(error) => return violation(error.to_string()),
        };
        if let Some(look) = self.look_as_service(header) {
            return look;
        }
        match header.tag {
            b'X' => Look::End(Front::Gone),
            b'S' if header.length == HEADER_BYTES => {
                self.skipping = false;
                self.client.input.consume(header.length);
                backend::put_ready(&mut self.client.output, b'I');
                Look::Done
            }
            b'Q' | b'P' | b'B' | b'D' | b'C' | b'E' | b'F' | b'H' if self.skipping => {
                self.drop_frame(header)
            }
            // Copy data behind a COPY that failed is ignored, as PostgreSQL does.
            b'H' | b'd' | b'c' | b'f' => self.drop_frame(header),
            b'Q' | b'P' => self.look_at_text(header),
            b'B' => self.look_at_bind(header),
            // The relay takes these whole. Half of one is not worth a server yet.
            b'D' | b'C' | b'E' => {
                match self.client.input.len() < header.length.min(NAMES_BYTES_MAX) {
                    true => Look::More,
                    false => Look::Request(Request { free: true, ..Request::default() }),
                }
            }
            b'F' => match refuse::function_call(&self.talk.tenant) {
                Some(error) => self.refuse_frame(header, error),
                None if self.client.input.len() < header.length.min(NAMES_BYTES_MAX) => Look::More,
                None => Look::Request(Request::default()),
            },
            tag => violation(format!("invalid frontend message type {tag}")),
        }
    }

    fn look_at_text(&mut self, header: Header) -> Look {
        let bytes_max = self.talk.env.settings.borrow().statement_bytes;
        if header.length > bytes_max {
            return self.refuse_frame(header, Error::StatementTooLong { bytes_max });
        }
        let Some(body) = self.client.input.data().get(HEADER_BYTES..header.length) else {
            return Look::More;
        };
        let text = match header.tag {
            b'Q' => frontend::query(body),
            _ => match frontend::parse(body) {
                Some(message) => {
                    let options = self.talk.read_options();
                    if let Some(known) = self.talk.prepared.same_as_last(message, options) {
                        let ends_transaction = known.ends_transaction;
                        let free = known.control || ends_transaction;
                        return Look::Request(Request { reading: None, free, ends_transaction });
                    }
                    Some(message.text)
                }
                None => None,
            },
        };
        let Some(text) = text else { return violation("invalid Query or Parse message".into()) };
        let reading = self.talk.read(text);
        let (free, ends_transaction) = control(&reading);
        if !matches!(reading, Reading::Ordinary(_)) {
            let talk = &self.talk;
            let outside_transaction = talk.act.as_ref().is_none_or(|act| !act.has_chosen_block());
            let tenant = &talk.tenant;
            let parsed = header.tag == b'P';
            let bench = Bench { tenant, talk, outside_transaction, parsed, stand_in: None };
            if let Judged::Refuse(error) = judge(text, reading.clone(), bench) {
                return self.refuse_frame(header, error);
            }
        }
        Look::Request(Request { reading: Some(reading), free, ends_transaction })
    }

    fn look_at_bind(&mut self, header: Header) -> Look {
        let held = self.client.input.data().get(HEADER_BYTES..).unwrap_or_default();
        let body = held.get(..(header.length - HEADER_BYTES).min(held.len())).unwrap_or_default();
        let Some((_, name)) = frontend::bind_names(body) else {
            return match held.len() >= NAMES_BYTES_MAX.min(header.length - HEADER_BYTES) {
                true => violation("invalid Bind message".into()),
                false => Look::More,
            };
        };
        if self.client.input.len() < header.length.min(NAMES_BYTES_MAX) {
            // Half of one is not worth a server yet, unless it is too long to wait for.
            return Look::More;
        }
        let known = self.talk.prepared.find(key(name));
        let ends_transaction = known.is_some_and(|known| known.ends_transaction);
        let free = ends_transaction || known.is_some_and(|known| known.control);
        Look::Request(Request { reading: None, free, ends_transaction })
    }

    /// Answers the request at the front in the server's place.
    pub(in crate::client) fn refuse_front(&mut self, error: Error) -> Result<(), End> {
        if error.facts().severity == Severity::Fatal {
            return Err(End::Told(error));
        }
        match self.client.peek() {
            Ok(Some(header)) => {
                self.refuse_frame(header, error);
                Ok(())
            }
            _ => Err(End::Told(error)),
        }
    }

    pub(in crate::client) fn refuse_frame(&mut self, header: Header, error: Error) -> Look {
        self.talk.count_refusal(&error);
        refuse::put(&mut self.client.output, &error, Severity::Error);
        self.talk.act.iter_mut().for_each(|act| act.fail());
        match header.tag {
            b'Q' | b'F' => {
                let status = self.talk.act.as_ref().map_or(b'I', |act| act.status());
                backend::put_ready(&mut self.client.output, status);
            }
            _ => self.skipping = true,
        }
        self.drop_frame(header)
    }

    fn drop_frame(&mut self, header: Header) -> Look {
        self.talk.patience = Patience::default();
        self.dropping = header.length;
        Look::Done
    }
}

/// Answers that wait for a client that does not read, before no more is answered.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// Portal and statement names are at most this long together, as everywhere in the relay.
pub(in crate::client) const NAMES_BYTES_MAX: usize = 64 * 1024;

fn violation(what: String) -> Look {
    Look::End(Front::End(Error::Protocol { what: what.into() }))
}

/// Whether a poll ended in an error.
trait IsReadyErr {
    fn is_ready_err(&self) -> bool;
}

impl<T, E> IsReadyErr for Poll<Result<T, E>> {
    fn is_ready_err(&self) -> bool {
        matches!(self, Poll::Ready(Err(_)))
    }
}
