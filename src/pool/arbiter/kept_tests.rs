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
    let (mut book, start) = (Book::new(1, 8, 3), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let _slots = [(); 7].map(|()| heavy.lease(&Limits::default(), 1).unwrap());
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
fn what_a_tenant_has_and_had_of_another_cluster_counts_in_none() {
    let (mut book, start) = (Book::new(1, 8, 3), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let of = |cluster| heavy.lease(&Limits::default(), cluster).unwrap();
    let elsewhere = [(); 20].map(|()| of(2));
    light_beside_heavy(&mut book, [&light, &heavy], start);
    elsewhere[0].book(60_000_000);
    let (rank, first) = book.next(None).unwrap();
    assert_eq!((first, rank.spent()), (lane(0, &heavy), 0), "it has nothing here");
    let _here = [(); 7].map(|()| of(1));
    assert!(book.next(None).is_none() && book.holds_back, "and now it has much");
}

#[test]
fn what_one_with_little_had_a_moment_ago_is_kept_for_it() {
    let (mut book, plan, start) = (Book::new(1, 8, 3), plan(), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let share = Share { weight: Share::WHOLE, minimum: 0 };
    let lease = |account: &Arc<Account>| account.lease(&Limits::default(), 1).unwrap();
    let at = |millis| start + Duration::from_millis(millis);
    let _most = [(); 5].map(|()| lease(&heavy));
    let (own, gone) = (lease(&light), [lease(&light), lease(&light)]);
    light_beside_heavy(&mut book, [&light, &heavy], start);
    drop(gone);
    // One of eight would be kept without it; two are, and not three.
    for (millis, more, kept) in [(1, 0, false), (1, 1, true), (90, 1, true), (150, 1, false)] {
        let _more = (0..more).map(|_| lease(&heavy)).collect::<Vec<_>>();
        [&light, &heavy].into_iter().for_each(|it| book.recheck(tenant_key(it), at(millis)));
        assert_eq!(book.next(None).is_none(), kept, "{more} more after {millis} ms");
    }
    // Who waits for more than it has is served.
    let ticket = Ticket { since: at(150), number: 3, worker: 0 };
    book.join(lane(0, &light), &plan, ticket, (&light, share));
    assert_eq!(book.next(None).unwrap().1, lane(0, &light));
    drop(own);
}

#[test]
fn one_for_whom_something_comes_is_looked_at_once_though_time_goes_on() {
    let (mut book, plan, start) = (Book::new(1, 4, 3), plan(), Instant::now());
    let (account, share) = (Arc::default(), Share { weight: Share::WHOLE, minimum: 0 });
    let _slot = Account::lease(&account, &Limits::default(), 1).unwrap();
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
fn what_a_tenant_gave_back_without_a_word_is_not_taken_for_in_use() {
    let (mut book, start) = (Book::new(1, 4, 2), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let lease = |account: &Arc<Account>| account.lease(&Limits::default(), 1).unwrap();
    let own = [lease(&light), lease(&light)];
    let mut slots = vec![lease(&heavy), lease(&heavy)];
    light_beside_heavy(&mut book, [&light, &heavy], start);
    // Its share was in use when it was looked at last; nobody tells that it is idle.
    book.recheck(tenant_key(&light), start);
    drop(own);
    assert!(book.next(None).is_none() && book.holds_back, "it had two a moment ago");
    book.forget(start + Duration::from_millis(200));
    book.recheck(tenant_key(&light), start + Duration::from_millis(200));
    assert!(book.next(None).is_some(), "a third of four may be another's");
    slots.push(lease(&heavy));
    assert!(book.next(None).is_none() && book.holds_back, "and not the fourth");
}

#[test]
fn two_workers_that_look_at_once_do_not_give_away_together_what_is_kept() {
    let (mut book, plan, start) = (Book::new(1, 4, 2), plan(), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let lease = || heavy.lease(&Limits::default(), 1).unwrap();
    let mut slots = vec![lease(), lease()];
    light_beside_heavy(&mut book, [&light, &heavy], start);
    let ticket = Ticket { since: start, number: 3, worker: 0 };
    let share = Share { weight: Share::WHOLE, minimum: 0 };
    book.join(lane(0, &heavy), &plan, ticket, (&heavy, share));
    let (rank, id) = book.turn(0, None, true).expect("a third of four may be its");
    assert!(book.next(Some(0)).is_none(), "nobody waits on the other one");
    assert!(book.next(Some(1)).is_none() && book.holds_back, "the fourth is kept");
    // It finds nothing after all: then another may.
    book.end_turn(0);
    assert_eq!(book.next(Some(1)).map(|(_, id)| id), Some(id));
    // It is served: counted once.
    assert_eq!(book.turn(0, None, true), Some((rank, id)));
    slots.push(lease());
    book.leave(id, rank.ticket, true, start);
    assert!(book.next(None).is_none() && book.holds_back);
    slots.truncate(2);
    book.recheck(tenant_key(&heavy), start);
    assert_eq!(book.next(None).map(|(_, id)| id), Some(id));
}

#[test]
fn what_was_promised_is_not_kept_for_others() {
    let (mut book, start) = (Book::new(1, 8, 3), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let _slots = [(); 6].map(|()| heavy.lease(&Limits::default(), 1).unwrap());
    light_beside_heavy(&mut book, [&light, &heavy], start);
    assert!(book.pledge(lane(0, &heavy)));
    assert_eq!(book.turn(0, None, true).map(|(_, id)| id), Some(lane(0, &heavy)));
}

#[test]
fn a_worker_that_left_something_idle_is_told_when_nothing_is_kept_any_more() {
    let (mut book, start) = (Book::new(1, 8, 3), Instant::now());
    let [light, heavy] = [(); 2].map(|()| Arc::new(Account::default()));
    let mut slots = Vec::from([(); 7].map(|()| heavy.lease(&Limits::default(), 1).unwrap()));
    light_beside_heavy(&mut book, [&light, &heavy], start);
    assert!(book.turn(0, None, false).is_none() && book.holds_back);
    book.hold_back(0);
    assert_eq!(book.take_held_back().count(), 0, "it is kept still");
    slots.truncate(6);
    book.recheck(tenant_key(&heavy), start);
    assert_eq!(book.take_held_back().collect::<Vec<_>>(), [0]);
    assert_eq!(book.take_held_back().count(), 0, "once");
}
