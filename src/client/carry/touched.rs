//! Settings that a session's statements may have changed: noted when a statement has succeeded, and
//! read back from the server at the end of the transaction, whatever the transaction made of them.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use crate::client::carry::carried::{
    SETTINGS_BYTES_MAX, SETTINGS_MAX, check_encoding, follows, is_owned, is_system_path, is_told,
};
use crate::client::carry::idle;
use crate::client::talk::Talk;
use crate::error::Error;
use crate::pool::Lease;
use crate::server::{Question, Settings};

/// The settings to ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// In lower case.
    pub names: BTreeSet<String>,
    /// Some whose names nobody could read from a text: all that the server knows are asked for.
    pub unknown: bool,
    /// Values that may be names of such as no module has defined: those the server does not list.
    pub guessed: Vec<String>,
    /// Those of `names` that were only reset to the server's own value.
    pub reset: BTreeSet<String>,
    /// Some that go back with the transaction.
    pub passing: Vec<String>,
}

impl Touched {
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.unknown
    }

    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Takes in what another has.
    pub fn extend(&mut self, other: &Self) {
        for name in &other.names {
            match other.reset.contains(name) {
                true => self.resets(name),
                false => self.add(name),
            }
        }
        other.passing.iter().for_each(|name| self.passes(name));
        self.unknown |= other.unknown;
        for name in &other.guessed {
            if self.guessed.len() < SETTINGS_MAX && !self.guessed.contains(name) {
                self.guessed.push(name.clone());
            }
        }
    }

    pub fn add(&mut self, name: &str) {
        if !self.contains(name) {
            self.names.insert(name.to_owned());
        }
        self.reset.remove(name);
    }

    /// It goes back to the server's own value. A custom one is there from then on, and empty.
    pub fn resets(&mut self, name: &str) {
        let known = self.contains(name) && !self.reset.contains(name);
        self.add(name);
        if !known && name != STRINGS && !name.contains('.') {
            self.reset.insert(name.to_owned());
        }
    }

    /// It is changed for the transaction.
    pub fn passes(&mut self, name: &str) {
        if self.passing.len() < SETTINGS_MAX && !self.passing.iter().any(|known| known == name) {
            self.passing.push(name.to_owned());
        }
    }

    /// All that can be named, also what goes back with the transaction.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().chain(&self.passing).map(String::as_str)
    }
}

/// The touched settings of a session. It nearly always has none, and then no room for them.
#[derive(Debug, Default)]
pub struct Noted(Option<Box<Touched>>);

impl Noted {
    pub fn get(&self) -> Option<&Touched> {
        self.0.as_deref()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.get().is_none_or(Touched::is_empty)
    }

    /// In lower case.
    pub fn names(&self) -> &BTreeSet<String> {
        const NONE: &BTreeSet<String> = &BTreeSet::new();
        self.get().map_or(NONE, |touched| &touched.names)
    }

    /// Whether there are some whose names nobody could read.
    pub fn is_unknown(&self) -> bool {
        self.get().is_some_and(|touched| touched.unknown)
    }

    /// All that can be named, also what goes back with the transaction.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        self.get().into_iter().flat_map(Touched::all_names)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get().is_some_and(|touched| touched.contains(name))
    }

    pub fn add(&mut self, name: &str) {
        self.0.get_or_insert_default().add(name);
    }

    pub fn extend(&mut self, other: &Touched) {
        if *other != Touched::default() {
            self.0.get_or_insert_default().extend(other);
        }
    }

    pub fn take(&mut self) -> Touched {
        self.0.take().map(|touched| *touched).unwrap_or_default()
    }
}

pub const STRINGS: &str = "standard_conforming_strings";
pub const ENCODING: &str = "client_encoding";

/// Whether it decides how the texts behind it are read, so that it is in doubt from the moment it
/// is sent, and also if it is set only LOCAL.
pub fn decides_reading(name: &str) -> bool {
    matches!(name, STRINGS | ENCODING)
}

impl Talk {
    /// A statement that changes these was sent.
    pub fn touches_soon(&mut self, touched: &Touched) {
        let deciding = touched.names.iter().filter(|name| decides_reading(name));
        deciding.for_each(|name| self.touched.add(name));
    }

    /// A statement that changes these has succeeded. One that failed has changed nothing, and what
    /// it named may be no setting at all.
    pub fn touch(&mut self, touched: &Touched) {
        self.touched.extend(touched);
    }

