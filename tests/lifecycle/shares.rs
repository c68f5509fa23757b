//! Shares: what a tenant gets of a capacity that others want as well. Nothing here is timed; what
//! counts is who was served before whom, and how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::console::{ADMIN, Row, show};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{ONE, query, transcript};
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::Wire;

const NAP: &str = "T D() C(SELECT 1) Z(I)";

/// Clients of one who wants everything.
const CROWD: usize = 20;

struct Stage {
    estate: Estate,
    gate: Gate,
    console: Wire,
}

impl Stage {
    async fn new(workers: usize, capacity: usize, tier: &str) -> Self {
        let estate = Estate::new().await;
        let verifier = crate::console::verifier().await;
        let more = format!("[console.users]\nadmin = \"{verifier}\"\n");
        let gate = format!("workers = {workers}\n");
        let tweaks = Tweaks { gate: &gate, capacity, tier, more: &more, ..Tweaks::default() };
        let gate = Gate::start(&estate.settings(&tweaks)).await;
        let console = Wire::login(gate.port, &ADMIN).await;
        Self { estate, gate, console }
    }

    async fn set(&mut self, tenant: usize, limit: &str) {
        let id = &self.tenant(tenant).id;
        let order = format!("SET BUDGET {id} {limit} FOR '10min'");
        assert_eq!(self.console.query(&order).await, "C(SET BUDGET) Z(I)");
    }

    fn tenant(&self, at: usize) -> &Tenant {
        self.estate.one_of_each()[at]
    }

    /// What the console has of a tenant: its share now, its weight, its minimum.
    async fn share(&mut self, tenant: usize) -> [String; 3] {
        let id = self.tenant(tenant).id.clone();
        let rows = show(&mut self.console, "TENANTS").await;
        let row = rows.iter().find(|row| row["tenant"] == id).unwrap();
        ["share", "weight", "servers_min"].map(|column| row[column].clone())
    }

    /// Waits until so many of a tenant's clients wait for a server.
    async fn waiting(&mut self, id: &str, wanted: usize) {
        eventually(&format!("{wanted} of {id} wait"), async || {
            let rows = show(&mut self.console, "CLIENTS").await;
            let waits = |row: &&Row| row["tenant"] == id && row["state"] == "waiting";
            (rows.iter().filter(waits).count() == wanted).then_some(())
        })
        .await;
    }

