//! [`Texts`]: what sessions of a tenant have the gate remember, within a bound that they share.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::budget::Account;

/// Most bytes of prepared statements that all sessions of one tenant keep in the gate: few ever
/// need a hundredth of it, and nobody takes the memory of all.
pub const TEXT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The part of one session. Dropping it gives that back.
#[derive(Debug)]
pub struct Texts {
    account: Arc<Account>,
    bytes: usize,
}

impl Texts {
    /// Of a session that keeps nothing yet.
    pub fn of(account: &Arc<Account>) -> Self {
        Self { account: account.clone(), bytes: 0 }
    }

    /// How many bytes the session keeps.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts one that is kept.
    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.account.text_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts one that is forgotten.
    pub fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.account.text_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts all of them as forgotten.
    pub fn clear(&mut self) {
        self.remove(self.bytes);
    }
}

impl Drop for Texts {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Account {
    /// Whether its sessions may keep so many bytes more. Two that ask at once may both: it is a
    /// bound for memory, not a budget.
    pub fn has_room_for_text(&self, bytes: usize) -> bool {
        self.text_bytes.load(Ordering::Relaxed).saturating_add(bytes) <= TEXT_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_a_tenant_share_the_room_and_give_it_back() {
        let account = Arc::new(Account::default());
        let (mut one, mut other) = (Texts::of(&account), Texts::of(&account));
        one.add(TEXT_BYTES_MAX - 10);
        other.add(4);
        assert!(account.has_room_for_text(6) && !account.has_room_for_text(7));
        other.remove(3);
        assert_eq!((one.bytes(), other.bytes()), (TEXT_BYTES_MAX - 10, 1));
        drop(one);
        assert!(account.has_room_for_text(TEXT_BYTES_MAX - 1));
        other.clear();
        assert!(account.has_room_for_text(TEXT_BYTES_MAX));
        drop(other);
        assert!(account.has_room_for_text(TEXT_BYTES_MAX));
        assert!(!account.has_room_for_text(usize::MAX), "nothing wraps");
    }
}
