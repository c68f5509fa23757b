//! What holds a server back although its last answer has come: a cancel on its way to it, a batch
//! without its Sync. Nobody else may have it until that is over.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{bind, execute, flush, parse, query, sync, transcript};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::cancel;
use crate::isolation::one_server;

/// A hop to PostgreSQL that keeps CancelRequests until they may go on.
struct Toll {
    port: u16,
    /// How many it has seen.
    held: watch::Receiver<usize>,
    open: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Toll {
    async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, held) = watch::channel(0);
        let (open, opened) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (seen, mut opened) = (seen.clone(), opened.clone());
                tokio::spawn(async move {
                    let mut first = [0; 8];
                    client.read_exact(&mut first).await?;
                    if first[4..] == 80_877_102_u32.to_be_bytes() {
                        seen.send_modify(|seen| *seen += 1);
                        let _ = opened.wait_for(|open| *open).await;
                    }
                    let mut server = TcpStream::connect(("127.0.0.1", target)).await?;
                    server.write_all(&first).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { port, held, open, accepting }
    }
}

impl Drop for Toll {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test]
async fn a_server_with_a_cancel_on_its_way_is_nobodys() {
    let estate = Estate::new().await;
    let port = shared().await.port();
    let mut toll = Toll::start(port).await;
    // On one worker: between two of them a server does not go while anybody holds its facts.
    let tweaks = Tweaks { capacity: 1, gate: "workers = 1", ..Tweaks::default() };
    let settings = estate.settings(&tweaks);
    let through = settings.replacen(
        &format!("tests@127.0.0.1:{port}/app?sslmode=disable"),
        &format!("tests@127.0.0.1:{}/app?sslmode=disable", toll.port),
        1,
    );
    assert_ne!(through, settings);
    let gate = Gate::start(&through).await;
    let mut asks = gate.wire(&estate.acme).await;
    let mut next = gate.wire(&estate.globex).await;
    asks.send(query("SELECT pg_sleep(1.234), 1")).await;
    let admin = superuser(shared().await, "app").await;
    let sql =
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%(1.234)%' AND usename = 'tg_login'";
    eventually("it runs", async || {
        (!admin.query(sql, &[]).await.unwrap().is_empty()).then_some(())
    })
    .await;
    let (gate_port, pid, secret) = (gate.port, asks.pid, asks.secret);
    let cancelling = tokio::spawn(async move { cancel(gate_port, pid, secret).await });
    timeout(Duration::from_secs(10), toll.held.wait_for(|seen| *seen == 1))
        .await
        .expect("the cancel goes to the server")
        .unwrap();
    assert_eq!(transcript(&asks.until_ready().await), "T D(,1) C(SELECT 1) Z(I)");
    // The query is over and the cancel is not: it would hit whoever is next.
    next.send(query("SELECT pg_sleep(0.6), 2")).await;
    assert!(timeout(Duration::from_millis(300), next.frame()).await.is_err(), "served too early");
    toll.open.send_replace(true);
    assert_eq!(transcript(&next.until_ready().await), "T D(,2) C(SELECT 1) Z(I)");
    cancelling.await.unwrap();
}

#[tokio::test]
async fn a_server_inside_a_batch_is_nobodys() {
    let (estate, gate) = one_server().await;
    let mut asks = gate.wire(&estate.acme).await;
    let mut next = gate.wire(&estate.globex).await;
    let insert = "INSERT INTO notes (id, body) VALUES (99, 'in a batch')";
    let batch = [parse("", insert), bind("", "", &[]), execute("", 0), flush()].concat();
    asks.send(batch).await;
    for tag in *b"12C" {
        assert_eq!(asks.frame().await.tag, tag);
    }
    next.send(query("SELECT 2")).await;
    assert!(timeout(Duration::from_millis(300), next.frame()).await.is_err(), "served too early");
    assert_eq!(asks.ask(sync()).await, "Z(I)");
    assert_eq!(transcript(&next.until_ready().await), "T D(2) C(SELECT 1) Z(I)");
    let kept = "SELECT count(*) FROM notes WHERE id = 99";
    assert_eq!(asks.query(kept).await, "T D(1) C(SELECT 1) Z(I)");
}
