//! [`Book`]: places, and who waits for one. It is told the time and talks to nobody; what is done
//! for one who waits costs a few look-ups in ordered maps, however many tenants wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::budget::{Account, ClusterNumber, Share};
use crate::pool::arbiter::rank::{All, Claims, FEW, InUse, Rank, Standing, Ticket};
use crate::pool::arbiter::{LaneId, TenantKey};
use crate::server::ConnectPlan;

/// What a tenant had is forgotten so long after the last of its own stopped waiting, unless it uses
/// what others wait for.
const MEMORY: Duration = Duration::from_secs(1);

/// How often, in one decision, a rank that turns out old is replaced before one is taken as it is.
const REPLACED_MAX: usize = 8;

/// Most standings that are forgotten in one decision: no more than one can be left in it.
const FORGOTTEN_MAX: usize = 8;

/// How many of those that have much are looked at again before one of them gets more.
const DOUBTED: usize = 2;

/// How many tenants are looked at without a cause each time a worker has tidied up.
const RECHECKED: usize = 32;

#[derive(Debug)]
pub struct Book {
    cluster: ClusterNumber,
    pub places: usize,
    pub taken: usize,
    pub seats: Vec<Seat>,
    /// Where somebody waits, or something was promised to.
    lanes: HashMap<LaneId, Lane, RandomState>,
    standings: BTreeMap<TenantKey, Standing>,
    /// Of all standings that wait or use anything.
    all: All,
    in_use: InUse,
    /// The tenants that are counted in that as having much, and which was looked at last.
    much: BTreeSet<TenantKey>,
    doubted: TenantKey,
    /// The last look found only those who would borrow what is kept for others.
    pub holds_back: bool,
    /// Workers that have left something idle for that.
    held_back: BTreeSet<usize>,
    /// What each tenant of which somebody waits has had.
    levels: BTreeSet<(u64, TenantKey)>,
    /// The least of those so far: where one starts who comes new. Not what the one had who was
    /// served last: a minimum, or a share with nothing in use, is served whatever it had.
    spent: u64,
    /// The latest moment it was told.
    now: Instant,
    /// Tenants in the order in which they stopped waiting.
    left: VecDeque<(Instant, TenantKey)>,
    /// The tenant that was looked at last without a cause.
    rechecked: TenantKey,
    /// Standings and lanes looked at so far; for each a few look-ups in ordered maps are made.
    #[cfg(test)]
    pub steps: usize,
}

/// What is known of a worker.
#[derive(Debug, Default)]
pub struct Seat {
    /// Places in use there.
    pub held: usize,
    /// It was told that somebody elsewhere waits, and has not found since that nobody does.
    pub told: bool,
    /// Since when the server that has been idle longest there is, as of its last housekeeping.
    pub idle_since: Option<Instant>,
    /// The tenant whose turn it was there last, until the worker says what came of that.
    serving: Option<TenantKey>,
    /// Of each lane the first who was promised nothing.
    fronts: BTreeMap<Rank, LaneId>,
    /// Of each lane that was promised something the first.
    covered: BTreeMap<Rank, LaneId>,
}

/// Those of one tenant who wait for one pool, in order of arrival.
#[derive(Debug)]
struct Lane {
    plan: Arc<ConnectPlan>,
    tickets: VecDeque<Ticket>,
    /// Servers on their way to it: each is for one of those in front.
    pledged: usize,
    /// How many others of its own wait for a host, and not for a place.
    aside: usize,
    front: Option<Rank>,
    covered: Option<Rank>,
}

impl Book {
    pub fn new(cluster: ClusterNumber, places: usize, workers: usize) -> Self {
        Self {
            cluster,
            places,
            taken: 0,
            seats: (0..workers).map(|_| Seat::default()).collect(),
            lanes: HashMap::default(),
            standings: BTreeMap::new(),
            all: All::default(),
            in_use: InUse::default(),
            much: BTreeSet::new(),
            doubted: 0,
            holds_back: false,
            held_back: BTreeSet::new(),
            levels: BTreeSet::new(),
            spent: 0,
            now: Instant::now(),
            left: VecDeque::new(),
            rechecked: 0,
            #[cfg(test)]
            steps: 0,
        }
    }

