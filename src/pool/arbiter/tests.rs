//! What the arbiter tells whom.

use std::time::Duration;

use super::*;
use crate::budget::Limits;
use crate::pool::tests::connect_plan;

/// How servers are connected.
pub(super) fn plan() -> Arc<ConnectPlan> {
    connect_plan("host=127.0.0.1 user=tg dbname=app")
}

/// An arbiter of a cluster with this many places, its workers' mail, and a plan.
fn desk(places: usize) -> (Arc<Arbiter>, Vec<Mail>, Arc<ConnectPlan>) {
    let (arbiters, mail) = Arbiters::new(3);
    (arbiters.of(&Cluster::new("main".to_owned(), places)), mail, plan())
}

/// Books time that a tenant had a server of the first cluster.
pub(super) fn serve(account: &Arc<Account>, micros: u64) {
    account.lease(&Limits::default(), 1).unwrap().book(micros);
}

/// Where those of one tenant wait on a worker.
pub(super) fn lane(worker: usize, account: &Arc<Account>) -> LaneId {
    LaneId { pool: PoolId { worker, number: 1 }, tenant: tenant_key(account) }
}

const EQUAL: Share = Share { weight: Share::WHOLE, minimum: 0 };

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
    let acme = Arc::new(Account::default());
    let lane = |worker| lane(worker, &acme);
    let (arbiter, mut mail, plan) = desk(1);
    let start = Instant::now();
    let (first, old, young) = (ticket(start, 0, 0), ticket(start, 2, 10), ticket(start, 1, 20));
    arbiter.join(lane(0), &plan, first, (&acme, EQUAL));
    let mut held = place(arbiter.take(lane(0), first));
    arbiter.leave(lane(0), first, true);
    drop(held.take_pledge());
    for (worker, ticket) in [(1, young), (2, old)] {
        arbiter.join(lane(worker), &plan, ticket, (&acme, EQUAL));
        let take = arbiter.take(lane(worker), ticket);
        assert!(matches!(take, Take::Full { at_once: true }), "{take:?}");
        arbiter.ask(worker);
    }
    assert_eq!(told(&mut mail), [0], "who has servers is told once that somebody waits");
    drop(held);
    assert_eq!(told(&mut mail), [2]);
    // Who comes by first does not get it; whose turn it is is told again.
    assert!(matches!(arbiter.take(lane(1), young), Take::Later));
    assert_eq!(told(&mut mail), [2]);
    let held = place(arbiter.take(lane(2), old));
    assert!(matches!(arbiter.take(lane(2), old), Take::Covered));
    assert_eq!((arbiter.taken(), arbiter.has_room()), (1, false));
    assert_eq!(told(&mut mail), [2], "that there is one more who waits");
    drop(held);
    assert_eq!(told(&mut mail), [2], "it was for the one who is still first");
}

#[test]
fn those_who_came_at_about_the_same_time_are_served_by_their_own_worker_first() {
    let acme = Arc::new(Account::default());
    let lane = |worker| lane(worker, &acme);
    let (arbiter, _mail, plan) = desk(1);
    let start = Instant::now();
    let far = ticket(start, 1, 0);
    arbiter.join(lane(1), &plan, far, (&acme, EQUAL));
    for (after, account, expected) in [(1, &acme, false), (2, &acme, true)] {
        let near = ticket(start, 0, after);
        arbiter.join(lane(0), &plan, near, (account, EQUAL));
        let own = arbiter.turn(0, None, true, None).0.unwrap();
        let claim = arbiter.claim(0, Some(own));
        assert_eq!(matches!(claim, Claim::Need(_)), expected, "{claim:?}");
        drop(claim);
        arbiter.leave(lane(0), near, false);
    }
    assert!(matches!(arbiter.claim(0, None), Claim::Need(_)));
    assert!(matches!(arbiter.claim(1, None), Claim::Nobody));
}

