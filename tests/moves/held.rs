//! Who is held back: also a client that never waits for its answers, and a session that is about to
//! go on with the server it keeps.

use std::time::Duration;

use super::{ONE, Stage, is_silent};
use crate::console::{ADMIN, Row, show, verifier};
use crate::harness::cluster::shared;
use crate::harness::faults::{Hop, Mode};
use crate::harness::gate::Gate;
use crate::harness::messages::{extended, query, transcript};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::Wire;
use crate::harness::{eventually, unique};

/// Waits until a session of the tenant is in line for a server.
async fn waits_in_line(console: &mut Wire, id: &str) {
    eventually("it is in line", async || {
        let clients = show(console, "CLIENTS").await;
        let waits = |row: &Row| row["tenant"] == id && row["state"] == "waiting";
        clients.iter().any(waits).then_some(())
    })
    .await;
}

/// Goes on sending before it reads what came of it. True if that comes to a halt.
async fn runs_dry(wire: &mut Wire, batch: &[u8], answers: usize) -> bool {
    for _ in 0..60 {
        wire.send(batch.to_vec()).await;
        for _ in 0..answers {
            let answer = tokio::time::timeout(Duration::from_secs(1), wire.until_ready());
            if answer.await.is_err() {
                return true;
            }
        }
    }
    false
}

#[tokio::test]
async fn a_client_that_sends_ahead_is_held_back_at_its_next_boundary() {
    let stage = Stage::new("").await;
    let mut console = stage.console().await;
    let sleep = "SELECT pg_sleep(0.05)::text";
    let block = [query("BEGIN"), query(sleep), query("COMMIT")].concat();
    let batches = [(extended(sleep, &[]), 1, "transaction"), (block, 3, "session")];
    for (batch, answers, pooling) in batches {
        let id = format!("ahead_{}", unique());
        let token = stage.tables.add(&id).await;
        let overrides = format!(r#"overrides = '{{"pooling": "{pooling}"}}'"#);
        stage.tables.run(&format!("UPDATE tenants SET {overrides} WHERE id = '{id}'")).await;
        let mut wire = stage.let_in(&token).await;
        for _ in 0..3 {
            wire.send(batch.clone()).await;
        }
        console.send(query(&format!("PAUSE TENANT {id}"))).await;
        assert!(runs_dry(&mut wire, &batch, answers).await, "{pooling}: it ran past the pause");
        assert_eq!(transcript(&console.until_ready().await), "C(PAUSE) Z(I)");
        assert_eq!(console.query(&format!("RESUME TENANT {id}")).await, "C(RESUME) Z(I)");
        wire.frame().await;
    }
}

#[tokio::test]
async fn a_kept_server_that_is_being_bound_counts_as_work() {
    let (estate, hop) = (Estate::new().await, Hop::start(shared().await.port()).await);
    let more = format!("[console.users]\nadmin = \"{}\"\n", verifier().await);
    let settings = estate.settings(&Tweaks { more: &more, ..Tweaks::default() });
    let real = format!("127.0.0.1:{}/", shared().await.port());
    let through = settings.replace(&real, &format!("127.0.0.1:{}/", hop.port));
    assert_ne!(settings, through);
    let gate = Gate::start(&through).await;
    let mut pinned = gate.wire(&estate.acme).await;
    assert_eq!(pinned.query("CREATE TEMP TABLE own ()").await, "C(CREATE TABLE) Z(I)");
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let mut pause = Wire::login(gate.port, &ADMIN).await;
    let id = &estate.acme.id;
    let read_only = format!("READ_ONLY TENANT {id}");
    assert_eq!(console.query(&read_only).await, "C(READ_ONLY) Z(I)");
    // When a worker answers this, it has told its sessions.
    show(&mut console, "CLIENTS").await;
    hop.set_to_client(Mode::Stall);
    pinned.send(query("SELECT 1")).await;
    eventually("its server is being bound", async || {
        let clients = show(&mut console, "CLIENTS").await;
        clients.iter().any(|row| row["state"] == "waiting").then_some(())
    })
    .await;
    pause.send(query(&format!("PAUSE TENANT {id}"))).await;
    assert!(is_silent(&mut pause).await, "PAUSE did not wait for it");
    hop.set(Mode::Pass);
    assert_eq!(transcript(&pause.until_ready().await), "C(PAUSE) Z(I)");
    assert!(is_silent(&mut pinned).await, "it ran behind the pause");
    assert_eq!(console.query(&format!("RESUME TENANT {id}")).await, "C(RESUME) Z(I)");
    assert_eq!(transcript(&pinned.until_ready().await), ONE);
}

#[tokio::test]
async fn a_request_that_is_judged_again_is_charged_once_and_waits_no_longer_for_it() {
    let estate = Estate::new().await;
    let more = format!("[console.users]\nadmin = \"{}\"\n", verifier().await);
    let cluster = "query_wait = \"3s\"";
    let tweaks = Tweaks { capacity: 1, cluster, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let mut waiting = gate.wire(&estate.globex).await;
    let mut holder = gate.wire(&estate.acme).await;
    assert_eq!(holder.query("BEGIN").await, "C(BEGIN) Z(T)");
    waiting.send(query("SELECT 1")).await;
    let id = estate.globex.id.as_str();
    waits_in_line(&mut console, id).await;
    assert_eq!(console.query(&format!("READ_ONLY TENANT {id}")).await, "C(READ_ONLY) Z(I)");
    // When a worker answers this, it has told its sessions; and then it is in line again.
    waits_in_line(&mut console, id).await;
    assert_eq!(holder.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(transcript(&waiting.until_ready().await), ONE);
    let stats = show(&mut console, "STATS_TENANTS").await;
    let own = stats.iter().find(|row| row["tenant"] == id).unwrap();
    assert_eq!(own["total_query_count"], "1", "{own:?}");

    // However often it is looked at again, it waits no longer than others.
    assert_eq!(holder.query("BEGIN").await, "C(BEGIN) Z(T)");
    waiting.send(query("SELECT 1")).await;
    waits_in_line(&mut console, id).await;
    let mut orders = ["READ_WRITE", "READ_ONLY"].into_iter().cycle();
    eventually("it is refused", async || {
        let order = orders.next().unwrap();
        let done = console.query(&format!("{order} TENANT {id}")).await;
        assert_eq!(done, format!("C({order}) Z(I)"));
        (!is_silent(&mut waiting).await).then_some(())
    })
    .await;
    assert_eq!(waiting.frame().await.tag, b'Z', "behind the error");
    assert_eq!(holder.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(waiting.query("SELECT 1").await, ONE);
}
