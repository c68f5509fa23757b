//! What is wrong with limits, in themselves and where they are to be kept.

use crate::catalog::build::Builder;
use crate::catalog::plan::{Fault, LimitsPlan, Place};
use crate::catalog::{Cluster, TIER_DEFAULT};
use crate::guard::{Denial, Denials};
use crate::spelling;

const MINIMUM_HINT: &str = "It is what is kept of a cluster for one tenant: promise it less, or \
                            raise the capacity.";

impl Builder<'_> {
    /// What is wrong with somebody's own limits, which stand at a place, and those of its tier.
    pub fn limits(
        &mut self,
        (own, place): (&LimitsPlan, Place),
        tier: (Option<&str>, &LimitsPlan),
        cluster: Option<&Cluster>,
    ) -> Vec<Fault> {
        let mut faults = Vec::new();
        check_limits(own, tier.1, &place, &mut faults);
        faults.extend(cluster.and_then(|it| self.check_minimum((own, &place), tier, it)));
        faults
    }

    /// More servers than there are can be promised to nobody. What a tier promises is its own
    /// fault, unless it is a row of a table that has put the tenant there.
    fn check_minimum(
        &mut self,
        (own, place): (&LimitsPlan, &Place),
        (name, tier): (Option<&str>, &LimitsPlan),
        cluster: &Cluster,
    ) -> Option<Fault> {
        let minimum = own.servers_min.or(tier.servers_min)?;
        if cluster.capacity == 0 || minimum as usize <= cluster.capacity {
            return None;
        }
        let Cluster { name: cluster, capacity, .. } = cluster;
        let message = format!(
            "servers_min is {minimum}, and the capacity of cluster \"{cluster}\" is {capacity}"
        );
        let fault = |place: &Place, key| Fault::new(place.clone(), key, message).hint(MINIMUM_HINT);
        if own.servers_min.is_some() {
            return Some(fault(place, "servers_min"));
        }
        if self.of_table {
            let place = match place {
                Place::TenantLimits(id) => &Place::Tenant(id.clone()),
                place => place,
            };
            return Some(fault(place, "tier"));
        }
        let name = name.unwrap_or(TIER_DEFAULT);
        let fault = fault(&Place::Tier(name.to_owned()), "servers_min");
        self.tier_faults.entry(name.to_owned()).or_insert(fault);
        None
    }
}

/// What is wrong with limits in themselves.
pub fn check_limits(own: &LimitsPlan, tier: &LimitsPlan, place: &Place, faults: &mut Vec<Fault>) {
    for key in own.zeros() {
        let hint = "Leave the key out for no limit; state = \"disabled\" keeps a tenant out.";
        faults.push(Fault::new(place.clone(), key, format!("{key} is zero")).hint(hint));
    }
    if let Some((words, Err(index))) =
        own.report_only.as_ref().map(|words| (words, Denials::named(words)))
    {
        let word = words.get(index).map(String::as_str).unwrap_or_default();
        let known: Vec<&str> = Denial::ALL.iter().map(|rule| rule.name()).chain(["all"]).collect();
        let nearest = spelling::nearest(word, known.iter().copied());
        let meant = nearest.map(|name| format!("Did you mean \"{name}\"? ")).unwrap_or_default();
        let message = format!("\"{}\" is not a rule", word.escape_debug());
        let fault = Fault::new(place.clone(), "report_only", message).element(index);
        faults.push(fault.hint(format!("{meant}Rules: {}.", known.join(", "))));
    }
    let limits = own.over(tier);
    let bursts = [
        (
            "queries_burst",
            "queries_per_second",
            own.queries_burst.is_some(),
            limits.queries_per_second.is_some(),
        ),
        (
            "logins_burst",
            "logins_per_second",
            own.logins_burst.is_some(),
            limits.logins_per_second.is_some(),
        ),
        ("breaker", "query_time", own.breaker.is_some(), limits.query_time.is_some()),
        ("breaker_pause", "breaker", own.breaker_pause.is_some(), limits.breaker.is_some()),
    ];
    if limits.servers_min > limits.servers.or(limits.servers_min) {
        let message = "servers_min is more than servers".to_owned();
        faults.push(Fault::new(place.clone(), "servers_min", message));
    }
    for (key, other, is_there, goes) in bursts {
        if is_there && !goes {
            let message = format!("{key} has no {other} to go with");
            faults.push(Fault::new(place.clone(), key, message));
        }
    }
}
