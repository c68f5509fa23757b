//! A session, as its worker sees it from outside.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use crate::budget::Account;
use crate::catalog::{Catalog, Pin, Tenant};
use crate::client::{Papers, Shared};
use crate::gate::door::Slot;
use crate::gate::worker::floor::Floor;
use crate::net::Peer;
use crate::pool::SessionId;

/// A session, as its worker sees it from outside.
pub struct Guest {
    pub floor: Rc<Floor>,
    pub id: SessionId,
    pub shared: Rc<Shared>,
    pub tenant: RefCell<Arc<Tenant>>,
    /// Keeps the tenant known that was the file's when it logged in.
    pub pin: RefCell<Option<Box<Pin>>>,
    pub papers: Rc<Papers>,
    pub account: Arc<Account>,
    pub peer: Peer,
    pub local: Option<SocketAddr>,
    pub secure: bool,
    pub since: SystemTime,
    pub _slot: Slot,
}

impl Guest {
    /// Keeps its tenant known, if it is one of the tables by now that was the file's. Says whether
    /// that is new: the catalog must be looked at again. None: the tenant may have left.
    pub fn keep(&self, tenant: &Tenant, catalog: &Catalog) -> Option<bool> {
        if tenant.service.is_some() || self.papers.identity.is_kept() || self.pin.borrow().is_some()
        {
            return Some(false);
        }
        let pin = catalog.keep(tenant.id.as_str())?;
        let is_new = pin.is_some();
        *self.pin.borrow_mut() = pin.map(Box::new);
        Some(is_new)
    }

    /// What the application calls itself, as far as its servers have told.
    pub fn application_name(&self) -> String {
        let told = self.shared.application_name.borrow();
        let asked = || self.papers.settings.get("application_name");
        told.as_deref().or_else(asked).unwrap_or_default().to_owned()
    }

    /// Whose requests it sends at the moment.
    pub fn serves(&self) -> Arc<Tenant> {
        self.shared.acts_for().unwrap_or_else(|| self.tenant.borrow().clone())
    }
}
