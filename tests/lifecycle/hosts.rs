//! Hosts that die, that say nothing, that turn the gate away: who is told what, who goes on as if
//! nothing were, and what comes back by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tenantgate::demo::{Plan, free_port};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet, LocalSet};

use crate::console::{ADMIN, show, verifier};
use crate::harness::cluster::{own, shared};
use crate::harness::gate::Gate;
use crate::harness::messages::{Frame, query};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};
use crate::harness::{eventually, http};

/// A port where connections are taken and nothing is ever said.
struct Hole {
    port: u16,
    taken: Arc<AtomicUsize>,
    /// Most that were open at once.
    most: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Hole {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (taken, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let open = Arc::new(AtomicUsize::new(0));
        let (counted, highest) = (taken.clone(), most.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                highest.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let open = open.clone();
                tokio::spawn(async move {
                    let mut sink = tokio::io::sink();
                    let _ = tokio::io::copy(&mut socket, &mut sink).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port, taken, most, task }
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn table(id: &str, lines: &str, url: &str) -> String {
    format!(
        "[tenants.{id}]\n{lines}\ncluster = \"main\"\ntier = \"free\"\n\
         connection_string = \"{url}\"\n\n"
    )
}

fn row(id: &str, url: &str) -> String {
    table(id, "isolation = \"row\"\nschema = \"app\"\nrole = \"app_rw\"", url)
}

/// A gate with a console and metrics, and these tables.
async fn gate(estate: &Estate, cluster: &str, tables: &str) -> Gate {
    let more = format!(
        "[console.users]\nadmin = \"{}\"\n\n[http]\naddress = \"127.0.0.1:$HTTP\"\n\n{tables}",
        verifier().await
    );
    let cluster = format!("server_login_retry = \"1s\"\n{cluster}");
    let tweaks = Tweaks { more: &more, cluster: &cluster, ..Tweaks::default() };
    Gate::start(&estate.settings(&tweaks)).await
}

/// One login, and one query if it is let in: the code and message of what was refused, or nothing.
async fn tries(gate: &Gate, id: &str, dbname: &str) -> Option<(String, String, String)> {
    let token = jwt(id, 600);
    let login = Login { user: "app", dbname, password: &token, more: &[] };
    let mut wire = Wire::connect(gate.port).await;
    let mut heard = wire.authenticate(&login).await;
    if heard.last().is_some_and(|frame| frame.tag == b'Z') {
        wire.send(query("SELECT 1")).await;
        heard = wire.until_ready().await;
    }
    told(&heard)
}

fn told(frames: &[Frame]) -> Option<(String, String, String)> {
    let error = frames.iter().find(|frame| frame.tag == b'E')?;
    let field = |letter| error.field(letter).unwrap_or_default();
    Some((field('C'), field('M'), field('H')))
}

async fn host(gate: &Gate, port: u16) -> BTreeMap<String, String> {
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let rows = show(&mut console, "HOSTS").await;
    let found = rows.into_iter().find(|row| row["port"] == port.to_string());
    found.expect("the host was asked for").into_iter().collect()
}

/// Sends requests one after the other; each must be answered.
async fn works(gate: &Gate, tenant: &Tenant, requests: &AtomicUsize, until: usize) {
    let mut wire = gate.wire(tenant).await;
    for number in 0..until {
        let said = wire.query(&format!("SELECT {number}")).await;
        assert_eq!(said, format!("T D({number}) C(SELECT 1) Z(I)"));
        requests.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_silo_that_is_killed_under_load_takes_nobody_with_it_and_comes_back() {
    LocalSet::new().run_until(kill_under_load()).await;
}

async fn kill_under_load() {
    let mut cluster = own(&Plan::default()).await;
    let other = Estate::within(&cluster).await;
    let (id, dbname) = (&other.initech.id, &other.initech.dbname);
    let port = cluster.port();
    let login = format!("tg_{id}:{LOGIN_PASSWORD}");
    let url = format!("postgresql://{login}@127.0.0.1:{port}/{dbname}?sslmode=disable");
    let estate = Estate::new().await;
    let gate = Arc::new(gate(&estate, "", &table(id, "isolation = \"silo\"", &url)).await);
    let estate = Arc::new(estate);
    let requests = Arc::new(AtomicUsize::new(0));
    let mut neighbours = JoinSet::new();
    for at in 0..6 {
        let (gate, estate, requests) = (gate.clone(), estate.clone(), requests.clone());
        neighbours.spawn(async move {
            let tenant = [&estate.acme, &estate.stark, &estate.initech][at % 3];
            works(&gate, tenant, &requests, 200).await;
        });
    }
    let answered = Arc::new(AtomicUsize::new(0));
    let refused = Arc::new(AtomicUsize::new(0));
    let mut of_silo = JoinSet::new();
    for _ in 0..6 {
        let (gate, answered, refused) = (gate.clone(), answered.clone(), refused.clone());
        let (tenant, dbname) = (id.clone(), dbname.clone());
        of_silo.spawn_local(async move {
            // Until it was refused several times, and then until it is served again.
            let mut refusals = 0;
            eventually("the silo is served again", async || {
                match tries(&gate, &tenant, &dbname).await {
                    None => {
                        answered.fetch_add(1, Ordering::SeqCst);
                        return (refusals >= 3).then_some(());
                    }
                    Some((code, message, hint)) => {
                        let ended = ["08006", "57P01", "57P02"].contains(&code.as_str());
                        assert!(ended || code == "08001", "{code} {message}");
                        assert!(!hint.contains(LOGIN_PASSWORD));
                        refusals += usize::from(code == "08001");
                        refused.fetch_add(1, Ordering::SeqCst);
                    }
                }
                None
            })
            .await;
        });
    }
    let both = || requests.load(Ordering::SeqCst) >= 20 && answered.load(Ordering::SeqCst) >= 6;
    eventually("all are at work", async || both().then_some(())).await;
    cluster.crash();
    gate.logs("a host of a cluster is down").await;
    eventually("clients are refused", async || {
        (refused.load(Ordering::SeqCst) >= 18).then_some(())
    })
    .await;
    // With all of the neighbours' requests answered while it was down.
    while let Some(done) = neighbours.join_next().await {
        done.unwrap();
    }
    assert_eq!(requests.load(Ordering::SeqCst), 1200);
    let down = host(&gate, port).await;
    assert_eq!((down["state"].as_str(), down["cluster"].as_str()), ("down", "main"));
    assert!(down["last_error"].contains("refused") && !down["next_try_ms"].is_empty(), "{down:?}");
    // Rows of the console and series are read at their own times.
    eventually("the host is counted", async || {
        let (_, metrics) = http::get(gate.http, "/metrics").await;
        metrics.contains("tenantgate_hosts_down{cluster=\"main\"} ").then_some(())
    })
    .await;
    let (code, message, hint) = tries(&gate, id, dbname).await.expect("a refusal");
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("08001", "could not connect to cluster \"main\"")
    );
    assert!(hint.contains("next try") || hint.contains("log"), "{hint}");

    cluster.restart().unwrap();
    while let Some(done) = of_silo.join_next().await {
        done.unwrap();
    }
    gate.logs("a host of a cluster is up again").await;
    assert_eq!(host(&gate, port).await["state"], "up");
    let log = gate.log();
    for once in ["a host of a cluster is down", "a host of a cluster is up again"] {
        assert_eq!(log.matches(once).count(), 1, "{log}");
    }
    assert!(!log.contains(LOGIN_PASSWORD));
}

#[tokio::test]
async fn a_host_that_says_nothing_costs_its_own_tenants_only() {
    let (hole, estate) = (Hole::start().await, Estate::new().await);
    let (good, nobody, mark) = (shared().await.port(), free_port().unwrap(), &estate.acme.id);
    let login = |password: &str| format!("tg_login:{password}");
    let url = |login: &str, hosts: &str| {
        format!("postgresql://{login}@{hosts}/app?sslmode=disable&connect_timeout=1")
    };
    let fine = login(LOGIN_PASSWORD);
    let ids = ["hole", "both", "gone", "wrong"].map(|name| format!("{name}_{mark}"));
    let [silent, both, gone, wrong] = &ids;
    let tables = [
        row(silent, &url(&fine, &format!("127.0.0.1:{}", hole.port))),
        // A name is looked up, and each of its addresses is tried.
        row(both, &url(&fine, &format!("127.0.0.1:{},localhost:{good}", hole.port))),
        row(gone, &url(&fine, &format!("127.0.0.1:{nobody}"))),
        row(wrong, &url(&login("mistaken"), &format!("127.0.0.1:{good}"))),
    ];
    let gate = Arc::new(gate(&estate, "", &tables.concat()).await);
    let estate = Arc::new(estate);
    // The neighbours' pools are there.
    works(&gate, &estate.acme, &AtomicUsize::new(0), 1).await;

    // Many at once: some try, the others wait for how it goes, and nobody is in the way.
    let mut lost = JoinSet::new();
    for _ in 0..12 {
        let (gate, silent) = (gate.clone(), silent.clone());
        lost.spawn(async move { tries(&gate, &silent, "app").await });
    }
    let requests = AtomicUsize::new(0);
    works(&gate, &estate.stark, &requests, 50).await;
    works(&gate, &estate.globex, &requests, 50).await;
    while let Some(answer) = lost.join_next().await {
        let (code, message, _) = answer.unwrap().expect("a refusal");
        assert_eq!((code.as_str(), message.contains("could not connect")), ("08001", true));
    }
    // The probe, and the attempts of those who came before it was known: never all places.
    let most = hole.most.load(Ordering::SeqCst);
    assert!(most <= 3, "{most} at once");
    let before = hole.taken.load(Ordering::SeqCst);
    for _ in 0..100 {
        let (code, ..) = tries(&gate, silent, "app").await.expect("a refusal");
        assert_eq!(code, "08001");
    }
    let more = hole.taken.load(Ordering::SeqCst) - before;
    assert!(more < 30, "{more} connections for 100 clients");
    assert_eq!(host(&gate, hole.port).await["state"], "down");
    assert_eq!(tries(&gate, both, "app").await, None, "the second host serves");

    let (code, message, _) = tries(&gate, gone, "app").await.expect("a refusal");
    assert_eq!((code.as_str(), message.contains("could not connect")), ("08001", true));
    for _ in 0..5 {
        // The gate's own password is wrong, which is not the client's business.
        let (code, message, hint) = tries(&gate, wrong, "app").await.expect("a refusal");
        assert_eq!((code.as_str(), message.contains("could not log in")), ("08001", true));
        assert!(!message.contains("password") && hint.contains("not meant"), "{message} {hint}");
    }
    assert_eq!(gate.log().matches("password authentication failed").count(), 1);
    assert_eq!(host(&gate, good).await["state"], "up", "a login's trouble is not its host's");
    assert_eq!(tries(&gate, both, "app").await, None);
    works(&gate, &estate.acme, &requests, 5).await;
}