#[test]
fn help_goes_to_one_after_the_other_and_what_fails_is_looked_at_again() {
    let acme = Arc::new(Account::default());
    let lane = |worker| lane(worker, &acme);
    let (arbiter, mut mail, plan) = desk(0);
    let start = Instant::now();
    for after in 1..=3 {
        arbiter.join(lane(1), &plan, ticket(start, 1, after), (&acme, EQUAL));
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
    arbiter.leave(lane(1), ticket(start, 1, 1), true);
    arbiter.leave(lane(1), ticket(start, 1, 2), true);
    arbiter.leave(lane(1), ticket(start, 1, 3), true);
    assert!(arbiter.book.lock().is_empty());
}

#[test]
fn a_lost_workers_places_go_to_the_others() {
    let acme = Arc::new(Account::default());
    let lane = |worker| lane(worker, &acme);
    let (arbiter, mut mail, plan) = desk(2);
    let start = Instant::now();
    let tickets = [0, 1].map(|after| ticket(start, 0, after));
    tickets.iter().for_each(|ticket| arbiter.join(lane(0), &plan, *ticket, (&acme, EQUAL)));
    let held = tickets.map(|ticket| place(arbiter.take(lane(0), ticket)));
    let waits = ticket(start, 1, 5);
    arbiter.join(lane(1), &plan, waits, (&acme, EQUAL));
    assert!(matches!(arbiter.take(lane(1), waits), Take::Full { .. }));
    told(&mut mail);
    arbiter.lose(0);
    assert_eq!(told(&mut mail), [1]);
    drop(held);
    assert_eq!(arbiter.taken(), 0, "nothing is given back twice");
    drop(place(arbiter.take(lane(1), waits)));
}

#[test]
fn a_worker_that_gets_a_server_while_others_wait_is_told() {
    let acme = Arc::new(Account::default());
    let lane = |worker| lane(worker, &acme);
    let (arbiter, mut mail, plan) = desk(2);
    let start = Instant::now();
    let (far, near) = (ticket(start, 1, 1), ticket(start, 0, 0));
    arbiter.join(lane(1), &plan, far, (&acme, EQUAL));
    arbiter.join(lane(0), &plan, near, (&acme, EQUAL));
    arbiter.resize(1);
    told(&mut mail);
    let mut held = place(arbiter.take(lane(0), near));
    assert_eq!(told(&mut mail), [0], "to look for others when it parks what it has");
    arbiter.resize(0);
    held.move_to(2);
    assert_eq!(told(&mut mail), [2]);
    assert_eq!(arbiter.excess(), 1);
}

#[test]
fn a_tenant_whose_servers_end_without_a_word_is_ranked_anew() {
    for by_time in [false, true] {
        let [heavy, light] = [(); 2].map(|()| Arc::new(Account::default()));
        let (arbiter, mut mail, plan) = desk(2);
        let start = Instant::now();
        let tickets = [0, 1].map(|after| ticket(start, 0, after));
        let [mut ends, _stays] = tickets.map(|ticket| {
            arbiter.join(lane(0, &heavy), &plan, ticket, (&heavy, EQUAL));
            let mut place = place(arbiter.take(lane(0, &heavy), ticket));
            arbiter.leave(lane(0, &heavy), ticket, true);
            drop(place.take_pledge());
            place
        });
        let slots = [&heavy, &heavy, &light].map(|it| it.lease(&Limits::default(), 1).unwrap());
        for (worker, account) in [(1, &light), (2, &heavy)] {
            let ticket = ticket(start, worker, 10);
            arbiter.join(lane(worker, account), &plan, ticket, (account, EQUAL));
        }
        assert_eq!(arbiter.book.lock().next(None).map(|(_, lane)| lane), Some(lane(1, &light)));
        told(&mut mail);
        let [first, second, _of_light] = slots;
        drop((first, second));
        match by_time {
            true => arbiter.publish(0, None),
            false => ends.was_of(&heavy),
        }
        drop(ends);
        assert_eq!(told(&mut mail), [2], "it has nothing now, the other has one");
    }
}

#[test]
fn one_with_less_than_its_share_does_not_wait_for_its_own_worker_first() {
    let (arbiter, _mail, plan) = desk(4);
    let [heavy, light] = [(); 2].map(|()| Arc::new(Account::default()));
    let start = Instant::now();
    let mut slots = Vec::new();
    let mut places = Vec::new();
    for number in 0..4 {
        let (worker, ticket) = (number as usize % 2, ticket(start, number as usize % 2, number));
        arbiter.join(lane(worker, &heavy), &plan, ticket, (&heavy, EQUAL));
        let mut held = place(arbiter.take(lane(worker, &heavy), ticket));
        slots.push(heavy.lease(&Limits::default(), 1).unwrap());
        arbiter.leave(lane(worker, &heavy), ticket, true);
        drop(held.take_pledge());
        places.push(held);
    }
    let full = |account, after| {
        let ticket = ticket(start, 0, after);
        arbiter.join(lane(0, account), &plan, ticket, (account, EQUAL));
        match arbiter.take(lane(0, account), ticket) {
            Take::Full { at_once } => at_once,
            other => panic!("{other:?}"),
        }
    };
    assert!(!full(&heavy, 5), "it has more than its share");
    assert!(full(&light, 6), "and this one has nothing");
}
