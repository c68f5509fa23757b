//! [`Arbiter`]: how many server connections a cluster may have in the whole process, who waits for
//! one on which worker, and who is next. It is asked when a connection is opened, closed or moved
//! and when somebody waits; a server that stays on its worker is taken and parked without it. Its
//! lock is held for a few look-ups and never across an await.

mod book;
#[cfg(test)]
mod kept_tests;
mod rank;
#[cfg(test)]
mod share_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use rank::{Claims, HEAD_START, Rank, Ticket};

use crate::budget::{Account, ClusterNumber, Share};
use crate::catalog::Cluster;
use crate::pool::arbiter::book::Book;
use crate::pool::gift::Gift;
use crate::pool::health::Health;
use crate::server::ConnectPlan;

/// A pool: its worker, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId {
    pub worker: usize,
    pub number: u64,
}

/// A tenant, by where its account is.
pub type TenantKey = usize;

/// Those of one tenant who wait for one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    pub pool: PoolId,
    pub tenant: TenantKey,
}

/// Where a tenant's account is.
pub fn tenant_key(account: &Account) -> TenantKey {
    std::ptr::from_ref(account).addr()
}

/// What a worker's pools are told by others.
#[derive(Debug)]
pub enum Post {
    /// Of this cluster a place is free, or somebody elsewhere needs a server: look who is next.
    Look(Arc<str>),
    /// It stands otherwise with a host of this cluster.
    Hosts(Arc<str>),
    Gift(Box<Gift>),
}

/// Where a worker's pools get their post.
pub type Mail = mpsc::UnboundedReceiver<Post>;

/// The arbiters of the process, one for each cluster, and the way to every worker.
#[derive(Debug)]
pub struct Arbiters {
    clusters: Mutex<HashMap<String, Arc<Arbiter>>>,
    mail: Arc<[mpsc::UnboundedSender<Post>]>,
}

impl Arbiters {
    /// For this many workers; each gets its mail.
    pub fn new(workers: usize) -> (Arc<Self>, Vec<Mail>) {
        let (mail, receivers): (Vec<_>, _) =
            (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        (Arc::new(Self { clusters: Mutex::default(), mail: mail.into() }), receivers)
    }

    /// The arbiter of a cluster; made when first asked for.
    pub fn of(&self, cluster: &Cluster) -> Arc<Arbiter> {
        let mut clusters = self.clusters.lock();
        // None is ever taken out.
        let number = clusters.len() as ClusterNumber + 1;
        let made = clusters
            .entry(cluster.name.clone())
            .or_insert_with(|| Arc::new(Arbiter::new(cluster, number, self.mail.clone())));
        made.clone()
    }

    /// Every cluster's name and hosts.
    pub fn health(&self) -> Vec<(String, Arc<Health>)> {
        let clusters = self.clusters.lock();
        clusters.iter().map(|(name, it)| (name.clone(), it.health.clone())).collect()
    }

    /// Of every cluster, who claims how much.
    pub fn claims(&self) -> HashMap<String, Claims> {
        let clusters: Vec<_> = self.clusters.lock().values().cloned().collect();
        let claims = |it: &Arc<Arbiter>| (it.cluster.to_string(), it.book.lock().claims());
        clusters.iter().map(claims).collect()
    }

    /// Sends a server to another worker. If that is gone, the server and its place are given up.
    pub fn send(&self, worker: usize, gift: Box<Gift>) {
        if let Some(mail) = self.mail.get(worker) {
            let _ = mail.send(Post::Gift(gift));
        }
    }

    /// A worker has ended in an unforeseen way: its places are free, nobody waits there any more.
    pub fn lose(&self, worker: usize) {
        let arbiters: Vec<_> = self.clusters.lock().values().cloned().collect();
        arbiters.iter().for_each(|arbiter| arbiter.lose(worker));
    }
}

/// One cluster's places and everybody who waits for one of its servers.
#[derive(Debug)]
pub struct Arbiter {
    cluster: Arc<str>,
    /// What accounts know the cluster by.
    pub number: ClusterNumber,
    mail: Arc<[mpsc::UnboundedSender<Post>]>,
    book: Mutex<Book>,
    /// Which of its hosts answer.
    pub health: Arc<Health>,
    /// Sessions that keep their servers, or may.
    pub pinned: AtomicUsize,
}

/// The right to one server connection. Dropping it gives it back and tells who is next.
#[derive(Debug)]
pub struct Place {
    arbiter: Arc<Arbiter>,
    worker: usize,
    /// What the connection is being opened, moved or closed for.
    pledge: Option<Pledge>,
    /// Whose it was, if it ends with a lease: the tenant has one less then.
    of: Option<TenantKey>,
}

/// Somebody who waits for a pool is being helped. Dropping it is the end of that: whoever still
/// waits is looked at again.
#[derive(Debug)]
pub struct Pledge {
    arbiter: Arc<Arbiter>,
    lane: Option<LaneId>,
}

/// What one who waits and finds nothing on its worker gets.
#[derive(Debug)]
pub enum Take {
    /// Something is on its way already.
    Covered,
    /// It may have a connection opened.
    Place(Place),
    /// There is a place, and it is for somebody on another worker, whose turn it is.
    Later,
    /// Nothing. `at_once`: its own worker is not to be waited for, because it has no server of the
    /// cluster at all, or because its tenant has none while others have more than their share. One
    /// that has some gets those back sooner than another could be scrubbed, moved and bound.
    Full { at_once: bool },
}

/// Somebody on another worker who is to get a server from this one.
#[derive(Debug)]
pub struct Need {
    pub pool: PoolId,
    pub plan: Arc<ConnectPlan>,
    pub pledge: Pledge,
}

/// Who else needs a server.
#[derive(Debug)]
pub enum Claim {
    Need(Need),
    /// Somebody, but not before those who wait here.
    Later,
    Nobody,
}

impl Arbiter {
    fn new(
        cluster: &Cluster,
        number: ClusterNumber,
        mail: Arc<[mpsc::UnboundedSender<Post>]>,
    ) -> Self {
        let book = Mutex::new(Book::new(number, cluster.capacity, mail.len()));
        let cluster: Arc<str> = cluster.name.as_str().into();
        let health = Arc::new(Health::new(cluster.clone(), mail.clone()));
        Self { cluster, number, mail, book, health, pinned: AtomicUsize::new(0) }
    }

