//! [`Record`]: what is known of one host, and when it is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::server::{ConnectError, Conninfo, Host};

/// The rest after a first failure; it doubles with each further one.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);

/// A host that nobody asked for in this time is not knocked at any more, and a login that nobody
/// tried is not known any more.
pub const FORGOTTEN: Duration = Duration::from_secs(60);

/// How it stands with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Up,
    /// It may be well: one try at a time until one was answered.
    Unsure,
    Down,
}

impl Standing {
    /// The word in `SHOW HOSTS`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unsure => "unsure",
            Self::Down => "down",
        }
    }
}

/// One host, reached in one way.
#[derive(Debug)]
pub struct Record {
    /// How it is reached, as of the last who asked: a reload may have changed who that is.
    pub conninfo: Arc<Conninfo>,
    pub at: usize,
    pub standing: Standing,
    pub since: Instant,
    pub failures: u32,
    pub next: Instant,
    /// The last failure was that nothing came.
    pub slow: bool,
    pub last_error: Option<String>,
    pub attempts: u32,
    /// Those of them to which it has said nothing yet.
    pub unanswered: u32,
    /// It has answered before.
    pub proven: bool,
    pub probed: bool,
    pub asked: Instant,
    /// The log knows that it is down.
    told: bool,
    /// How many hosts are down, this one included.
    down: Arc<AtomicUsize>,
}

impl Record {
    pub fn new(conninfo: &Arc<Conninfo>, at: usize, down: &Arc<AtomicUsize>) -> Self {
        let now = Instant::now();
        Self {
            conninfo: conninfo.clone(),
            at,
            standing: Standing::Up,
            since: now,
            failures: 0,
            next: now,
            slow: false,
            last_error: None,
            attempts: 0,
            unanswered: 0,
            proven: false,
            probed: false,
            asked: now,
            told: false,
            down: down.clone(),
        }
    }

    /// Counts an attempt that begins.
    pub fn count(&mut self) {
        self.attempts += 1;
        self.unanswered += 1;
    }

    /// How many more may try it now. An attempt that was answered is in nobody's way at a host of
    /// which nothing else is to be learnt.
    pub fn room(&self, several: bool, places: usize) -> usize {
        let attempts = self.attempts as usize;
        match self.standing {
            Standing::Down => 0,
            Standing::Unsure => 1_usize.saturating_sub(self.unanswered as usize),
            Standing::Up if several || !self.proven => half(places).saturating_sub(attempts),
            Standing::Up => usize::MAX,
        }
    }

    pub fn stand(&mut self, standing: Standing) {
        let before = std::mem::replace(&mut self.standing, standing);
        if before == standing {
            return;
        }
        self.since = Instant::now();
        if standing == Standing::Down {
            self.down.fetch_add(1, Ordering::Relaxed);
        } else if before == Standing::Down {
            self.down.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Nobody wanted it for long.
    pub fn is_forgotten(&self, rest_max: Duration) -> bool {
        self.asked.elapsed() > FORGOTTEN.max(rest_max * 2)
    }

    pub fn fail(&mut self, cluster: &str, error: &ConnectError, rest_max: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.slow = matches!(error, ConnectError::Timeout(_));
        self.next = Instant::now() + rest(self.failures, rest_max);
        self.last_error = Some(error.to_string());
        self.stand(Standing::Down);
        if !std::mem::replace(&mut self.told, true) {
            let host = self.name();
            tracing::error!(cluster, host, %error, "a host of a cluster is down");
        }
    }

    pub fn recover(&mut self, cluster: &str) {
        self.stand(Standing::Up);
        (self.failures, self.proven) = (0, true);
        if std::mem::take(&mut self.told) {
            tracing::info!(cluster, host = self.name(), "a host of a cluster is up again");
        }
    }

    fn name(&self) -> String {
        self.conninfo.hosts.get(self.at).map(Host::to_string).unwrap_or_default()
    }
}

/// Of a cluster's places, those that attempts may take.
pub fn half(places: usize) -> usize {
    (places / 2).max(1)
}

/// The rest after so many failures: twice as long each time, up to `most`, less up to a half, so
/// that hosts which went down together are not knocked at together.
pub fn rest(failures: u32, most: Duration) -> Duration {
    let doubled = RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(20));
    doubled.min(most).mul_f64(0.5 + fastrand::f64() / 2.0)
}
