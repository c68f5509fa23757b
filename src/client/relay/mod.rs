//! The hot loop: bytes both ways between a client and the server it has leased, until the server is
//! ready and nothing is in flight. One task; it waits on four things at once (either side to read,
//! either side to write), so two full buffers cannot stop it.

mod budget;
mod copying;
mod stand_in;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::budget::Waiting;
use crate::client::due::Queue;
use crate::client::prepared::Known;
use crate::client::relay::budget::{Free, Term};
use crate::client::relay::stand_in::Trial;
use crate::client::session::FAREWELL_BYTES_MAX;
use crate::client::session::pin::Left;
use crate::client::session::timer::Timer;
use crate::client::talk::Talk;
use crate::error::Error;
use crate::guard::Reading;
use crate::net::Connection;
use crate::pool::Lease;
use crate::wire::frame;

/// Bytes that wait for a slow reader before the other side is no longer read.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// Below this many bytes it is cheaper to copy them behind what waits already than to send twice.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// How an exchange ended.
#[derive(Debug)]
pub enum Ended {
    /// The server is ready and may be parked.
    Ready,
    /// The client said goodbye or hung up.
    ClientGone,
    /// The client is told, then the session ends.
    Fatal(Error),
    /// The server ended the session itself and the client has been told.
    ServerGone,
}

/// What is known of an exchange between two looks at the sockets.
#[derive(Debug)]
pub struct Relay {
    pub due: Queue,
    /// The server's transaction status: `I`, `T` or `E`.
    pub status: u8,
    /// Something was sent.
    pub begun: bool,
    /// Extended messages went out that no Sync has closed.
    pub batch_open: bool,
    /// One of them runs something, rather than only prepare or describe it.
    pub batch_runs: bool,
    /// One of them executes something.
    pub executed: bool,
    /// The server skips everything up to the next Sync.
    pub skipping: bool,
    /// The server reads copy data, and its end was not sent yet.
    pub copy_in: bool,
    /// The server reads copy data, as far as is known.
    pub copying: bool,
    /// After the messages sent so far nothing may be sent until they are answered.
    pub barrier: bool,
    /// The same, once the batch has its Sync.
    pub barrier_at_sync: bool,
    /// Bytes at the front of the client's input that may go to the server, and how much of a long
    /// frame is still to come behind them.
    pub to_server: usize,
    pub client_left: usize,
    /// How much of a refused frame is still to come, to be dropped.
    pub client_drop: usize,
    /// The same for the other direction.
    pub to_client: usize,
    pub server_left: usize,
    /// A text that was read while there was no server yet.
    pub front: Option<Reading>,
    /// A statement that takes or gives something else here than where it was prepared.
    pub changed: Option<Rc<Known>>,
    /// What the Query at the front waits for.
    pub ahead: Ahead,
    /// A batch that runs a stand-in for its unnamed statement and is not confirmed yet.
    pub trial: Option<Box<Trial>>,
    /// The server must be scrubbed before anybody has it again, this session included.
    pub dismiss: bool,
    /// The session went back to its start-up values; the client is told at the end of the request.
    pub was_reset: bool,
    /// What it may have left on the server: see `pin.rs`.
    pub left: Left,
    /// A request that is over its budget waits until then.
    pub held_until: Option<Instant>,
    /// Since when it waits.
    pub held_since: Option<(Instant, Waiting)>,
    /// The request at the front was charged already.
    pub charged: bool,
    /// When the running request is over its time.
    pub query_term: Option<Term>,
    /// The same of the transaction.
    pub transaction_term: Option<Term>,
    /// Time that is the client's and not the server's.
    pub(super) free: Free,
    /// The running request was over its time.
    pub time_exceeded: Option<Term>,
    /// Something due may be answered or not, see [`Queue::is_only_doubts`].
    pub doubts: bool,
    /// The server's own FATAL was passed on.
    pub server_fatal: bool,
    /// Nothing more can be judged before more of the client's bytes are here.
    pub starved: bool,
    /// The client said goodbye behind what is still being answered.
    pub goodbye: bool,
    /// The client closed its side behind what looks like a goodbye.
    pub hung_up: bool,
    /// Since when the client has neither taken nor finished anything it should.
    pub(super) stalled_since: Option<Instant>,
}

