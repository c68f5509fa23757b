//! Levels and keys change while tenants work: no client notices, and every server connection is
//! opened anew all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tenantgate::demo::{Cluster, Plan};
use tokio::task::JoinHandle;

use crate::harness::cluster::{own, superuser};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::install::tools::{NEW, OLD, install, rows};

/// Transactions of every tenant that must have ended well before the next change.
const BETWEEN: usize = 5;

/// A tenant that reads and writes its own rows until it is told to stop.
struct Traffic {
    done: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Traffic {
    async fn of(gate: &Gate, tenant: &Tenant, stop: &Arc<AtomicBool>) -> Self {
        let done = Arc::new(AtomicUsize::new(0));
        let (client, tenant) = (gate.connect(tenant).await, tenant.clone());
        let (counted, stop) = (done.clone(), stop.clone());
        let mut wanted: Vec<String> = tenant.notes.iter().map(|(_, body)| body.clone()).collect();
        wanted.push("work".to_owned());
        let task = tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let sql = "BEGIN; INSERT INTO notes (id, body) VALUES (1000, 'work')";
                client.batch_execute(sql).await.unwrap();
                let found = rows(&client, "SELECT body FROM notes ORDER BY id").await.concat();
                assert_eq!(found, wanted, "{}", tenant.id);
                client.batch_execute("ROLLBACK").await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { done, task }
    }

    /// Waits until so many transactions are done, all of them good.
    async fn reaches(&self, count: usize) {
        eventually("the tenant goes on", async || {
            assert!(!self.task.is_finished(), "the tenant met an error");
            (self.done.load(Ordering::Relaxed) >= count).then_some(())
        })
        .await;
    }
}

/// A gate, its cluster, and what is changed in both.
struct Stage {
    cluster: Cluster,
    estate: Estate,
    gate: Gate,
    traffic: Vec<Traffic>,
}

impl Stage {
    fn settings(estate: &Estate, level: &str, sealed: bool) -> String {
        let keys = if sealed { "seal_key_file = \"seal.key\"\n" } else { "" };
        let cluster = format!("level = \"{level}\"\n{keys}server_lifetime = \"1ms\"");
        estate.settings(&Tweaks { capacity: 2, cluster: &cluster, ..Tweaks::default() })
    }

    fn write(&self, level: &str, keys: &str) {
        let file = self.gate.folder().join("seal.key");
        std::fs::write(file, keys).unwrap();
        self.gate.write_settings(&Self::settings(&self.estate, level, !keys.is_empty()));
    }

    async fn install(&self) {
        let admin = self.cluster.superuser_conninfo("postgres");
        let said = install(&self.gate.folder().join("tenantgate.toml"), Some(&admin), &[]);
        assert_eq!(said.code, 0, "{said:?}");
        self.go_on().await;
    }

    async fn reload(&self) {
        self.gate.reloaded().await;
        self.go_on().await;
    }

    async fn go_on(&self) {
        let done = |traffic: &Traffic| traffic.done.load(Ordering::Relaxed);
        let wanted: Vec<usize> = self.traffic.iter().map(|it| done(it) + BETWEEN).collect();
        for (traffic, count) in self.traffic.iter().zip(wanted) {
            traffic.reaches(count).await;
        }
    }
}

#[tokio::test]
async fn levels_rise_and_fall_and_keys_change_hands_under_traffic_without_a_failure() {
    let cluster = own(&Plan::default()).await;
    let estate = Estate::within(&cluster).await;
    let settings = Stage::settings(&estate, "plain", false);
    let gate = Gate::start_with(&settings, &[("seal.key", "")]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = vec![
        Traffic::of(&gate, &estate.acme, &stop).await,
        Traffic::of(&gate, &estate.globex, &stop).await,
    ];
    let stage = Stage { cluster, estate, gate, traffic };
    let dba = superuser(&stage.cluster, "app").await;

    // Up, as docs/install.md has it: a key, the policies, the levels; the database always first.
    stage.write("plain", OLD);
    stage.install().await;
    stage.reload().await;
    dba.batch_execute(
        "ALTER POLICY own_rows ON app.notes USING (tenant_id = (SELECT tenantgate.tenant_id())) \
         WITH CHECK (tenant_id = (SELECT tenantgate.tenant_id())); \
         ALTER TABLE app.notes ALTER tenant_id SET DEFAULT tenantgate.tenant_id()",
    )
    .await
    .unwrap();
    stage.go_on().await;
    for level in ["guard", "sealed"] {
        stage.write(level, OLD);
        stage.install().await;
        stage.reload().await;
    }

    // A new key, known before it signs, and the old one gone after it does not sign any more.
    stage.write("sealed", &format!("{OLD}{NEW}"));
    stage.install().await;
    stage.write("sealed", &format!("{NEW}{OLD}"));
    stage.reload().await;
    stage.write("sealed", NEW);
    stage.install().await;
    stage.reload().await;
    let kids = rows(&dba, "SELECT kid FROM tenantgate.keys").await.concat();
    assert_eq!(kids, ["new"]);

    // Down again: the gate always first.
    for level in ["guard", "plain"] {
        stage.write(level, NEW);
        stage.reload().await;
        stage.install().await;
    }

    stop.store(true, Ordering::Relaxed);
    for traffic in stage.traffic {
        traffic.task.await.unwrap();
    }
    let log = stage.gate.log();
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
}
