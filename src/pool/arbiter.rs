//! [`Arbiter`]: how many server connections a cluster may have in the whole process, who waits for
//! one on which worker, and who is next. It is asked when a connection is opened, closed or moved
//! and when somebody waits; a server that stays on its worker is taken and parked without it. Its
//! lock is held for a few look-ups and never across an await.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::catalog::Cluster;
use crate::pool::gift::Gift;
use crate::pool::health::Health;
use crate::server::ConnectPlan;

/// How much earlier somebody elsewhere must have come to be served before those of a worker's own.
/// A move costs a scrub, two registrations and a wake-up, so equals are not worth it.
pub const HEAD_START: Duration = Duration::from_millis(2);

/// When somebody began to wait. Earlier is smaller; no two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub since: Instant,
    pub number: u64,
    pub worker: usize,
}

impl Ticket {
    fn has_head_start(self, other: Self) -> bool {
        self.since + HEAD_START <= other.since
    }
}

/// A pool: its worker, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId {
    pub worker: usize,
    pub number: u64,
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
        let made = clusters
            .entry(cluster.name.clone())
            .or_insert_with(|| Arc::new(Arbiter::new(cluster, self.mail.clone())));
        made.clone()
    }

    /// Every cluster's name and hosts.
    pub fn health(&self) -> Vec<(String, Arc<Health>)> {
        let clusters = self.clusters.lock();
        clusters.iter().map(|(name, it)| (name.clone(), it.health.clone())).collect()
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
    mail: Arc<[mpsc::UnboundedSender<Post>]>,
    book: Mutex<Book>,
    /// Which of its hosts answer.
    pub health: Arc<Health>,
    /// Sessions that keep their servers, or may.
    pub pinned: AtomicUsize,
}

#[derive(Debug)]
struct Book {
    places: usize,
    taken: usize,
    seats: Vec<Seat>,
    /// Pools somebody waits for, and those that something was promised to.
    queues: HashMap<PoolId, Queue, RandomState>,
}

/// What is known of a worker.
#[derive(Debug, Default)]
struct Seat {
    /// Places in use there.
    held: usize,
    /// It was told that somebody elsewhere waits, and has not found since that nobody does.
    told: bool,
    /// Since when the server that has been idle longest there is, as of its last housekeeping.
    idle_since: Option<Instant>,
    /// Of each of its pools the first who waits and was promised nothing.
    fronts: BTreeMap<Ticket, PoolId>,
}

/// Those who wait for one pool.
#[derive(Debug)]
struct Queue {
    plan: Arc<ConnectPlan>,
    tickets: VecDeque<Ticket>,
    /// Servers on their way to it: each is for one of those in front.
    pledged: usize,
    front: Option<Ticket>,
}

/// The right to one server connection. Dropping it gives it back and tells who is next.
#[derive(Debug)]
pub struct Place {
    arbiter: Arc<Arbiter>,
    worker: usize,
    /// What the connection is being opened, moved or closed for.
    pledge: Option<Pledge>,
}

/// Somebody who waits for a pool is being helped. Dropping it is the end of that: whoever still
/// waits is looked at again.
#[derive(Debug)]
pub struct Pledge {
    arbiter: Arc<Arbiter>,
    pool: Option<PoolId>,
}

/// What one who waits and finds nothing on its worker gets.
#[derive(Debug)]
pub enum Take {
    /// Something is on its way already.
    Covered,
    /// It may have a connection opened.
    Place(Place),
    /// There is a place, and it is for somebody on another worker, who came first.
    Later,
    /// Nothing. `alone`: its worker has no server of the cluster at all.
    Full { alone: bool },
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
    fn new(cluster: &Cluster, mail: Arc<[mpsc::UnboundedSender<Post>]>) -> Self {
        let seats = mail.iter().map(|_| Seat::default()).collect();
        let book = Book { places: cluster.capacity, taken: 0, seats, queues: HashMap::default() };
        let (cluster, book): (Arc<str>, _) = (cluster.name.as_str().into(), Mutex::new(book));
        let health = Arc::new(Health::new(cluster.clone(), mail.clone()));
        Self { cluster, mail, book, health, pinned: AtomicUsize::new(0) }
    }

