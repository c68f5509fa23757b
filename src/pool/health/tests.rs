//! Who may connect, who waits, who is told: on one thread, without a server.

use std::io;

use super::record::RETRY_FIRST;
use super::*;
use crate::pool::arbiter::{Arbiters, Mail};
use crate::pool::tests::connect_plan as plan;

const PLACES: usize = 8;

fn desk() -> (Arc<Health>, Vec<Mail>) {
    let (arbiters, mail) = Arbiters::new(2);
    let cluster = crate::catalog::Cluster::new("main".to_owned(), PLACES);
    (arbiters.of(&cluster).health.clone(), mail)
}

/// Which workers have been told.
fn told(mail: &mut [Mail]) -> Vec<usize> {
    let told = |mail: &mut Mail| std::iter::from_fn(|| mail.try_recv().ok()).count() > 0;
    mail.iter_mut().enumerate().filter_map(|(at, mail)| told(mail).then_some(at)).collect()
}

fn gone() -> ConnectError {
    ConnectError::Io(io::ErrorKind::ConnectionRefused.into())
}

fn silent() -> ConnectError {
    ConnectError::Timeout(Duration::from_secs(1))
}

fn unfit() -> ConnectError {
    ConnectError::Stuck(Duration::from_secs(1))
}

fn go(health: &Arc<Health>, plan: &Arc<ConnectPlan>) -> Option<Trial> {
    health.admit(plan, PLACES)
}

fn is_refused(health: &Arc<Health>, plan: &Arc<ConnectPlan>, why: Why) -> bool {
    matches!(health.outlook(plan, PLACES), Outlook::Refused(outage) if outage.why == why)
}

#[test]
fn at_a_host_that_is_silent_one_knocks_and_all_others_are_told_at_once() {
    let (health, mut mail) = desk();
    let plan = plan("host=a user=u");
    let mut trial = go(&health, &plan).unwrap();
    assert!(trial.begin(0));
    let mut probes = trial.heard(Err(&silent()));
    assert_eq!((probes.len(), health.down()), (1, 1));
    assert_eq!(told(&mut mail), [0, 1]);
    drop(trial);
    assert!(is_refused(&health, &plan, Why::Down));
    let (outlook, more) = health.consult(&plan, 1, PLACES);
    assert!(matches!(outlook, Outlook::Refused(_)) && more.is_empty(), "{outlook:?}");
    let facts = health.hosts();
    assert_eq!((facts[0].standing, facts[0].failures, facts[0].attempts), (Standing::Down, 1, 0));
    assert!(facts[0].next.is_some());
    // Its worker is lost: the next who asks has another one begin.
    probes.clear();
    let (_, more) = health.consult(&plan, 1, PLACES);
    assert_eq!(more.len(), 1);
    // Who had begun before is let on only to hosts that are not down.
    let mut late = Trial::new(&health, &plan, PLACES);
    assert!(!late.begin(0));
}

#[test]
fn a_short_absence_is_waited_for_and_a_longer_one_is_not() {
    let (health, _mail) = desk();
    let plan = plan("host=a user=u");
    for failure in 1..=PATIENT + 1 {
        let mut trial = Trial::new(&health, &plan, PLACES);
        health.doubt(&plan.conninfo, 0);
        if let Some(record) = health.book.lock().record(&plan.conninfo, 0) {
            record.stand(Standing::Unsure);
        }
        assert!(trial.begin(0));
        let _probes = trial.heard(Err(&gone()));
        let waits = matches!(health.outlook(&plan, PLACES), Outlook::Wait { .. });
        assert_eq!(waits, failure <= PATIENT, "{failure}");
    }
    assert!(is_refused(&health, &plan, Why::Down));
}

#[test]
fn a_host_that_may_be_back_is_tried_by_one_and_the_others_hear_how_it_went() {
    let (health, mut mail) = desk();
    let plan = plan("host=a user=u");
    let mut trial = go(&health, &plan).unwrap();
    assert!(trial.begin(0));
    assert!(trial.heard(Ok(())).is_empty());
    drop(trial);
    health.doubt(&plan.conninfo, 0);
    let mut first = go(&health, &plan).unwrap();
    told(&mut mail);
    assert!(matches!(health.consult(&plan, 1, PLACES).0, Outlook::Wait { wake: None }));
    assert!(go(&health, &plan).is_none());
    assert!(first.begin(0) && first.heard(Ok(())).is_empty());
    assert_eq!(told(&mut mail), [1]);
    let many: Vec<_> = (0..20).map(|_| go(&health, &plan).unwrap()).collect();
    assert_eq!(many.len(), 20, "nobody else's host is held up");
    drop(first);
    // One who leaves without a word leaves the try to the next.
    health.doubt(&plan.conninfo, 0);
    let second = go(&health, &plan).unwrap();
    assert!(matches!(health.consult(&plan, 1, PLACES).0, Outlook::Wait { .. }));
    drop(second);
    assert_eq!(told(&mut mail), [1]);
}

