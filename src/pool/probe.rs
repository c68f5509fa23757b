//! [`Probe`]: knocks at a host that is down until it answers, or until nobody wants it any more.
//! One for each host in the process, and it takes no place of the cluster's.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::net::{Buffers, Clock};
use crate::pool::health::{Health, Standing};
use crate::pool::{Counts, count};
use crate::server::{ConnectError, Conninfo, knock};

/// The only one who tries a host that is down.
#[derive(Debug)]
pub struct Probe {
    health: Arc<Health>,
    conninfo: Arc<Conninfo>,
    at: usize,
}

impl Probe {
    pub(super) fn new(health: &Arc<Health>, conninfo: &Arc<Conninfo>, at: usize) -> Self {
        Self { health: health.clone(), conninfo: conninfo.clone(), at }
    }

    /// Knocks, with a rest before each time.
    pub async fn run(mut self, buffers: Buffers, clock: Clock, counts: Rc<Counts>) {
        while let Some(next) = self.next() {
            clock.sleep_until(next).await;
            count(&counts.probes);
            let answer = knock(&self.conninfo, self.at, &buffers, &clock).await;
            self.heard(answer);
        }
    }

    /// When to knock next, and how, by the settings of now.
    pub(super) fn next(&mut self) -> Option<Instant> {
        let rest_max = self.health.rest_max();
        let mut book = self.health.book.lock();
        let record = book.record(&self.conninfo, self.at)?;
        if record.standing != Standing::Down {
            return None;
        }
        if record.is_forgotten(rest_max) {
            record.stand(Standing::Unsure);
            self.health.tell(&mut book, false);
            return None;
        }
        (self.conninfo, self.at) = (record.conninfo.clone(), record.at);
        Some(record.next)
    }

    fn heard(&self, answer: Result<(), ConnectError>) {
        let rest_max = self.health.rest_max();
        let mut book = self.health.book.lock();
        let Some(record) = book.record(&self.conninfo, self.at) else { return };
        match &answer {
            Ok(()) => record.stand(Standing::Unsure),
            Err(error) => record.fail(&self.health.cluster, error, rest_max),
        }
        self.health.tell(&mut book, false);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let mut book = self.health.book.lock();
        if let Some(record) = book.record(&self.conninfo, self.at) {
            record.probed = false;
        }
        // Its worker may be lost: whoever waits elsewhere sees to it that another one knocks.
        self.health.tell(&mut book, false);
    }
}