/// What the gate sends ahead of a Query, so that the server has the statements it is about.
#[derive(Debug)]
pub enum Ahead {
    None,
    Sent,
    /// It failed with this; the Query would fail with it.
    Failed(Vec<u8>),
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            due: Queue::default(),
            status: b'I',
            begun: false,
            batch_open: false,
            batch_runs: false,
            executed: false,
            skipping: false,
            copy_in: false,
            copying: false,
            barrier: false,
            barrier_at_sync: false,
            to_server: 0,
            client_left: 0,
            client_drop: 0,
            to_client: 0,
            server_left: 0,
            front: None,
            changed: None,
            ahead: Ahead::None,
            trial: None,
            dismiss: false,
            was_reset: false,
            left: Left::default(),
            held_until: None,
            held_since: None,
            charged: false,
            query_term: None,
            transaction_term: None,
            free: Free::default(),
            time_exceeded: None,
            doubts: false,
            server_fatal: false,
            starved: true,
            goodbye: false,
            hung_up: false,
            stalled_since: None,
        }
    }
}

/// Relays of a worker that no exchange uses: a request costs no allocation, and an idle session
/// holds none.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "an exchange takes the box, not what is in it")]
pub struct Relays(RefCell<Vec<Box<Relay>>>);

/// Most relays kept for reuse.
const RELAYS_KEPT_MAX: usize = 64;

impl Relays {
    /// One for an exchange whose first request was charged, and its text read, already.
    pub fn take(&self, front: Option<Reading>) -> Box<Relay> {
        let mut relay = self.0.borrow_mut().pop().unwrap_or_default();
        relay.front = front;
        relay.charged = true;
        relay
    }

    /// Takes one back. Nothing of what it was used for stays in it: the next exchange may be
    /// another tenant's.
    pub fn put_back(&self, mut relay: Box<Relay>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < RELAYS_KEPT_MAX {
            let mut due = std::mem::take(&mut relay.due);
            due.clear();
            *relay = Relay { due, ..Relay::default() };
            kept.push(relay);
        }
    }
}

impl Relay {
    /// Whether something waits for answers. While the server reads copy data, or skips up to a
    /// Sync, what it waits for is the client's to send.
    pub fn is_barred(&self) -> bool {
        self.barrier && !self.copy_in && !self.skipping
    }

    /// A Sync went out: the batch is closed.
    pub fn end_batch(&mut self) {
        self.batch_open = false;
        self.batch_runs = false;
        self.executed = false;
        self.skipping = false;
        self.charged = false;
        self.barrier |= std::mem::take(&mut self.barrier_at_sync);
    }
}

/// What came of one round.
enum Turn {
    /// The lease may end.
    Over,
    /// Something moved, so there may be more to do.
    Moved,
    Still,
}

/// Everything one look at the sockets works on.
pub struct Exchange<'session> {
    pub client: &'session mut Connection,
    pub lease: &'session mut Lease,
    pub talk: &'session mut Talk,
    pub relay: Box<Relay>,
    pub timer: &'session mut Timer,
}

