//! What is done to servers, to the line between, to the gate and by its console: storms, drawn from
//! the seed, and calms between them in which nothing may be lost.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tenantgate::demo::signal;

use crate::console::{ADMIN, show};
use crate::harness::PATIENCE;
use crate::harness::cluster::{connect, superuser};
use crate::harness::faults::Mode;
use crate::harness::wire::Wire;
use crate::torture::settings::{self, Variant};
use crate::torture::stage::{Ground, Stage};
use crate::torture::tally::Part;

/// How long what was done may still be felt: by a session that waits for a server, by a server that
/// nobody has looked at since.
const AFTERMATH: Duration = Duration::from_secs(2);

/// A calm beyond that, in which every loss is a failure.
const CALM: Duration = Duration::from_secs(2);

/// Between two looks at what takes a moment.
const SOON: Duration = Duration::from_millis(5);

/// Until when a loss is explained.
#[derive(Debug, Default)]
pub struct Weather(Mutex<Option<Instant>>);

impl Weather {
    /// Whether anything done since then, or shortly before, explains a loss.
    pub fn excuses(&self, since: Instant) -> bool {
        self.0.lock().unwrap().is_some_and(|until| until >= since)
    }

    fn expect_losses(&self, until: Instant) {
        *self.0.lock().unwrap() = Some(until);
    }
}