    /// Changes how many places there are; what is taken above that comes back by itself.
    pub fn resize(&self, places: usize) {
        let mut book = self.book.lock();
        book.places = places;
        self.tell_next(&book, None);
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
    pub fn join(&self, pool: PoolId, plan: &Arc<ConnectPlan>, ticket: Ticket) {
        let mut book = self.book.lock();
        let queue = book.queues.entry(pool).or_insert_with(|| Queue::new(plan));
        // At the end, except for one who may wait again after its tenant had all it may have.
        let at = queue.tickets.partition_point(|known| *known < ticket);
        queue.tickets.insert(at, ticket);
        book.refresh(pool);
    }

    /// Takes one out who has been served or does not wait any more.
    pub fn leave(&self, pool: PoolId, ticket: Ticket) {
        let mut book = self.book.lock();
        let Some(queue) = book.queues.get_mut(&pool) else { return };
        if let Ok(at) = queue.tickets.binary_search(&ticket) {
            queue.tickets.remove(at);
        }
        book.refresh(pool);
        self.tell_next(&book, Some(pool.worker));
    }

    /// What there is for one who found nothing on its worker. A place goes to who came first, on
    /// whichever worker.
    pub fn take(self: &Arc<Self>, pool: PoolId, ticket: Ticket) -> Take {
        let mut book = self.book.lock();
        let Some(queue) = book.queues.get(&pool) else { return Take::Full { alone: false } };
        let at = queue.tickets.partition_point(|known| *known < ticket);
        if at < queue.pledged {
            return Take::Covered;
        }
        let alone = book.seats.get(pool.worker).is_none_or(|seat| seat.held == 0);
        if book.taken >= book.places {
            return Take::Full { alone };
        }
        if let Some((elder, other)) = book.next(Some(pool.worker))
            && elder.has_head_start(ticket)
        {
            self.tell(other.worker);
            return Take::Later;
        }
        let pledge = self.pledge_in(&mut book, pool);
        book.taken += 1;
        self.gain(&mut book, pool.worker);
        self.tell_next(&book, Some(pool.worker));
        let arbiter = self.clone();
        Take::Place(Place { arbiter, worker: pool.worker, pledge: Some(pledge) })
    }

    /// Promises something to the first of this pool who was promised nothing.
    pub fn pledge(self: &Arc<Self>, pool: PoolId) -> Pledge {
        self.pledge_in(&mut self.book.lock(), pool)
    }

    /// The one on another worker who is to have a server of this one: whoever waits longest, if
    /// that is long enough `before` the one who waits here.
    pub fn claim(self: &Arc<Self>, worker: usize, before: Option<Ticket>) -> Claim {
        let mut book = self.book.lock();
        let Some((ticket, pool)) = book.next(Some(worker)) else {
            if let Some(seat) = book.seats.get_mut(worker) {
                seat.told = false;
            }
            return Claim::Nobody;
        };
        if before.is_some_and(|own| !ticket.has_head_start(own)) {
            return Claim::Later;
        }
        let Some(plan) = book.queues.get(&pool).map(|queue| queue.plan.clone()) else {
            return Claim::Later;
        };
        let pledge = self.pledge_in(&mut book, pool);
        Claim::Need(Need { pool, plan, pledge })
    }

    /// Tells the workers that have servers of the cluster that somebody waits on this one.
    pub fn ask(&self, worker: usize) {
        let mut book = self.book.lock();
        if book.seats.get(worker).is_none_or(|seat| seat.fronts.is_empty()) {
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
        if let Some(seat) = self.book.lock().seats.get_mut(worker) {
            seat.idle_since = idle_since;
        }
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
    fn tell_next(&self, book: &Book, caller: Option<usize>) {
        if book.taken < book.places
            && let Some((_, pool)) = book.next(None)
            && caller != Some(pool.worker)
        {
            self.tell(pool.worker);
        }
    }

    fn pledge_in(self: &Arc<Self>, book: &mut Book, pool: PoolId) -> Pledge {
        if let Some(queue) = book.queues.get_mut(&pool) {
            queue.pledged += 1;
            book.refresh(pool);
            return Pledge { arbiter: self.clone(), pool: Some(pool) };
        }
        Pledge { arbiter: self.clone(), pool: None }
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
    fn end(&self, place_of: Option<usize>, pledged: Option<PoolId>) {
        let mut book = self.book.lock();
        // A worker that was lost has given its places back already.
        if let Some(seat) = place_of.and_then(|worker| book.seats.get_mut(worker))
            && seat.held > 0
        {
            seat.held -= 1;
            book.taken = book.taken.saturating_sub(1);
        }
        let mut told = None;
        if let Some(pool) = pledged
            && let Some(queue) = book.queues.get_mut(&pool)
        {
            queue.pledged = queue.pledged.saturating_sub(1);
            book.refresh(pool);
            if book.queues.get(&pool).is_some_and(|queue| queue.front.is_some()) {
                self.tell(pool.worker);
                told = Some(pool.worker);
            }
        }
        self.tell_next(&book, told);
    }

    fn lose(&self, worker: usize) {
        let mut book = self.book.lock();
        let Some(seat) = book.seats.get_mut(worker) else { return };
        seat.fronts.clear();
        let held = std::mem::take(&mut seat.held);
        book.taken = book.taken.saturating_sub(held);
        book.queues.retain(|pool, _| pool.worker != worker);
        self.tell_next(&book, Some(worker));
    }
}

impl Book {
    /// Who waits longest and was promised nothing, apart from those of one worker.
    fn next(&self, without: Option<usize>) -> Option<(Ticket, PoolId)> {
        let others = self.seats.iter().enumerate().filter(|(index, _)| Some(*index) != without);
        let first = |(_, seat): (usize, &Seat)| {
            seat.fronts.first_key_value().map(|(ticket, pool)| (*ticket, *pool))
        };
        others.filter_map(first).min()
    }

    /// Finds out anew who of a pool is the first without a promise.
    fn refresh(&mut self, pool: PoolId) {
        let Some(queue) = self.queues.get_mut(&pool) else { return };
        let front = queue.tickets.get(queue.pledged).copied();
        let over = queue.tickets.is_empty() && queue.pledged == 0;
        let known = std::mem::replace(&mut queue.front, front);
        if let Some(seat) = self.seats.get_mut(pool.worker)
            && known != front
        {
            known.map(|ticket| seat.fronts.remove(&ticket));
            front.map(|ticket| seat.fronts.insert(ticket, pool));
        }
        if over {
            self.queues.remove(&pool);
        }
    }
}

impl Queue {
    fn new(plan: &Arc<ConnectPlan>) -> Self {
        Self { plan: plan.clone(), tickets: VecDeque::new(), pledged: 0, front: None }
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
        let pledged = self.pledge.take().and_then(|mut pledge| pledge.pool.take());
        self.arbiter.end(Some(self.worker), pledged);
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            self.arbiter.end(None, Some(pool));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::Isolation;
    use crate::server::Conninfo;

    /// An arbiter of a cluster with this many places, its workers' mail, and a plan.
    fn desk(places: usize) -> (Arc<Arbiter>, Vec<Mail>, Arc<ConnectPlan>) {
        let (arbiters, mail) = Arbiters::new(3);
        let text = "postgresql://tg:x@127.0.0.1:5432/app?sslmode=disable";
        let plan = ConnectPlan {
            conninfo: Arc::new(Conninfo::parse(text).unwrap()),
            isolation: Isolation::Row,
            tenant_setting: "app.tenant_id".to_owned(),
            allow_superuser: false,
            bystander: false,
            level: Default::default(),
            enforce_level: true,
            reach: None,
            seal_keys: None,
        };
        (arbiters.of(&Cluster::new("main".to_owned(), places)), mail, Arc::new(plan))
    }

    fn pool(worker: usize) -> PoolId {
        PoolId { worker, number: 1 }
    }

    /// One who came this many milliseconds after the start.
    fn ticket(start: Instant, worker: usize, after: u64) -> Ticket {
        Ticket { since: start + Duration::from_millis(after), number: after, worker }
    }

    /// Which workers have been told to look.
    fn told(mail: &mut [Mail]) -> Vec<usize> {
        let told = |mail: &mut Mail| std::iter::from_fn(|| mail.try_recv().ok()).count() > 0;
        mail.iter_mut().enumerate().filter_map(|(at, mail)| told(mail).then_some(at)).collect()
    }

    fn place(take: Take) -> Place {
        match take {
            Take::Place(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_place_that_comes_back_is_for_who_waits_longest_on_any_worker() {
        let (arbiter, mut mail, plan) = desk(1);
        let start = Instant::now();
        let (first, old, young) = (ticket(start, 0, 0), ticket(start, 2, 10), ticket(start, 1, 20));
        arbiter.join(pool(0), &plan, first);
        let mut held = place(arbiter.take(pool(0), first));
        arbiter.leave(pool(0), first);
        drop(held.take_pledge());
        for (worker, ticket) in [(1, young), (2, old)] {
            arbiter.join(pool(worker), &plan, ticket);
            let take = arbiter.take(pool(worker), ticket);
            assert!(matches!(take, Take::Full { alone: true }), "{take:?}");
            arbiter.ask(worker);
        }
        assert_eq!(told(&mut mail), [0], "who has servers is told once that somebody waits");
        drop(held);
        assert_eq!(told(&mut mail), [2]);
        // Who comes by first does not get it; whose turn it is is told again.
        assert!(matches!(arbiter.take(pool(1), young), Take::Later));
        assert_eq!(told(&mut mail), [2]);
        let held = place(arbiter.take(pool(2), old));
        assert!(matches!(arbiter.take(pool(2), old), Take::Covered));
        assert_eq!((arbiter.taken(), arbiter.has_room()), (1, false));
        assert_eq!(told(&mut mail), [2], "that there is one more who waits");
        drop(held);
        assert_eq!(told(&mut mail), [2], "it was for the one who is still first");
    }

    #[test]
    fn those_who_came_at_about_the_same_time_are_served_by_their_own_worker_first() {
        let (arbiter, _mail, plan) = desk(1);
        let start = Instant::now();
        let (far, near) = (ticket(start, 1, 0), ticket(start, 0, 1));
        arbiter.join(pool(1), &plan, far);
        assert!(matches!(arbiter.claim(0, Some(near)), Claim::Later));
        assert!(matches!(arbiter.claim(0, Some(ticket(start, 0, 2))), Claim::Need(_)));
        assert!(matches!(arbiter.claim(0, None), Claim::Need(_)));
        assert!(matches!(arbiter.claim(1, None), Claim::Nobody));
    }

    #[test]
    fn help_goes_to_one_after_the_other_and_what_fails_is_looked_at_again() {
        let (arbiter, mut mail, plan) = desk(0);
        let start = Instant::now();
        for after in 1..=3 {
            arbiter.join(pool(1), &plan, ticket(start, 1, after));
        }
        let claim = |worker| match arbiter.claim(worker, None) {
            Claim::Need(need) => Some(need),
            Claim::Later | Claim::Nobody => None,
        };
        let helped: Vec<Need> = [0, 2, 0].into_iter().filter_map(claim).collect();
        assert_eq!(helped.len(), 3);
        assert!(claim(2).is_none(), "everybody is being helped");
        drop(helped.into_iter().next());
        assert_eq!(told(&mut mail), [1], "none of the three came");
        arbiter.leave(pool(1), ticket(start, 1, 1));
        arbiter.leave(pool(1), ticket(start, 1, 2));
        arbiter.leave(pool(1), ticket(start, 1, 3));
        assert!(arbiter.book.lock().queues.is_empty());
    }

    #[test]
    fn a_lost_workers_places_go_to_the_others() {
        let (arbiter, mut mail, plan) = desk(2);
        let start = Instant::now();
        let tickets = [0, 1].map(|after| ticket(start, 0, after));
        tickets.iter().for_each(|ticket| arbiter.join(pool(0), &plan, *ticket));
        let held = tickets.map(|ticket| place(arbiter.take(pool(0), ticket)));
        let waits = ticket(start, 1, 5);
        arbiter.join(pool(1), &plan, waits);
        assert!(matches!(arbiter.take(pool(1), waits), Take::Full { .. }));
        told(&mut mail);
        arbiter.lose(0);
        assert_eq!(told(&mut mail), [1]);
        drop(held);
        assert_eq!(arbiter.taken(), 0, "nothing is given back twice");
        drop(place(arbiter.take(pool(1), waits)));
    }

    #[test]
    fn a_worker_that_gets_a_server_while_others_wait_is_told() {
        let (arbiter, mut mail, plan) = desk(2);
        let start = Instant::now();
        let (far, near) = (ticket(start, 1, 1), ticket(start, 0, 0));
        arbiter.join(pool(1), &plan, far);
        arbiter.join(pool(0), &plan, near);
        arbiter.resize(1);
        told(&mut mail);
        let mut held = place(arbiter.take(pool(0), near));
        assert_eq!(told(&mut mail), [0], "to look for others when it parks what it has");
        arbiter.resize(0);
        held.move_to(2);
        assert_eq!(told(&mut mail), [2]);
        assert_eq!(arbiter.excess(), 1);
    }
}