    /// Changes how many places there are; what is taken above that comes back by itself.
    pub fn resize(&self, places: usize) {
        let mut book = self.book.lock();
        book.places = places;
        book.recheck_some();
        self.tell_next(&mut book, None);
    }

    /// How many more are taken than there are, after a resize.
    pub fn excess(&self) -> usize {
        let book = self.book.lock();
        book.taken.saturating_sub(book.places)
    }

    /// Whether a place is free.
    pub fn has_room(&self) -> bool {
        let book = self.book.lock();
        book.taken < book.places
    }

    /// How many are taken, in the whole process.
    pub fn taken(&self) -> usize {
        self.book.lock().taken
    }

    /// Puts one who begins to wait into the book.
    pub fn join(
        &self,
        lane: LaneId,
        plan: &Arc<ConnectPlan>,
        ticket: Ticket,
        tenant: (&Arc<Account>, Share),
    ) {
        self.book.lock().join(lane, plan, ticket, tenant);
    }

    /// Takes one out who has been served or does not wait any more.
    pub fn leave(&self, lane: LaneId, ticket: Ticket, served: bool) {
        let mut book = self.book.lock();
        book.leave(lane, ticket, served, Instant::now());
        self.tell_next(&mut book, Some(lane.pool.worker));
    }

    /// Takes one out for whom a place is of no use now; its tenant keeps what it had.
    pub fn set_aside(&self, lane: LaneId, ticket: Ticket) {
        let mut book = self.book.lock();
        book.set_aside(lane, ticket, Instant::now());
        self.tell_next(&mut book, Some(lane.pool.worker));
    }

    /// Puts one of those back where it stood.
    pub fn come_back(&self, lane: LaneId, ticket: Ticket) {
        self.book.lock().come_back(lane, ticket);
    }

    /// One of those does not wait any more.
    pub fn end_aside(&self, lane: LaneId) {
        self.book.lock().end_aside(lane, Instant::now());
    }

    /// A tenant has given a server back.
    pub fn gave_back(&self, tenant: TenantKey) {
        let mut book = self.book.lock();
        book.recheck(tenant, Instant::now());
        self.tell_held_back(&mut book);
    }

