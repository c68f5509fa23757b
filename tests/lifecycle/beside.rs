//! Tenants that live on different workers and want the servers of one cluster at once. Nothing here
//! is timed; what counts is how often each was served, and how its servers were found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::workers::{Spread, WORKERS};
use crate::console::{ADMIN, verifier};
use crate::harness::eventually;
use crate::harness::http::get;
use crate::harness::messages::ONE;
use crate::harness::tenants::Tweaks;
use crate::harness::wire::Wire;

const NAP: &str = "T D() C(SELECT 1) Z(I)";

/// Clients of each worker's first tenant that go on asking.
struct Crowds {
    over: Arc<AtomicBool>,
    done: Vec<Arc<AtomicUsize>>,
    clients: JoinSet<()>,
}

impl Crowds {
    async fn gather(spread: &Spread, workers: &[usize], clients: usize) -> Self {
        let over = Arc::<AtomicBool>::default();
        let (mut done, mut all) = (Vec::new(), JoinSet::new());
        for worker in workers {
            let count = Arc::<AtomicUsize>::default();
            for _ in 0..clients {
                let mut wire = spread.wire(*worker).await;
                let (over, count) = (over.clone(), count.clone());
                all.spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        assert_eq!(wire.query("SELECT pg_sleep(0.01)").await, NAP);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            done.push(count);
        }
        Self { over, done, clients: all }
    }

    fn done(&self) -> Vec<usize> {
        self.done.iter().map(|it| it.load(Ordering::Relaxed)).collect()
    }

    /// What each has done when all together have done so many more.
    async fn go_on(&self, more: usize) -> Vec<usize> {
        let before = self.done();
        let sum = |all: &[usize]| all.iter().sum::<usize>();
        let until = sum(&before) + more;
        eventually("they go on", async || (sum(&self.done()) >= until).then_some(())).await;
        self.done().iter().zip(before).map(|(now, then)| now - then).collect()
    }

    async fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test]
async fn weights_hold_over_four_workers() {
    let more = format!("[console.users]\nadmin = \"{}\"\n", verifier().await);
    let tweaks = Tweaks { capacity: 6, more: &more, ..Tweaks::default() };
    let spread = Spread::new(&tweaks).await;
    let mut console = Wire::login(spread.gate.port, &ADMIN).await;
    let order = format!("SET BUDGET {} weight = '3' FOR '10min'", spread.tenants[0][0]);
    assert_eq!(console.query(&order).await, "C(SET BUDGET) Z(I)");
    let workers: Vec<usize> = (0..WORKERS).collect();
    let crowds = Crowds::gather(&spread, &workers, 12).await;
    // Not while only some of them are there.
    crowds.go_on(100).await;
    let done = crowds.go_on(360).await;
    crowds.end().await;
    // All requests take the same time: three of six places, and one for each of the others.
    let others = done[1..].iter().sum::<usize>() as f64 / 3.0;
    let ratio = done[0] as f64 / others;
    assert!((1.8..4.8).contains(&ratio), "3 to 1 is {done:?}");
    assert!(done[1..].iter().all(|it| (0.5..2.0).contains(&(*it as f64 / others))), "{done:?}");
}

#[tokio::test]
async fn who_asks_for_little_finds_its_server_bound_though_others_always_wait() {
    let more = "[http]\naddress = \"127.0.0.1:$HTTP\"\n";
    let spread = Spread::new(&Tweaks { capacity: 4, more, ..Tweaks::default() }).await;
    let crowd = Crowds::gather(&spread, &[0], 12).await;
    let mut light = [spread.wire(1).await, spread.wire(1).await];
    crowd.go_on(50).await;
    let before = Found::count(&spread).await;
    // One after the other, so that a server is never with the session that asks.
    for _ in 0..150 {
        for wire in &mut light {
            assert_eq!(wire.query("SELECT 1").await, ONE);
        }
    }
    let after = eventually("200 of 300 find theirs without a wait", async || {
        let now = Found::count(&spread).await;
        (now.context > before.context + 200).then_some(now)
    })
    .await;
    crowd.end().await;
    let moves = after.moves - before.moves;
    assert!(moves < 30, "{moves} servers moved for 300 requests");
}

/// What the metrics say, once a second.
struct Found {
    /// Servers that were with the tenant and not with the session.
    context: u64,
    moves: u64,
}

impl Found {
    async fn count(spread: &Spread) -> Self {
        let (_, body) = get(spread.gate.http, "/metrics").await;
        let of = |name: &str| {
            let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map_or(0, |count| count.parse().unwrap())
        };
        Self {
            context: of("tenantgate_acquires_total{how=\"context\"}"),
            moves: of("tenantgate_server_moves_total"),
        }
    }
}
