//! [`Books`]: figures by tenant or database. Only those that did something lately are gone through
//! at the end of a period; of the others the totals are kept, up to a bound.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use crate::console::Figures;

/// Most totals of those that did nothing lately.
const QUIET_MAX: usize = 100_000;

/// Figures of tenants, or of databases.
pub struct Books<K> {
    lively: HashMap<K, Book>,
    /// Totals of the others, with the number under which they stand in `order`.
    quiet: HashMap<K, (u64, Figures)>,
    /// Who has been quiet for longest first.
    order: BTreeMap<u64, K>,
    quiet_max: usize,
    next: u64,
    /// Of those that were too many.
    forgotten: Figures,
}

/// The figures of one.
#[derive(Default)]
struct Book {
    totals: Figures,
    /// The totals when the running period began.
    before: Figures,
    /// The same of the period before.
    before_last: Figures,
    /// Of the last whole period.
    averages: Figures,
}

impl<K> Default for Books<K> {
    fn default() -> Self {
        Self {
            lively: HashMap::new(),
            quiet: HashMap::new(),
            order: BTreeMap::new(),
            quiet_max: QUIET_MAX,
            next: 0,
            forgotten: Figures::default(),
        }
    }
}

impl<K: Clone + Eq + Hash> Books<K> {
    /// Books what one did.
    pub fn add(&mut self, key: &K, more: &Figures) {
        if *more == Figures::default() {
            return;
        }
        if let Some(book) = self.lively.get_mut(key) {
            book.totals = book.totals.plus(more);
            return;
        }
        let known = self.quiet.remove(key);
        if let Some((at, _)) = &known {
            self.order.remove(at);
        }
        let before = known.map(|(_, totals)| totals).unwrap_or_default();
        let totals = before.plus(more);
        let averages = Figures::default();
        let book = Book { totals, before: before.clone(), before_last: before, averages };
        self.lively.insert(key.clone(), book);
    }

    /// Ends the running period, which was so long. Who did nothing in it is quiet from now on.
    pub fn end_period(&mut self, length: Duration) {
        let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        let ended = self.lively.extract_if(|_, book| {
            book.averages = book.totals.since(&book.before).averages(micros);
            book.before_last = std::mem::replace(&mut book.before, book.totals.clone());
            book.lately() == Figures::default()
        });
        for (key, book) in ended {
            self.next += 1;
            self.order.insert(self.next, key.clone());
            self.quiet.insert(key, (self.next, book.totals));
        }
        while self.quiet.len() > self.quiet_max {
            let Some((_, key)) = self.order.pop_first() else { return };
            if let Some((_, totals)) = self.quiet.remove(&key) {
                self.forgotten = self.forgotten.plus(&totals);
            }
        }
    }

    /// Totals and averages of one; nothing, if it is not known.
    pub fn figures(&self, key: &K) -> (Figures, Figures) {
        if let Some(book) = self.lively.get(key) {
            return (book.totals.clone(), book.averages.clone());
        }
        let totals = self.quiet.get(key).map(|(_, totals)| totals.clone());
        (totals.unwrap_or_default(), Figures::default())
    }

    /// All that are known.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.lively.keys().chain(self.quiet.keys())
    }

    /// What each did in the last whole period and the running one.
    pub fn lately(&self) -> impl Iterator<Item = (&K, Figures)> {
        self.lively.iter().map(|(key, book)| (key, book.lately()))
    }

    /// The totals of those that are not known any more, if there are any.
    pub fn forgotten(&self) -> Option<&Figures> {
        Some(&self.forgotten).filter(|it| **it != Figures::default())
    }
}

impl Book {
    fn lately(&self) -> Figures {
        self.totals.since(&self.before_last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(requests: u64) -> Figures {
        Figures { requests, ..Figures::default() }
    }

    #[test]
    fn who_did_nothing_lately_costs_nothing_and_keeps_its_totals() {
        let mut books = Books { quiet_max: 100, ..Books::default() };
        let second = Duration::from_secs(1);
        (0..1_000_u64).for_each(|id| books.add(&id, &requests(2)));
        books.end_period(second);
        assert_eq!(books.figures(&7), (requests(2), requests(2)));
        assert_eq!((books.lively.len(), books.lately().count()), (1_000, 1_000));
        books.add(&7, &requests(3));
        books.end_period(second);
        assert_eq!(books.figures(&7), (requests(5), requests(3)));
        assert_eq!((books.lively.len(), books.quiet.len(), books.order.len()), (1, 100, 100));
        let kept: Vec<u64> = books.keys().copied().collect();
        let known: u64 = kept.iter().map(|id| books.figures(id).0.requests).sum();
        let forgotten = books.forgotten().map_or(0, |it| it.requests);
        assert_eq!(known + forgotten, 2_003);
        assert_eq!(forgotten, 2 * 899);
        // Whoever comes back goes on where it stopped.
        let back = *books.order.first_key_value().unwrap().1;
        books.add(&back, &requests(1));
        assert_eq!(books.figures(&back), (requests(3), Figures::default()));
        assert_eq!(books.lately().count(), 2);
        books.end_period(second);
        let sum: u64 = books.keys().map(|id| books.figures(id).0.requests).sum();
        assert_eq!(sum + books.forgotten().unwrap().requests, 2_004);
        assert_eq!(Books::<u64>::default().forgotten(), None);
    }
}
