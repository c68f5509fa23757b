//! The example of `docs/moving-a-tenant.md`, run as it stands there while a load writes rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio_postgres::Client;

use super::{Silo, Stage};
use crate::catalog::login;
use crate::harness::cluster::{connect, shared, superuser, template};
use crate::harness::tenants::LOGIN_PASSWORD;
use crate::harness::{eventually, unique};

/// Clients that write, and how many rows each writes after the move.
const WRITERS: i32 = 4;
const AFTER: u32 = 20;

/// Writes rows one after the other until told to stop: alone, and two in a transaction. Gives back
/// what was acknowledged, in that order; nothing may fail.
async fn write(
    mut client: Client,
    writer: i32,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
) -> Vec<i32> {
    let mut written = Vec::new();
    let mut next = writer * 1_000_000;
    let insert = "INSERT INTO notes (id, body) VALUES ($1, 'by the load')";
    while !stop.load(Ordering::Relaxed) {
        next += 1;
        client.execute(insert, &[&next]).await.expect("a request failed");
        written.push(next);
        let transaction = client.transaction().await.expect("a BEGIN failed");
        transaction.execute(insert, &[&(next + 1)]).await.expect("a request failed");
        transaction.execute(insert, &[&(next + 2)]).await.expect("a request failed");
        transaction.commit().await.expect("a COMMIT failed");
        written.extend([next + 1, next + 2]);
        next += 2;
        done.fetch_add(1, Ordering::Relaxed);
    }
    written
}

/// The script of the page, with this tenant's name.
fn script(id: &str) -> String {
    let page = std::fs::read_to_string("docs/moving-a-tenant.md").unwrap();
    let block = page.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.expect("the page has a script").to_owned();
    assert!(block.contains("PAUSE TENANT acme") && block.contains("MOVE TENANT acme"), "{block}");
    block.replace("acme", id)
}

#[tokio::test]
async fn a_row_tenant_moves_to_a_silo_under_load_and_every_row_is_there_once() {
    let stage = Stage::new("").await;
    let (id, silo) = (format!("loaded_{}", unique()), Silo::new().await);
    let token = stage.tables.add(&id).await;
    drop(stage.let_in(&token).await);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut writers = Vec::new();
    for writer in 1..=WRITERS {
        let client = login(&stage.gate, &token).await.unwrap();
        writers.push(tokio::spawn(write(client, writer, stop.clone(), done.clone())));
    }
    let wrote = async |more: u32| {
        let before = done.load(Ordering::Relaxed);
        let enough = async || (done.load(Ordering::Relaxed) >= before + more).then_some(());
        eventually("the load writes", enough).await;
    };
    wrote(AFTER).await;
    let (cluster, port) = (shared().await, stage.gate.port);
    let psql = template().binaries().program("psql");
    let path = format!("{}:{}", psql.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let console = format!(
        "host=127.0.0.1 port={port} user=admin password={LOGIN_PASSWORD} dbname=tenantgate"
    );
    let folder = tempfile::tempdir().unwrap();
    let ran = tokio::process::Command::new("sh")
        .args(["-c", &script(&id)])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("CONSOLE", console)
        .env("SHARED", cluster.superuser_conninfo("app"))
        .env("OWN", cluster.superuser_conninfo(&silo.name))
        .env("ROUTE", &silo.conninfo)
        .output()
        .await
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    wrote(AFTER).await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.push(writer.await.unwrap());
    }
    let ids = async |client: &Client, sql: &str| -> Vec<i32> {
        client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let there = superuser(cluster, &silo.name).await;
    let all = ids(&there, "SELECT id FROM notes ORDER BY id").await;
    let shared = superuser(cluster, "app").await;
    let sql = format!("SELECT id FROM app.notes WHERE tenant_id = '{id}' ORDER BY id");
    let left = ids(&shared, &sql).await;
    let of = |rows: &[i32], writer: &[i32]| -> Vec<i32> {
        let range = writer[0]..=writer[writer.len() - 1];
        rows.iter().copied().filter(|id| range.contains(id)).collect()
    };
    for written in &acknowledged {
        assert_eq!(of(&all, written), *written, "each once, none lost, none beside");
        let old = of(&left, written);
        assert_eq!(old, written[..old.len()], "the old side has the beginning of it");
        assert!(!old.is_empty() && old.len() < written.len());
    }
    let count: usize = acknowledged.iter().map(Vec::len).sum();
    assert_eq!(all.len(), count);
    drop(connect(&silo.conninfo).await.unwrap());
}
