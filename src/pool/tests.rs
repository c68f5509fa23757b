//! Who waits where: what is looked at when a server comes free, and every way a slot comes back.

use std::net::TcpListener;
use std::time::Duration;

use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::*;
use crate::budget::{Account, Excessive, Kind, Limits, Override};
use crate::catalog::tests::{build, cluster, plan, tenant};
use crate::catalog::{ClusterPlan, LimitsPlan, TenantPlan};
use crate::isolation::Isolation;
use crate::server::{Conninfo, Settings};

/// How servers are connected, without TLS.
pub(super) fn connect_plan(conninfo: &str) -> Arc<ConnectPlan> {
    Arc::new(ConnectPlan {
        conninfo: Arc::new(Conninfo::parse(&format!("{conninfo} sslmode=disable")).unwrap()),
        isolation: Isolation::Row,
        tenant_setting: "app.tenant_id".to_owned(),
        allow_superuser: false,
        bystander: false,
        level: Default::default(),
        enforce_level: true,
        reach: None,
        seal_keys: None,
    })
}

/// A cluster whose server takes connections and says nothing, so who is first in line stays there.
struct Mute {
    pools: Vec<Pools>,
    socket: TcpListener,
    query_wait: Duration,
}

impl Mute {
    /// Workers of a gate, all on this thread.
    fn new(workers: usize, query_wait: Duration) -> Self {
        let (arbiters, _) = Arbiters::new(workers);
        let clock = Clock::start().unwrap();
        let pools = |at| Pools::new(Buffers::default(), clock.clone(), at, arbiters.clone());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { pools: (0..workers).map(pools).collect(), socket, query_wait }
    }

    /// A tenant that may have this many servers.
    fn tenant(&self, servers: u32) -> Arc<Tenant> {
        self.limited(LimitsPlan { servers: Some(servers), ..LimitsPlan::default() })
    }

    /// One that is served last while it is over its rate.
    fn penalised(&self, servers: Option<u32>) -> Arc<Tenant> {
        self.limited(LimitsPlan {
            servers,
            queries_per_second: Some(10),
            queries_burst: Some(1),
            over_budget: Some(Excessive::Share),
            ..LimitsPlan::default()
        })
    }

    fn limited(&self, limits: LimitsPlan) -> Arc<Tenant> {
        let port = self.socket.local_addr().unwrap().port();
        let text = format!("host=127.0.0.1 port={port} user=tg dbname=app");
        let main = Cluster { query_wait: self.query_wait, ..Cluster::new("main".to_owned(), 100) };
        let main = ClusterPlan { cluster: main, ..cluster(100, Some(&text)) };
        let mut plan = plan([("acme", TenantPlan { limits, ..tenant(Isolation::Row) })]);
        plan.clusters.insert("main".to_owned(), main);
        build(&plan).known("acme").unwrap().clone()
    }

    fn cluster(&self, worker: usize) -> Rc<ClusterPools> {
        self.pools[worker].clusters.borrow()["main"].clone()
    }

    /// Sessions of those in line, by time of arrival.
    fn line(&self, worker: usize) -> Vec<SessionId> {
        self.cluster(worker).line.borrow().sessions()
    }

    /// Sessions that wait for a server, each with its turn, until they are aborted.
    async fn wait(
        &self,
        worker: usize,
        sessions: std::ops::Range<SessionId>,
        (tenant, account): (&Arc<Tenant>, &Arc<Account>),
    ) -> Vec<JoinHandle<String>> {
        let before = self.pools[worker].waiting();
        let count = sessions.clone().count();
        let wait = |session| {
            let pool = self.pools[worker].of(tenant);
            let (tenant, account) = (tenant.clone(), account.clone());
            spawn_local(async move {
                let (settings, binding) = (Rc::default(), Cell::new(false));
                let (tenant, account, settings) = (&tenant, &account, &settings);
                let want =
                    Want { tenant, account, session, settings, since: None, binding: &binding };
                format!("{:?}", pool.acquire(want).await.map(drop))
            })
        };
        let tasks = sessions.map(wait).collect();
        until("they wait", || self.pools[worker].waiting() == before + count).await;
        tasks
    }
}

/// Lets the tasks of this thread run until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

const LONG: Duration = Duration::from_secs(600);

#[test]
fn who_waits_for_others_of_its_tenant_is_looked_at_by_nobody() {
    run(async || {
        let mute = Mute::new(1, LONG);
        let (tenant, account) = (mute.tenant(1), Arc::new(Account::default()));
        let of = (&tenant, &account);
        let slot = account.lease(&tenant.limits, 1).unwrap();
        let tasks = mute.wait(0, 0..5000, of).await;
        let pool = mute.pools[0].of(&tenant);
        assert!(!pool.is_wanted() && mute.line(0).is_empty(), "a pump looks at nobody");
        assert_eq!(pool.counts().3, 5000);
        assert!(mute.cluster(0).capped.holds(&tenant.id));
        drop(slot);
        until("one of them is in line", || mute.line(0) == [0]).await;
        assert_eq!((account.in_use().2, mute.pools[0].waiting()), (0, 5000));
        // Another of the tenant does not overtake them, though it asks only now.
        drop(mute.wait(0, 9000..9001, of).await);
        assert_eq!(mute.line(0), [0]);
        // Those who give up leave their slot to the next, in order, wherever they stood.
        for gone in [2, 0, 3] {
            tasks[gone].abort();
        }
        until("the next is in line", || mute.line(0) == [1]).await;
        tasks[1].abort();
        until("the next is in line", || mute.line(0) == [4]).await;
        assert_eq!(mute.pools[0].waiting(), 4997);
        tasks.iter().for_each(JoinHandle::abort);
        until("the last came late", || mute.line(0) == [9000]).await;
    });
}

