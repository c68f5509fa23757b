//! [`Trial`]: the right to try the hosts of a route, one after the other.

use std::cell::Cell;
use std::sync::Arc;

use crate::pool::health::{Begun, Health, Why};
use crate::pool::probe::Probe;
use crate::server::{Blame, ConnectError, ConnectPlan, Sign};

/// An attempt at a connection, as long as it lasts. Dropping it ends what is counted of it.
#[derive(Debug)]
pub struct Trial {
    health: Arc<Health>,
    plan: Arc<ConnectPlan>,
    /// The host at which it is counted.
    at: Option<usize>,
    /// The host has answered in some way.
    answered: Cell<bool>,
    /// Of how many places of the cluster.
    places: usize,
    /// A host was left out because others are trying it.
    busy: bool,
    /// It is the one try of a login that was turned away before.
    login: bool,
}

impl Trial {
    pub(super) fn new(health: &Arc<Health>, plan: &Arc<ConnectPlan>, places: usize) -> Self {
        Self {
            health: health.clone(),
            plan: plan.clone(),
            at: None,
            answered: Cell::new(false),
            places,
            busy: false,
            login: false,
        }
    }

    /// The same, counted at a host already.
    pub(super) fn reserved(mut self, at: Option<usize>, login: bool) -> Self {
        (self.at, self.login) = (at, login);
        self
    }

    /// The host at which it is counted.
    #[cfg(test)]
    pub fn at(&self) -> Option<usize> {
        self.at
    }

    /// Whether this host may be tried now.
    pub fn begin(&mut self, host: usize) -> bool {
        if self.at == Some(host) {
            return true;
        }
        self.leave();
        let begun = self.health.begin(&self.plan, host, self.places);
        self.at = (begun == Begun::Counted).then_some(host);
        self.busy |= begun == Begun::Busy;
        self.at.is_some()
    }

    /// Whether a host could not be tried because others are trying it.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// What is heard of the host in the course of an attempt.
    pub fn hears(&self, sign: Sign) {
        if let Some(at) = self.at {
            let first = !self.answered.replace(true);
            self.health.answered(&self.plan, at, sign, first);
        }
    }

    /// What became of it at the host tried last. With the probes that are to be started.
    pub fn heard(&self, result: Result<(), &ConnectError>) -> Vec<Probe> {
        self.at.map(|at| self.health.heard(&self.plan, at, result)).unwrap_or_default()
    }

    /// The end of it. Of what else than a host that is down stands against it, true if that is
    /// news.
    pub fn end(mut self, result: Result<(), &ConnectError>) -> (Option<Why>, bool) {
        self.leave();
        let why = match result {
            Ok(()) => None,
            Err(ConnectError::Busy) => {
                self.login = false;
                self.health.login_waits(&self.plan);
                return (None, false);
            }
            Err(error) => match error.blame() {
                Blame::Host => return (None, false),
                Blame::Role => Some(Why::Role),
                Blame::Unknown => Some(Why::Login),
                Blame::Login if error.is_of_login() => Some(Why::Login),
                Blame::Login => Some(Why::Unfit),
            },
        };
        self.login = false;
        (why, self.health.login_ended(&self.plan, why))
    }

    fn leave(&mut self) {
        if let Some(at) = self.at.take() {
            self.health.finish(&self.plan, at, self.answered.take());
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.leave();
        if std::mem::take(&mut self.login) {
            self.health.login_left(&self.plan);
        }
    }
}
