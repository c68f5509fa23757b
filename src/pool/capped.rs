//! [`Capped`]: those whose tenant has all the server connections it may have. They stand in no
//! line: however many there are, nobody else's wait gets longer by them. When one of the tenant's
//! slots is given back, the first of them takes it and joins the line, at the place where it would
//! stand by its time of arrival.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::budget::{Account, Limits, Share};
use crate::catalog::{Tenant, TenantId};
use crate::pool::arbiter::Ticket;
use crate::pool::line::Waiter;
use crate::pool::{ClusterPools, Pool};

/// Of one cluster and worker, by tenant.
#[derive(Debug, Default)]
pub(super) struct Capped {
    lists: RefCell<HashMap<TenantId, List>>,
    /// How many lists there are, for a look that costs nothing.
    count: Cell<usize>,
}

/// Those of one tenant; never empty.
#[derive(Debug)]
struct List {
    account: Arc<Account>,
    /// What the latest of them came with, or a reload said since.
    limits: Limits,
    waiters: BTreeMap<Ticket, Rc<Waiter>>,
    /// The last that came while the tenant was over a budget: up to it they go one by one.
    slow_until: Option<Ticket>,
    _watch: Watch,
}

/// One who may stand in line now.
struct Uncapped {
    waiter: Rc<Waiter>,
    /// Its tenant's, of this moment and not of when it came.
    share: Share,
    slowly: bool,
}

/// The task that hears when a slot is given back, by whomever and on whichever worker. It ends with
/// its list; a call it did not hear any more goes to the task of another worker.
#[derive(Debug)]
struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Capped {
    /// Whether any of a tenant's waits here.
    #[inline]
    pub fn holds(&self, tenant: &TenantId) -> bool {
        self.count.get() > 0 && self.lists.borrow().contains_key(tenant)
    }

    /// Whether this one waits here.
    pub fn has(&self, waiter: &Waiter) -> bool {
        let lists = self.lists.borrow();
        lists.get(&waiter.tenant).is_some_and(|list| list.waiters.contains_key(&waiter.ticket))
    }

    /// How many wait, of all tenants.
    pub fn len(&self) -> usize {
        self.lists.borrow().values().map(|list| list.waiters.len()).sum()
    }

    /// Tickets of those who wait for one pool.
    pub fn waiting_for(&self, pool: &Pool) -> Vec<Ticket> {
        let lists = self.lists.borrow();
        let all = lists.values().flat_map(|list| &list.waiters);
        let of_pool = all.filter(|(_, waiter)| std::ptr::eq(&*waiter.pool, pool));
        of_pool.map(|(ticket, _)| *ticket).collect()
    }

    /// Takes one out, if it is in.
    pub fn remove(&self, waiter: &Waiter) {
        let mut lists = self.lists.borrow_mut();
        let Some(list) = lists.get_mut(&waiter.tenant) else { return };
        list.waiters.remove(&waiter.ticket);
        if list.waiters.is_empty() {
            lists.remove(&waiter.tenant);
        }
        self.count.set(lists.len());
    }
}

impl ClusterPools {
    /// Has one wait for a slot of its tenant.
    pub(super) fn cap(self: &Rc<Self>, waiter: &Rc<Waiter>, limits: &Limits) {
        let tenant = &waiter.tenant;
        let mut lists = self.capped.lists.borrow_mut();
        let list = lists.entry(tenant.clone()).or_insert_with(|| List {
            account: waiter.account.clone(),
            limits: limits.clone(),
            waiters: BTreeMap::new(),
            slow_until: None,
            _watch: watch(Rc::downgrade(self), tenant.clone(), waiter.account.clone()),
        });
        list.limits = limits.clone();
        if waiter.account.is_penalised(&waiter.account.limits(limits)) {
            list.slow_until = list.slow_until.max(Some(waiter.ticket));
        }
        list.waiters.insert(waiter.ticket, waiter.clone());
        self.capped.count.set(lists.len());
    }

    /// Moves those of a tenant into the line for whom there are slots now. True if there were any.
    /// When a tenant is within its budgets again, what piled up does not come down on the others at
    /// once: each that is done makes room for one. Who comes later is not held up by that for good.
    pub(super) fn uncap(&self, tenant: &TenantId) -> bool {
        let mut moved = false;
        while let Some(Uncapped { waiter, share, slowly }) = self.first_with_slot(tenant) {
            self.enter(&waiter, share);
            moved = true;
            if slowly {
                break;
            }
        }
        moved
    }

    fn first_with_slot(&self, tenant: &TenantId) -> Option<Uncapped> {
        let mut lists = self.capped.lists.borrow_mut();
        let list = lists.get_mut(tenant)?;
        let reservation = list.account.reserve(&list.limits)?;
        let (share, slow_until) = (list.account.share(&list.limits), list.slow_until);
        let first = list.waiters.pop_first();
        if list.waiters.is_empty() {
            lists.remove(tenant);
        }
        self.capped.count.set(lists.len());
        let (ticket, waiter) = first?;
        waiter.reserve(reservation);
        let slowly = slow_until.is_some_and(|last| ticket <= last);
        Some(Uncapped { waiter, share, slowly })
    }

    /// Takes a reload's limits over for those who wait already.
    pub(super) fn recap(&self, tenant: &Tenant) {
        if !self.capped.holds(&tenant.id) {
            return;
        }
        if let Some(list) = self.capped.lists.borrow_mut().get_mut(&tenant.id) {
            list.limits = tenant.limits.clone();
        }
        self.uncap(&tenant.id);
    }
}

/// What was given back before the task first asks is kept for it (`Notify::notify_one`), so nothing
/// is missed between a look at the account and the wait.
fn watch(cluster: Weak<ClusterPools>, tenant: TenantId, account: Arc<Account>) -> Watch {
    let task = tokio::task::spawn_local(async move {
        loop {
            account.slot_freed().await;
            let Some(cluster) = cluster.upgrade() else { return };
            if cluster.uncap(&tenant) {
                cluster.pump();
            }
            if !cluster.capped.holds(&tenant) {
                // What it heard, or would hear now, may be meant for another worker's.
                account.pass_slot_on();
                return;
            }
        }
    });
    Watch(task.abort_handle())
}