#[test]
fn a_slot_given_back_on_another_thread_is_heard_of() {
    run(async || {
        let mute = Mute::new(2, LONG);
        let (tenant, account) = (mute.tenant(2), Arc::new(Account::default()));
        let slots = [(); 2].map(|()| account.lease(&tenant.limits, 1).unwrap());
        let first = mute.wait(0, 0..3, (&tenant, &account)).await;
        let second = mute.wait(1, 10..13, (&tenant, &account)).await;
        std::thread::spawn(move || drop(slots)).join().unwrap();
        let both = || (mute.line(0), mute.line(1));
        // Whoever hears it first, on whichever worker, and in order there.
        let two = [(vec![0], vec![10]), (vec![0, 1], vec![]), (vec![], vec![10, 11])];
        until("two of them are in line", || two.contains(&both())).await;
        // Where nobody is left, the other gets both.
        first.iter().for_each(JoinHandle::abort);
        until("both here", || both() == (vec![], vec![10, 11])).await;
        assert_eq!(account.in_use().2, 0, "waiting is not using");
        second.iter().for_each(JoinHandle::abort);
        until("nobody waits", || both() == (vec![], vec![])).await;
        assert!(
            account.lease(&tenant.limits, 1).is_some()
                && account.lease(&tenant.limits, 1).is_some()
        );
    });
}

#[test]
fn a_reload_that_raises_the_limit_counts_for_those_who_wait() {
    run(async || {
        let mute = Mute::new(1, LONG);
        let (tenant, account) = (mute.tenant(1), Arc::new(Account::default()));
        let _slot = account.lease(&tenant.limits, 1).unwrap();
        let _tasks = mute.wait(0, 0..5, (&tenant, &account)).await;
        mute.pools[0].reload([&mute.tenant(3)].into_iter());
        assert_eq!(mute.line(0), [0, 1]);
        mute.pools[0].reload([&mute.tenant(1)].into_iter());
        assert_eq!(mute.line(0), [0, 1], "what was granted stays");
        mute.pools[0].reload([&mute.tenant(4)].into_iter());
        assert_eq!(mute.line(0), [0, 1, 2]);
    });
}

#[test]
fn who_waits_too_long_for_others_of_its_tenant_is_told_and_leaves_nothing() {
    run(async || {
        let mute = Mute::new(1, Duration::from_millis(20));
        let (tenant, account) = (mute.tenant(1), Arc::new(Account::default()));
        let slot = account.lease(&tenant.limits, 1).unwrap();
        for task in mute.wait(0, 0..50, (&tenant, &account)).await {
            let told = task.await.unwrap();
            assert!(told.starts_with("Err(Capped"), "{told}");
        }
        let cluster = mute.cluster(0);
        assert!(!cluster.capped.holds(&tenant.id) && mute.pools[0].waiting() == 0);
        assert!(cluster.pools.borrow().is_empty(), "nobody has the pool, so it is gone");
        drop(slot);
        let _tasks = mute.wait(0, 0..1, (&tenant, &account)).await;
        assert_eq!(mute.line(0), [0]);
    });
}

#[test]
fn a_pool_lives_as_long_as_somebody_holds_it() {
    run(async || {
        let mute = Mute::new(1, LONG);
        let tenant = mute.tenant(1);
        let pool = mute.pools[0].of(&tenant);
        assert!(Rc::ptr_eq(&pool, &mute.pools[0].of(&tenant)));
        assert_eq!(mute.pools[0].all().len(), 1);
        drop(pool);
        assert!(mute.pools[0].all().is_empty() && mute.cluster(0).pools.borrow().is_empty());
        // One that no tenant has any more makes room for its successor.
        let old = mute.pools[0].of(&tenant);
        mute.pools[0].reload([].into_iter());
        let new = mute.pools[0].of(&tenant);
        assert!(old.obsolete.get() && !Rc::ptr_eq(&old, &new));
        drop(old);
        assert!(Rc::ptr_eq(&new, &mute.pools[0].of(&tenant)));
    });
}

