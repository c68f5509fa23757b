//! Waiting and hoarding: places come back, nobody starves, buffers have bounds.

use std::time::Instant;

use crate::harness::messages::{frame, query, sync, transcript};
use crate::isolation::{NOTES, one_server, own_notes};

/// How much memory the gate may take for a client that only sends, in MB. It starts at about 10.
const MEMORY_MB_MAX: usize = 60;

#[tokio::test]
async fn tenants_of_another_database_get_their_turn_beside_a_busy_one() {
    let (estate, gate) = one_server().await;
    let mut busy = Vec::new();
    for _ in 0..4 {
        // Enough questions ahead for somebody to be in line at any time.
        let mut wire = gate.wire(&estate.acme).await;
        wire.send(query("SELECT 1").repeat(500)).await;
        busy.push(tokio::spawn(async move {
            loop {
                assert_eq!(transcript(&wire.until_ready().await), "T D(1) C(SELECT 1) Z(I)");
                wire.send(query("SELECT 1")).await;
            }
        }));
    }
    for tenant in [&estate.initech, &estate.umbrella, &estate.globex, &estate.stark] {
        let mut wire = gate.wire(tenant).await;
        for _ in 0..3 {
            let asked = Instant::now();
            assert_eq!(wire.query(NOTES).await, own_notes(tenant));
            assert!(asked.elapsed().as_secs() < 5, "{} waited", tenant.isolation);
        }
    }
    assert!(busy.iter().all(|task| !task.is_finished()), "the busy tenant was served as well");
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_client_that_sends_and_never_reads_costs_a_bounded_amount_of_memory() {
    let (estate, gate) = one_server().await;
    for bytes in [sync(), frame(b'F', &[0; 8]), query("LISTEN x"), query("SELECT 1")] {
        let mut wire = gate.wire(&estate.acme).await;
        flood(&mut wire, &bytes).await;
        assert!(memory_mb(gate.pid()) < MEMORY_MB_MAX, "{} MB", memory_mb(gate.pid()));
    }
    let mut other = gate.wire(&estate.globex).await;
    assert_eq!(other.query(NOTES).await, own_notes(&estate.globex));
}

#[tokio::test]
async fn a_client_that_sends_ahead_while_others_wait_costs_a_bounded_amount_of_memory() {
    let (estate, gate) = one_server().await;
    let mut wire = gate.wire(&estate.acme).await;
    let mut other = gate.wire(&estate.globex).await;
    wire.send(query("SELECT pg_sleep(3)")).await;
    other.send(query("SELECT 1")).await;
    flood(&mut wire, &query("SELECT 2")).await;
    assert!(memory_mb(gate.pid()) < MEMORY_MB_MAX, "{} MB", memory_mb(gate.pid()));
    assert_eq!(transcript(&other.until_ready().await), "T D(1) C(SELECT 1) Z(I)");
}

/// Sends the same over and over, up to 200 MB, until the gate takes no more for a second.
async fn flood(wire: &mut crate::harness::wire::Wire, bytes: &[u8]) {
    let chunk = bytes.repeat(1_000_000 / bytes.len());
    for _ in 0..200 {
        let sending = wire.try_send(&chunk);
        match tokio::time::timeout(std::time::Duration::from_secs(1), sending).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

fn memory_mb(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}
