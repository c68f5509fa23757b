//! Servers that die: idle, in mid-query, in a transaction, with the whole cluster; and clients that
//! leave in mid-query.

use tenantgate::demo::Plan;

use super::{backends, end_backends, login_of, runs};
use crate::harness::cluster::{own, shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{
    ONE, bind, copy_data, execute, extended, flush, lying_frame, parse, query, terminate,
    transcript,
};
use crate::harness::tenants::{Estate, Tweaks};

#[tokio::test]
async fn a_server_killed_while_idle_is_replaced_without_a_word() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let admin = superuser(shared().await, "app").await;
    let mut wire = gate.wire(&estate.stark).await;
    for _ in 0..5 {
        assert_eq!(wire.query("SELECT 1").await, ONE);
        end_backends(&admin, &login_of(&estate.stark)).await;
        eventually("it is dead", async || {
            (backends(&admin, &login_of(&estate.stark)).await == 0).then_some(())
        })
        .await;
        assert_eq!(wire.ask(extended("SELECT 1", &[])).await, "1 2 T D(1) C(SELECT 1) Z(I)");
    }
}

#[tokio::test]
async fn a_server_killed_in_a_query_or_a_transaction_ends_the_session_in_its_own_words() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let admin = superuser(shared().await, "app").await;
    let login = login_of(&estate.stark);
    for first in ["SELECT pg_sleep(600)", "BEGIN"] {
        let mut wire = gate.wire(&estate.stark).await;
        wire.send(query(first)).await;
        if first == "BEGIN" {
            assert_eq!(transcript(&wire.until_ready().await), "C(BEGIN) Z(T)");
        } else {
            runs(&admin, &login, "pg_sleep", true).await;
        }
        end_backends(&admin, &login).await;
        let mut frames = Vec::new();
        while let Some(frame) = wire.maybe_frame().await {
            frames.push(frame);
        }
        let last = frames.last().expect("the session is told");
        assert_eq!(last.to_string(), "E(57P01)", "{first}");
        assert_eq!(last.field('S').as_deref(), Some("FATAL"));
        let message = last.field('M').unwrap();
        assert_eq!(message, "terminating connection due to administrator command");
        let mut next = gate.wire(&estate.stark).await;
        assert_eq!(next.query("SELECT 1").await, ONE);
    }
}

#[tokio::test]
async fn a_cluster_that_crashes_in_mid_query_is_used_again_when_it_is_back() {
    let mut cluster = own(&Plan::default()).await;
    let estate = Estate::within(&cluster).await;
    let gate = Gate::for_estate(&estate).await;
    let admin = superuser(&cluster, "app").await;
    let mut busy = gate.wire(&estate.stark).await;
    let mut inside = gate.wire(&estate.umbrella).await;
    let mut idle = gate.wire(&estate.acme).await;
    assert_eq!(idle.query("SELECT 1").await, ONE);
    inside.query("BEGIN").await;
    busy.send(query("SELECT pg_sleep(600)")).await;
    runs(&admin, &login_of(&estate.stark), "pg_sleep", true).await;
    cluster.crash();
    for (wire, name) in [(&mut busy, "busy"), (&mut inside, "in a transaction")] {
        let said = wire.until_closed().await;
        let told =
            said.ends_with("E(08006)") || said.ends_with("E(57P01)") || said.ends_with("E(57P02)");
        assert!(told, "{name}: {said}");
    }
    cluster.restart().unwrap();
    assert_eq!(idle.query("SELECT 1").await, ONE);
    assert_eq!(gate.wire(&estate.stark).await.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn a_client_gone_in_mid_query_has_its_backend_cancelled_and_its_place_returned() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 1, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let admin = superuser(shared().await, "app").await;
    let login = login_of(&estate.stark);
    let mut other = gate.wire(&estate.umbrella).await;
    for leaves_in in ["query", "extended", "transaction", "copy", "batch"] {
        let mut wire = gate.wire(&estate.stark).await;
        match leaves_in {
            "query" => wire.send(query("SELECT pg_sleep(601)")).await,
            "extended" => wire.send(extended("SELECT pg_sleep(601)", &[])).await,
            "transaction" => {
                wire.query("BEGIN").await;
                wire.query("INSERT INTO notes VALUES (700, 'x')").await;
                wire.send(query("SELECT pg_sleep(601)")).await;
            }
            "copy" => {
                wire.send(query("COPY notes FROM STDIN")).await;
                wire.frame().await;
                wire.send(copy_data(b"701\tx\n")).await;
            }
            _ => {
                let insert = extended("INSERT INTO notes VALUES (702, 'x')", &[]);
                // All but the Sync.
                wire.send(&insert[..insert.len() - 5]).await;
            }
        }
        if !matches!(leaves_in, "copy" | "batch") {
            runs(&admin, &login, "pg_sleep(601)", true).await;
        }
        drop(wire);
        // The one place is to be had again, which needs the backend to be gone.
        assert_eq!(other.query("SELECT 1").await, ONE, "{leaves_in}");
        assert_eq!(backends(&admin, &login).await, 0, "{leaves_in}");
    }
    let mut wire = gate.wire(&estate.stark).await;
    let rows = wire.query("SELECT count(*) FROM notes WHERE id >= 700").await;
    assert_eq!(rows, "T D(0) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn what_was_sent_before_a_goodbye_is_still_carried_out() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    let mut reader = gate.wire(&estate.stark).await;
    let slow = "INSERT INTO notes SELECT 710, pg_sleep(0.3)::text";
    for bytes in [query(slow), extended(&slow.replace("710", "711"), &[])] {
        let mut wire = gate.wire(&estate.stark).await;
        wire.send([bytes, terminate()].concat()).await;
        drop(wire);
    }
    eventually("both rows are there", async || {
        let said = reader.query("SELECT count(*) FROM notes WHERE id IN (710, 711)").await;
        (said == "T D(2) C(SELECT 1) Z(I)").then_some(())
    })
    .await;
    assert_eq!(reader.query("DELETE FROM notes WHERE id >= 710").await, "C(DELETE 2) Z(I)");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_batch_or_copy_gives_its_place_back() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 1, tier: "clients = 4", ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let insert = "INSERT INTO notes (id, body) VALUES (990, 'half done')";
    let batch = [parse("", insert), bind("", "", &[]), execute("", 0)].concat();
    let copy = query("COPY notes (id, body) FROM STDIN");
    // The last looks like a goodbye at its end, and is half a message.
    let half = [&lying_frame(b'Q', 100, b"SELECT")[..], &terminate()].concat();
    for (bytes, hears) in [
        (batch.clone(), 0),
        ([batch, flush()].concat(), 3),
        (parse("s", "SELECT 1"), 0),
        (copy, 1),
        (half, 0),
    ] {
        let mut wire = gate.wire(&estate.stark).await;
        assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
        wire.send(bytes).await;
        for _ in 0..hears {
            wire.frame().await;
        }
        wire.send(terminate()).await;
        drop(wire);
        let mut next = gate.wire(&estate.stark).await;
        let kept = next.query("SELECT count(*) FROM notes WHERE id = 990").await;
        assert_eq!(kept, "T D(0) C(SELECT 1) Z(I)");
    }
}