#[test]
fn a_greeting_outlives_its_pool_and_not_its_route() {
    run(async || {
        let mute = Mute::new(1, LONG);
        let tenant = mute.tenant(1);
        let pool = || mute.pools[0].of(&tenant);
        let first = pool();
        first.remember(Settings::default(), vec![("TimeZone".to_owned(), "UTC".to_owned())]);
        drop(first);
        assert!(mute.pools[0].all().is_empty());
        let second = pool();
        assert!(second.greeting(&Settings::default()).is_some());
        mute.pools[0].reload([].into_iter());
        drop(second);
        assert!(pool().greeting(&Settings::default()).is_none(), "its servers may be others now");
    });
}

/// Lets whatever is ready run.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn what_piled_up_while_a_tenant_was_over_its_budget_goes_one_by_one() {
    run(async || {
        let mute = Mute::new(1, LONG);
        let tenant = mute.penalised(None);
        let account = Arc::new(Account::default());
        let charge = |millis| account.charge(&tenant.limits, Duration::from_millis(millis)).is_ok();
        let slot = account.lease(&tenant.limits, 1).unwrap();
        assert!(charge(0) && charge(1));
        let tasks = mute.wait(0, 0..40, (&tenant, &account)).await;
        assert!(charge(150), "there is room for one");
        settle().await;
        assert_eq!(mute.line(0), [0; 0], "that is none for forty");
        assert!(charge(1200), "and now for all");
        until("the first is in line", || mute.line(0) == [0]).await;
        settle().await;
        assert_eq!(mute.line(0), [0]);
        drop(slot);
        until("the next is in line", || mute.line(0) == [0, 1]).await;
        tasks[0].abort();
        until("another is, for the one that went", || mute.line(0) == [1, 2]).await;
        tasks.iter().for_each(JoinHandle::abort);
        until("nobody waits", || mute.pools[0].waiting() == 0).await;
    });
}

#[test]
fn who_comes_after_a_budget_was_over_goes_as_ever_once_those_before_are_done() {
    run(async || {
        let mute = Mute::new(1, LONG);
        let tenant = mute.penalised(Some(4));
        let account = Arc::new(Account::default());
        let charge = |millis| account.charge(&tenant.limits, Duration::from_millis(millis)).is_ok();
        assert!(charge(0) && charge(1));
        let slow = mute.wait(0, 0..4, (&tenant, &account)).await;
        assert!(charge(1200), "it is within its budget again");
        until("one by one", || mute.line(0) == [0, 1]).await;
        let _later = mute.wait(0, 4..10, (&tenant, &account)).await;
        settle().await;
        assert_eq!(mute.line(0), [0, 1], "behind those that piled up");
        slow[0].abort();
        until("the next", || mute.line(0) == [1, 2]).await;
        slow[1].abort();
        until("the last of those", || mute.line(0) == [2, 3]).await;
        slow[2].abort();
        until("all that it may have", || mute.line(0) == [3, 4, 5, 6]).await;
    });
}

#[test]
fn who_comes_into_line_late_has_the_weight_of_then() {
    run(async || {
        let mute = Mute::new(1, LONG);
        let (tenant, account) = (mute.tenant(1), Arc::new(Account::default()));
        let slot = account.lease(&tenant.limits, 1).unwrap();
        let tasks = mute.wait(0, 0..1, (&tenant, &account)).await;
        let limits = Box::new(Limits { weight: Some(7), ..Limits::default() });
        let until_then = std::time::SystemTime::UNIX_EPOCH;
        let new = Override { kind: Kind::Weight, limits, until: until_then, serial: 1 };
        account.set_override(new);
        drop(slot);
        until("it is in line", || mute.line(0) == [0]).await;
        assert_eq!(mute.cluster(0).arbiter.weights(), 7000);
        tasks.iter().for_each(JoinHandle::abort);
    });
}

#[test]
fn clients_that_are_refused_keep_their_host_knocked_at() {
    run(async || {
        let mute = Mute::new(1, LONG);
        let (tenant, account) = (mute.tenant(9), Arc::new(Account::default()));
        let pool = mute.pools[0].of(&tenant);
        let health = mute.cluster(0).arbiter.health.clone();
        let mut trial = health.admit(&pool.plan, 100).unwrap();
        assert!(trial.begin(0));
        let error = crate::server::ConnectError::Timeout(Duration::from_secs(1));
        drop(trial.heard(Err(&error)));
        drop(trial);
        // Its probe is lost, and nobody has tried for long.
        let long_ago = Instant::now().checked_sub(Duration::from_secs(200)).unwrap();
        let look = |work: &dyn Fn(&mut health::Record)| {
            work(health.book.lock().record(&pool.plan.conninfo, 0).unwrap());
        };
        look(&|record| (record.asked, record.probed) = (long_ago, false));
        let (settings, binding) = (Rc::default(), Cell::new(false));
        let (tenant, account, settings) = (&tenant, &account, &settings);
        let want = Want { tenant, account, session: 1, settings, since: None, binding: &binding };
        let refused = pool.acquire(want).await;
        assert!(matches!(refused, Err(AcquireError::Outage(_))), "{refused:?}");
        look(&|record| assert!(record.probed && record.asked > long_ago));
        assert_eq!(health.hosts()[0].attempts, 0, "that took no place");
    });
}