#[test]
fn hosts_of_several_tenants_leave_each_other_places() {
    let (health, _mail) = desk();
    let (hole, well) = (plan("host=hole user=u"), plan("host=well user=u"));
    for plan in [&hole, &well] {
        let mut trial = go(&health, plan).unwrap();
        assert!(trial.begin(0) && trial.heard(Ok(())).is_empty());
    }
    let held: Vec<_> = std::iter::from_fn(|| go(&health, &hole)).take(PLACES).collect();
    assert_eq!(held.len(), PLACES / 2);
    assert!(go(&health, &well).is_some());
    // The next host of the same route is there for whom the first is too busy.
    let both = plan("host=hole,well user=u");
    assert_eq!(go(&health, &both).unwrap().at(), Some(1));
}

#[test]
fn a_login_that_is_turned_away_is_tried_again_by_one_and_is_nobody_elses_trouble() {
    let (health, _mail) = desk();
    let (bad, good) = (plan("host=a user=bad"), plan("host=a user=good"));
    for failure in 1..=PATIENT + 1 {
        let mut trial = Trial::new(&health, &bad, PLACES);
        assert!(trial.begin(0));
        assert!(trial.heard(Err(&unfit())).is_empty());
        assert_eq!(trial.end(Err(&unfit())), (Some(Why::Login), failure == 1));
    }
    assert!(is_refused(&health, &bad, Why::Login));
    assert!(go(&health, &good).is_some() && health.down() == 0);
    let other_password = plan("host=a user=bad password=p");
    assert!(go(&health, &other_password).is_some(), "whoever writes it may know better");
    health.book.lock().logins.get(&bad).unwrap().next = Instant::now();
    let mut trial = go(&health, &bad).unwrap();
    assert!(go(&health, &bad).is_none(), "one tries");
    assert!(trial.begin(0) && trial.heard(Ok(())).is_empty());
    assert_eq!(trial.end(Ok(())), (None, true));
    assert!(go(&health, &bad).is_some() && go(&health, &bad).is_some());
}

fn up(health: &Arc<Health>, plan: &Arc<ConnectPlan>) {
    for host in 0..plan.conninfo.hosts.len() {
        let mut trial = Trial::new(health, plan, PLACES);
        assert!(trial.begin(host) && trial.heard(Ok(())).is_empty());
    }
}

#[test]
fn a_probe_goes_on_for_who_asks_and_one_that_is_lost_is_replaced() {
    let (health, mut mail) = desk();
    let plan = plan("host=a user=u");
    let mut trial = go(&health, &plan).unwrap();
    assert!(trial.begin(0));
    let mut probe = trial.heard(Err(&silent())).pop().unwrap();
    drop(trial);
    let long_ago = Instant::now().checked_sub(FORGOTTEN * 2).unwrap();
    let forget = || health.book.lock().record(&plan.conninfo, 0).unwrap().asked = long_ago;
    for _ in 0..3 {
        forget();
        assert!(matches!(health.consult(&plan, 0, PLACES).0, Outlook::Refused(_)));
        assert!(probe.next().is_some(), "somebody asks");
    }
    // One whose worker is lost: those who wait on another hear of it, and have another begin.
    told(&mut mail);
    drop(probe);
    assert_eq!(told(&mut mail), [0]);
    let mut probe = health.consult(&plan, 1, PLACES).1.pop().unwrap();
    // Nobody asks any more: the next who does is let on, and who waits is told.
    told(&mut mail);
    health.watch(1);
    forget();
    assert!(probe.next().is_none());
    assert_eq!(told(&mut mail), [1]);
    drop(probe);
    assert!(matches!(health.outlook(&plan, PLACES), Outlook::Room(1)));
}

#[test]
fn a_login_that_hangs_once_it_was_answered_is_in_nobodys_way() {
    let (health, mut mail) = desk();
    let (stuck, other) = (plan("host=a user=stuck"), plan("host=a user=u"));
    up(&health, &other);
    let mut hangs = go(&health, &stuck).unwrap();
    assert!(hangs.begin(0));
    hangs.hears(Sign::Spoke);
    health.doubt(&other.conninfo, 0);
    // It was answered before the doubt: it takes not the one try, and proves nothing.
    let mut first = go(&health, &other).unwrap();
    assert!(first.begin(0) && go(&health, &other).is_none());
    assert_eq!(health.hosts()[0].standing, Standing::Unsure);
    told(&mut mail);
    health.watch(1);
    first.hears(Sign::Spoke);
    assert_eq!(told(&mut mail), [1]);
    assert_eq!((health.hosts()[0].standing, health.hosts()[0].attempts), (Standing::Up, 2));
    assert!(go(&health, &other).is_some(), "it has answered, however long the rest takes");
    drop((hangs, first));
    assert_eq!(health.hosts()[0].attempts, 0);
    // Without a password its first words may wait for a database.
    health.doubt(&other.conninfo, 0);
    let mut taken = go(&health, &stuck).unwrap();
    assert!(taken.begin(0));
    taken.hears(Sign::Taken);
    assert_eq!(health.hosts()[0].standing, Standing::Unsure);
    assert!(go(&health, &other).is_some());
    let unheard = ConnectError::Unheard(Duration::from_secs(1));
    assert!(taken.heard(Err(&unheard)).is_empty() && health.down() == 0);
    assert_eq!(health.hosts()[0].standing, Standing::Unsure, "nor does that prove anything");
    assert_eq!(taken.end(Err(&unheard)), (Some(Why::Login), true));
    assert!(matches!(health.outlook(&stuck, PLACES), Outlook::Wait { wake: Some(_) }));
    // Nor is one that died unanswered still counted.
    let mut dies = go(&health, &other).unwrap();
    assert!(dies.begin(0) && go(&health, &other).is_none());
    drop(dies);
    assert!(go(&health, &other).is_some());
}