    /// Clients of two tenants that always want a server: how many of each one's queries are done
    /// when there are so many together.
    async fn both(&self, clients: [usize; 2], total: usize) -> [usize; 2] {
        let done = Arc::new([const { AtomicUsize::new(0) }; 2]);
        let over = Arc::new(AtomicBool::new(false));
        let mut all = JoinSet::new();
        for (at, clients) in clients.into_iter().enumerate() {
            for _ in 0..clients {
                let mut wire = self.gate.wire(self.tenant(at)).await;
                let (done, over) = (done.clone(), over.clone());
                all.spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        assert_eq!(wire.query("SELECT pg_sleep(0.01)").await, NAP);
                        done[at].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        let count = || [0, 1].map(|at: usize| done[at].load(Ordering::Relaxed));
        // Not while only some of them are there.
        let sum = || count().iter().sum::<usize>();
        eventually("they are at it", async || (sum() > 50).then_some(())).await;
        let before = count();
        let until = sum() + total;
        eventually("they go on", async || (sum() >= until).then_some(())).await;
        let after = count();
        over.store(true, Ordering::Relaxed);
        while let Some(ended) = all.join_next().await {
            ended.unwrap();
        }
        [after[0] - before[0], after[1] - before[1]]
    }
}

#[tokio::test]
async fn a_tenant_with_few_requests_does_not_stand_behind_the_queue_of_another() {
    let mut stage = Stage::new(4, 4, "").await;
    let abuser = stage.estate.globex.id.clone();
    let (mut holders, mut crowd, mut few) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..4 {
        holders.push(stage.gate.wire(&stage.estate.globex).await);
    }
    for _ in 0..CROWD {
        crowd.push(stage.gate.wire(&stage.estate.globex).await);
    }
    for victim in [&stage.estate.acme, &stage.estate.umbrella, &stage.estate.initech] {
        few.push((stage.gate.wire(victim).await, victim.id.clone()));
    }
    for wire in &mut holders {
        assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    }
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for mut wire in crowd {
        let done = done.clone();
        tasks.spawn(async move {
            assert_eq!(wire.query("SELECT pg_sleep(0.05)").await, NAP);
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    stage.waiting(&abuser, CROWD).await;
    for (wire, id) in &mut few {
        wire.send(query("SELECT 1")).await;
        stage.waiting(id, 1).await;
    }
    // Nothing is taken from those who have it. What they give back goes to the three.
    for wire in &mut holders {
        assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
    }
    for (wire, _) in &mut few {
        assert_eq!(transcript(&wire.until_ready().await), ONE);
    }
    let passed = done.load(Ordering::SeqCst);
    assert!(passed <= CROWD / 2, "{passed} of {CROWD} were served before the last");
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(done.load(Ordering::SeqCst), CROWD);
}

#[tokio::test]
async fn tenants_that_always_want_more_are_served_by_weight() {
    let mut stage = Stage::new(1, 4, "").await;
    assert_eq!(stage.share(0).await, ["4", "1", "0"], "nobody else wants any");
    stage.set(0, "weight = '3'").await;
    let done = stage.both([8, 24], 160).await;
    let ratio = done[0] as f64 / done[1] as f64;
    assert!((2.0..4.5).contains(&ratio), "3 to 1 is {done:?}");
}

#[tokio::test]
async fn a_minimum_is_kept_against_any_weight() {
    let mut stage = Stage::new(1, 2, "").await;
    stage.set(1, "weight = '1000'").await;
    stage.set(0, "servers_min = '1'").await;
    assert_eq!(stage.share(0).await[1..], ["1", "1"]);
    let more = format!("SET BUDGET {} servers_min = '3' FOR '1min'", stage.tenant(0).id);
    assert_eq!(stage.console.query(&more).await, "E(22023) Z(I)", "there are two");
    let done = stage.both([4, 12], 100).await;
    let ratio = done[0] as f64 / done[1] as f64;
    assert!((0.6..1.7).contains(&ratio), "one of two servers is {done:?}");
}

#[tokio::test]
async fn what_a_tenant_has_too_much_of_goes_at_the_end_of_its_transaction() {
    let mut stage = Stage::new(1, 1, "").await;
    let (rich, poor) = (&stage.estate.acme, &stage.estate.umbrella);
    let (rich_id, poor_id) = (rich.id.clone(), poor.id.clone());
    let mut holds = stage.gate.wire(rich).await;
    let mut next = stage.gate.wire(rich).await;
    let mut other = stage.gate.wire(poor).await;
    assert_eq!(holds.query("BEGIN").await, "C(BEGIN) Z(T)");
    next.send(query("BEGIN")).await;
    stage.waiting(&rich_id, 1).await;
    other.send(query("SELECT 1")).await;
    stage.waiting(&poor_id, 1).await;
    assert_eq!(stage.share(0).await, ["0.5", "1", "0"], "both want the one there is");
    // A transaction is not cut short, and what follows it in the same session waits its turn.
    assert_eq!(holds.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(holds.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(transcript(&other.until_ready().await), ONE);
    assert_eq!(transcript(&next.until_ready().await), "C(BEGIN) Z(T)");
    assert_eq!(next.query("COMMIT").await, "C(COMMIT) Z(I)");
}

#[tokio::test]
async fn over_its_rate_a_tenant_may_go_on_with_what_others_leave() {
    let tier = "queries_per_second = 1\nqueries_burst = 1\nover_budget = \"share\"";
    let mut stage = Stage::new(1, 4, tier).await;
    let id = stage.estate.acme.id.clone();
    let mut wires = Vec::new();
    for _ in 0..3 {
        wires.push(stage.gate.wire(&stage.estate.acme).await);
    }
    for _ in 0..20 {
        assert_eq!(wires[0].query("SELECT 1").await, ONE);
    }
    // One server at a time: the others wait, though three are free.
    assert_eq!(wires[0].query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(wires[0].query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
    wires[1].send(query("SELECT 1")).await;
    stage.waiting(&id, 1).await;
    wires[2].send(query("SELECT 1")).await;
    stage.waiting(&id, 2).await;
    assert_eq!(stage.gate.wire(&stage.estate.globex).await.query("SELECT 1").await, ONE);
    assert_eq!(wires[0].query("COMMIT").await, "C(COMMIT) Z(I)");
    for wire in &mut wires[1..] {
        assert_eq!(transcript(&wire.until_ready().await), ONE);
    }
}
