//! A primary and its standby behind one connection string: who is spoken to, and what becomes of
//! traffic when the standby takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tenantgate::demo::{Cluster, Plan};

use crate::harness::cluster::{own, shared, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{Frame, parameter_status, query, transcript};
use crate::harness::server::Meddler;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};

/// Which role each value of `target_session_attrs` leads to: whether that host is a standby.
const ROLES: [(&str, &str); 6] = [
    ("any", "t"),
    ("read-write", "f"),
    ("read-only", "t"),
    ("primary", "f"),
    ("standby", "t"),
    ("prefer-standby", "t"),
];

async fn replicated() -> Cluster {
    let hba = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n\
               host replication all 127.0.0.1/32 scram-sha-256\n";
    let settings = "wal_level = replica\nmax_wal_senders = 4\n".to_owned();
    own(&Plan { hba: Some(hba.to_owned()), settings, ..Plan::default() }).await
}

/// A tenant for each value; the standby is named first.
fn tables(mark: &str, standby: u16, primary: u16) -> String {
    let table = |(name, _): (&str, &str)| {
        let id = format!("{mark}_{name}");
        format!(
            "[tenants.{id}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
             role = \"app_rw\"\ntier = \"free\"\nconnection_string = \
             \"postgresql://tg_login:{LOGIN_PASSWORD}@127.0.0.1:{standby},127.0.0.1:{primary}/app\
             ?sslmode=disable&target_session_attrs={name}\"\n\n"
        )
    };
    ROLES.into_iter().map(table).collect()
}

async fn wire(gate: &Gate, mark: &str, name: &str) -> Wire {
    let token = jwt(&format!("{mark}_{name}"), 600);
    let login = Login { user: "app", dbname: "app", password: &token, more: &[] };
    Wire::login(gate.port, &login).await
}

