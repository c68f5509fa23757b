//! Spreads: names that stand for several clusters. Which of these a tenant lives on is decided by
//! its id alone, by rendezvous hashing: with one more cluster only those move that move there.

use std::borrow::Cow;

use aws_lc_rs::digest;

use crate::catalog::build::check_name;
use crate::catalog::plan::{CatalogPlan, Fault, Place, TenantPlan};
use crate::spelling;

/// Goes into every hash, so that another rule can be told from this one.
const RULE: &[u8] = b"tenantgate spread v1";

/// The one of the clusters that a tenant lives on: where SHA-256 over rule, cluster and tenant, a
/// zero byte behind each but the last, is greatest. The same on every machine and in every release,
/// for tenants' data lies where it says. Thaler, Ravishankar: Using name-based mappings to increase
/// hit rates (1998), section III.
fn chosen<'plan>(clusters: &'plan [String], tenant: &str) -> Option<&'plan String> {
    let weight = |cluster: &String| {
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in [RULE, b"\0", cluster.as_bytes(), b"\0", tenant.as_bytes()] {
            hash.update(part);
        }
        let hash = hash.finish();
        // Names differ, so hashes do; if not, the name decides, not the order in the file.
        (hash.as_ref().to_vec(), cluster.clone())
    };
    clusters.iter().max_by_key(|cluster| weight(cluster))
}

/// What a tenant says, with the name of one cluster in place of a spread's.
pub(super) fn settle<'words>(
    plan: &CatalogPlan,
    id: &str,
    words: &'words TenantPlan,
    faults: &mut Vec<Fault>,
) -> Cow<'words, TenantPlan> {
    let own = words.roles.values().map(|role| &role.connection_string);
    let mut own = own.chain([&words.connection_string]);
    if plan.spreads.contains_key(&words.cluster) && own.any(Option::is_some) {
        let message = format!("\"{}\" is a spread, which says where it lives", words.cluster);
        let hint = "Name one of its clusters, or leave every connection_string out.";
        let place = Place::Tenant(id.to_owned());
        faults.push(Fault::new(place, "connection_string", message).hint(hint));
    }
    match plan.spreads.get(&words.cluster).and_then(|clusters| chosen(clusters, id)) {
        Some(cluster) => Cow::Owned(TenantPlan { cluster: cluster.clone(), ..words.clone() }),
        None => Cow::Borrowed(words),
    }
}

/// What is wrong with the spreads of a plan.
pub(super) fn check(plan: &CatalogPlan, faults: &mut Vec<Fault>) {
    for (name, clusters) in &plan.spreads {
        let place = Place::Spread(name.clone());
        check_name(name, &place, faults);
        if plan.clusters.contains_key(name) {
            let message = format!("a cluster is named \"{name}\", too");
            faults.push(Fault::entry(place.clone(), message));
        }
        if clusters.is_empty() {
            let message = "a spread without clusters";
            faults.push(Fault::new(place.clone(), "clusters", message));
        }
        for (index, cluster) in clusters.iter().enumerate() {
            let fault = |message| Fault::new(place.clone(), "clusters", message).element(index);
            if !plan.clusters.contains_key(cluster) {
                let known = plan.clusters.keys().map(String::as_str);
                let nearest = spelling::nearest(cluster, known);
                let fault = fault(format!("there is no cluster \"{}\"", cluster.escape_debug()));
                faults.push(match nearest {
                    Some(nearest) => fault.hint(format!("Did you mean \"{nearest}\"?")),
                    None => fault,
                });
            } else if clusters.iter().take(index).any(|earlier| earlier == cluster) {
                faults.push(fault(format!("cluster \"{cluster}\" stands here twice")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("eu{number}")).collect()
    }

    #[test]
    fn who_lives_where_never_changes() {
        // Computed apart from this code, by hashlib.sha256 in Python.
        let clusters = names(4);
        let of = |tenant| chosen(&clusters, tenant).unwrap().as_str();
        let found: Vec<_> = ["acme", "globex", "initech", "t_000042", "A"].map(of).into();
        assert_eq!(found, ["eu1", "eu2", "eu3", "eu4", "eu2"]);
    }

    #[test]
    fn with_another_cluster_only_those_move_that_move_there() {
        let (before, after) = (names(7), names(8));
        let mut moved = 0;
        for tenant in (0..10_000).map(|number| format!("tenant{number}")) {
            let (old, new) = (chosen(&before, &tenant), chosen(&after, &tenant));
            if old != new {
                assert_eq!(new.unwrap(), "eu8");
                moved += 1;
            }
        }
        // An eighth, and what chance adds or takes: five times the deviation of 33.
        assert!((1250 - 165..1250 + 165).contains(&moved), "{moved}");
    }

    #[test]
    fn the_order_of_clusters_says_nothing() {
        let mut turned = names(5);
        turned.reverse();
        for tenant in (0..1000).map(|number| number.to_string()) {
            assert_eq!(chosen(&names(5), &tenant), chosen(&turned, &tenant));
        }
        assert_eq!(chosen(&[], "acme"), None);
    }
}