#[test]
fn what_was_turned_away_is_forgotten_with_its_route_and_with_time() {
    let (health, _mail) = desk();
    let (bad, good) = (plan("host=a user=u password=old"), plan("host=a user=u password=new"));
    up(&health, &good);
    assert!(health.is_calm(&good));
    let fail = |plan: &Arc<ConnectPlan>| {
        let trial = Trial::new(&health, plan, PLACES);
        trial.end(Err(&unfit()));
    };
    fail(&bad);
    assert!(!health.is_calm(&good));
    health.forget(&bad);
    assert!(health.is_calm(&good), "a reload put the password right");
    fail(&bad);
    let long_ago = Instant::now().checked_sub(FORGOTTEN * 2).unwrap();
    health.book.lock().logins.get(&bad).unwrap().next = long_ago;
    health.consult(&good, 0, PLACES);
    assert!(health.is_calm(&good), "nobody tries it any more");
    // However many fail, each has its rest.
    let many: Vec<_> = (0..600).map(|at| plan(&format!("host=a user=u{at}"))).collect();
    many.iter().for_each(fail);
    assert!(many.iter().all(|plan| go(&health, plan).is_none()));
}

#[test]
fn the_next_host_is_tried_by_as_many_as_the_first_would_be() {
    let (health, mut mail) = desk();
    let (both, standby) = (plan("host=standby,primary user=u"), plan("host=standby user=other"));
    up(&health, &both);
    health.doubt(&both.conninfo, 1);
    let role = ConnectError::Role("server is in hot standby mode");
    let mut trials: Vec<_> = (0..3).map(|_| go(&health, &both).unwrap()).collect();
    for trial in &mut trials {
        assert!(trial.begin(0) && trial.heard(Err(&role)).is_empty());
    }
    let mut first = trials.pop().unwrap();
    assert!(first.begin(1));
    for mut trial in trials {
        assert!(!trial.begin(1) && trial.is_busy());
        assert_eq!(trial.end(Err(&ConnectError::Busy)), (None, false));
    }
    // They wait, and try again by ones, not all over at the standby.
    let outlook = health.consult(&both, 1, PLACES).0;
    assert!(matches!(outlook, Outlook::Wait { wake: Some(_) }), "{outlook:?}");
    for _ in 0..20 {
        health.login_waits(&both);
    }
    assert!(matches!(health.outlook(&both, PLACES), Outlook::Wait { wake: Some(_) }), "for ever");
    assert!(go(&health, &standby).is_some());
    assert_eq!(health.hosts().iter().map(|host| host.attempts).sum::<u32>(), 1);
    told(&mut mail);
    health.consult(&both, 1, PLACES);
    assert!(first.heard(Ok(())).is_empty());
    assert_eq!(first.end(Ok(())), (None, true));
    assert_eq!(told(&mut mail), [1]);
    assert!(go(&health, &both).is_some() && go(&health, &both).is_some());
    // Half of the places, there as at the first.
    let many: Vec<_> = (0..PLACES).map(|_| Trial::new(&health, &both, PLACES)).collect();
    let begun = many.into_iter().filter_map(|mut trial| trial.begin(1).then_some(trial));
    assert_eq!(begun.collect::<Vec<_>>().len(), PLACES / 2);
}

#[test]
fn what_one_route_runs_into_is_not_held_against_another_that_goes_another_way() {
    let (health, _mail) = desk();
    let (hasty, patient) = (plan("host=a user=u connect_timeout=1"), plan("host=a user=u"));
    let mut trial = go(&health, &hasty).unwrap();
    assert!(trial.begin(0));
    let _probes = trial.heard(Err(&silent()));
    assert!(is_refused(&health, &hasty, Why::Down));
    assert!(go(&health, &patient).is_some());
}

#[test]
fn rests_grow_to_their_bound_and_are_never_all_the_same() {
    let most = Duration::from_secs(15);
    for failures in 0..200 {
        let whole = RETRY_FIRST.saturating_mul(1 << failures.clamp(1_u32, 20) >> 1).min(most);
        for _ in 0..20 {
            let rest = rest(failures, most);
            assert!(rest >= whole / 2 && rest <= whole, "{failures}: {rest:?} {whole:?}");
        }
    }
    assert_ne!(rest(9, most), rest(9, most));
    assert!(rest(50, Duration::from_millis(1)) <= Duration::from_millis(1));
}