/// What a client that comes back whenever it is sent away hears at last.
async fn at_last(gate: &Gate, of: (&str, &str), sql: &str, wanted: &str) {
    let token = jwt(&format!("{}_{}", of.0, of.1), 600);
    let login = Login { user: "app", dbname: "app", password: &token, more: &[] };
    eventually(&format!("{} hears {wanted}", of.1), async || {
        let mut wire = Wire::connect(gate.port).await;
        let greeted = wire.authenticate(&login).await;
        let heard = match greeted.last().is_some_and(|frame| frame.tag == b'Z') {
            true => {
                wire.send(query(sql)).await;
                wire.until_ready().await
            }
            false => greeted,
        };
        let is_expected = |frame: &Frame| match frame.tag {
            b'E' => ["08001", "08006", "57P01", "25006"].contains(&&*frame.field('C').unwrap()),
            _ => true,
        };
        assert!(heard.iter().all(is_expected), "{heard:?}");
        let told = heard.iter().find(|frame| frame.tag == b'E').and_then(|it| it.field('M'));
        let heard = told.unwrap_or_else(|| transcript(&heard));
        heard.contains(wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_standby_that_takes_over_is_found_without_a_restart() {
    let mut primary = replicated().await;
    let estate = Estate::within(&primary).await;
    let standby = Cluster::standby(&primary).unwrap();
    let mark = estate.acme.id.as_str();
    let more = tables(mark, standby.port(), primary.port());
    let gate = {
        let cluster = "server_login_retry = \"1s\"";
        let tweaks = Tweaks { more: &more, cluster, ..Tweaks::default() };
        Gate::start(&estate.settings(&tweaks)).await
    };
    let recovery = "SELECT pg_is_in_recovery()";
    for (name, standby) in ROLES {
        let mut wire = wire(&gate, mark, name).await;
        assert_eq!(wire.query(recovery).await, format!("T D({standby}) C(SELECT 1) Z(I)"));
    }
    let note = "INSERT INTO notes (id, body) VALUES (1, 'before')";
    let mut writes = wire(&gate, mark, "read-write").await;
    assert_eq!(writes.query(note).await, "C(INSERT 0 1) Z(I)");
    let mut reads = wire(&gate, mark, "standby").await;
    let mut prefers = wire(&gate, mark, "prefer-standby").await;
    for wire in [&mut reads, &mut prefers] {
        assert_eq!(wire.query(recovery).await, "T D(t) C(SELECT 1) Z(I)");
    }
    let admin = superuser(&standby, "app").await;
    eventually("the standby has it all", async || {
        let count = admin.query_one("SELECT count(*) FROM app.notes WHERE body = 'before'", &[]);
        (count.await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;

    primary.crash();
    at_last(&gate, (mark, "read-write"), recovery, "has the role").await;
    assert!(admin.query_one("SELECT pg_promote()", &[]).await.unwrap().get::<_, bool>(0));
    at_last(&gate, (mark, "read-write"), recovery, "T D(f) C(SELECT 1)").await;
    at_last(&gate, (mark, "primary"), recovery, "T D(f) C(SELECT 1)").await;
    // The session that was there before goes on as well.
    let kept = eventually("the session finds the new primary", async || {
        let said = writes.query("SELECT count(*) FROM notes").await;
        said.contains("SELECT 1").then_some(said)
    })
    .await;
    assert_eq!(kept, "T D(1) C(SELECT 1) Z(I)");
    assert_eq!(writes.query(&note.replace("(1,", "(2,")).await, "C(INSERT 0 1) Z(I)");

    // What was connected as a standby's says with an answer that it is none any more.
    at_last(&gate, (mark, "standby"), recovery, "has the role").await;
    at_last(&gate, (mark, "prefer-standby"), recovery, "T D(f) C(SELECT 1)").await;
    eventually("the session that reads is told", async || {
        reads.query(recovery).await.contains("E(08001)").then_some(())
    })
    .await;
    assert_eq!(prefers.query(recovery).await, "T D(f) C(SELECT 1) Z(I)");

    // A primary that stops writing is left, though its connections live on.
    let read_only = async |on: bool| {
        let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
        admin.batch_execute("SET default_transaction_read_only = off").await.unwrap();
        admin.batch_execute(&sql).await.unwrap();
        standby.reload().unwrap();
    };
    read_only(true).await;
    at_last(&gate, (mark, "read-write"), recovery, "has the role").await;
    at_last(&gate, (mark, "read-only"), recovery, "T D(f) C(SELECT 1)").await;
    at_last(&gate, (mark, "primary"), recovery, "T D(f) C(SELECT 1)").await;
    read_only(false).await;
    at_last(&gate, (mark, "read-write"), recovery, "T D(f) C(SELECT 1)").await;
}

#[tokio::test]
async fn what_an_idle_server_says_of_its_role_with_the_next_bind_is_heard() {
    let estate = Estate::new().await;
    let id = format!("{}_moved", estate.acme.id);
    let (connects, binds) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let (counted, bound) = (connects.clone(), id.clone().into_bytes());
    // The first server turns into a standby before it is bound, the second stops writing.
    let turns = [("in_hot_standby", "on"), ("default_transaction_read_only", "on")];
    let meddler = Meddler::start(shared().await.port(), move |last, frame| {
        if frame.tag == b'K' {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        let is_bind = last.tag == b'Q' && last.body.windows(bound.len()).any(|it| it == bound);
        let turn = match frame.tag == b'Z' && is_bind {
            true => turns.get(binds.fetch_add(1, Ordering::SeqCst)),
            false => None,
        };
        let said = turn.map(|(name, value)| parameter_status(name, value)).unwrap_or_default();
        Some([said, frame.bytes()].concat())
    })
    .await;
    let more = format!(
        "[tenants.{id}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
         role = \"app_rw\"\ntier = \"free\"\nconnection_string = \
         \"postgresql://tg_login:{LOGIN_PASSWORD}@127.0.0.1:{}/app\
         ?sslmode=disable&target_session_attrs=read-write\"\n",
        meddler.port
    );
    let tweaks = Tweaks { more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let token = jwt(&id, 600);
    let login = Login { user: "app", dbname: "app", password: &token, more: &[] };
    let mut wire = Wire::login(gate.port, &login).await;
    // Each serves one more answer; the first had the login's.
    for servers in [2, 3, 3, 3] {
        let said = wire.query("SELECT 1").await;
        assert!(said.contains("D(1) C(SELECT 1) Z(I)"), "{said}");
        assert_eq!(connects.load(Ordering::SeqCst), servers);
    }
}
