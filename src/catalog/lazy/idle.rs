//! [`Idle`]: of the tenants that are known, who is in use, and in which order the others were last.

use std::collections::{BTreeMap, HashMap};

/// Who is in use, and who was when.
#[derive(Debug, Default)]
pub struct Idle {
    known: HashMap<String, Use>,
    /// Those whom nobody has, the longest unused first.
    order: BTreeMap<u64, String>,
    serial: u64,
}

#[derive(Debug)]
enum Use {
    /// So many have it. It may be none of the tables' any more.
    By { count: usize, is_gone: bool },
    /// Nobody, since then.
    Since(u64),
}

impl Idle {
    /// A tenant has come.
    pub fn came(&mut self, id: &str) {
        match self.known.get_mut(id) {
            Some(Use::By { is_gone, .. }) => *is_gone = false,
            Some(Use::Since(_)) => {}
            None => self.rest(id),
        }
    }

    /// A tenant is no more. Whoever has it keeps it pinned, should it come back.
    pub fn gone(&mut self, id: &str) {
        match self.known.get_mut(id) {
            Some(Use::By { is_gone, .. }) => *is_gone = true,
            Some(Use::Since(serial)) => {
                self.order.remove(serial);
                self.known.remove(id);
            }
            None => {}
        }
    }

    /// Somebody has it from now on, if it is known and not leaving.
    pub fn pin(&mut self, id: &str) -> bool {
        match self.known.get_mut(id) {
            Some(Use::By { count, .. }) => *count += 1,
            Some(Use::Since(serial)) => {
                let serial = *serial;
                self.order.remove(&serial);
                self.known.insert(id.to_owned(), Use::By { count: 1, is_gone: false });
            }
            None => return false,
        }
        true
    }

    /// Somebody has it no more.
    pub fn unpin(&mut self, id: &str) {
        match self.known.get_mut(id) {
            Some(Use::By { count, .. }) if *count > 1 => *count -= 1,
            Some(Use::By { is_gone: false, .. }) => self.rest(id),
            Some(Use::By { .. }) => drop(self.known.remove(id)),
            _ => {}
        }
    }

    pub fn is_pinned(&self, id: &str) -> bool {
        matches!(self.known.get(id), Some(Use::By { .. }))
    }

    /// Sends the one away that has been unused for longest, if it may go.
    pub fn oldest(&mut self, may_go: impl Fn(&str) -> bool) -> Option<String> {
        let first = self.order.first_entry().filter(|first| may_go(first.get()))?;
        let id = first.remove();
        self.known.remove(&id);
        Some(id)
    }

    fn rest(&mut self, id: &str) {
        self.serial += 1;
        self.order.insert(self.serial, id.to_owned());
        self.known.insert(id.to_owned(), Use::Since(self.serial));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_in_use_stays_and_the_longest_unused_leaves_first() {
        let mut idle = Idle::default();
        ["a", "b", "c"].iter().for_each(|id| idle.came(id));
        assert!(idle.pin("a") && idle.pin("a") && idle.pin("c"));
        assert!(!idle.pin("nobody"));
        idle.unpin("c");
        idle.came("b");
        assert_eq!(idle.oldest(|_| true).as_deref(), Some("b"));
        assert!(!idle.pin("b"), "it is on its way out");
        assert_eq!(idle.oldest(|id| id != "c"), None, "who may not go stays, and all behind it");
        idle.unpin("a");
        assert_eq!(idle.oldest(|_| true).as_deref(), Some("c"));
        assert_eq!(idle.oldest(|_| true), None, "one still has it");
        idle.unpin("a");
        assert_eq!(idle.oldest(|_| true).as_deref(), Some("a"));
    }

    #[test]
    fn what_is_gone_while_in_use_is_still_in_use_when_it_comes_back() {
        let mut idle = Idle::default();
        idle.came("a");
        assert!(idle.pin("a"));
        idle.gone("a");
        idle.came("a");
        assert!(idle.is_pinned("a") && idle.oldest(|_| true).is_none());
        idle.unpin("a");
        assert!(idle.pin("a"));
        idle.gone("a");
        idle.unpin("a");
        assert!(idle.known.is_empty() && idle.order.is_empty());
    }
}