impl Exchange<'_> {
    /// Relays until the server may be parked or the session must end.
    pub async fn run(&mut self) -> Ended {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// At the end: hands the client what is complete. False if it has half a message by now.
    pub fn hand_over(&mut self) -> bool {
        if self.relay.server_left > 0 {
            return false;
        }
        self.hand_judged();
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.talk.shared.wake_with(cx);
        self.resume_meter();
        loop {
            match self.turn(cx) {
                Ok(Turn::Over) => return Poll::Ready(Ended::Ready),
                Ok(Turn::Moved) if !self.is_drained() => {}
                Ok(Turn::Moved | Turn::Still) => return self.wait(cx),
                Err(ended) => return Poll::Ready(ended),
            }
        }
    }

    /// One round: judge what was read, send what may go, read what there is room for.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, Ended> {
        let mut moved = false;
        self.relay.starved = true;
        if self.client.input.len() > self.relay.to_server || self.relay.client_drop > 0 {
            moved |= self.walk_client()?;
        }
        let (to_send, to_walk) = match self.lease.bound() {
            Some(bound) => {
                let server = bound.connection();
                let to_send = self.relay.to_server > 0 || !server.is_sent();
                (to_send, server.input.len() > self.relay.to_client)
            }
            None => return Err(Ended::ServerGone),
        };
        if to_send {
            moved |= self.send_to_server(cx)?;
        }
        if to_walk {
            moved |= self.walk_server()?;
        }
        if self.relay.doubts {
            self.probe();
        }
        if self.relay.to_client > 0 || !self.client.is_sent() {
            moved |= self.send_to_client(cx)?;
        }
        if self.is_over() {
            return Ok(Turn::Over);
        }
        // What the server said is passed on before the client is asked for more: most often the
        // exchange is over then. A client that does not take it is asked all the same.
        if self.fill_from_server(cx)? {
            return Ok(Turn::Moved);
        }
        moved |= self.fill_from_client(cx)?;
        Ok(if moved { Turn::Moved } else { Turn::Still })
    }

    /// Whether a further turn could find nothing to do: both inputs are used up, both outputs are
    /// sent, and whoever has more to say wakes the task.
    fn is_drained(&mut self) -> bool {
        let client = self.client.input.is_empty() && self.client.is_sent();
        let waits = self.relay.barrier || self.relay.held_until.is_some();
        let Some(bound) = self.lease.bound().filter(|_| client && !waits) else { return false };
        let server = bound.connection();
        server.input.is_empty() && server.is_sent()
    }

    fn send_to_server(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let Some(bound) = self.lease.bound() else { return Err(Ended::ServerGone) };
        let server = bound.connection();
        let pass = &mut self.relay.to_server;
        match move_bytes(self.client, server, pass, cx) {
            Ok(moved) => Ok(moved),
            // What the server said before it went is still to be read.
            Err(_) if self.relay.due.is_empty() => Err(server_lost()),
            Err(_) => {
                self.client.input.consume(*pass);
                *pass = 0;
                Ok(false)
            }
        }
    }

    fn send_to_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let Some(bound) = self.lease.bound() else { return Err(Ended::ServerGone) };
        let server = bound.connection();
        let moved = move_bytes(server, self.client, &mut self.relay.to_client, cx);
        let moved = moved.map_err(|_| Ended::ClientGone)?;
        if moved {
            self.relay.stalled_since = None;
            self.talk.charge_bytes(self.client.transmitted);
        }
        Ok(moved)
    }

    fn fill_from_server(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        if self.relay.to_client > 0 || self.client.output.len() > WAITING_BYTES_MAX {
            return Ok(false);
        }
        let Some(bound) = self.lease.bound() else { return Err(Ended::ServerGone) };
        match bound.connection().poll_fill(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(1..)) => Ok(true),
            Poll::Ready(Ok(_) | Err(_)) => Err(match self.relay.server_fatal {
                true => Ended::ServerGone,
                false => server_lost(),
            }),
        }
    }

    fn fill_from_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        if self.relay.goodbye || self.relay.hung_up {
            return Ok(false);
        }
        if self.is_client_unread()? {
            if !self.client.has_ended() {
                return Ok(false);
            }
            // The rest decides whether it said goodbye.
            if self.client.input.len() > FAREWELL_BYTES_MAX {
                return Err(Ended::ClientGone);
            }
        }
        match self.client.poll_fill(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(1..)) => {
                self.relay.stalled_since = None;
                Ok(true)
            }
            // What was sent before the goodbye is still carried out.
            Poll::Ready(Ok(0)) if self.client.ends_in_goodbye() => {
                self.relay.hung_up = true;
                Ok(true)
            }
            Poll::Ready(Ok(_) | Err(_)) => Err(Ended::ClientGone),
        }
    }

    /// Whether there is enough of what the client sends ahead: one buffer, while something holds it
    /// back.
    fn is_client_unread(&mut self) -> Result<bool, Ended> {
        let Some(bound) = self.lease.bound() else { return Err(Ended::ServerGone) };
        let full = bound.connection().output.len() > WAITING_BYTES_MAX;
        let ahead = !self.relay.starved && self.client.input.len() > WAITING_BYTES_MAX;
        Ok(self.relay.to_server > 0 || full || ahead)
    }

    /// Whether a client that is not read has hung up: who has must not keep its server for as long
    /// as it takes to come to the end of what it sent.
    fn notices_end(&mut self, cx: &mut Context<'_>) -> bool {
        let listens = !(self.relay.goodbye || self.relay.hung_up || self.client.has_ended());
        listens
            && matches!(self.is_client_unread(), Ok(true))
            && self.client.poll_ended(cx).is_ready()
    }

    /// Whether the lease may end: everything answered and handed on, no transaction, no cancel on
    /// its way, and nothing of a started message sent.
    fn is_over(&mut self) -> bool {
        let relay = &self.relay;
        let quiet = relay.due.is_empty() && relay.status == b'I' && !relay.batch_open;
        let quiet = quiet && matches!(relay.ahead, Ahead::None) && relay.trial.is_none();
        let passed = relay.to_server == 0
            && relay.client_left == 0
            && relay.client_drop == 0
            && relay.to_client == 0;
        if !(quiet && passed && !relay.copy_in && relay.server_left == 0) {
            return false;
        }
        let Some(bound) = self.lease.bound() else { return false };
        let server = bound.connection();
        // Half a message behind the last answer holds nobody: whoever gets the server next sees it
        // there and closes it.
        let walked = server.input.is_empty() || is_half(server.input.data());
        server.is_sent() && walked && self.talk.shared.cancels.get() == 0
    }

    /// Whether the client has left and no answer is due that would end what it began: what a batch
    /// without its Sync or a copy without its end did is undone, as PostgreSQL does.
    fn is_abandoned(&mut self) -> bool {
        let left = self.relay.goodbye || self.relay.hung_up && !self.must_wait();
        left && (self.relay.copy_in || !self.relay.due.awaits_ready())
    }

    /// Nothing can move: make sure something wakes the task when a limit is reached.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Some(ended) = self.talk.shared.must_end() {
            // Between two transactions it ends in good order; a drain's last deadline ends it here.
            return Poll::Ready(Ended::Fatal(ended));
        }
        if self.is_abandoned() {
            return Poll::Ready(Ended::ClientGone);
        }
        if self.notices_end(cx) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let relay = &self.relay;
        let begun = relay.client_left + relay.client_drop > 0 || !self.client.input.is_empty();
        // A server that takes no bytes, or an answer that is awaited, is not the client's fault.
        let half_sent = begun && relay.starved && relay.to_server == 0;
        let unread = relay.to_client > 0 || !self.client.is_sent();
        let stall = match half_sent || unread {
            true => {
                let since = *self.relay.stalled_since.get_or_insert_with(Instant::now);
                Some(since + self.talk.env.settings.borrow().stall_timeout)
            }
            false => {
                self.relay.stalled_since = None;
                None
            }
        };
        let idle = self.idle_deadline();
        let free = self.hold_meter();
        let relay = &self.relay;
        let ends = |term: Option<Term>| term.map(|term| term.ends);
        let (query, transaction) = (ends(relay.query_term), ends(relay.transaction_term));
        let shown = self.talk.shown_until();
        let limits = [stall, idle, query, transaction, relay.held_until, free, shown];
        let Some(next) = limits.into_iter().flatten().min() else { return Poll::Pending };
        if self.timer.poll_until(next, &self.talk.env.clock, cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if stall.is_some_and(|at| at <= now) {
            return Poll::Ready(Ended::Fatal(Error::ClientStalled));
        }
        if idle.is_some_and(|at| at <= now) {
            return Poll::Ready(Ended::Fatal(self.idle_for_too_long(now)));
        }
        if let Some(ended) = self.pass_deadlines(now) {
            return Poll::Ready(ended);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Whether these bytes are the beginning of a message and nothing more.
fn is_half(bytes: &[u8]) -> bool {
    match frame::header(bytes) {
        Ok(Some(header)) => header.length > bytes.len(),
        Ok(None) => true,
        Err(_) => false,
    }
}

fn server_lost() -> Ended {
    Ended::Fatal(Error::ServerLost)
}

/// Sends the first `pass` bytes of one side's input, and what the other side's output holds ahead
/// of them, in as few calls as possible.
fn move_bytes(
    from: &mut Connection,
    to: &mut Connection,
    pass: &mut usize,
    cx: &mut Context<'_>,
) -> io::Result<bool> {
    let mut moved = false;
    if *pass > 0 && !to.output.is_empty() && *pass <= COPY_BYTES_MAX {
        to.output.extend_from_slice(from.input.data().get(..*pass).unwrap_or_default());
        from.input.consume(*pass);
        *pass = 0;
    }
    while *pass > 0 {
        match to.poll_pass(from, *pass, cx)? {
            Poll::Ready(sent) => *pass = pass.saturating_sub(sent.max(1)),
            Poll::Pending => return Ok(moved),
        }
        moved = true;
    }
    if !to.is_sent() {
        let waiting = to.output.len();
        let _ = to.poll_send(cx)?;
        moved |= to.output.len() < waiting;
    }
    Ok(moved)
}
