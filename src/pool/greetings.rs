//! [`Greetings`]: what the servers of a route say of themselves at a login, kept for the next
//! client with the same wishes, who needs no server then. It is of use as long as new servers say
//! the same.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use crate::pool::{ClusterPools, Pool};
use crate::server::{ConnectPlan, ServerFacts, Settings};

/// Most greetings a pool remembers: one per distinct set of start-up settings.
const GREETINGS_MAX: usize = 64;

/// Most pools whose greetings outlive them: those who come back soon, or while their tenant is
/// paused, need no server for their login. A greeting takes about a kilobyte.
const ORPHANS_MAX: usize = 256;

/// By which clients tell one server from another.
const TELLING: [&str; 3] = ["server_version", "in_hot_standby", "default_transaction_read_only"];

/// ParameterStatus for a client that logs in.
pub type Greeting = Vec<(String, String)>;

/// Those of one pool.
#[derive(Debug, Default)]
pub struct Greetings {
    known: Vec<(Settings, Rc<Greeting>)>,
    /// What the server that came last says for [`TELLING`].
    latest: Option<[Option<String>; 3]>,
}

/// What pools that ended knew, the latest last.
#[derive(Debug, Default)]
pub struct Orphans(VecDeque<(Arc<ConnectPlan>, Greetings)>);

impl Greetings {
    /// The greeting for these start-up settings.
    pub fn get(&self, settings: &Settings) -> Option<Rc<Greeting>> {
        self.known.iter().find(|(key, _)| key == settings).map(|(_, greeting)| greeting.clone())
    }

    /// Remembers one.
    pub fn remember(&mut self, settings: Settings, greeting: Greeting) -> Rc<Greeting> {
        let greeting = Rc::new(greeting);
        if self.known.len() >= GREETINGS_MAX {
            self.known.remove(0);
        }
        self.known.push((settings, greeting.clone()));
        greeting
    }

    /// A server has come. If it is not what the last one was (another host, another role), nobody
    /// is to be told any more what that one said.
    pub fn compare<'said>(&mut self, said: impl Fn(&str) -> Option<&'said str>) {
        let now = TELLING.map(|name| said(name).map(str::to_owned));
        if self.latest.as_ref().is_some_and(|latest| *latest != now) {
            self.clear();
        }
        self.latest = Some(now);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}

impl Orphans {
    /// What an earlier pool of this plan knew.
    pub fn adopt(&mut self, plan: &ConnectPlan) -> Greetings {
        let found = self.0.iter().rposition(|(known, _)| **known == *plan);
        let orphan = found.and_then(|at| self.0.remove(at));
        orphan.map(|(_, greetings)| greetings).unwrap_or_default()
    }

    fn leave(&mut self, plan: Arc<ConnectPlan>, greetings: Greetings) {
        if self.0.len() >= ORPHANS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((plan, greetings));
    }
}

impl ClusterPools {
    /// Keeps what a pool knew that ends.
    pub(super) fn leave_behind(&self, plan: Arc<ConnectPlan>, greetings: Greetings) {
        if !greetings.known.is_empty() {
            self.orphans.borrow_mut().leave(plan, greetings);
        }
    }
}

impl Pool {
    /// The greeting for a client with these start-up settings, if a server told it before.
    pub fn greeting(&self, settings: &Settings) -> Option<Rc<Greeting>> {
        self.greetings.borrow().get(settings)
    }

    /// Remembers a greeting.
    pub fn remember(&self, settings: Settings, greeting: Greeting) -> Rc<Greeting> {
        self.greetings.borrow_mut().remember(settings, greeting)
    }

    /// A server is closed that is not to be used any more. If it has changed its role, what it said
    /// at login is of no use to anybody.
    pub(super) fn sheds(&self, facts: &ServerFacts) {
        if facts.has_changed_role() {
            self.greetings.borrow_mut().clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::tests::connect_plan;

    #[test]
    fn a_server_that_is_another_ends_what_was_said_before() {
        let mut greetings = Greetings::default();
        let is = |standby: &'static str, version: &'static str| {
            move |name: &str| match name {
                "in_hot_standby" => Some(standby),
                "server_version" => Some(version),
                _ => None,
            }
        };
        let knows = |greetings: &Greetings| greetings.get(&Settings::default()).is_some();
        for (standby, version, kept) in [
            ("on", "18.1", true),
            ("on", "18.1", true),
            ("off", "18.1", false),
            ("off", "18.2", false),
            ("off", "18.2", true),
        ] {
            greetings.remember(Settings::default(), Vec::new());
            greetings.compare(is(standby, version));
            assert_eq!(knows(&greetings), kept, "{standby} {version}");
        }
    }

    #[test]
    fn what_outlives_pools_is_bounded() {
        let mut orphans = Orphans::default();
        let plan = |at: usize| connect_plan(&format!("host=127.0.0.1 port={} user=tg", at + 1));
        (0..ORPHANS_MAX + 5).for_each(|at| orphans.leave(plan(at), Greetings::default()));
        assert_eq!(orphans.0.len(), ORPHANS_MAX);
        drop(orphans.adopt(&plan(ORPHANS_MAX)));
        assert_eq!(orphans.0.len(), ORPHANS_MAX - 1);
    }
}