/// A kind of fault, and how often it is drawn.
type Kind = (&'static str, usize);

const KINDS: [Kind; 16] = [
    ("server terminated", 6),
    ("all servers terminated", 1),
    ("terminated in bind or scrub", 6),
    ("statements cancelled", 3),
    ("line cut", 2),
    ("line stalled", 2),
    ("line dripping", 1),
    ("crash and restart", 1),
    ("backend killed", 1),
    ("reload", 4),
    ("RECONNECT", 2),
    ("KILL", 1),
    ("KILL_CLIENT", 2),
    ("PAUSE", 2),
    ("PAUSE TENANT", 1),
    ("DISABLE", 1),
];

/// Storms and calms until the round is over; gives back what it was handed, in good order.
pub async fn blow(stage: Arc<Stage>, mut ground: Ground) -> Ground {
    let mut rng = Rng::with_seed(stage.plan.seed ^ 0x5707_0F5E);
    while !stage.is_over() {
        let storm = Instant::now() + Duration::from_millis(rng.u64(1000..4000));
        while Instant::now() < storm && !stage.is_over() {
            let kind = draw(&mut rng);
            stage.weather.expect_losses(Instant::now() + Duration::from_secs(3600));
            strike(kind, &mut ground, &stage, &mut rng).await;
            stage.tally.count(Part::Fault, kind);
            stage.weather.expect_losses(Instant::now() + AFTERMATH);
            tokio::time::sleep(Duration::from_millis(rng.u64(5..300))).await;
        }
        let calm = Instant::now() + AFTERMATH + CALM;
        while Instant::now() < calm && !stage.is_over() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    ground
}

fn draw(rng: &mut Rng) -> &'static str {
    let all: usize = KINDS.iter().map(|(_, weight)| weight).sum();
    let mut left = rng.usize(..all);
    for (name, weight) in KINDS {
        if left < weight {
            return name;
        }
        left -= weight;
    }
    KINDS[0].0
}

async fn strike(kind: &str, ground: &mut Ground, stage: &Stage, rng: &mut Rng) {
    let tenant = &stage.tenants[rng.usize(..stage.tenants.len())].id;
    match kind {
        "server terminated" => server_side(ground, "pg_terminate_backend", "true", 1).await,
        "all servers terminated" => {
            server_side(ground, "pg_terminate_backend", "true", 1000).await;
        }
        "terminated in bind or scrub" => {
            for _ in 0..rng.usize(1..20) {
                server_side(ground, "pg_terminate_backend", OUR_WORK, 1).await;
            }
        }
        "statements cancelled" => {
            for _ in 0..rng.usize(1..20) {
                server_side(ground, "pg_cancel_backend", "true", 2).await;
            }
        }
        "line cut" => line(ground, rng, Mode::Cut).await,
        "line stalled" => line(ground, rng, Mode::Stall).await,
        "line dripping" => line(ground, rng, Mode::Drip).await,
        "crash and restart" => {
            let down = Duration::from_millis(rng.u64(..300));
            tokio::task::block_in_place(|| ground.cluster.crash());
            tokio::time::sleep(down).await;
            tokio::task::block_in_place(|| ground.cluster.restart()).expect("the cluster starts");
        }
        "backend killed" => kill_backend(ground).await,
        "reload" => reload(ground, stage, rng).await,
        "RECONNECT" => orders(ground, &["RECONNECT".to_owned()]).await,
        "KILL" => {
            let (kill, resume) =
                (format!("KILL TENANT {tenant}"), format!("RESUME TENANT {tenant}"));
            orders(ground, &[kill, resume]).await;
        }
        "KILL_CLIENT" => kill_client(ground, rng).await,
        "PAUSE" => orders(ground, &["PAUSE".to_owned(), "RESUME".to_owned()]).await,
        "PAUSE TENANT" => {
            let (pause, resume) =
                (format!("PAUSE TENANT {tenant}"), format!("RESUME TENANT {tenant}"));
            orders(ground, &[pause, resume]).await;
        }
        _ => {
            let (off, on) = (format!("DISABLE TENANT {tenant}"), format!("ENABLE TENANT {tenant}"));
            orders(ground, &[off, on]).await;
        }
    }
}

/// How soon a postmaster sees that a backend of its own was killed, at the latest.
const NOTICED: Duration = Duration::from_secs(5);

/// Servers whose last statement was the gate's own.
const OUR_WORK: &str = "query ~ 'SET \"|RESET ALL|DISCARD|DEALLOCATE|enter|rolsuper'";

async fn server_side(ground: &Ground, function: &str, which: &str, most: usize) {
    let admin = superuser(&ground.cluster, "postgres").await;
    let sql = format!(
        "SELECT {function}(pid) FROM (SELECT pid FROM pg_stat_activity \
         WHERE usename LIKE 'tg\\_%' AND {which} ORDER BY random() LIMIT {most}) AS those"
    );
    admin.batch_execute(&sql).await.unwrap();
}

/// One backend ends as by a fault of its own: the others are ended too, and the cluster recovers.
async fn kill_backend(ground: &Ground) {
    let admin = superuser(&ground.cluster, "postgres").await;
    let sql = "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'tg\\_%' LIMIT 1";
    let Some(row) = admin.query_opt(sql, &[]).await.unwrap() else { return };
    let pid: i32 = row.get(0);
    let killed = signal(u32::try_from(pid).unwrap(), "KILL");
    let recovered = async {
        // Until it has noticed, connections are made as if nothing had happened. If the backend was
        // ending by itself just then, nothing has.
        let noticed = Instant::now() + NOTICED;
        while killed.is_ok() && admin.simple_query("SELECT 1").await.is_ok() {
            if Instant::now() > noticed {
                return;
            }
            tokio::time::sleep(SOON).await;
        }
        while connect(&ground.cluster.superuser_conninfo("postgres")).await.is_err() {
            tokio::time::sleep(SOON).await;
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.expect("the cluster recovers");
}

async fn line(ground: &Ground, rng: &mut Rng, mode: Mode) {
    match rng.usize(..3) {
        0 => ground.hop.set(mode),
        1 => ground.hop.set_to_server(mode),
        _ => ground.hop.set_to_client(mode),
    }
    tokio::time::sleep(Duration::from_millis(rng.u64(1..400))).await;
    ground.hop.set(Mode::Pass);
}

/// Other settings for a while, then the first ones again.
async fn reload(ground: &Ground, stage: &Stage, rng: &mut Rng) {
    let mut one_in_four = || {
        let hit = rng.usize(..4) == 0;
        hit.then(|| rng.usize(..stage.tenants.len()))
    };
    let (without_token, disabled) = (one_in_four(), one_in_four());
    let variant = Variant {
        servers_more: rng.usize(..3),
        short_lives: rng.bool(),
        linger_ms: [0, 10, 200][rng.usize(..3)],
        other_tier: rng.bool(),
        report_only: rng.bool(),
        without_token,
        disabled,
    };
    let write = |variant: &Variant| {
        let text = settings::text(&stage.plan, &stage.tenants, &ground.places, variant);
        ground.gate.write_settings(&text);
    };
    write(&variant);
    match rng.bool() {
        true => ground.gate.reload(),
        false => orders(ground, &["RELOAD".to_owned()]).await,
    }
    tokio::time::sleep(Duration::from_millis(rng.u64(1..400))).await;
    write(&Variant::default());
    orders(ground, &["RELOAD".to_owned()]).await;
}

async fn kill_client(ground: &Ground, rng: &mut Rng) {
    let mut console = Wire::login(ground.gate.port, &ADMIN).await;
    let clients = show(&mut console, "CLIENTS").await;
    if clients.is_empty() {
        return;
    }
    let id = &clients[rng.usize(..clients.len())]["id"];
    // It may have left by itself.
    let heard = console.query(&format!("KILL_CLIENT {id}")).await;
    assert!(heard.ends_with("Z(I)"), "KILL_CLIENT: {heard}");
}

async fn orders(ground: &Ground, orders: &[String]) {
    let mut console = Wire::login(ground.gate.port, &ADMIN).await;
    for order in orders {
        let heard = console.query(order).await;
        let word = order.split(' ').next().unwrap_or_default();
        assert!(heard.ends_with(&format!("C({word}) Z(I)")), "{order}: {heard}");
    }
}
