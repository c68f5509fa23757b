//! Looks at sessions again when something changed: what their tenants are now, whether their
//! credentials still count. Ends those that may not stay.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::auth::Identity;
use crate::catalog::{Catalog, Moved, Tenant, TenantState};
use crate::client::Phase;
use crate::error::{Ending, Error};
use crate::gate::worker::floor::Floor;
use crate::gate::worker::guest::Guest;
use crate::pool::SessionId;
use crate::telemetry::{Event, What};

impl Floor {
    /// Looks every tenant that is here up again, and whether its credential still counts. Costs as
    /// much as there are sessions, on a reload.
    pub fn reload(&self) {
        *self.env.settings.borrow_mut() = self.common.client.load();
        let catalog = self.common.catalog.load();
        self.refresh_all(&catalog);
        self.env.pools.reload(catalog.tenants().flat_map(Tenant::faces).chain(catalog.services()));
        self.hold_all();
        self.close_servers_of(catalog.tenants().filter(|it| it.state == TenantState::Paused));
    }

    /// Looks those up again who are of one of these tenants.
    pub fn change(&self, moved: &[Moved]) {
        let catalog = self.common.catalog.load();
        let changed: HashSet<&str> = moved.iter().filter_map(Moved::id).collect();
        for id in self.guests_of(&changed) {
            self.refresh(id, &catalog);
            if let Some(guest) = self.guests.borrow().get(&id) {
                self.hold(guest);
            }
        }
        self.env.pools.change(moved, &catalog);
        let after = moved.iter().filter_map(|moved| moved.after.as_ref());
        self.close_servers_of(after.filter(|it| it.state == TenantState::Paused));
    }

    /// The sessions of these tenants, and those of services that act for one of them.
    fn guests_of(&self, tenants: &HashSet<&str>) -> Vec<SessionId> {
        let guests = self.guests.borrow();
        let acts = |id: &SessionId| {
            let guest = guests.get(id);
            guest.is_some_and(|guest| tenants.contains(guest.serves().id.as_str()))
        };
        self.index.of(tenants, acts)
    }

    pub fn refresh_all(&self, catalog: &Catalog) {
        let here: Vec<SessionId> = self.guests.borrow().keys().copied().collect();
        for id in here {
            self.refresh(id, catalog);
        }
    }

    /// Looks the tenant of one session up again, and whether its credential still counts.
    pub fn refresh(&self, id: SessionId, catalog: &Catalog) {
        let guests = self.guests.borrow();
        let Some(guest) = guests.get(&id) else { return };
        let tenant = guest.tenant.borrow().clone();
        // Whoever has a session is known.
        let kept = guest.keep(&tenant, catalog);
        let fresh = (kept == Some(true)).then(|| self.common.catalog.load());
        let catalog = fresh.as_deref().unwrap_or(catalog);
        let found = kept.and_then(|_| catalog.known_of_token(tenant.id.as_str()).cloned());
        self.look_after_acting(id, guest, catalog);
        match self.still(guest, found, catalog) {
            Ok(found) if found.version == tenant.version && found.binds_as(&tenant) => {}
            Ok(found) => {
                *guest.tenant.borrow_mut() = found.clone();
                guest.shared.tell_news(Some(found));
            }
            Err(why) => self.revoke(id, guest, why),
        }
    }

    /// A session that acts for a tenant looks for itself whether it still may, before it begins
    /// anything. The transaction it is in has as long as that of any other client.
    fn look_after_acting(&self, id: SessionId, guest: &Guest, catalog: &Catalog) {
        let Some(tenant) = guest.shared.acts_for() else { return };
        let known = catalog.known(tenant.id.as_str());
        let stands = known.is_some_and(|it| it.state != TenantState::Disabled)
            && !self.common.holds.load().disabled.covers(&tenant);
        let authenticator = self.common.authenticator.load();
        let shown = guest.shared.shows();
        let counts = shown.as_ref().is_none_or(|shown| shown.stands(catalog, &authenticator))
            && known.is_some_and(|known| self.may_act(guest, known, shown.as_deref(), catalog));
        if guest.shared.phase.get() == Phase::Active {
            match (stands, counts) {
                (false, _) => self.revoke(id, guest, Error::Ended(Ending::TenantDisabled)),
                (_, false) => self.revoke(id, guest, Error::Ended(Ending::CredentialRevoked)),
                _ => {}
            }
        }
        guest.shared.tell_news(None);
    }

    /// Whether a service's session could choose today whom it acts for, by what it showed for the
    /// tenant or else by its name.
    fn may_act(
        &self,
        guest: &Guest,
        tenant: &Tenant,
        shown: Option<&Identity>,
        catalog: &Catalog,
    ) -> bool {
        let own = catalog.service(guest.tenant.borrow().id.as_str());
        let may = own.is_some_and(|own| guest.papers.identity.may_act_for(own, tenant, shown));
        may && catalog.credentials().may_come(&tenant.id, &guest.peer)
    }

    /// The tenant as the session sees it today, or why it must end.
    fn still(
        &self,
        guest: &Guest,
        found: Option<Arc<Tenant>>,
        catalog: &Catalog,
    ) -> Result<Arc<Tenant>, Error> {
        let found = found.ok_or(Error::Ended(Ending::TenantEnded))?;
        let holds = self.common.holds.load();
        if found.state == TenantState::Disabled || holds.disabled.covers(&found) {
            return Err(Error::Ended(Ending::TenantDisabled));
        }
        let identity = &guest.papers.identity;
        let counts = identity.stands(catalog, &self.common.authenticator.load())
            && identity.is_of_the_tenants_issuer(&found);
        // Where its clients may come from is asked as at the login.
        let counts = counts && catalog.credentials().may_come(&found.id, &guest.peer);
        let seen = found.seen_under(&identity.face, &holds).filter(|_| counts);
        seen.ok_or(Error::Ended(Ending::CredentialRevoked))
    }

    /// Ends the sessions whose credentials are past their time, and the transactions of those
    /// that have been for a while.
    pub fn expire(&self) {
        while let Some(id) = self.index.next_expired() {
            if let Some(guest) = self.guests.borrow().get(&id) {
                self.revoke(id, guest, Error::Ended(Ending::CredentialExpired));
            }
        }
        while let Some(id) = self.index.next_out_of_grace() {
            if let Some(guest) = self.guests.borrow().get(&id) {
                guest.shared.end_now();
            }
        }
    }

    /// Ends a session whose credential or tenant is no more.
    fn revoke(&self, id: SessionId, guest: &Guest, why: Error) {
        if guest.shared.ending.borrow().is_some() {
            return;
        }
        let event = Event::new(What::Revocation).session(id).peer(&guest.peer);
        let event = event.tenant(guest.tenant.borrow().id.as_str()).reason(why.facts().name);
        self.common.audit.record(&event.credential(&guest.papers.identity.credential));
        let grace = self.env.settings.borrow().credential_grace;
        guest.shared.end(why, grace.is_zero());
        // A time past all reckoning is no end.
        if let Some(until) = Instant::now().checked_add(grace).filter(|_| !grace.is_zero()) {
            self.index.give_grace(until, id);
        }
    }
}