    /// Whose turn it is on a worker, after one who was looked at, now that a tenant has given a
    /// server back. Who was promised something need only be looked at if there is anything `idle`.
    pub fn turn(
        &self,
        worker: usize,
        after: Option<Rank>,
        idle: bool,
        gave_back: Option<TenantKey>,
    ) -> (Option<Rank>, bool) {
        let mut book = self.book.lock();
        if let Some(tenant) = gave_back {
            book.recheck(tenant, Instant::now());
        }
        let turn = book.turn(worker, after, idle).map(|(rank, _)| rank);
        match book.holds_back {
            true => book.hold_back(worker),
            false => self.tell_held_back(&mut book),
        }
        (turn, book.holds_back)
    }

    /// The one whose turn it was on this worker is not there any more.
    pub fn end_turn(&self, worker: usize) {
        let mut book = self.book.lock();
        book.end_turn(worker);
        self.tell_held_back(&mut book);
    }

    /// What there is for one who found nothing on its worker. A place goes to whose turn it is, on
    /// whichever worker.
    pub fn take(self: &Arc<Self>, lane: LaneId, ticket: Ticket) -> Take {
        let worker = lane.pool.worker;
        let mut book = self.book.lock();
        book.end_turn(worker);
        self.tell_held_back(&mut book);
        if book.is_covered(lane, ticket) {
            return Take::Covered;
        }
        let alone = book.seats.get(worker).is_none_or(|seat| seat.held == 0);
        if book.taken >= book.places {
            return Take::Full { at_once: alone || book.is_urgent(lane) };
        }
        if book.front(lane).is_some_and(|own| book.must_wait(own, lane.tenant)) {
            book.hold_back(worker);
            return Take::Later;
        }
        if let Some((rank, other)) = book.next(Some(worker))
            && book.front(lane).is_some_and(|own| rank.goes_before(own))
        {
            self.tell(other.pool.worker);
            return Take::Later;
        }
        let pledge = self.pledge_in(&mut book, lane);
        book.taken += 1;
        self.gain(&mut book, worker);
        self.tell_next(&mut book, Some(worker));
        let arbiter = self.clone();
        Take::Place(Place { arbiter, worker, pledge: Some(pledge), of: None })
    }

    /// Promises something to the first of a lane who was promised nothing.
    pub fn pledge(self: &Arc<Self>, lane: LaneId) -> Pledge {
        self.pledge_in(&mut self.book.lock(), lane)
    }

    /// The one on another worker who is to have a server of this one: whose turn it is, if that is
    /// clearly `before` the one who waits here.
    pub fn claim(self: &Arc<Self>, worker: usize, before: Option<Rank>) -> Claim {
        let mut book = self.book.lock();
        let Some((rank, lane)) = book.next(Some(worker)) else {
            if book.holds_back {
                book.hold_back(worker);
                return Claim::Later;
            }
            if let Some(seat) = book.seats.get_mut(worker) {
                seat.told = false;
            }
            return Claim::Nobody;
        };
        if before.is_some_and(|own| !rank.goes_before(own)) {
            return Claim::Later;
        }
        let Some(plan) = book.plan(lane) else { return Claim::Later };
        let pledge = self.pledge_in(&mut book, lane);
        Claim::Need(Need { pool: lane.pool, plan, pledge })
    }

    /// Tells the workers that have servers of the cluster that somebody waits on this one.
    pub fn ask(&self, worker: usize) {
        let mut book = self.book.lock();
        if !book.waits(worker) {
            return;
        }
        for (other, seat) in book.seats.iter_mut().enumerate() {
            if other != worker && seat.held > 0 && !seat.told {
                seat.told = true;
                self.tell(other);
            }
        }
    }

    /// Notes since when a worker's longest idle server is.
    pub fn publish(&self, worker: usize, idle_since: Option<Instant>) {
        let mut book = self.book.lock();
        book.forget(Instant::now());
        // What ended without a word, and what others claim by now, moves nobody by itself.
        book.recheck_some();
        if let Some(seat) = book.seats.get_mut(worker) {
            seat.idle_since = idle_since;
        }
        self.tell_held_back(&mut book);
    }