    /// Whether one more setting, of so many bytes, may be carried.
    pub fn has_room(&self, name: &str, bytes: usize) -> bool {
        let known = self.now.get(name).is_some() || self.touched.contains(name);
        let count = self.now.count() + self.fresh(self.touched.names()) + usize::from(!known);
        // PostgreSQL itself cuts or checks the values of its own settings.
        let bytes = if name.contains('.') { name.len() + bytes } else { 0 };
        count <= SETTINGS_MAX && self.now.bytes() + bytes <= SETTINGS_BYTES_MAX
    }

    /// Whether all of these may be carried.
    pub fn has_room_for(&self, names: &BTreeSet<String>) -> bool {
        let fresh = self.fresh(names) + self.fresh(self.touched.names());
        let both = names.intersection(self.touched.names());
        let both = both.filter(|name| self.now.get(name).is_none()).count();
        self.now.count() + fresh - both <= SETTINGS_MAX
    }

    /// How many of these the session does not have. Both lists are in order.
    fn fresh(&self, names: &BTreeSet<String>) -> usize {
        let mut now = self.now.iter().map(|(name, _)| name).peekable();
        let is_fresh = |name: &&String| {
            while now.next_if(|known| *known < name.as_str()).is_some() {}
            now.peek() != Some(&name.as_str())
        };
        names.iter().filter(is_fresh).count()
    }

    /// The server told the client of values that are not the session's: something that cannot be
    /// read in a text, a function, has set them.
    pub fn notice_told(&mut self) {
        if !std::mem::take(&mut self.told) {
            return;
        }
        for (name, value) in &self.reported {
            let lower = name.to_ascii_lowercase();
            if is_told(&lower) && self.expected(name, &lower) != Some(value) {
                self.touched.add(&lower);
            }
        }
    }

    /// What the client should have been told last of a parameter.
    fn expected(&self, name: &str, lower: &str) -> Option<&str> {
        let start = self.start.get(lower);
        let now = self.now.get(lower);
        if now != start || lower == "application_name" {
            return now;
        }
        let told = self.greeting.iter().find(|(known, _)| known == name);
        told.map(|(_, value)| value.as_str())
    }

    /// Asks the server what the touched settings are now, so that they can follow the session.
    pub async fn read_back(&mut self, lease: &mut Lease, limit: Duration) -> Result<(), Error> {
        let bound = lease.bound().ok_or(Error::StateLost)?;
        let Touched { names, unknown, guessed, reset, .. } = self.touched.take();
        let names = Vec::from_iter(names);
        let question = Question { names: &names, all: unknown, guessed: &guessed };
        let values = bound.read_back(question, limit).await.map_err(|error| {
            tracing::warn!(tenant = %self.tenant.id, %error, "could not read settings back");
            Error::StateLost
        })?;
        let mut now = (*self.now).clone();
        for (name, value) in values {
            if reset.contains(&name) && now.get(&name) != value.as_deref() {
                // It has the server's own value, as on every other server.
                now.remove(&name);
                continue;
            }
            match value.filter(|value| self.may_carry(&name, value)) {
                Some(value) => now.set(&name, &value),
                None => now.remove(&name),
            }
        }
        if now.count() > SETTINGS_MAX || now.bytes() > SETTINGS_BYTES_MAX {
            tracing::warn!(tenant = %self.tenant.id, "a session has more settings than it may");
            return Err(Error::StateLost);
        }
        self.now = Rc::new(now);
        self.idle = idle::limit(&self.now);
        bound.settings = self.now.clone();
        Ok(())
    }

    /// Whether a value that a server has may be bound on another: never over the context.
    fn may_carry(&self, name: &str, value: &str) -> bool {
        if name == "search_path" && self.tenant.context.owns(name) {
            return is_system_path(value);
        }
        let safe = name != "client_encoding" || check_encoding(value).is_ok();
        safe && follows(name) && (name == idle::OWN || !is_owned(name, &self.tenant))
    }
}

/// What a session goes on with when the catalog has news of its tenant: what the new context owns
/// it carries no more, or it would be bound over it.
pub fn without(settings: &Rc<Settings>, protected: impl Fn(&str) -> bool) -> Rc<Settings> {
    if !settings.iter().any(|(name, _)| protected(name)) {
        return settings.clone();
    }
    let mut kept = Settings::default();
    let free = settings.iter().filter(|(name, _)| !protected(name));
    free.for_each(|(name, value)| kept.set(name, value));
    Rc::new(kept)
}
