//! Budgets at the gate: who is let in, what the console is shown of them, and the limits it sets
//! for a while, which end by themselves.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::budget::{Account, Amount, ClientSlot, Kind, Over, Override};
use crate::catalog::{Cluster, Tenant};
use crate::client;
use crate::config;
use crate::console::{BudgetOrder, BudgetRow, Done, Fault, Target};
use crate::error::{Budget, Error};
use crate::gate::desk::Desk;
use crate::gate::written::utc;
use crate::spelling;

/// Longest override: what is to stay belongs in the settings.
const OVERRIDE_MAX: Duration = Duration::from_secs(31 * 86_400);

/// Lets a client of the tenant in, who has proved to be one: before that nobody is told of budgets.
///
/// # Errors
///
/// The tenant has no connection or no login left.
pub fn let_in(account: &Arc<Account>, tenant: &Tenant, now: Duration) -> Result<ClientSlot, Error> {
    let limits = &tenant.limits;
    let slot = account.connect(limits).ok_or_else(|| {
        let (clients, ..) = account.in_use();
        let used = Amount::Count(clients.into());
        Over { budget: Budget::Clients, used, retry_after: None }
    });
    slot.and_then(|slot| account.log_in(limits, now).map(|()| slot)).map_err(|over| {
        account.count_refused(over.budget);
        client::refusal(&over, tenant.id.as_str(), &account.limits(limits))
    })
}

/// What SHOW BUDGETS has of a tenant.
pub fn rows(tenant: &Tenant, account: &Account, now: Duration) -> Vec<BudgetRow> {
    let usage = account.usage(&tenant.limits, now).into_iter();
    let row = |usage: crate::budget::Usage| BudgetRow {
        tenant: tenant.id.to_string(),
        tier: tenant.tier.clone(),
        kind: usage.kind.name(),
        used: usage.used.map(|used| used.to_string()),
        limit: usage.limit.map(|limit| limit.to_string()),
        window: usage.window,
        waiting: usage.waiting.into(),
        refused: usage.refused,
        would_refuse: usage.would_refuse,
        until: usage.until.map(utc),
    };
    usage.map(row).collect()
}

/// The overrides that are to end.
#[derive(Default)]
pub struct Overridden {
    /// By when, and by serial number, for two of the same moment.
    ends: RefCell<BTreeMap<(Instant, u64), String>>,
    serial: Cell<u64>,
}

impl Desk {
    /// Sets a limit for a while, or takes such limits back.
    pub fn budget(&self, order: BudgetOrder) -> Done {
        let BudgetOrder { tenant, kind, value } = order;
        let common = &self.common;
        if !common.composer.lock().has(&tenant) {
            return Err(Fault::UnknownTarget { target: Target::Tenant(tenant), other: false });
        }
        let kind = kind.map(|name| named(&name)).transpose()?;
        let Some((value, period)) = value else {
            let account = common.accounts.known(&tenant);
            let is_meant = |it: &Override| kind.is_none_or(|kind| it.kind == kind);
            return match account.is_some_and(|account| account.reset_overrides(is_meant)) {
                true => Ok(Vec::new()),
                false => {
                    let what = format!("SET BUDGET has set nothing for tenant \"{tenant}\"");
                    Err(Fault::OutOfPlace { what })
                }
            };
        };
        let Some(kind) = kind else { return Err(invalid("no budget is named".to_owned())) };
        let limits = config::limit(kind, &value).map_err(invalid)?;
        if let Some(known) = common.catalog.load().known(&tenant) {
            let Cluster { name: cluster, capacity, .. } = &*known.route.cluster;
            if limits.servers_min.is_some_and(|minimum| minimum as usize > *capacity) {
                let of = format!("cluster \"{cluster}\" has, {capacity}");
                return Err(invalid(format!("\"{value}\" is more than {of}")));
            }
        }
        let length = config::duration(&period).filter(|it| !it.is_zero() && *it <= OVERRIDE_MAX);
        let Some(length) = length else {
            let period = period.escape_debug();
            return Err(invalid(format!(
                "\"{period}\" is not a time up to 31 days, as '10min' is"
            )));
        };
        let serial = self.overridden.serial.get() + 1;
        self.overridden.serial.set(serial);
        let until = SystemTime::now() + length;
        let account = common.accounts.of(&tenant);
        account.set_override(Override { kind, limits: Box::new(limits), until, serial });
        self.overridden.ends.borrow_mut().insert((Instant::now() + length, serial), tenant);
        Ok(Vec::new())
    }

    /// Returns when an override is over.
    pub async fn override_ends(&self) {
        let next = self.overridden.ends.borrow().keys().next().map(|(at, _)| *at);
        match next {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Takes back the overrides that are over.
    pub fn end_overrides(&self) {
        let now = Instant::now();
        let mut ends = self.overridden.ends.borrow_mut();
        while let Some(entry) = ends.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, serial), tenant) = entry.remove_entry();
            // It may have been replaced or reset before.
            let account = self.common.accounts.known(&tenant);
            if account.is_some_and(|it| it.reset_overrides(|it| it.serial == serial)) {
                tracing::info!(tenant, "a budget that was set for a while is over");
            }
        }
    }
}

fn named(name: &str) -> Result<Kind, Fault> {
    Kind::named(name).ok_or_else(|| {
        let nearest = spelling::nearest(name, Kind::all().map(Kind::name));
        let meant = nearest.map(|it| format!(", did you mean \"{it}\"?")).unwrap_or_default();
        invalid(format!("there is no budget \"{}\"{meant}", name.escape_debug()))
    })
}

fn invalid(what: String) -> Fault {
    Fault::InvalidBudget { what }
}
