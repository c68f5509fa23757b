//! [`Homes`]: a worker's sessions by the tenant they logged in as, and the papers that sessions of
//! one tenant have in common.

use std::collections::{HashMap, HashSet};
use std::rc::{Rc, Weak};

use crate::catalog::TenantId;
use crate::client::Papers;
use crate::pool::SessionId;

/// Sessions by the tenant they logged in as: who is of a tenant is found without a look at others.
#[derive(Default)]
pub struct Homes {
    tenants: HashMap<TenantId, Home>,
    /// Those of services, which act for tenants of their choice.
    services: HashSet<SessionId>,
}

/// The sessions of one tenant.
#[derive(Default)]
struct Home {
    sessions: HashSet<SessionId>,
    /// Of whoever came last: the next one nearly always has the same.
    papers: Weak<Papers>,
}

impl Homes {
    /// The papers of a newcomer, which is about to enter: those of the tenant's last session, if
    /// they are the same. Nothing is ever looked for at another tenant.
    pub fn file(&mut self, papers: Papers) -> Rc<Papers> {
        let tenant = &papers.identity.tenant;
        if tenant.service.is_some() {
            return Rc::new(papers);
        }
        let home = self.tenants.entry(tenant.id.clone()).or_default();
        if let Some(known) = home.papers.upgrade().filter(|known| known.are_same(&papers)) {
            return known;
        }
        let papers = Rc::new(papers);
        home.papers = Rc::downgrade(&papers);
        papers
    }

    pub fn enter(&mut self, id: SessionId, tenant: &TenantId, is_service: bool) {
        match is_service {
            true => self.services.insert(id),
            false => self.tenants.entry(tenant.clone()).or_default().sessions.insert(id),
        };
    }

    pub fn leave(&mut self, id: SessionId, tenant: &TenantId) {
        self.services.remove(&id);
        if let Some(home) = self.tenants.get_mut(tenant) {
            home.sessions.remove(&id);
            if home.sessions.is_empty() {
                self.tenants.remove(tenant);
            }
        }
    }

    /// The sessions of these tenants, and of services those that `acts` says act for one.
    pub fn of(&self, tenants: &HashSet<&str>, acts: impl Fn(&SessionId) -> bool) -> Vec<SessionId> {
        let own = tenants.iter().filter_map(|id| self.tenants.get(*id));
        let own = own.flat_map(|home| &home.sessions);
        own.chain(self.services.iter().filter(|id| acts(id))).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::SystemTime;

    use super::*;
    use crate::auth::Authenticator;
    use crate::catalog::tests::{build, plan, tenant, token};
    use crate::catalog::{Catalog, new_token};
    use crate::client::Wishes;
    use crate::isolation::Isolation;
    use crate::server::Settings;

    async fn papers(catalog: &Catalog, token: &str, user: &str, name: &str) -> Papers {
        let authenticator = Authenticator::new(&[]).unwrap();
        let proof = authenticator.authenticate(catalog, token.as_bytes(), &[], SystemTime::now());
        let mut settings = Settings::default();
        settings.set("application_name", name);
        let (user, database) = (user.to_owned(), "app".to_owned());
        Papers::new(proof.await.unwrap(), Wishes { user, database, tenants: Vec::new(), settings })
    }

    #[tokio::test]
    async fn only_sessions_of_one_tenant_have_papers_in_common_and_only_the_same() {
        let [one, two, other] = [(); 3].map(|()| new_token().unwrap());
        let mut words = plan([("a", tenant(Isolation::Row)), ("b", tenant(Isolation::Row))]);
        let words_of = |id: &str| words.tenants.get(id).unwrap().clone();
        let (mut a, mut b) = (words_of("a"), words_of("b"));
        a.tokens = vec![token(&one.line), token(&two.line)];
        b.tokens = vec![token(&other.line)];
        words.tenants = [("a".to_owned(), a), ("b".to_owned(), b)].into();
        let catalog = build(&words);
        let mut homes = Homes::default();
        let first = homes.file(papers(&catalog, &one.text, "app", "psql").await);
        let again = homes.file(papers(&catalog, &one.text, "app", "psql").await);
        assert!(Rc::ptr_eq(&first, &again));
        // Another tenant that asks for the very same has its own.
        let theirs = homes.file(papers(&catalog, &other.text, "app", "psql").await);
        assert!(!Rc::ptr_eq(&first, &theirs) && theirs.identity.tenant.id.as_str() == "b");
        assert!(!Rc::ptr_eq(&first.settings, &theirs.settings));
        for (token, user, name) in
            [(&two, "app", "psql"), (&one, "other", "psql"), (&one, "app", "other")]
        {
            let own = homes.file(papers(&catalog, &token.text, user, name).await);
            assert!(!Rc::ptr_eq(&first, &own), "{user} {name}");
            assert_eq!((&*own.user, own.settings.get("application_name")), (user, Some(name)));
        }
        // The tenant is another by now, or what it was let in with: nobody goes on as what it was.
        words.tenants.get_mut("a").unwrap().limits.clients = Some(9);
        let changed = build(&words).next(&catalog);
        let before = homes.file(papers(&catalog, &one.text, "app", "psql").await);
        let after = homes.file(papers(&changed, &one.text, "app", "psql").await);
        assert!(!Rc::ptr_eq(&before, &after));
    }

    #[test]
    fn a_change_looks_at_the_sessions_of_its_tenants_and_at_those_of_services() {
        let mut homes = Homes::default();
        let tenants: Vec<TenantId> =
            (0..100).map(|id| TenantId::new(&format!("t{id}")).unwrap()).collect();
        for session in 0..1_000 {
            homes.enter(session, &tenants[session as usize % 100], session >= 995);
        }
        let looked = Cell::new(0);
        let of = |homes: &Homes, ids: &[&str]| {
            let acts = |id: &SessionId| {
                looked.set(looked.get() + 1);
                *id == 999
            };
            let mut found = homes.of(&ids.iter().copied().collect(), acts);
            found.sort_unstable();
            found
        };
        assert_eq!(of(&homes, &["t7", "gone"]).len(), 11);
        assert_eq!(looked.get(), 5);
        for session in (7..1_000).step_by(100).chain(996..1_000) {
            homes.leave(session, &tenants[session as usize % 100]);
        }
        assert!(of(&homes, &["t7"]).is_empty());
        assert_eq!(looked.get(), 6);
        assert!(homes.tenants.len() == 99 && homes.services.len() == 1);
    }
}
