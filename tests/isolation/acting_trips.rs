//! What a choice of a tenant costs on the way to PostgreSQL: nothing beside what a session of the
//! tenant's own costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::acting::by_id;
use crate::harness::cluster::shared;
use crate::harness::gate::Gate;
use crate::harness::services::Service;
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::Wire;

/// Counts round trips on the way to a server: how often the gate speaks after the server has.
struct Counter {
    port: u16,
    trips: Arc<AtomicUsize>,
}

impl Counter {
    async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let trips = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&trips);
        tokio::spawn(async move {
            while let Ok((gate, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let (mut from_gate, mut to_gate) = gate.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let waits = Arc::new(AtomicBool::new(false));
                let (waiting, trips) = (Arc::clone(&waits), Arc::clone(&counted));
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(length @ 1..) = from_gate.read(&mut buffer).await {
                        if !waiting.swap(true, Ordering::SeqCst) {
                            trips.fetch_add(1, Ordering::SeqCst);
                        }
                        to_server.write_all(&buffer[..length]).await.unwrap();
                    }
                });
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
                        waits.store(false, Ordering::SeqCst);
                        // The gate may have closed it.
                        if to_gate.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, trips }
    }

    fn trips(&self) -> usize {
        self.trips.load(Ordering::SeqCst)
    }
}

/// So many transactions of each kind.
const ROUNDS: usize = 20;

/// Round trips to the server for each transaction of sessions that take turns, in all.
async fn trips(counter: &Counter, turns: &mut [(Wire, Option<String>)]) -> usize {
    let mut before = 0;
    // The first round opens the server.
    for round in 0..=ROUNDS {
        if round == 1 {
            before = counter.trips();
        }
        for (wire, choice) in &mut *turns {
            assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
            if let Some(choice) = choice {
                assert_eq!(wire.query(choice).await, "C(SET) Z(T)");
            }
            assert_eq!(wire.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(T)");
            assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
        }
    }
    counter.trips() - before
}

#[tokio::test]
async fn a_choice_makes_no_round_trip_to_postgresql() {
    let cluster = shared().await;
    let estate = Estate::within(cluster).await;
    let service = Service::new(cluster, "acts_for = \"*\"").await;
    let counter = Counter::start(cluster.port()).await;
    let tweaks = Tweaks { capacity: 1, more: &service.table, ..Tweaks::default() };
    let (real, counted) = (format!(":{}/", cluster.port()), format!(":{}/", counter.port));
    let settings = estate.settings(&tweaks).replace(&real, &counted);
    let gate = Gate::start(&settings).await;
    let (acme, globex) = (&estate.acme, &estate.globex);
    let own = &mut [(gate.wire(acme).await, None), (gate.wire(globex).await, None)];
    let own = trips(&counter, own).await;
    let choices = [acme, globex].map(|tenant| Some(by_id(tenant)));
    let [first, second] = choices;
    let acting = &mut [(service.wire(&gate).await, first), (service.wire(&gate).await, second)];
    let acting = trips(&counter, acting).await;
    assert!(own >= 2 * 3 * ROUNDS, "begin, select, commit: {own}");
    assert_eq!(acting, own, "the choice is the gate's alone");
}
