//! The torture: many tenants of every isolation on few servers, every mix of messages, faults on
//! all sides, and an observer that looks at every byte a client gets. Clients and faults follow
//! from one seed; a failure prints it with the command that replays its round.

mod actor;
mod aftermath;
mod copies;
mod dialogs;
mod plan;
mod requests;
mod script;
mod settings;
mod stage;
mod tally;
mod town;
mod watch;
mod weather;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinSet;

use crate::torture::actor::Journal;
use crate::torture::plan::Plan;
use crate::torture::stage::{Ground, Stage};
use crate::torture::tally::Tally;

/// Between two lines that say how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// How often the storm looks after its clients.
const LOOK: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_stops_or_writes_for_another_tenant_whatever_happens() {
    let tally = Arc::new(Tally::default());
    for plan in plan::rounds() {
        eprintln!("torture: {plan}");
        round(plan, tally.clone()).await;
    }
    eprintln!("{}", tally.table());
}

async fn round(plan: Plan, tally: Arc<Tally>) {
    let ground = Ground::new(&plan).await;
    let stage = Arc::new(Stage::new(plan.clone(), &ground, tally.clone()).await);
    let mut clients = JoinSet::new();
    let mut journals = Vec::new();
    for number in 0..plan.clients {
        let journal = Journal::default();
        journals.push(journal.clone());
        let rng = Rng::with_seed(plan.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        let stage = stage.clone();
        clients.spawn(async move {
            actor::live(stage, rng, journal).await;
            number
        });
    }
    let faults = tokio::spawn(weather::blow(stage.clone(), ground));
    let (mut told, mut failure) = (Instant::now(), None);
    while !clients.is_empty() {
        let ended = tokio::time::timeout(LOOK, clients.join_next()).await;
        if faults.is_finished() && !stage.is_over() {
            // It takes the gate down with it; what clients say about that is of no interest.
            break;
        }
        if let Ok(Some(Err(error))) = ended {
            failure = Some(error);
            break;
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            eprintln!("torture: {}", tally.line());
        }
    }
    stage.stop();
    // Held while it fails, so that the gate's log is shown.
    match (faults.await, failure) {
        (Ok(ground), None) => aftermath::check(&stage, ground).await,
        (Ok(_ground), Some(error)) => fail(&plan, &error, &journals),
        (Err(error), _) => fail(&plan, &error, &journals),
    }
}

/// Says how to see it again, and what the one that failed did last.
fn fail(plan: &Plan, error: &tokio::task::JoinError, journals: &[Journal]) -> ! {
    for (number, journal) in journals.iter().enumerate().filter(|(_, it)| it.has_failed()) {
        eprintln!("torture: the last of client {number}:\n{}", journal.text());
    }
    panic!("{error}\nreplay: {}", plan.replay());
}