    /// Puts one in who begins to wait.
    pub fn join(
        &mut self,
        id: LaneId,
        plan: &Arc<ConnectPlan>,
        ticket: Ticket,
        (account, share): (&Arc<Account>, Share),
    ) {
        self.forget(ticket.since);
        let lane = self.lanes.entry(id).or_insert_with(|| Lane::new(plan));
        // At the end, except for one who may wait again after its tenant had all it may have.
        let at = lane.tickets.partition_point(|known| *known < ticket);
        lane.tickets.insert(at, ticket);
        let (cluster, now) = (self.cluster, self.now);
        let standing = self.standings.entry(id.tenant);
        let standing = standing.or_insert_with(|| Standing::new(account, cluster, share, now));
        standing.settle(now);
        standing.share = share;
        if !standing.wants_places() {
            standing.spent = standing.spent.max(self.spent);
        }
        standing.left = None;
        standing.waiting += 1;
        if !standing.lanes.contains(&id) {
            standing.lanes.push(id);
        }
        self.refresh(id.tenant);
        self.recheck_another();
    }

    /// Takes one out. One who was served says how far the others are.
    pub fn leave(&mut self, id: LaneId, ticket: Ticket, served: bool, now: Instant) {
        self.end_turn(id.pool.worker);
        self.take_out(id, ticket);
        self.close(id, now);
        if served && let Some(standing) = self.standings.get(&id.tenant) {
            let others = self.levels.first().map_or(u64::MAX, |(spent, _)| *spent);
            self.spent = self.spent.max(standing.spent.min(others));
        }
        self.recheck_another();
    }

    /// Takes one out that goes on waiting, but not for a place. Its tenant claims no share for it,
    /// and neither loses nor is let off what it had.
    pub fn set_aside(&mut self, id: LaneId, ticket: Ticket, now: Instant) {
        self.end_turn(id.pool.worker);
        if let Some(lane) = self.take_out(id, ticket) {
            lane.aside += 1;
        }
        self.close(id, now);
    }

    /// Puts one of those back in.
    pub fn come_back(&mut self, id: LaneId, ticket: Ticket) {
        let (Some(lane), Some(standing)) =
            (self.lanes.get_mut(&id), self.standings.get(&id.tenant))
        else {
            return;
        };
        lane.aside = lane.aside.saturating_sub(1);
        let (plan, account, share) = (lane.plan.clone(), standing.account.clone(), standing.share);
        self.join(id, &plan, ticket, (&account, share));
    }