    /// Tells the worker that has the server idle longest of all to give it up, if that is longer
    /// than this worker's own longest. Once for each time it was published.
    pub fn ask_elder(&self, worker: usize, own: Option<Instant>) -> bool {
        let mut book = self.book.lock();
        let others = book.seats.iter_mut().enumerate().filter(|(other, _)| *other != worker);
        let idle = others.filter_map(|(other, seat)| Some((seat.idle_since?, other, seat)));
        let Some((since, other, seat)) = idle.min_by_key(|(since, ..)| *since) else {
            return false;
        };
        if own.is_some_and(|own| own <= since) {
            return false;
        }
        (seat.idle_since, seat.told) = (None, true);
        self.tell(other);
        true
    }

    /// Has a worker look who is next, when it is done with what it does.
    pub fn tell(&self, worker: usize) {
        if let Some(mail) = self.mail.get(worker) {
            // A worker that is gone has nobody who waits.
            let _ = mail.send(Post::Look(self.cluster.clone()));
        }
    }

    /// If a place is free, tells the worker whose turn it is, unless that is the one who calls.
    fn tell_next(&self, book: &mut Book, caller: Option<usize>) {
        self.tell_held_back(book);
        if book.taken < book.places
            && let Some((_, lane)) = book.next(None)
            && caller != Some(lane.pool.worker)
        {
            self.tell(lane.pool.worker);
        }
    }

    /// Tells the workers that left something idle for those who may come, once that is over.
    fn tell_held_back(&self, book: &mut Book) {
        book.take_held_back().for_each(|worker| self.tell(worker));
    }

    fn pledge_in(self: &Arc<Self>, book: &mut Book, lane: LaneId) -> Pledge {
        let lane = book.pledge(lane).then_some(lane);
        Pledge { arbiter: self.clone(), lane }
    }

    /// A worker has one more. It must know of those who wait elsewhere before it parks it.
    fn gain(&self, book: &mut Book, worker: usize) {
        let others_wait = book.next(Some(worker)).is_some();
        let Some(seat) = book.seats.get_mut(worker) else { return };
        seat.held += 1;
        if others_wait && !seat.told {
            seat.told = true;
            self.tell(worker);
        }
    }

    /// Ends a pledge, or a place with or without one. Both at once, so that nobody who is told of
    /// the one looks before the other.
    fn end(&self, place_of: Option<usize>, of: Option<TenantKey>, pledged: Option<LaneId>) {
        let mut book = self.book.lock();
        if let Some(tenant) = of {
            book.recheck(tenant, Instant::now());
        }
        // A worker that was lost has given its places back already.
        if let Some(seat) = place_of.and_then(|worker| book.seats.get_mut(worker))
            && seat.held > 0
        {
            seat.held -= 1;
            book.taken = book.taken.saturating_sub(1);
        }
        let mut told = None;
        if let Some(lane) = pledged
            && book.redeem(lane, Instant::now())
        {
            self.tell(lane.pool.worker);
            told = Some(lane.pool.worker);
        }
        self.tell_next(&mut book, told);
    }

    #[cfg(test)]
    pub fn weights(&self) -> u64 {
        self.book.lock().weights()
    }

    fn lose(&self, worker: usize) {
        let mut book = self.book.lock();
        book.lose(worker, Instant::now());
        self.tell_next(&mut book, Some(worker));
    }
}

impl Place {
    /// Says what its connection is being moved or closed for.
    pub fn carry(&mut self, pledge: Pledge) {
        self.pledge = Some(pledge);
    }

    /// What it was opened or moved for; to be dropped when the server is where it was needed.
    pub fn take_pledge(&mut self) -> Option<Pledge> {
        self.pledge.take()
    }

    /// Says whose server is being closed.
    pub fn was_of(&mut self, account: &Account) {
        self.of = Some(tenant_key(account));
    }

    /// Books it for another worker.
    pub fn move_to(&mut self, worker: usize) {
        let from = std::mem::replace(&mut self.worker, worker);
        let mut book = self.arbiter.book.lock();
        if let Some(seat) = book.seats.get_mut(from) {
            seat.held = seat.held.saturating_sub(1);
        }
        self.arbiter.gain(&mut book, worker);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let pledged = self.pledge.take().and_then(|mut pledge| pledge.lane.take());
        self.arbiter.end(Some(self.worker), self.of, pledged);
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.arbiter.end(None, None, Some(lane));
        }
    }
}
