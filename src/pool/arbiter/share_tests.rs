//! What the book promises, over many seeds and in virtual time: shares by weight, no place idle
//! while somebody waits, nobody waits for ever, and the order of arrival within a tenant.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rank::Standing;
use super::tests::{lane, plan, serve};
use super::*;
use crate::budget::{Limits, ServerSlot};

const WORKERS: usize = 3;

/// So many seeds each, or as many as the environment says.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let more = std::env::var("TENANTGATE_TEST_SEEDS").ok();
    0..more.map_or(usual, |count| count.parse().unwrap())
}

/// What one tenant does and has got.
struct Party {
    account: Arc<Account>,
    share: Share,
    /// Longest time it keeps a server, in microseconds.
    hold: u64,
    /// Longest pause of each of its clients; none of who is never done.
    pause: u64,
    had: u64,
    served: u64,
    longest_wait: Duration,
    waits: Vec<Duration>,
    /// When it asks no more.
    last: u64,
    /// Its clients that wait, by worker.
    queues: [VecDeque<Ticket>; WORKERS],
}

enum Event {
    /// A client of this tenant asks, on this worker.
    Ask(usize, usize),
    /// A connection was opened for a lane.
    Opened(LaneId),
    /// A tenant gives a server back after so long, and asks again on a worker after a pause.
    Done(usize, u64, ServerSlot, usize),
}

struct World {
    random: fastrand::Rng,
    book: Book,
    plan: Arc<ConnectPlan>,
    start: Instant,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
    parties: Vec<Party>,
    keys: HashMap<TenantKey, usize>,
    /// Places whose connection is being opened.
    opening: usize,
}

impl World {
    fn new(seed: u64, places: usize, parties: Vec<Party>, clients: impl Fn(usize) -> u64) -> Self {
        let keys = parties.iter().enumerate();
        let keys = keys.map(|(at, party)| (tenant_key(&party.account), at)).collect();
        let mut world = Self {
            random: fastrand::Rng::with_seed(seed),
            book: Book::new(1, places, WORKERS),
            plan: plan(),
            start: Instant::now(),
            now: 0,
            events: BTreeMap::new(),
            made: 0,
            parties,
            keys,
            opening: 0,
        };
        for party in 0..world.parties.len() {
            for _ in 0..clients(party) {
                let (at, worker) = (world.random.u64(..10_000), world.random.usize(..WORKERS));
                world.plan_at(at, Event::Ask(party, worker));
            }
        }
        world
    }

    fn plan_at(&mut self, after: u64, event: Event) {
        self.made += 1;
        self.events.insert((self.now + after, self.made), event);
    }

