//! A server that answers wrongly when it is told to, in front of a gate with one worker, and a
//! neighbour on that worker whose server is well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::harness::cluster::{shared, superuser};
use crate::harness::eventually;
use crate::harness::faults::Hop;
use crate::harness::gate::Gate;
use crate::harness::messages::{Frame, ONE, transcript};
use crate::harness::server::Meddler;
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};

/// What the server says wrongly.
#[derive(Clone, Copy)]
pub struct Lie {
    pub name: &'static str,
    /// What the client must hear.
    pub wanted: &'static str,
    during: During,
    /// How the notation begins of the right message that something else is said for.
    at: &'static str,
    /// What is said, `None` to cut the connection.
    says: Says,
}

/// What is said for a message of the real server.
pub type Says = fn(Frame) -> Option<Vec<u8>>;

/// What the gate has sent last.
#[derive(Clone, Copy)]
pub enum During {
    Login,
    /// A Query with this in it.
    Query(&'static str),
    /// A batch of the extended protocol.
    Batch,
    Anything,
}

/// A row of a table.
pub const fn lie(
    name: &'static str,
    wanted: &'static str,
    during: During,
    at: &'static str,
    says: Says,
) -> Lie {
    Lie { name, wanted, during, at, says }
}

impl Lie {
    fn concerns(&self, last: &Frame, frame: &Frame) -> bool {
        let during = match self.during {
            During::Login => matches!(last.tag, 0 | b'p'),
            During::Query(word) => {
                last.tag == b'Q' && String::from_utf8_lossy(&last.body).contains(word)
            }
            During::Batch => last.tag == b'S',
            During::Anything => true,
        };
        during && frame.to_string().starts_with(self.at)
    }
}

/// A gate with one worker. Its row tenants reach their one server over a hop that lies when it is
/// told to; a neighbour has a cluster of its own, which is well.
pub struct Lied {
    pub estate: Estate,
    pub gate: Gate,
    lie: Arc<Mutex<Option<Lie>>>,
    pub neighbour: Neighbour,
    _meddler: Meddler,
    _hop: Hop,
}

/// A tenant that asks all the time, and how often it was answered as it must be.
pub struct Neighbour {
    served: Arc<AtomicU64>,
    asking: JoinHandle<()>,
}

impl Neighbour {
    async fn start(gate: &Gate, id: String) -> Self {
        let served = Arc::new(AtomicU64::new(0));
        let count = served.clone();
        let token = jwt(&id, 600);
        let login = Login { user: "app", dbname: "app", password: &token, more: &[] };
        let mut wire = Wire::login(gate.port, &login).await;
        let asking = tokio::spawn(async move {
            let sql = "SELECT tenant_id, body FROM notes";
            loop {
                let wanted = format!("T D({id},of the neighbour) C(SELECT 1) Z(I)");
                assert_eq!(wire.query(sql).await, wanted);
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { served, asking }
    }

    /// It has been served, and is served on.
    pub async fn is_well(&self) {
        let before = self.served.load(Ordering::Relaxed);
        eventually("the neighbour is served", async || {
            assert!(!self.asking.is_finished(), "the neighbour noticed something");
            (self.served.load(Ordering::Relaxed) > before + 1).then_some(())
        })
        .await;
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

impl Lied {
    pub async fn new() -> Self {
        let estate = Estate::new().await;
        let port = shared().await.port();
        let lie = Arc::new(Mutex::new(None::<Lie>));
        let told = lie.clone();
        let meddler = Meddler::start(port, move |last, frame| {
            let lie = *told.lock().unwrap();
            match lie.filter(|lie| lie.concerns(last, &frame)) {
                Some(lie) => (lie.says)(frame),
                None => Some(frame.bytes()),
            }
        })
        .await;
        let hop = Hop::start(port).await;
        let id = format!("neighbour_{}", estate.acme.id);
        let row = format!("INSERT INTO app.notes VALUES ('{id}', 1, 'of the neighbour')");
        superuser(shared().await, "app").await.batch_execute(&row).await.unwrap();
        let more = format!(
            "[clusters.well]\ncapacity = 1\nconnection_string = \
             \"postgresql://tg_login:{LOGIN_PASSWORD}@127.0.0.1:{}/app?sslmode=disable\"\n\
             [tenants.{id}]\nisolation = \"row\"\ncluster = \"well\"\nschema = \"app\"\n\
             role = \"app_rw\"\n",
            hop.port
        );
        let cluster = "scrub_timeout = \"2s\"";
        let tweaks =
            Tweaks { capacity: 1, cluster, gate: "workers = 1", more: &more, ..Tweaks::default() };
        let settings = estate.settings(&tweaks);
        let through = settings.replace(
            &format!("tests@127.0.0.1:{port}/app?sslmode=disable\"\nscrub"),
            &format!(
                "tests@127.0.0.1:{}/app?sslmode=disable&connect_timeout=10\"\nscrub",
                meddler.port
            ),
        );
        assert_ne!(through, settings);
        let gate = Gate::start(&through).await;
        let neighbour = Neighbour::start(&gate, id).await;
        Self { estate, gate, lie, neighbour, _meddler: meddler, _hop: hop }
    }

    /// Answers so from now on.
    pub fn tell(&self, lie: Lie) {
        *self.lie.lock().unwrap() = Some(lie);
    }

    /// The truth again.
    pub fn tell_no_more(&self) {
        *self.lie.lock().unwrap() = None;
    }

    /// A client of this tenant, and what it was answered.
    pub async fn login(&self, tenant: &Tenant) -> (Wire, String) {
        let mut wire = Wire::connect(self.gate.port).await;
        let login = Login { user: "app", dbname: "app", password: &tenant.token, more: &[] };
        let frames = wire.authenticate(&login).await;
        (wire, transcript(&frames))
    }

    /// Everything works again, and went on working for who stood by.
    pub async fn is_well(&self) {
        self.neighbour.is_well().await;
        self.tell_no_more();
        for tenant in [&self.estate.acme, &self.estate.stark] {
            let mut wire = eventually("a login", async || {
                let (wire, said) = self.login(tenant).await;
                said.ends_with("Z(I)").then_some(wire)
            })
            .await;
            assert_eq!(wire.query("SELECT 1").await, ONE);
            assert_eq!(wire.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(I)");
        }
    }
}
