//! What the book keeps for tenants that have little, and whom it looks at again.

use std::time::Duration;

use super::tests::{lane, plan};
use super::*;
use crate::budget::Limits;
use crate::pool::pump::Underway;

/// One tenant had something a moment ago, and one waits for more.
fn light_beside_heavy(book: &mut Book, [light, heavy]: [&Arc<Account>; 2], start: Instant) {
    let (plan, share) = (plan(), Share { weight: Share::WHOLE, minimum: 0 });
    let ticket = |number| Ticket { since: start, number, worker: 0 };
    book.join(lane(0, light), &plan, ticket(1), (light, share));
    book.leave(lane(0, light), ticket(1), true, start);
    book.join(lane(0, heavy), &plan, ticket(2), (heavy, share));
}

#[test]
fn who_finds_its_own_server_idle_each_time_is_not_forgotten() {
    let (mut book, start) = (Book::new(8, 3), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let _slots = [(); 7].map(|()| heavy.lease(&Limits::default()).unwrap());
    light_beside_heavy(&mut book, [&light, &heavy], start);
    for millis in (10..3000).step_by(10) {
        let now = start + Duration::from_millis(millis);
        book.recheck(tenant_key(&light), now);
        book.forget(now);
        assert!(book.next(None).is_none() && book.holds_back, "after {millis} ms");
    }
    book.forget(start + Duration::from_millis(4100));
    assert!(book.next(None).is_some(), "it comes no more");
}

#[test]
fn what_a_tenant_has_of_another_cluster_holds_it_back_in_none() {
    let (mut book, start) = (Book::new(8, 3), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let slots = [(); 20].map(|()| heavy.lease(&Limits::default()).unwrap());
    heavy.uses(1);
    light_beside_heavy(&mut book, [&light, &heavy], start);
    assert!(book.next(None).is_none(), "all that are known are of this one");
    heavy.uses(2);
    assert_eq!(book.next(None).unwrap().1, lane(0, &heavy));
    drop(slots);
}

#[test]
fn one_for_whom_something_comes_is_looked_at_once_though_time_goes_on() {
    let (mut book, plan, start) = (Book::new(4, 3), plan(), Instant::now());
    let (account, share) = (Arc::default(), Share { weight: Share::WHOLE, minimum: 0 });
    let _slot = Account::lease(&account, &Limits::default()).unwrap();
    let ticket = Ticket { since: start, number: 1, worker: 0 };
    book.join(lane(0, &account), &plan, ticket, (&account, share));
    assert!(book.pledge(lane(0, &account)));
    let (mut underway, mut looks) = (Underway::default(), 0);
    while let Some((rank, _)) = book.turn(0, underway.last, true)
        && looks < 100
    {
        looks += 1;
        if !underway.is_new(rank) {
            break;
        }
        // As another worker tells the time.
        book.recheck(tenant_key(&account), start + Duration::from_millis(looks));
    }
    assert_eq!(looks, 2, "and seen again once");
}

#[test]
fn what_was_promised_is_not_kept_for_others() {
    let (mut book, start) = (Book::new(8, 3), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let _slots = [(); 6].map(|()| heavy.lease(&Limits::default()).unwrap());
    light_beside_heavy(&mut book, [&light, &heavy], start);
    assert!(book.pledge(lane(0, &heavy)));
    assert_eq!(book.turn(0, None, true).map(|(_, id)| id), Some(lane(0, &heavy)));
}

#[test]
fn a_worker_that_left_something_idle_is_told_when_nothing_is_kept_any_more() {
    let (mut book, start) = (Book::new(8, 3), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let mut slots = Vec::from([(); 7].map(|()| heavy.lease(&Limits::default()).unwrap()));
    light_beside_heavy(&mut book, [&light, &heavy], start);
    assert!(book.turn(0, None, false).is_none() && book.holds_back);
    book.hold_back(0);
    assert_eq!(book.take_held_back().count(), 0, "it is kept still");
    slots.truncate(6);
    book.recheck(tenant_key(&heavy), start);
    assert_eq!(book.take_held_back().collect::<Vec<_>>(), [0]);
    assert_eq!(book.take_held_back().count(), 0, "once");
}
