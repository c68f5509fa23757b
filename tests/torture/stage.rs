//! What a round is played on: a cluster, a hop in front of it, a gate; and what its clients share.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tempfile::TempDir;
use tenantgate::demo::{Cluster, Plan as ClusterPlan};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::harness::certs::{Authority, Identity};
use crate::harness::cluster::{own, superuser};
use crate::harness::eventually;
use crate::harness::faults::Hop;
use crate::harness::gate::Gate;
use crate::harness::tenants::JWT_KEY;
use crate::torture::plan::{Level, Plan};
use crate::torture::settings::{self, Places, Variant};
use crate::torture::tally::Tally;
use crate::torture::town::{self, Tenant};
use crate::torture::watch::Keys;
use crate::torture::weather::Weather;

/// The processes of a round. Whoever makes the weather holds them.
pub struct Ground {
    pub cluster: Cluster,
    pub hop: Hop,
    pub gate: Gate,
    pub tenants: Arc<[Arc<Tenant>]>,
    pub places: Places,
    authority: Authority,
    _folder: TempDir,
}

/// What every client of a round knows.
pub struct Stage {
    pub plan: Plan,
    pub tenants: Arc<[Arc<Tenant>]>,
    pub doors: Doors,
    pub weather: Weather,
    pub tally: Arc<Tally>,
    pub keys: Keys,
    pub books: Mutex<Books>,
    over: Instant,
    stopped: AtomicBool,
}

/// The ways into the gate.
pub struct Doors {
    pub port: u16,
    pub unix: PathBuf,
    pub tls: Arc<ClientConfig>,
}

/// The name in the gate's certificate.
pub const GATE_NAME: &str = "gate.test";

/// What must be in the ledgers at the end, and what never may: tenant and nonce.
#[derive(Debug, Default)]
pub struct Books {
    pub committed: Vec<(usize, String)>,
    pub never: Vec<(usize, String)>,
}

impl Books {
    /// These are rolled back, or never run, whatever happens.
    pub fn never(&mut self, tenant: usize, nonces: &[String]) {
        self.never.extend(nonces.iter().map(|nonce| (tenant, nonce.clone())));
    }

    /// These were acknowledged.
    pub fn commit(&mut self, tenant: usize, nonces: Vec<String>) {
        self.committed.extend(nonces.into_iter().map(|nonce| (tenant, nonce)));
    }
}

impl Ground {
    pub async fn new(plan: &Plan) -> Self {
        let authority = Authority::new();
        let server = authority.server(&["127.0.0.1"]);
        let tls = Some((server.certificate, server.key));
        let cluster = own(&ClusterPlan { tls, ..ClusterPlan::default() }).await;
        let tenants: Arc<[Arc<Tenant>]> = town::tenants(plan).into_iter().map(Arc::new).collect();
        let folder = tempfile::tempdir().unwrap();
        let hop = Hop::start(cluster.port()).await;
        let places = Places {
            hop: hop.port,
            cluster: cluster.port(),
            cluster_folder: cluster.folder().to_owned(),
            unix: folder.path().to_owned(),
            verifier: verifier(&cluster).await,
        };
        let Identity { certificate, key } = authority.server(&[GATE_NAME]);
        let files = [
            ("gate.crt", certificate.as_str()),
            ("gate.key", key.as_str()),
            ("seal.key", SEAL_KEY),
        ];
        let text = settings::text(plan, &tenants, &places, &Variant::default());
        if plan.level != Level::Plain {
            // It makes what policies call, and misses the policies that call it.
            install(&cluster, &text, &files).await;
        }
        town::build(&cluster, &tenants, plan.level).await;
        if plan.level != Level::Plain {
            let said = install(&cluster, &text, &files).await;
            assert!(said.status.success(), "{said:?}");
        }
        let gate = Gate::start_with(&text, &files).await;
        let socket = places.socket();
        eventually("the Unix socket is open", async || {
            UnixStream::connect(&socket).await.is_ok().then_some(())
        })
        .await;
        Self { cluster, hop, gate, tenants, places, authority, _folder: folder }
    }
}

/// What the tenants are sealed with, at level sealed.
const SEAL_KEY: &str = "torture:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

/// Prepares the cluster for the level, as an operator does.
async fn install(cluster: &Cluster, settings: &str, files: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings.replace("$PORT", "6432");
    let all = [files, &[("tenantgate.toml", &settings), ("login.key", JWT_KEY)]].concat();
    for (name, text) in all {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    Command::new(env!("CARGO_BIN_EXE_tenantgate"))
        .args(["install", "--cluster", "main", "--config"])
        .arg(folder.path().join("tenantgate.toml"))
        .args(["--admin", &cluster.superuser_conninfo("postgres")])
        .output()
        .await
        .unwrap()
}

/// The console's password is the logins'.
async fn verifier(cluster: &Cluster) -> String {
    let admin = superuser(cluster, "app").await;
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'tg_login'";
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

impl Stage {
    pub async fn new(plan: Plan, ground: &Ground, tally: Arc<Tally>) -> Self {
        let unix = ground.places.socket();
        let tls = ground.authority.client_config();
        Self {
            over: Instant::now() + Duration::from_secs(plan.seconds),
            stopped: AtomicBool::new(false),
            plan,
            tenants: ground.tenants.clone(),
            doors: Doors { port: ground.gate.port, unix, tls },
            weather: Weather::default(),
            tally,
            keys: Keys::default(),
            books: Mutex::default(),
        }
    }

    /// Whether the round's time is up.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.over || self.stopped.load(Ordering::Relaxed)
    }

    /// Ends the round before its time.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}
