//! tokio-postgres, with the same scenarios as the scripts of other languages.

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, TryStreamExt, pin_mut};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::harness::cluster::{connect, shared};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant};

const SELECT: &str = "SELECT id, body FROM notes ORDER BY id";

#[tokio::test]
async fn tokio_postgres_proves_itself() {
    let estate = Estate::new().await;
    let initech = &estate.initech;
    let login = format!("tg_{}", initech.id);
    let conninfo = shared().await.conninfo(&login, LOGIN_PASSWORD, &initech.dbname);
    scenarios(&conninfo, initech).await;
    wrong_token(&conninfo.replace(LOGIN_PASSWORD, "wrong")).await;
}

#[tokio::test]
async fn tokio_postgres_works_through_the_gate() {
    let estate = Estate::new().await;
    let gate = Gate::for_estate(&estate).await;
    for tenant in estate.one_of_each() {
        let conninfo = tenant.conninfo(gate.port);
        scenarios(&conninfo, tenant).await;
        let wrong = format!("{}AAAA", &tenant.token[..tenant.token.len() - 4]);
        wrong_token(&conninfo.replace(&tenant.token, &wrong)).await;
    }
}

async fn scenarios(conninfo: &str, tenant: &Tenant) {
    let mut client = connect(conninfo).await.unwrap();
    own_rows(&client, tenant).await;
    parameters(&client).await;
    transaction(&mut client).await;
    error_rolls_back(&mut client, tenant).await;
    prepared_across_transactions(&mut client, tenant).await;
    pipeline(&client).await;
    copy_in_and_out(&mut client, tenant).await;
    large_results(&client).await;
    cancel(&client, tenant).await;
    discard_all(&client, tenant).await;
}

async fn own_rows(client: &Client, tenant: &Tenant) {
    let rows = client.query(SELECT, &[]).await.unwrap();
    let rows: Vec<(i32, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows, tenant.notes);
}

async fn parameters(client: &Client) {
    let sql = "SELECT $1::int + 1, $2::text, $3::text IS NULL";
    let row = client.query_one(sql, &[&41, &"a'b\\", &None::<&str>]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (42, "a'b\\"));
    assert!(row.get::<_, bool>(2));
}

async fn transaction(client: &mut Client) {
    let mut outer = client.transaction().await.unwrap();
    outer.execute("INSERT INTO notes (id, body) VALUES ($1, 'mine')", &[&1000]).await.unwrap();
    let inner = outer.savepoint("first_try").await.unwrap();
    inner.execute("UPDATE notes SET body = 'changed' WHERE id = $1", &[&1000]).await.unwrap();
    inner.rollback().await.unwrap();
    outer.commit().await.unwrap();
    let deleted = "DELETE FROM notes WHERE id = $1 RETURNING body";
    let row = client.query_one(deleted, &[&1000]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "mine");
}

async fn error_rolls_back(client: &mut Client, tenant: &Tenant) {
    let open = client.transaction().await.unwrap();
    open.execute("INSERT INTO notes (id, body) VALUES ($1, 'lost')", &[&1000]).await.unwrap();
    let error = open.batch_execute("SELECT 1/0").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    let error = open.batch_execute("SELECT 1").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    open.rollback().await.unwrap();
    own_rows(client, tenant).await;
}

async fn prepared_across_transactions(client: &mut Client, tenant: &Tenant) {
    let statement = client.prepare("SELECT body FROM notes WHERE id = $1").await.unwrap();
    for turn in 0..60 {
        let (id, body) = &tenant.notes[turn % tenant.notes.len()];
        let row = if turn % 2 == 0 {
            client.query_one(&statement, &[id]).await.unwrap()
        } else {
            let open = client.transaction().await.unwrap();
            let row = open.query_one(&statement, &[id]).await.unwrap();
            open.commit().await.unwrap();
            row
        };
        assert_eq!(row.get::<_, &str>(0), body);
    }
}

/// Futures polled together are sent together, each with a Sync of its own.
async fn pipeline(client: &Client) {
    let asked = (0..100).map(|number| async move {
        let row = client.query_one("SELECT $1::int", &[&number]).await.unwrap();
        row.get::<_, i32>(0)
    });
    assert_eq!(futures::future::join_all(asked).await, Vec::from_iter(0..100));
}

async fn copy_in_and_out(client: &mut Client, tenant: &Tenant) {
    if tenant.isolation == "row" {
        // PostgreSQL itself refuses COPY FROM into a row-secured table, and after a refused COPY
        // this driver sends one Sync more than it reads answers for, with or without a gate.
        return;
    }
    let open = client.transaction().await.unwrap();
    let sink = open.copy_in("COPY notes (id, body) FROM STDIN").await.unwrap();
    pin_mut!(sink);
    for id in 1000..2000 {
        let line = format!("{id}\t{}\n", "copied ".repeat(20));
        sink.send(Bytes::from(line)).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 1000);
    let sql = "COPY (SELECT id FROM notes WHERE id >= 1000 ORDER BY id) TO STDOUT";
    let out = open.copy_out(sql).await.unwrap();
    let bytes: Vec<Bytes> = out.try_collect().await.unwrap();
    let text = String::from_utf8(bytes.concat()).unwrap();
    let ids: Vec<i32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(ids, Vec::from_iter(1000..2000));
    open.rollback().await.unwrap();
    own_rows(client, tenant).await;
}

async fn large_results(client: &Client) {
    let sql = "SELECT generate_series(1, 100000)::bigint";
    let rows = client.query_raw(sql, Vec::<i32>::new()).await.unwrap();
    pin_mut!(rows);
    let mut sum = 0;
    while let Some(row) = rows.next().await {
        sum += row.unwrap().get::<_, i64>(0);
    }
    assert_eq!(sum, 100_000 * 100_001 / 2);
    let row = client.query_one("SELECT repeat('x', 8000000)", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0).len(), 8_000_000);
}

async fn cancel(client: &Client, tenant: &Tenant) {
    let token = client.cancel_token();
    let sleeping = client.batch_execute("SELECT pg_sleep(60)");
    pin_mut!(sleeping);
    // A cancel that comes before the query is lost by design, so it is sent until it hits.
    let error = eventually("the query is cancelled", async || {
        token.cancel_query(NoTls).await.unwrap();
        sleeping.as_mut().now_or_never()
    })
    .await
    .unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    // This driver does not wait until its cancel has arrived, so the last one may hit what follows.
    eventually("no cancel is on its way", async || {
        client.batch_execute("SELECT pg_sleep(0.2)").await.ok()
    })
    .await;
    own_rows(client, tenant).await;
}

async fn discard_all(client: &Client, tenant: &Tenant) {
    client.batch_execute("SET TimeZone = 'Asia/Tokyo'").await.unwrap();
    client.batch_execute("DISCARD ALL").await.unwrap();
    let row = client.query_one("SELECT current_setting('TimeZone')", &[]).await.unwrap();
    assert_ne!(row.get::<_, &str>(0), "Asia/Tokyo");
    own_rows(client, tenant).await;
}

async fn wrong_token(conninfo: &str) {
    let error = connect(conninfo).await.map(drop).expect_err("a wrong token is refused");
    assert_eq!(error.code(), Some(&SqlState::INVALID_PASSWORD));
}
