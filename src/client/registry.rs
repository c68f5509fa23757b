//! Who is here: every session's cancel key, for the doors, which know no sessions.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::{constant_time, rand};
use parking_lot::Mutex;

use crate::pool::SessionId;

/// The secret half of a cancel key, random.
#[derive(Clone, PartialEq, Eq)]
enum Secret {
    /// Protocol 3.0.
    Short([u8; 4]),
    /// Protocol 3.2; as long as PostgreSQL 18 makes them.
    Long(Box<[u8; 32]>),
}

impl Secret {
    fn new(long: bool) -> Option<Self> {
        if !long {
            let mut bytes = [0; 4];
            rand::fill(&mut bytes).ok()?;
            return Some(Self::Short(bytes));
        }
        let mut bytes = Box::new([0; 32]);
        rand::fill(bytes.as_mut()).ok()?;
        Some(Self::Long(bytes))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes.as_ref(),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
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
    secret: Secret,
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
    /// The other half of the key, random as well.
    pub pid: i32,
    pub session: SessionId,
}

impl Registry {
    /// Enters a session that will live on `worker`, with a key of the length its protocol has.
    /// `None` if there is no randomness to be had.
    pub fn enter(self: &Arc<Self>, worker: usize, long_key: bool) -> Option<Entry> {
        let session = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let secret = Secret::new(long_key)?;
        let mut keys = self.keys.lock();
        loop {
            let mut random = [0_u8; 4];
            rand::fill(&mut random).ok()?;
            let pid = i32::from_be_bytes(random) & i32::MAX;
            if pid == 0 || keys.contains_key(&pid) {
                continue;
            }
            keys.insert(pid, Known { secret, place: Place { worker, session } });
            return Some(Entry { registry: self.clone(), pid, session });
        }
    }

    /// Whose key this is.
    pub fn find(&self, pid: i32, secret: &[u8]) -> Option<Place> {
        let keys = self.keys.lock();
        let known = keys.get(&pid)?;
        let equal = constant_time::verify_slices_are_equal(known.secret.bytes(), secret).is_ok();
        equal.then_some(known.place)
    }
}

impl Entry {
    /// The secret of its key, for the client alone.
    pub fn secret(&self) -> Vec<u8> {
        let keys = self.registry.keys.lock();
        keys.get(&self.pid).map(|known| known.secret.bytes().to_vec()).unwrap_or_default()
    }

    /// Takes another pid for its key, that of its server, unless another session has it.
    pub fn take_pid(&mut self, pid: i32) {
        let mut keys = self.registry.keys.lock();
        if keys.contains_key(&pid) {
            return;
        }
        if let Some(known) = keys.remove(&self.pid) {
            keys.insert(pid, known);
            self.pid = pid;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.keys.lock().remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_to_its_session_until_the_session_ends() {
        let registry = Arc::new(Registry::default());
        for (long, bytes) in [(false, 4), (true, 32)] {
            let entry = registry.enter(3, long).unwrap();
            let (pid, mut secret) = (entry.pid, entry.secret());
            assert_eq!(secret.len(), bytes);
            let place = Place { worker: 3, session: entry.session };
            assert_eq!(registry.find(pid, &secret), Some(place));
            assert_eq!(registry.find(pid, &secret[..bytes - 1]), None);
            assert_eq!(registry.find(pid, &[&secret[..], &[0]].concat()), None);
            secret[bytes - 1] ^= 1;
            assert_eq!(registry.find(pid, &secret), None);
            secret[bytes - 1] ^= 1;
            drop(entry);
            assert_eq!(registry.find(pid, &secret), None);
        }
    }
}
