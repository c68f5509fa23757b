//! Who is here: every session's cancel key, for the doors, which know no sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::{constant_time, rand};
use parking_lot::Mutex;

use crate::pool::SessionId;

/// What a client needs to cancel: both parts random, so that neither tells anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelKey {
    pub pid: i32,
    pub secret: [u8; 4],
}

/// Where a session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub worker: usize,
    pub session: SessionId,
}

/// The rest of a key, and whose it is.
#[derive(Debug)]
struct Known {
    secret: [u8; 4],
    place: Place,
}

/// All sessions of the process.
#[derive(Debug, Default)]
pub struct Registry {
    /// By the pid in the key.
    keys: Mutex<HashMap<i32, Known>>,
    last: AtomicU64,
}

/// A session's entry; dropping it takes it out.
#[derive(Debug)]
pub struct Entry {
    registry: Arc<Registry>,
    pub key: CancelKey,
    pub session: SessionId,
}

impl Registry {
    /// Enters a session that will live on `worker`. `None` if there is no randomness to be had.
    pub fn enter(self: &Arc<Self>, worker: usize) -> Option<Entry> {
        let session = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut keys = self.keys.lock();
        loop {
            let mut random = [0_u8; 8];
            rand::fill(&mut random).ok()?;
            let [a, b, c, d, e, f, g, h] = random;
            let pid = i32::from_be_bytes([a & 0x7f, b, c, d]);
            if pid == 0 || keys.contains_key(&pid) {
                continue;
            }
            let key = CancelKey { pid, secret: [e, f, g, h] };
            let known = Known { secret: key.secret, place: Place { worker, session } };
            keys.insert(pid, known);
            return Some(Entry { registry: self.clone(), key, session });
        }
    }

    /// Whose key this is.
    pub fn find(&self, pid: i32, secret: &[u8]) -> Option<Place> {
        let keys = self.keys.lock();
        let known = keys.get(&pid)?;
        let equal = constant_time::verify_slices_are_equal(&known.secret, secret).is_ok();
        equal.then_some(known.place)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.keys.lock().remove(&self.key.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_to_its_session_until_the_session_ends() {
        let registry = Arc::new(Registry::default());
        let entry = registry.enter(3).unwrap();
        let key = entry.key.clone();
        let place = Place { worker: 3, session: entry.session };
        assert_eq!(registry.find(key.pid, &key.secret), Some(place));
        assert_eq!(registry.find(key.pid, &[0; 4]).filter(|_| key.secret != [0; 4]), None);
        assert_eq!(registry.find(key.pid, &key.secret[..3]), None);
        drop(entry);
        assert_eq!(registry.find(key.pid, &key.secret), None);
    }
}
