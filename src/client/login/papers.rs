//! [`Papers`]: what a session was let in with, once for all sessions of a tenant with the same.

use std::rc::Rc;

use crate::auth::Identity;
use crate::client::login::Wishes;
use crate::server::Settings;

/// What a session showed and what it asked for. An application's connections nearly always have the
/// same, and whoever is idle has little else.
#[derive(Debug)]
pub struct Papers {
    pub identity: Identity,
    pub user: Box<str>,
    pub database: Box<str>,
    /// Settings of the start-up packet.
    pub settings: Rc<Settings>,
}

impl Papers {
    pub fn new(identity: Identity, wishes: Wishes) -> Self {
        let Wishes { user, database, settings, .. } = wishes;
        let settings = Rc::new(settings);
        Self { identity, user: user.into(), database: database.into(), settings }
    }

    /// Whether two sessions may have them in common: never those of two tenants.
    pub fn are_same(&self, other: &Self) -> bool {
        self.identity.is_same(&other.identity)
            && (&self.user, &self.database) == (&other.user, &other.database)
            && self.settings == other.settings
    }
}