    fn moment(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    fn run(&mut self, until: u64) {
        while let Some(next) = self.events.first_entry() {
            if next.key().0 > until {
                return;
            }
            let ((at, _), event) = next.remove_entry();
            self.now = at;
            match event {
                Event::Ask(party, worker) => self.ask(party, worker),
                Event::Opened(lane) => {
                    self.book.redeem(lane, self.moment());
                    self.opening -= 1;
                    // Whoever is first on that worker has it; it may be another by now.
                    match self.book.turn(lane.pool.worker, None, true) {
                        Some((rank, lane)) => self.serve(rank.ticket, lane),
                        None => self.book.taken -= 1,
                    }
                }
                Event::Done(party, held, slot, worker) => {
                    let Party { account, pause, .. } = &self.parties[party];
                    slot.book(held);
                    let (key, pause) = (tenant_key(account), *pause);
                    drop(slot);
                    self.book.taken -= 1;
                    self.book.recheck(key, self.moment());
                    let pause = self.random.u64(..=pause);
                    if self.now < self.parties[party].last {
                        self.plan_at(pause, Event::Ask(party, worker));
                    }
                }
            }
            // As the housekeeping of workers has it.
            self.book.forget(self.moment());
            self.hand_out();
        }
    }

    fn ask(&mut self, party: usize, worker: usize) {
        let ticket = Ticket { since: self.moment(), number: self.made, worker };
        self.made += 1;
        let Party { account, share, queues, .. } = &mut self.parties[party];
        queues[worker].push_back(ticket);
        self.book.join(lane(worker, account), &self.plan, ticket, (account, *share));
    }

    fn hand_out(&mut self) {
        while self.book.taken < self.book.places {
            let Some((rank, lane)) = self.book.next(None) else { break };
            self.book.taken += 1;
            if self.random.u8(..) < 8 {
                assert!(self.book.pledge(lane));
                self.opening += 1;
                self.plan_at(400, Event::Opened(lane));
            } else {
                // Others there may be waiting for what is being opened.
                let first = self.book.turn(rank.ticket.worker, None, true);
                let (rank, lane) = first.unwrap_or((rank, lane));
                self.serve(rank.ticket, lane);
            }
        }
        let waiting: usize =
            self.parties.iter().flat_map(|party| party.queues.iter().map(VecDeque::len)).sum();
        let idle = self.book.places.saturating_sub(self.book.taken);
        let kept = match self.book.places {
            ..4 => 0,
            places => (places / 8).max(1),
        };
        assert!(idle <= 2 * kept || waiting <= self.opening, "{waiting} wait, {idle} are idle");
    }

    fn serve(&mut self, ticket: Ticket, lane: LaneId) {
        let at = self.keys[&lane.tenant];
        let moment = self.moment();
        let party = &mut self.parties[at];
        let first = party.queues[ticket.worker].pop_front();
        assert_eq!(first, Some(ticket), "the order of arrival within a tenant");
        party.longest_wait = party.longest_wait.max(moment - ticket.since);
        party.waits.push(moment - ticket.since);
        let slot = party.account.lease(&Limits::default(), 1).unwrap();
        self.book.leave(lane, ticket, true, moment);
        let held = self.random.u64(1..=party.hold);
        party.had += held;
        party.served += 1;
        self.plan_at(held, Event::Done(at, held, slot, ticket.worker));
    }
}

fn party(weight: u64, minimum: u32, hold: u64, pause: u64) -> Party {
    Party {
        account: Arc::default(),
        share: Share { weight: weight * Share::WHOLE, minimum },
        hold,
        pause,
        had: 0,
        served: 0,
        longest_wait: Duration::ZERO,
        waits: Vec::new(),
        last: u64::MAX,
        queues: Default::default(),
    }
}

/// The two who are farthest from their share, over and under, in parts of it.
fn farthest(parties: &[Party]) -> (f64, f64) {
    let had: u64 = parties.iter().map(|party| party.had).sum();
    let weights: u64 = parties.iter().map(|party| party.share.weight).sum();
    let part = |party: &Party| {
        let due = had as f64 * party.share.weight as f64 / weights as f64;
        party.had as f64 / due
    };
    let parts: Vec<f64> = parties.iter().map(part).collect();
    let fold = |pick: fn(f64, f64) -> f64| parts.iter().copied().reduce(pick).unwrap();
    (fold(f64::min), fold(f64::max))
}

#[test]
fn tenants_that_always_wait_share_server_time_by_weight() {
    for seed in seeds(6) {
        let mut random = fastrand::Rng::with_seed(seed);
        let places = [1, 2, 3, 5, 8, 20][seed as usize % 6];
        let any = |_| party(random.u64(1..=5), 0, [500, 5_000, 20_000][random.usize(..3)], 0);
        let parties: Vec<Party> = (0..8).map(any).collect();
        let mut world = World::new(seed, places, parties, |_| 25);
        world.run(30_000_000 / places as u64);
        let (least, most) = farthest(&world.parties);
        assert!(least > 0.88 && most < 1.12, "{seed}: {places} places, {least:.3} to {most:.3}");
        for party in &world.parties {
            // Its own part of the places, and all of its own who came before.
            let weights: u64 = world.parties.iter().map(|it| it.share.weight).sum();
            let part = party.share.weight as f64 / weights as f64 * places as f64;
            let bound = 25.0 * party.hold as f64 / part * 3.0 + 200_000.0;
            let wait = party.longest_wait.as_micros() as f64;
            assert!(wait < bound, "{seed}: {wait} of at most {bound} microseconds");
        }
    }
}

#[test]
fn one_that_wants_little_hardly_waits_and_the_others_share_the_rest() {
    for seed in seeds(2) {
        let mut parties = vec![party(1, 0, 1_000, 20_000), party(1, 0, 10_000, 0)];
        parties.push(party(3, 0, 10_000, 0));
        // Two clients that want a tenth of a place; two hundred and forty that want all.
        let mut world = World::new(seed, 4, parties, |at| [2, 120, 120][at]);
        world.run(8_000_000);
        let victim = &world.parties[0];
        assert!(victim.served > 1_100, "{seed}: {}", victim.served);
        // Nothing is taken from anybody: the longest it waits is for one transaction to end.
        let longest = victim.longest_wait;
        assert!(longest < Duration::from_millis(12), "{seed}: {longest:?}");
        let (least, most) = farthest(&world.parties[1..]);
        assert!(least > 0.9 && most < 1.1, "{seed}: {least:.3} to {most:.3}");
    }
}

#[test]
fn one_that_wants_little_and_asks_often_finds_a_place_free() {
    for seed in seeds(3) {
        // Two clients that want a fiftieth of a place; forty that hold one for up to a tenth of a
        // second; and nobody pays for a place that nobody wants any more.
        let parties = vec![party(1, 0, 400, 20_000), party(1, 0, 100_000, 0)];
        let mut world = World::new(seed, 8, parties, |at| [2, 40][at]);
        world.run(20_000_000);
        let [victim, abuser] = &world.parties[..] else { panic!() };
        assert!(victim.served > 3_000, "{seed}: {}", victim.served);
        let late = victim.waits.iter().filter(|wait| **wait > Duration::from_millis(2)).count();
        assert!(late * 100 < victim.waits.len(), "{seed}: {late} of {}", victim.waits.len());
        assert!(abuser.had > 20_000_000 * 13 / 2, "{seed}: {}", abuser.had);
    }
}

#[test]
fn what_is_kept_is_kept_for_no_longer_than_somebody_comes() {
    let mut parties = vec![party(1, 0, 400, 20_000), party(1, 0, 10_000, 0)];
    parties[0].last = 2_000_000;
    let mut world = World::new(1, 8, parties, |at| [2, 40][at]);
    world.run(5_000_000);
    let before = world.parties[1].had;
    world.run(10_000_000);
    let had = (world.parties[1].had - before) as f64 / 5_000_000.0;
    assert!(had > 7.9, "{had:.2} of eight places");
}

#[test]
fn a_minimum_comes_before_a_weight() {
    let parties = vec![party(1, 2, 10_000, 0), party(50, 0, 10_000, 0)];
    let mut world = World::new(7, 4, parties, |_| 30);
    world.run(5_000_000);
    let [small, large] = &world.parties[..] else { panic!() };
    let part = small.had as f64 / large.had as f64;
    assert!((0.9..1.1).contains(&part), "two of four places: {part:.3}");
}

#[test]
fn one_alone_borrows_everything_and_owes_nothing_for_it() {
    let parties = vec![party(1, 0, 10_000, 0), party(1, 0, 10_000, 0)];
    let mut world = World::new(3, 4, parties, |at| [40, 0][at]);
    world.run(5_000_000);
    let alone = world.parties[0].had;
    assert!(alone > 18_000_000, "{alone}");
    for worker in [0, 1, 2].repeat(10) {
        let pause = world.random.u64(..1000);
        world.plan_at(pause, Event::Ask(1, worker));
    }
    world.run(8_000_000);
    let since: Vec<u64> = vec![world.parties[0].had - alone, world.parties[1].had];
    let part = since[0] as f64 / since[1] as f64;
    assert!((0.93..1.07).contains(&part), "{since:?}");
}

#[test]
fn what_waits_no_more_is_forgotten() {
    let mut book = Book::new(1, 0, WORKERS);
    let (plan, start) = (plan(), Instant::now());
    let accounts: Vec<Arc<Account>> = (0..500).map(|_| Arc::default()).collect();
    let share = Share { weight: Share::WHOLE, minimum: 0 };
    let mut known = BTreeSet::new();
    for (at, account) in accounts.iter().enumerate() {
        let since = start + Duration::from_millis(10 * at as u64);
        let ticket = Ticket { since, number: at as u64, worker: at % WORKERS };
        let lane = lane(ticket.worker, account);
        book.join(lane, &plan, ticket, (account, share));
        book.leave(lane, ticket, false, since);
        known.insert(book.known());
    }
    assert_eq!(known.last(), Some(&100), "those of the last second");
    // A few at a time.
    (0..20).for_each(|_| book.forget(start + Duration::from_secs(10)));
    assert_eq!((book.known(), book.is_empty()), (0, true));
}

#[test]
fn who_holds_less_than_its_share_goes_first_whatever_it_had() {
    let (mut book, plan, start) = (Book::new(1, 4, WORKERS), plan(), Instant::now());
    let [owes, holds] = [Arc::new(Account::default()), Arc::new(Account::default())];
    let share = Share { weight: Share::WHOLE, minimum: 0 };
    let _slots = [(); 3].map(|()| holds.lease(&Limits::default(), 1).unwrap());
    for (number, account) in [(1, &holds), (2, &owes)] {
        let ticket = Ticket { since: start, number, worker: 0 };
        book.join(lane(0, account), &plan, ticket, (account, share));
    }
    serve(&owes, 40_000_000);
    let (rank, _) = book.next(None).unwrap();
    assert_eq!(rank.ticket.number, 2, "it has none, the other has three of four");
}

#[test]
fn what_a_minimum_costs_is_not_held_against_who_comes_new() {
    let mut parties: Vec<Party> = (0..3).map(|_| party(1, 0, 5_000, 0)).collect();
    // One is always served first, however much it had; and one comes only after half a minute.
    parties.extend([party(1, 1, 200_000, 0), party(1, 0, 5_000, 0)]);
    let mut world = World::new(1, 2, parties, |at| [10, 10, 10, 2, 0][at]);
    world.run(30_000_000);
    assert!(world.parties[3].had > 2 * world.parties[0].had);
    world.plan_at(0, Event::Ask(4, 1));
    world.run(31_000_000);
    let Party { served, longest_wait, .. } = world.parties[4];
    assert!(served > 40 && longest_wait < Duration::from_millis(50), "{served} {longest_wait:?}");
}

#[test]
fn who_waits_no_more_and_has_nothing_takes_no_share() {
    let (mut book, plan, start) = (Book::new(1, 4, WORKERS), plan(), Instant::now());
    let at = |number: u64| {
        let since = start + Duration::from_millis(number);
        Ticket { since, number, worker: 0 }
    };
    let share = |weight| Share { weight, minimum: 0 };
    let light: Vec<Arc<Account>> = (0..20).map(|_| Arc::default()).collect();
    for (ticket, account) in (0..).map(at).zip(&light) {
        book.join(lane(0, account), &plan, ticket, (account, share(1000)));
        book.leave(lane(0, account), ticket, true, ticket.since);
    }
    let [over, normal, new] = [(); 3].map(|()| Arc::new(Account::default()));
    let _slot = normal.lease(&Limits::default(), 1).unwrap();
    book.join(lane(0, &over), &plan, at(500), (&over, share(10)));
    book.join(lane(0, &normal), &plan, at(501), (&normal, share(1000)));
    serve(&over, 1_000_000);
    assert_eq!(book.next(None).unwrap().1, lane(0, &normal), "it has one of its 3.96");
    // One over its budget is served in between: it owes that, and nobody else does.
    book.join(lane(0, &over), &plan, at(502), (&over, share(10)));
    book.leave(lane(0, &over), at(500), true, at(503).since);
    book.leave(lane(0, &normal), at(501), true, at(504).since);
    book.join(lane(0, &new), &plan, at(505), (&new, share(1000)));
    assert_eq!(book.next(None).unwrap().1, lane(0, &new));
}

#[test]
fn long_transactions_are_paid_for() {
    let mut parties = vec![party(1, 0, 5_000_000, 0)];
    parties.extend((0..8).map(|_| party(1, 0, 50_000, 0)));
    let mut world = World::new(5, 2, parties, |at| if at == 0 { 1 } else { 3 });
    world.run(300_000_000);
    let (least, most) = farthest(&world.parties);
    assert!(least > 0.85 && most < 1.2, "{least:.3} to {most:.3}");
}

#[test]
fn minima_that_do_not_fit_leave_a_place_to_the_others() {
    for (minimum, places, part) in [(1000, 4, 0.25), (2, 4, 0.5), (5, 1, 0.5)] {
        let parties = vec![party(1, minimum, 10_000, 0), party(1, 0, 10_000, 0)];
        let mut world = World::new(9, places, parties, |_| 30);
        world.run(5_000_000);
        let [greedy, other] = &world.parties[..] else { panic!() };
        let had = other.had as f64 / (greedy.had + other.had) as f64;
        assert!((had / part - 1.0).abs() < 0.1, "{minimum} of {places}: {had:.3}");
    }
}

#[test]
fn a_transaction_that_runs_is_paid_for_while_it_lasts_and_once() {
    let (account, start) = (Arc::new(Account::default()), Instant::now());
    let at = |millis| start + Duration::from_millis(millis);
    let slot = account.lease(&Limits::default(), 1);
    let share = Share { weight: 2 * Share::WHOLE, minimum: 0 };
    let mut standing = Standing::new(&account, 1, share, start);
    standing.settle(at(100));
    assert_eq!(standing.spent, 50_000, "half of it, for its weight");
    let book = |micros| serve(&account, micros);
    // A short one that nobody saw, while the long one goes on.
    book(20_000);
    standing.settle(at(200));
    assert_eq!(standing.spent, 100_000);
    book(200_000);
    drop(slot);
    standing.settle(at(220));
    assert_eq!(standing.spent, 110_000, "both, and no more");
}

#[test]
fn who_was_promised_something_is_passed_over_where_nothing_is_idle() {
    let (mut book, plan, start) = (Book::new(1, 4, WORKERS), plan(), Instant::now());
    let share = Share { weight: Share::WHOLE, minimum: 0 };
    let accounts = [(); 2].map(|()| Arc::new(Account::default()));
    for (number, account) in (0..).zip(&accounts) {
        let ticket = Ticket { since: start, number, worker: 0 };
        book.join(lane(0, account), &plan, ticket, (account, share));
    }
    assert!(book.pledge(lane(0, &accounts[0])));
    let mut turn = |idle| book.turn(0, None, idle).unwrap().0.ticket.number;
    assert_eq!([turn(true), turn(false)], [0, 1]);
}

#[test]
fn what_nobody_has_booked_yet_gives_who_comes_new_no_start() {
    let mut parties = vec![party(1, 0, 600_000_000, 0)];
    parties.extend((0..3).map(|_| party(1, 0, 5_000, 0)));
    // One has two places for minutes and waits for more; two have waited for the others; and one
    // comes new.
    let mut world = World::new(2, 4, parties, |at| [6, 10, 10, 0][at]);
    world.run(5_000_000);
    let before: Vec<u64> = world.parties.iter().map(|party| party.had).collect();
    for worker in [0, 1, 2].repeat(3) {
        world.plan_at(0, Event::Ask(3, worker));
    }
    world.run(7_000_000);
    let had = |at: usize| world.parties[at].had - before[at];
    let part = had(3) as f64 / (had(1) + had(2) + had(3)) as f64;
    assert!((0.3..0.37).contains(&part), "a third of what there is: {part:.3}");
}

#[test]
fn a_decision_takes_few_steps_however_many_are_known_and_wait() {
    for (known, active) in [(100, 10), (100_000, 10_000)] {
        let (mut book, plan, start) = (Book::new(1, 100, WORKERS), plan(), Instant::now());
        let share = Share { weight: Share::WHOLE, minimum: 0 };
        let accounts: Vec<Arc<Account>> = (0..known).map(|_| Arc::default()).collect();
        let of: HashMap<_, _> = accounts.iter().map(|it| (tenant_key(it), it)).collect();
        let ticket = |number: u64| {
            let worker = number as usize % WORKERS;
            Ticket { since: start + Duration::from_micros(number), number, worker }
        };
        for (account, ticket) in accounts.iter().zip((0..).map(ticket)) {
            book.join(lane(ticket.worker, account), &plan, ticket, (account, share));
            if ticket.number >= active {
                book.leave(lane(ticket.worker, account), ticket, true, ticket.since);
            }
        }
        assert_eq!(book.known(), known as usize);
        let mut most = 0;
        for again in (known..).map(ticket).take(2 * active as usize) {
            let before = book.steps;
            // One is served, is done and asks again.
            let (rank, first) = book.next(None).unwrap();
            book.leave(first, rank.ticket, true, again.since);
            let account = of[&first.tenant];
            serve(account, 1 + again.number % 7);
            book.recheck(first.tenant, again.since);
            book.join(lane(again.worker, account), &plan, again, (account, share));
            most = most.max(book.steps - before);
        }
        // The next one comes when all others could be forgotten.
        let before = book.steps;
        book.forget(start + Duration::from_secs(3600));
        most = most.max(book.steps - before);
        assert!((5..60).contains(&most), "{most} steps, {known} known, {active} wait");
    }
}

#[test]
fn who_waits_for_a_host_claims_nothing_and_is_let_off_nothing() {
    let (mut book, plan, start) = (Book::new(1, 4, WORKERS), plan(), Instant::now());
    let at = |number: u64| {
        let since = start + Duration::from_millis(number);
        Ticket { since, number, worker: 0 }
    };
    let share = Share { weight: Share::WHOLE, minimum: 0 };
    let [down, other, new] = [(); 3].map(|()| Arc::new(Account::default()));
    let lanes = [&down, &other, &new].map(|account| lane(0, account));
    for (lane, (ticket, account)) in lanes.into_iter().zip([(at(1), &down), (at(2), &other)]) {
        book.join(lane, &plan, ticket, (account, share));
    }
    // It has had a second, and its host goes down.
    serve(&down, 1_000_000);
    book.set_aside(lanes[0], at(1), at(3).since);
    assert_eq!(book.weights(), 1000, "the other may have everything");
    assert_eq!(book.next(None).unwrap().1, lanes[1], "and is not behind it");
    // For ten seconds others come and go, each of whom has had a little.
    for number in (100..10_000).step_by(100) {
        book.leave(
            lanes[1],
            at(if number == 100 { 2 } else { number - 100 }),
            true,
            at(number).since,
        );
        serve(&other, 1_000);
        book.join(lanes[1], &plan, at(number), (&other, share));
    }
    book.come_back(lanes[0], at(1));
    book.join(lanes[2], &plan, at(10_000), (&new, share));
    let mut order = Vec::new();
    while let Some((rank, lane)) = book.next(None) {
        order.push(rank.ticket.number);
        book.leave(lane, rank.ticket, false, at(10_001).since);
    }
    assert_eq!((order.len(), order[2]), (3, 1), "it still owes what it had: {order:?}");
    assert!(book.is_empty());
    book.join(lanes[0], &plan, at(10_002), (&down, share));
    book.set_aside(lanes[0], at(10_002), at(10_003).since);
    assert!(!book.is_empty(), "who waits aside is known");
    book.end_aside(lanes[0], at(10_004).since);
    assert!(book.is_empty());
}