    /// One of those does not wait any more.
    pub fn end_aside(&mut self, id: LaneId, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.aside = lane.aside.saturating_sub(1);
        }
        self.close(id, now);
    }

    fn take_out(&mut self, id: LaneId, ticket: Ticket) -> Option<&mut Lane> {
        let lane = self.lanes.get_mut(&id)?;
        let at = lane.tickets.binary_search(&ticket).ok()?;
        lane.tickets.remove(at);
        if let Some(standing) = self.standings.get_mut(&id.tenant) {
            standing.waiting = standing.waiting.saturating_sub(1);
        }
        Some(lane)
    }

    /// Notes that something is on its way. False if nobody there waits, or did lately.
    pub fn pledge(&mut self, id: LaneId) -> bool {
        let (Some(lane), Some(standing)) =
            (self.lanes.get_mut(&id), self.standings.get_mut(&id.tenant))
        else {
            return false;
        };
        lane.pledged += 1;
        standing.pledged += 1;
        self.refresh(id.tenant);
        true
    }

    /// It has come, or will not. True if somebody there waits who is promised nothing.
    pub fn redeem(&mut self, id: LaneId, now: Instant) -> bool {
        let Some(lane) = self.lanes.get_mut(&id) else { return false };
        lane.pledged = lane.pledged.saturating_sub(1);
        if let Some(standing) = self.standings.get_mut(&id.tenant) {
            standing.pledged = standing.pledged.saturating_sub(1);
        }
        self.close(id, now);
        self.lanes.get(&id).is_some_and(|lane| lane.front.is_some())
    }

    /// Whether something is on its way to this one, by its place in its lane.
    pub fn is_covered(&self, id: LaneId, ticket: Ticket) -> bool {
        self.lanes
            .get(&id)
            .is_none_or(|lane| lane.tickets.partition_point(|known| *known < ticket) < lane.pledged)
    }

    /// How a lane's servers are connected.
    pub fn plan(&self, id: LaneId) -> Option<Arc<ConnectPlan>> {
        self.lanes.get(&id).map(|lane| lane.plan.clone())
    }

    /// The rank of the first of a lane who is promised nothing.
    pub fn front(&self, id: LaneId) -> Option<Rank> {
        self.lanes.get(&id)?.front
    }

    /// Whether somebody on a worker waits and is promised nothing.
    pub fn waits(&self, worker: usize) -> bool {
        self.seats.get(worker).is_some_and(|seat| !seat.fronts.is_empty())
    }

    /// Whether one who has much is to leave what there is to others.
    pub fn must_wait(&self, rank: Rank, tenant: TenantKey) -> bool {
        let has_much =
            || self.standings.get(&tenant).and_then(|it| it.used).is_some_and(|it| it.much);
        !rank.is_below_minimum() && self.in_use.is_kept(self.places) && has_much()
    }

    /// Whether the first of a lane is of a tenant that has nothing, while others have much.
    pub fn is_urgent(&self, id: LaneId) -> bool {
        let standing = self.standings.get(&id.tenant);
        self.in_use.has_much() && standing.is_some_and(|it| !it.uses_any() && it.pledged == 0)
    }

    /// Notes that a worker leaves something idle that is kept for others.
    pub fn hold_back(&mut self, worker: usize) {
        self.held_back.insert(worker);
    }

    /// Those workers, once nothing is kept any more: each of them once.
    pub fn take_held_back(&mut self) -> impl Iterator<Item = usize> + use<> {
        let over = !self.held_back.is_empty() && self.in_use.is_free(self.places);
        over.then(|| std::mem::take(&mut self.held_back)).into_iter().flatten()
    }

    /// The next one, unless what there is is kept for others, of whom nobody waits now.
    fn unless_kept(&mut self, next: (Rank, LaneId)) -> Option<(Rank, LaneId)> {
        let (rank, LaneId { tenant, .. }) = next;
        self.holds_back = self.must_wait(rank, tenant);
        if !self.holds_back && self.much.contains(&tenant) && self.places >= FEW {
            self.doubt(tenant);
            self.holds_back = self.must_wait(rank, tenant);
        }
        (!self.holds_back).then_some(next)
    }

    /// Looks again at some others of those that have much: who gives its own back where nobody
    /// waits says nothing, and what it had left idle would not be kept for it.
    fn doubt(&mut self, but: TenantKey) {
        for _ in 0..DOUBTED {
            let mut after = self.much.range((Excluded(self.doubted), Unbounded));
            let Some(tenant) = after.next().or_else(|| self.much.first()).copied() else { return };
            self.doubted = tenant;
            if tenant != but {
                self.refresh(tenant);
            }
        }
    }

    /// Who is next of those who were promised nothing, apart from those of one worker.
    pub fn next(&mut self, without: Option<usize>) -> Option<(Rank, LaneId)> {
        let mut replaced = 0;
        self.holds_back = false;
        loop {
            #[cfg(test)]
            {
                self.steps += self.seats.len();
            }
            let others = self.seats.iter().enumerate().filter(|(at, _)| Some(*at) != without);
            let first = others.filter_map(|(_, seat)| seat.fronts.first_key_value()).min();
            let (rank, id) = first.map(|(rank, id)| (*rank, *id))?;
            // What a tenant takes and gives back by itself is seen here.
            if !self.refresh(id.tenant) || replaced == REPLACED_MAX {
                return self.unless_kept((rank, id));
            }
            replaced += 1;
        }
    }

    /// Who is next on a worker, after this rank; with `covered` also those who were promised
    /// something.
    pub fn turn(
        &mut self,
        worker: usize,
        after: Option<Rank>,
        covered: bool,
    ) -> Option<(Rank, LaneId)> {
        let mut replaced = 0;
        self.end_turn(worker);
        self.holds_back = false;
        loop {
            let seat = self.seats.get(worker)?;
            let range = (after.map_or(Unbounded, Excluded), Unbounded);
            let first = |ranks: &BTreeMap<Rank, LaneId>| {
                ranks.range(range).next().map(|(rank, id)| (*rank, *id))
            };
            let promised = covered.then(|| first(&seat.covered)).flatten();
            let (rank, id) = first(&seat.fronts).into_iter().chain(promised).min()?;
            if !self.refresh(id.tenant) || replaced == REPLACED_MAX {
                // What comes for one who was promised something is counted for it already.
                if promised == Some((rank, id)) {
                    return Some((rank, id));
                }
                let next = self.unless_kept((rank, id));
                return next.inspect(|_| self.begin_turn(worker, id.tenant));
            }
            replaced += 1;
        }
    }

    /// What a worker is about to take for a tenant is counted from here on: another one that looks
    /// in the meantime would find too little in use, and both together leave nothing of what is
    /// kept.
    fn begin_turn(&mut self, worker: usize, tenant: TenantKey) {
        if let Some(seat) = self.seats.get_mut(worker)
            && self.in_use.keeps_for_some(self.places)
            && let Some(standing) = self.standings.get_mut(&tenant)
        {
            seat.serving = Some(tenant);
            standing.serving += 1;
            self.refresh(tenant);
        }
    }

    /// The worker has taken it, or has not.
    pub fn end_turn(&mut self, worker: usize) {
        let tenant = self.seats.get_mut(worker).and_then(|seat| seat.serving.take());
        if let Some(tenant) = tenant
            && let Some(standing) = self.standings.get_mut(&tenant)
        {
            standing.serving = standing.serving.saturating_sub(1);
            self.refresh(tenant);
        }
    }

    /// Ranks a tenant anew that has given something back. It was there just now, though it may have
    /// had that without a wait.
    pub fn recheck(&mut self, tenant: TenantKey, now: Instant) {
        self.now = self.now.max(now);
        if let Some(standing) = self.standings.get_mut(&tenant)
            && let Some(left) = standing.left
            && self.now.saturating_duration_since(left) >= MEMORY / 4
        {
            standing.left = Some(self.now);
            self.left.push_back((self.now, tenant));
        }
        self.refresh(tenant);
    }

    /// Looks at some for no cause but that time has passed.
    pub fn recheck_some(&mut self) {
        (0..RECHECKED.min(self.standings.len())).for_each(|_| self.recheck_another());
    }

    /// Forgets what those had who have not waited for a while. Who still uses what others wait for
    /// is not let off.
    pub fn forget(&mut self, now: Instant) {
        self.now = self.now.max(now);
        for _ in 0..FORGOTTEN_MAX.min(self.left.len()) {
            #[cfg(test)]
            {
                self.steps += 1;
            }
            let Some((since, tenant)) = self.left.front().copied() else { return };
            if self.now.saturating_duration_since(since) < MEMORY {
                return;
            }
            self.left.pop_front();
            let Some(standing) = self.standings.get_mut(&tenant) else { continue };
            if standing.left != Some(since) {
                continue;
            }
            if standing.uses_any() && !self.levels.is_empty() {
                standing.left = Some(self.now);
                self.left.push_back((self.now, tenant));
            } else {
                self.all.exchange(standing.counted.take(), None);
                self.in_use.exchange(standing.used.take(), None);
                self.much.remove(&tenant);
                self.standings.remove(&tenant);
            }
        }
    }

    /// Nobody waits on this worker any more, and it has nothing. How much that was.
    pub fn lose(&mut self, worker: usize, now: Instant) {
        self.end_turn(worker);
        let lost: Vec<_> =
            self.lanes.keys().filter(|id| id.pool.worker == worker).copied().collect();
        for id in lost {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let gone = lane.tickets.drain(..).len();
            let pledged = std::mem::take(&mut lane.pledged);
            lane.aside = 0;
            if let Some(standing) = self.standings.get_mut(&id.tenant) {
                standing.waiting = standing.waiting.saturating_sub(gone);
                standing.pledged = standing.pledged.saturating_sub(pledged);
            }
            self.close(id, now);
        }
        if let Some(seat) = self.seats.get_mut(worker) {
            let held = std::mem::take(&mut seat.held);
            self.taken = self.taken.saturating_sub(held);
        }
    }

    /// Ranks a lane anew; if nothing is left of it, it goes.
    fn close(&mut self, id: LaneId, now: Instant) {
        self.now = self.now.max(now);
        self.refresh(id.tenant);
        let over = |lane: &Lane| lane.tickets.is_empty() && lane.pledged == 0 && lane.aside == 0;
        if !self.lanes.get(&id).is_some_and(over) {
            return;
        }
        self.lanes.remove(&id);
        let Some(standing) = self.standings.get_mut(&id.tenant) else { return };
        standing.lanes.retain(|lane| *lane != id);
        if standing.lanes.is_empty() {
            standing.left = Some(self.now);
            self.left.push_back((self.now, id.tenant));
            self.refresh(id.tenant);
        }
    }

    /// Looks at one tenant after the other, so that none is ranked for long by what was once: what
    /// others weigh, and what ends without a word, moves nobody by itself.
    fn recheck_another(&mut self) {
        let mut after = self.standings.range((Excluded(self.rechecked), Unbounded));
        let next = after.next().or_else(|| self.standings.first_key_value());
        if let Some(tenant) = next.map(|(tenant, _)| *tenant) {
            self.rechecked = tenant;
            self.refresh(tenant);
        }
    }

    /// Ranks a tenant's lanes by what it has and had. True if anything changed.
    fn refresh(&mut self, tenant: TenantKey) -> bool {
        let Some(standing) = self.standings.get_mut(&tenant) else { return false };
        #[cfg(test)]
        {
            self.steps += 1 + standing.lanes.len();
        }
        standing.settle(self.now);
        let level = (standing.waiting > 0).then_some(standing.spent);
        if level != standing.level {
            let was = std::mem::replace(&mut standing.level, level);
            if let Some(spent) = was {
                self.levels.remove(&(spent, tenant));
            }
            self.levels.extend(level.map(|spent| (spent, tenant)));
        }
        let claims = standing.wants_places() || standing.uses_any();
        let share = claims.then_some(standing.share);
        if share != standing.counted {
            self.all.exchange(std::mem::replace(&mut standing.counted, share), share);
        }
        let used = standing.counts(self.places, self.in_use);
        if used != standing.used {
            self.in_use.exchange(std::mem::replace(&mut standing.used, used), used);
            match used.is_some_and(|it| it.much) {
                true => self.much.insert(tenant),
                false => self.much.remove(&tenant),
            };
        }
        let covered = standing.rank(0, self.places, self.all);
        let front = standing.rank(standing.pledged, self.places, self.all);
        let mut changed = false;
        for id in &standing.lanes {
            let (Some(lane), Some(seat)) =
                (self.lanes.get_mut(id), self.seats.get_mut(id.pool.worker))
            else {
                continue;
            };
            let first = lane.tickets.front().filter(|_| lane.pledged > 0);
            let is = first.map(|ticket| covered(*ticket));
            changed |= replace(&mut seat.covered, &mut lane.covered, is, *id);
            let is = lane.tickets.get(lane.pledged).map(|ticket| front(*ticket));
            changed |= replace(&mut seat.fronts, &mut lane.front, is, *id);
        }
        changed
    }

    /// Who claims how much.
    pub fn claims(&self) -> Claims {
        let of = |(key, it): (&TenantKey, &Standing)| Some((*key, it.counted?.weight));
        let counted = self.standings.iter().filter_map(of).collect();
        Claims { places: self.places, weights: self.all.weights, counted }
    }

    /// Whether nothing is left of anybody.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let seats = self.seats.iter().all(|it| it.fronts.is_empty() && it.covered.is_empty());
        self.lanes.is_empty() && self.levels.is_empty() && seats
    }

    /// The weights of those who wait or use anything.
    #[cfg(test)]
    pub fn weights(&self) -> u64 {
        self.all.weights
    }

    /// How many tenants are known.
    #[cfg(test)]
    pub fn known(&self) -> usize {
        self.standings.len()
    }
}

fn replace(
    all: &mut BTreeMap<Rank, LaneId>,
    was: &mut Option<Rank>,
    is: Option<Rank>,
    id: LaneId,
) -> bool {
    if *was == is {
        return false;
    }
    if let Some(was) = was {
        all.remove(was);
    }
    if let Some(is) = is {
        all.insert(is, id);
    }
    *was = is;
    true
}

impl Lane {
    fn new(plan: &Arc<ConnectPlan>) -> Self {
        Self {
            plan: plan.clone(),
            tickets: VecDeque::new(),
            pledged: 0,
            aside: 0,
            front: None,
            covered: None,
        }
    }
}
