//! What a round of the torture is: given by the environment, the rest drawn from its seed.

use std::fmt;

use fastrand::Rng;

/// Seconds in all unless the environment says otherwise.
const SECONDS: u64 = 20;

/// A round is long enough to see servers come back, and short enough to meet many towns.
const ROUND_SECONDS: std::ops::RangeInclusive<u64> = 7..=60;

/// What the cluster is prepared for, and the settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Plain,
    Guard,
    Sealed,
}

impl Level {
    /// The word in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Guard => "guard",
            Self::Sealed => "sealed",
        }
    }
}

/// One round: a cluster, a gate and its clients of their own.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub seconds: u64,
    pub level: Level,
    pub servers: usize,
    pub workers: usize,
    /// Tenants by isolation.
    pub row: usize,
    pub schema: usize,
    pub silo: usize,
    pub clients: usize,
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, seconds, servers, workers, row, schema, silo, clients, .. } = self;
        write!(
            out,
            "SEED={seed} LEVEL={} for {seconds} s: {clients} clients of {row} row, \
             {schema} schema, {silo} silo tenants; servers: {servers}, workers: {workers}",
            self.level.name()
        )
    }
}

impl Plan {
    /// The command that runs this round alone.
    pub fn replay(&self) -> String {
        let Self { seed, seconds, servers, workers, level, .. } = self;
        format!(
            "make torture SECONDS={seconds} ROUND={seconds} SEED={seed} SERVERS={servers} \
             WORKERS={workers} LEVEL={}",
            level.name()
        )
    }
}

/// The rounds the environment asks for: `TORTURE_SECONDS` in all, `TORTURE_ROUND` in each,
/// `TORTURE_SEED`, `TORTURE_SERVERS`, `TORTURE_WORKERS`, `TORTURE_LEVEL`. Numbers of servers and of
/// workers take turns unless they are given.
pub fn rounds() -> Vec<Plan> {
    let seconds = number("SECONDS").unwrap_or(SECONDS);
    let third = (seconds / 3).clamp(*ROUND_SECONDS.start(), *ROUND_SECONDS.end());
    let length = number("ROUND").unwrap_or(third).max(1);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let count = (seconds / length).max(1);
    (0..count).map(|round| roll(seed + round, length)).collect()
}

fn roll(seed: u64, seconds: u64) -> Plan {
    let mut rng = Rng::with_seed(seed);
    let turn = usize::try_from(seed % 6).unwrap_or(0);
    let given = |name| number(name).and_then(|number| usize::try_from(number).ok());
    // Every third town has no tenants with servers of their own.
    let mixed = rng.usize(..3) > 0;
    let rows_max = [4, 12, 56][rng.usize(..3)];
    let row = rng.usize(2..=rows_max);
    let schema = if mixed { rng.usize(1..=4) } else { 0 };
    let silo = if mixed { rng.usize(1..=3) } else { 0 };
    let clients = rng.usize(6..=20);
    let servers = given("SERVERS").unwrap_or([1, 2, 8][turn % 3]);
    let workers = given("WORKERS").unwrap_or([1, 4][turn / 3]);
    Plan { seed, seconds, level: level(), servers, workers, row, schema, silo, clients }
}

fn level() -> Level {
    match text("LEVEL").as_deref() {
        None | Some("plain") => Level::Plain,
        Some("guard") => Level::Guard,
        Some("sealed") => Level::Sealed,
        Some(other) => panic!("TORTURE_LEVEL is plain, guard or sealed, not {other}"),
    }
}

fn number(name: &str) -> Option<u64> {
    text(name).map(|text| text.parse().unwrap_or_else(|_| panic!("TORTURE_{name} is a number")))
}

fn text(name: &str) -> Option<String> {
    std::env::var(format!("TORTURE_{name}")).ok().filter(|text| !text.is_empty())
}
