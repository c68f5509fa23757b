//! How long transactions take, by tier: counted in buckets on the worker, summed for the process
//! once a second, rendered at a scrape.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::telemetry::tenants::escape;

/// The metric's name.
pub const NAME: &str = "tenantgate_transaction_seconds";

/// Upper bounds of the buckets, in microseconds, and as a scrape has them, in seconds.
const BOUNDS: [(u64, &str); 13] = [
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (1_000_000, "1"),
    (5_000_000, "5"),
    (30_000_000, "30"),
];

/// Most tiers with series of their own.
const TIERS_MAX: usize = 100;

/// Stands for the others.
const OTHER: &str = "_other";

/// How many took how long.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By bucket; the last is for those beyond all bounds.
    counts: [u64; BOUNDS.len() + 1],
    sum_us: u64,
}

/// One worker's, since somebody took them last.
#[derive(Debug, Default)]
pub struct Times(RefCell<Vec<(String, Tally)>>);

impl Times {
    /// Counts one transaction of a tenant of this tier. There are few tiers, so they are looked
    /// through.
    pub fn note(&self, tier: &str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut all = self.0.borrow_mut();
        let at = match all.iter().position(|(name, _)| name == tier) {
            Some(at) => at,
            None => {
                let name = if all.len() < TIERS_MAX { tier } else { OTHER };
                let known = all.iter().position(|(it, _)| it == name);
                known.unwrap_or_else(|| {
                    all.push((name.to_owned(), Tally::default()));
                    all.len() - 1
                })
            }
        };
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < micros);
        if let Some((_, tally)) = all.get_mut(at) {
            tally.sum_us = tally.sum_us.saturating_add(micros);
            if let Some(count) = tally.counts.get_mut(bucket) {
                *count += 1;
            }
        }
    }

    /// Takes what was counted; the names stay.
    fn take(&self) -> Vec<(String, Tally)> {
        let mut all = self.0.borrow_mut();
        all.iter_mut().map(|(name, tally)| (name.clone(), std::mem::take(tally))).collect()
    }
}

/// The process's, by tier.
#[derive(Clone, Debug, Default)]
pub struct Tiers(Arc<Mutex<BTreeMap<String, Tally>>>);

impl Tiers {
    /// Adds what a worker has counted.
    pub fn add(&self, times: &Times) {
        let fresh = times.take();
        let mut all = self.0.lock();
        for (name, tally) in fresh {
            let has_room = all.len() < TIERS_MAX || all.contains_key(&name);
            let sum = all.entry(if has_room { name } else { OTHER.to_owned() }).or_default();
            sum.sum_us = sum.sum_us.saturating_add(tally.sum_us);
            for (sum, fresh) in sum.counts.iter_mut().zip(tally.counts) {
                *sum += fresh;
            }
        }
    }

    /// Appends the text exposition, if anything was counted.
    pub fn render(&self, text: &mut String, help: &str) {
        let all = self.0.lock();
        if all.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {NAME} {help}\n# TYPE {NAME} histogram");
        for (tier, tally) in all.iter() {
            let tier = escape(tier);
            let mut below = 0;
            let ends = BOUNDS.iter().map(|(_, end)| *end).chain(["+Inf"]);
            for (count, end) in tally.counts.iter().zip(ends) {
                below += count;
                let _ = writeln!(text, "{NAME}_bucket{{tier=\"{tier}\",le=\"{end}\"}} {below}");
            }
            let (seconds, micros) = (tally.sum_us / 1_000_000, tally.sum_us % 1_000_000);
            let _ = writeln!(text, "{NAME}_sum{{tier=\"{tier}\"}} {seconds}.{micros:06}");
            let _ = writeln!(text, "{NAME}_count{{tier=\"{tier}\"}} {below}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_workers_count_is_summed_once() {
        let (tiers, first, second) = (Tiers::default(), Times::default(), Times::default());
        let mut text = String::new();
        tiers.render(&mut text, "Help.");
        assert_eq!(text, "");
        for micros in [250, 251, 40_000_000] {
            first.note("free", Duration::from_micros(micros));
            second.note("pro", Duration::from_micros(micros));
        }
        for times in [&first, &second, &first] {
            tiers.add(times);
        }
        tiers.render(&mut text, "Help.");
        for (line, count) in [
            ("_bucket{tier=\"free\",le=\"0.00025\"} 1\n", 1),
            ("_bucket{tier=\"free\",le=\"0.0005\"} 2\n", 1),
            ("_bucket{tier=\"pro\",le=\"30\"} 2\n", 1),
            ("_bucket{tier=\"pro\",le=\"+Inf\"} 3\n", 1),
            ("_sum{tier=\"free\"} 40.000501\n", 1),
            ("_count{tier=\"free\"} 3\n", 1),
            ("# TYPE", 1),
        ] {
            assert_eq!(text.matches(line).count(), count, "{line} in {text}");
        }
    }

    #[test]
    fn a_tier_too_many_is_one_of_the_others() {
        let (tiers, times) = (Tiers::default(), Times::default());
        for tier in 0..500 {
            times.note(&format!("t{tier}"), Duration::ZERO);
            tiers.add(&times);
        }
        let mut text = String::new();
        tiers.render(&mut text, "Help.");
        assert_eq!(text.matches("_count").count(), TIERS_MAX + 1);
        assert!(text.contains("_count{tier=\"_other\"} 400\n"), "{text}");
    }
}
