//! A seeded storm: many tenants on few servers, random requests in every protocol form, cut at any
//! byte, cancelled, disconnected, their servers terminated. Every tenant's data carries its canary;
//! another's in any message of any kind fails, and so does an answer to something else than asked.
//!
//! `ORACLE_SEED` repeats a storm (up to the machine's timing), `ORACLE_SECONDS` makes it longer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tenantgate::demo::{Cluster, Plan};
use tokio::task::JoinSet;

use crate::harness::cluster::{own, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::{Frame, transcript};
use crate::harness::tenants::{Estate, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};
use crate::isolation::requests::{Request, random};

const SECONDS: u64 = 10;
const SECONDS_WITH_WORKERS: u64 = 6;
const ROWS: usize = 12;

/// What a tenant's data and names are marked with.
pub fn canary(tenant: usize) -> String {
    format!("canary_{tenant:02}_")
}

/// One session, and what it must find.
pub struct Actor {
    pub tenant: usize,
    pub rng: Rng,
    wire: Wire,
    port: u16,
    /// Settings as the session has set them; `start` is what RESET returns to.
    pub now: BTreeMap<&'static str, String>,
    pub start: BTreeMap<&'static str, String>,
    /// Statements it has prepared: name and what each answers in front of its parameter.
    pub prepared: BTreeMap<String, String>,
    /// A cancel may still be on its way to one of its queries.
    pub cancelled: bool,
    deadline: Instant,
}

/// The session ended as it may when servers are terminated; another one takes its place.
struct Lost;

#[tokio::test]
async fn no_tenant_ever_sees_another_tenants_canary_in_a_storm() {
    storm(SECONDS, None, "").await;
}

/// Servers change workers all the time: there are fewer than workers, or just some more.
#[tokio::test]
async fn nor_when_one_server_goes_round_four_workers() {
    storm(SECONDS_WITH_WORKERS, Some(1), "workers = 4\n").await;
}

#[tokio::test]
async fn nor_when_two_servers_go_round_four_workers() {
    storm(SECONDS_WITH_WORKERS, Some(2), "workers = 4\n").await;
}

#[tokio::test]
async fn nor_when_eight_servers_go_round_four_workers() {
    storm(SECONDS_WITH_WORKERS, Some(8), "workers = 4\n").await;
}

async fn storm(seconds: u64, capacity: Option<usize>, workers: &str) {
    let from_env = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = from_env("ORACLE_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let seconds = from_env("ORACLE_SECONDS").unwrap_or(seconds);
    eprintln!("ORACLE_SEED={seed} ORACLE_SECONDS={seconds}");
    let mut rng = Rng::with_seed(seed);
    let (tenants, few) = (rng.usize(2..=16), rng.usize(1..=4));
    let capacity = capacity.unwrap_or(few);
    let clients = rng.usize(tenants..=tenants + 12);
    eprintln!("{tenants} tenants, {clients} clients, {capacity} servers");
    let cluster = own(&Plan::default()).await;
    let ids = prepare(&cluster, tenants).await;
    let gate = start(&cluster, &ids, capacity, workers).await;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut storm = JoinSet::new();
    for client in 0..clients {
        let (rng, tenant) = (rng.fork(), client % tenants);
        let token = jwt(&ids[tenant], 3600);
        storm.spawn(act(gate.port, tenant, token, rng, deadline));
    }
    let killer = tokio::spawn(terminate(superuser(&cluster, "app").await, rng.fork()));
    let mut requests = 0;
    while let Some(ended) = storm.join_next().await {
        requests += ended.unwrap_or_else(|error| panic!("ORACLE_SEED={seed}: {error}"));
    }
    killer.abort();
    eprintln!("{requests} requests");
    assert!(!gate.log().contains("panicked"), "ORACLE_SEED={seed}");
    for (tenant, id) in ids.iter().enumerate() {
        let mut wire = log_in(gate.port, &jwt(id, 3600), &[]).await.expect("the gate is well");
        let sql = "SELECT body FROM notes WHERE id = 1";
        let expected = format!("T D({}1) C(SELECT 1) Z(I)", canary(tenant));
        assert_eq!(wire.query(sql).await, expected, "ORACLE_SEED={seed}");
    }
    let admin = superuser(&cluster, "app").await;
    for (tenant, id) in ids.iter().enumerate() {
        let strange = "SELECT count(*) FROM app.notes WHERE tenant_id = $1 AND body NOT LIKE $2";
        let own = format!("{}%", canary(tenant));
        let row = admin.query_one(strange, &[id, &own]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "rows of others were written, ORACLE_SEED={seed}");
    }
}

/// Tenants by row, each with rows of its own.
async fn prepare(cluster: &Cluster, tenants: usize) -> Vec<String> {
    let admin = superuser(cluster, "app").await;
    let ids: Vec<String> = (0..tenants).map(|tenant| format!("storm{tenant}")).collect();
    for (tenant, id) in ids.iter().enumerate() {
        let canary = canary(tenant);
        let insert = format!(
            "INSERT INTO app.notes
             SELECT '{id}', n, '{canary}' || n FROM generate_series(1, {ROWS}) n"
        );
        admin.batch_execute(&insert).await.unwrap();
    }
    ids
}

async fn start(cluster: &Cluster, ids: &[String], capacity: usize, workers: &str) -> Gate {
    let estate = Estate::within(cluster).await;
    let mut more = String::new();
    for id in ids {
        more.push_str(&format!(
            "[tenants.{id}]\nisolation = \"row\"\ncluster = \"main\"\ntier = \"free\"\n\
             schema = \"app\"\nrole = \"app_rw\"\n"
        ));
    }
    let gate = format!("{workers}log_level = 'warn'");
    let tweaks = Tweaks { capacity, more: &more, gate: &gate, ..Tweaks::default() };
    Gate::start(&estate.settings(&tweaks)).await
}

/// Terminates a pooled server now and then.
async fn terminate(admin: tokio_postgres::Client, mut rng: Rng) {
    let mut often = tokio::time::interval(Duration::from_millis(rng.u64(100..2000)));
    loop {
        often.tick().await;
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE usename = 'tg_login' ORDER BY random() LIMIT 1";
        admin.batch_execute(sql).await.unwrap();
    }
}

/// The life of one client: sessions one after the other, until the storm is over.
async fn act(port: u16, tenant: usize, token: String, mut rng: Rng, deadline: Instant) -> u64 {
    let mut requests = 0;
    while Instant::now() < deadline {
        let (mut start, name) = (defaults(), format!("{}{}", canary(tenant), rng.u16(..)));
        let mut more = Vec::new();
        if rng.bool() {
            more.push(("application_name", name.as_str()));
            start.insert("application_name", name.clone());
        }
        if rng.bool() {
            more.push(("options", "-c TimeZone=Asia/Tokyo"));
            start.insert("TimeZone", "Asia/Tokyo".to_owned());
        }
        let Some(wire) = log_in(port, &token, &more).await else { continue };
        let (now, rng, prepared) = (start.clone(), rng.fork(), BTreeMap::new());
        let cancelled = false;
        let mut actor =
            Actor { tenant, rng, wire, port, now, start, prepared, cancelled, deadline };
        actor.check_frames(&[]);
        // The session is lost, or has hung up.
        let _ = actor.session(&mut requests).await;
    }
    requests
}

fn defaults() -> BTreeMap<&'static str, String> {
    let defaults = [
        ("application_name", "tenantgate"),
        ("TimeZone", "Etc/UTC"),
        ("DateStyle", "ISO, MDY"),
        ("work_mem", "4MB"),
        ("statement_timeout", "0"),
    ];
    defaults.map(|(name, value)| (name, value.to_owned())).into()
}

/// `None` if the server of its welcome was terminated.
async fn log_in(port: u16, token: &str, more: &[(&str, &str)]) -> Option<Wire> {
    let mut wire = Wire::connect(port).await;
    let login = Login { user: "app", dbname: "app", password: token, more };
    let frames = wire.authenticate(&login).await;
    let heard = transcript(&frames);
    if heard.ends_with("Z(I)") {
        return Some(wire);
    }
    assert!(may_be_lost(&heard), "login: {heard}");
    None
}

/// What a session may hear when a server is terminated under it.
fn may_be_lost(heard: &str) -> bool {
    ["E(57P01)", "E(08006)", "E(08001)", "E(08001) Z(I)"].iter().any(|end| heard.ends_with(end))
}

impl Actor {
    async fn session(&mut self, requests: &mut u64) -> Result<(), Lost> {
        let length = self.rng.usize(1..60);
        for _ in 0..length {
            if Instant::now() >= self.deadline {
                return Ok(());
            }
            let request = random(self);
            *requests += 1;
            if self.rng.usize(..40) == 0 {
                // Hangs up at a random byte.
                let cut = self.rng.usize(..=request.bytes.len());
                let _ = self.wire.try_send(&request.bytes[..cut]).await;
                return Ok(());
            }
            self.ask(request).await?;
        }
        Ok(())
    }

    async fn ask(&mut self, request: Request) -> Result<(), Lost> {
        let Request { bytes, expected, then, cancel, what } = request;
        self.send_in_pieces(&bytes).await?;
        let was_cancelled = std::mem::replace(&mut self.cancelled, cancel);
        if cancel {
            let (pid, secret) = (self.wire.pid, self.wire.secret);
            crate::harness::wire::cancel(self.port, pid, secret).await;
        }
        for expected in &expected {
            let frames = self.wire.until_ready().await;
            self.check_frames(&frames);
            let answer = |frame: &Frame| !matches!(frame.tag, b'S' | b'N');
            let heard = transcript(&frames.into_iter().filter(answer).collect::<Vec<_>>());
            if &heard == expected {
                continue;
            }
            let hit = (cancel || was_cancelled) && heard.contains("E(57014)");
            let lost = hit || heard.is_empty() || may_be_lost(&heard);
            assert!(
                lost,
                "tenant {} asked {what}\nexpected {expected}\nheard    {heard}",
                self.tenant
            );
            return Err(Lost);
        }
        if let Some(then) = then {
            then(self);
        }
        self.check_told();
        Ok(())
    }

    /// In pieces of any length, so that frames are cut everywhere.
    async fn send_in_pieces(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let mut rest = bytes;
        let longest = [bytes.len(), 40, 7, 1][self.rng.usize(..4)].max(1);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(self.rng.usize(1..=longest).min(rest.len()));
            self.wire.try_send(piece).await.map_err(|_| Lost)?;
            tokio::task::yield_now().await;
            rest = after;
        }
        Ok(())
    }

    /// No canary but one's own, no notification, in no kind of message.
    fn check_frames(&self, frames: &[Frame]) {
        let told = self.wire.parameters.values().map(String::as_bytes);
        let bodies = frames.iter().map(|frame| frame.body.as_slice());
        for bytes in bodies.chain(told) {
            for at in memchr::memmem::find_iter(bytes, "canary_") {
                let found = &bytes[at..(at + 10).min(bytes.len())];
                let own = canary(self.tenant);
                assert!(own.as_bytes().starts_with(found), "{own} saw {}", found.escape_ascii());
            }
        }
        assert!(frames.iter().all(|frame| frame.tag != b'A'), "a notification");
    }

    /// What the client was told of parameters is what its session has set.
    fn check_told(&self) {
        for name in ["application_name", "TimeZone", "DateStyle"] {
            assert_eq!(self.wire.parameters[name], self.now[name], "told of {name}");
        }
    }
}
