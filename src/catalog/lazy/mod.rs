//! Tenants that are looked up when somebody asks for them: who is asked for now, what the tables
//! did not have, and who may leave again when there are too many.

mod idle;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::catalog::{Catalog, CertificateName, Live, Tenant, TenantId};
use idle::Idle;

/// Longest wait for an answer.
pub const LOOKUP_TIME: Duration = Duration::from_secs(3);

/// How long an answer counts that brought nothing, should no change of the tables end it before.
const ANSWER_LIFE: Duration = Duration::from_secs(5);

/// Most answers that are kept, and most questions at once.
const ANSWERS_MAX: usize = 65_536;
const QUESTIONS_MAX: usize = 65_536;

/// Most keys in one question to the tables.
const BATCH_MAX: usize = 512;

/// Longest user, and longest name of a certificate with its kind, that tables have.
const USER_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 1024;

/// Bounds of the time that everybody is given who could be told from others by a look-up.
const PACE_MIN: Duration = Duration::from_millis(5);
const PACE_STEPS: u32 = 5;

/// What is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The id of an opaque token.
    Token(String),
    /// A tenant's id, in small or capital letters.
    Tenant(String),
    /// A name in a certificate, as the tables have it: `san:NAME`, `cn:NAME`.
    Certificate(String),
    /// A user with a password, of a client that names no tenant.
    User(String),
}

impl Key {
    /// The key of a name in a certificate.
    pub fn of_certificate(name: &CertificateName) -> Self {
        Self::Certificate(match name {
            CertificateName::San(san) => format!("san:{san}"),
            CertificateName::Cn(cn) => format!("cn:{cn}"),
        })
    }

    /// Whether the tables can have it: what is too long there, or has a zero in it, is nobody's.
    fn can_be(&self) -> bool {
        let fits = |text: &str, most| text.len() <= most && !text.contains('\0');
        match self {
            Self::Tenant(id) => TenantId::new(id).is_some(),
            Self::Token(text) | Self::User(text) => fits(text, USER_BYTES_MAX),
            Self::Certificate(name) => fits(name, NAME_BYTES_MAX),
        }
    }
}

/// Who has a key in the tables: a user's password, or an id in other letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    #[default]
    Nobody,
    One(String),
    Several,
}

/// It cannot be told now whether there is such a tenant: the tables are away, or answer too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the catalog's tables cannot be asked")]
pub struct CannotTell;

/// The tables' front: who asks, what they said, who is in use.
pub struct Lookups {
    live: Arc<Live<Catalog>>,
    state: Mutex<State>,
    told: Notify,
    /// Most tenants that are kept.
    known_max: usize,
    /// The last question had no answer.
    away: AtomicBool,
    /// What stands in memory is what the tables say.
    settled: AtomicBool,
    /// The slowest answer of late, in microseconds.
    slowest: AtomicU64,
}

/// What whoever asks waits for.
type Told = Option<Result<(), CannotTell>>;

/// What the tables said of keys.
pub(super) struct Said<'said> {
    /// Who has the passwords of users.
    pub whose: &'said HashMap<String, Whose>,
    /// Tenants there are, by their ids in small letters.
    pub ids: HashMap<String, &'said str>,
}

#[derive(Default)]
struct State {
    answers: HashMap<Key, Answer>,
    /// Since when somebody asks; who asks the same waits for the same answer.
    asked: HashMap<Key, (Instant, watch::Sender<Told>)>,
    queue: VecDeque<Key>,
    idle: Idle,
}

struct Answer {
    until: Instant,
    whose: Whose,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Lookups")
    }
}

/// Keeps a tenant known for as long as somebody has it.
#[derive(Debug)]
pub struct Pin {
    lookups: Arc<Lookups>,
    id: String,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.lookups.state.lock().idle.unpin(&self.id);
    }
}

impl Lookups {
    /// For a catalog that others read through `live`, of which so many tenants are kept.
    pub fn new(live: Arc<Live<Catalog>>, known_max: usize) -> Self {
        Self {
            live,
            state: Mutex::default(),
            told: Notify::new(),
            known_max,
            away: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            slowest: AtomicU64::new(0),
        }
    }

    pub(super) fn known_max(&self) -> usize {
        self.known_max
    }

    /// Whether it can be told at all now who is a tenant and who is not. Where it cannot, everybody
    /// who is refused hears so, whatever the reason.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire) || !self.settled.load(Ordering::Acquire)
    }

    /// The tables answer, or do not.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Release);
    }

    /// Whether what stands in memory is what the tables say.
    pub fn settle(&self, settled: bool) {
        self.settled.store(settled, Ordering::Release);
    }

    /// How long everybody waits who is told something that depends on whether a tenant exists: the
    /// known ones, who need no look-up, as long as the others.
    pub fn pace(&self) -> Duration {
        let slowest = Duration::from_micros(self.slowest.load(Ordering::Relaxed));
        // In steps of twice as much, so that a look-up which is a little slower than those before
        // it takes no longer.
        let mut steps = (0..PACE_STEPS).map(|step| PACE_MIN * 2_u32.pow(step));
        let longest = PACE_MIN * 2_u32.pow(PACE_STEPS - 1);
        steps.find(|step| *step >= slowest).unwrap_or(longest)
    }

    fn note_time(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let fading = |known: u64| Some(took.max(known - known / 16));
        // The closure always gives a value.
        let _ = self.slowest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fading);
    }

    /// Has these looked up, unless the answer is known or somebody asks already.
    async fn ask(&self, keys: Vec<Key>) -> Result<(), CannotTell> {
        let began = Instant::now();
        let mut waits = Vec::new();
        {
            let mut state = self.state.lock();
            for key in keys {
                if let Some((_, asked)) = state.asked.get(&key) {
                    waits.push(asked.subscribe());
                    continue;
                }
                if state.asked.len() >= QUESTIONS_MAX {
                    return Err(CannotTell);
                }
                let (asked, answered) = watch::channel(None);
                state.asked.insert(key.clone(), (began, asked));
                state.queue.push_back(key);
                waits.push(answered);
            }
        }
        self.told.notify_one();
        let all = async {
            for mut wait in waits {
                let answer = wait.wait_for(Option::is_some).await;
                answer.ok().and_then(|answer| *answer).unwrap_or(Err(CannotTell))?;
            }
            Ok(())
        };
        // Who answers does so in time, or says that it cannot: workers have no timers.
        let answered = all.await;
        self.note_time(began.elapsed());
        answered
    }

    /// The next questions to the tables. They are the caller's to answer.
    pub async fn questions(&self) -> Vec<Key> {
        loop {
            let told = self.told.notified();
            {
                let mut state = self.state.lock();
                if !state.queue.is_empty() {
                    let count = state.queue.len().min(BATCH_MAX);
                    if state.queue.len() > count {
                        // For whoever else is there.
                        self.told.notify_one();
                    }
                    return state.queue.drain(..count).collect();
                }
            }
            told.await;
        }
    }

    /// Puts a catalog in force, and notes of these keys who is not in it. Whoever has the composer
    /// calls this before letting go of it, so that no change can come in between. In this order:
    /// whoever knows an answer must not find a catalog from before it.
    pub(super) fn learn(&self, catalog: &Arc<Catalog>, keys: &[Key], said: &Said<'_>) {
        self.live.share(catalog.clone());
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.answers.len() + keys.len() > ANSWERS_MAX {
            state.answers.retain(|_, answer| answer.until > now);
        }
        if state.answers.len() + keys.len() > ANSWERS_MAX {
            state.answers.clear();
        }
        for key in keys.iter().filter(|key| !catalog.has(key)) {
            let whose = match key {
                Key::User(user) => said.whose.get(user).cloned().unwrap_or_default(),
                Key::Tenant(id) => match said.ids.get(&id.to_ascii_lowercase()) {
                    Some(id) => Whose::One((*id).to_owned()),
                    None => Whose::Nobody,
                },
                _ => Whose::Nobody,
            };
            let whose = match whose {
                // Its row is at fault.
                Whose::One(id) if catalog.known(&id).is_none() => Whose::Nobody,
                whose => whose,
            };
            state.answers.insert(key.clone(), Answer { until: now + ANSWER_LIFE, whose });
        }
    }

    /// Notes keys that the tables can never have.
    pub fn never(&self, keys: &[Key]) {
        let mut state = self.state.lock();
        let until = Instant::now() + ANSWER_LIFE;
        if state.answers.len() + keys.len() <= ANSWERS_MAX {
            let nobody = || Answer { until, whose: Whose::Nobody };
            state.answers.extend(keys.iter().map(|key| (key.clone(), nobody())));
        }
    }

    /// Tells those who have waited longer than `LOOKUP_TIME` that it cannot be told.
    pub fn expire(&self) {
        let mut state = self.state.lock();
        let late = |asked: &Instant| asked.elapsed() > LOOKUP_TIME;
        let mut some = false;
        state.asked.retain(|_, (since, asked)| {
            if late(since) {
                some = true;
                asked.send_replace(Some(Err(CannotTell)));
            }
            !late(since)
        });
        if some {
            let State { queue, asked, .. } = &mut *state;
            queue.retain(|key| asked.contains_key(key));
            self.set_away(true);
        }
    }

    /// Tells all who asked that nobody answers them.
    pub fn fail_all(&self) {
        self.set_away(true);
        let mut state = self.state.lock();
        state.queue.clear();
        for (_, (_, asked)) in state.asked.drain() {
            asked.send_replace(Some(Err(CannotTell)));
        }
    }

    /// Tells those who asked.
    pub fn answer(&self, keys: &[Key], answer: Result<(), CannotTell>) {
        self.set_away(answer.is_err());
        let mut state = self.state.lock();
        for (_, asked) in keys.iter().filter_map(|key| state.asked.remove(key)) {
            asked.send_replace(Some(answer));
        }
    }

    /// As if all that was said were said long ago.
    #[cfg(test)]
    pub(super) fn age(&self) {
        let now = Instant::now();
        self.state.lock().answers.values_mut().for_each(|answer| answer.until = now);
    }

    /// These are others now: what was said of them counts no more.
    pub(super) fn forget<'keys>(&self, keys: impl Iterator<Item = &'keys Key>) {
        let mut state = self.state.lock();
        for key in keys {
            state.answers.remove(key);
        }
    }

    /// The same of all.
    pub(super) fn forget_all(&self) {
        self.state.lock().answers.clear();
    }

    /// A tenant has come, and may go when nobody needs it.
    pub(super) fn came(&self, id: &str) {
        self.state.lock().idle.came(id);
    }

    /// Somebody asked for a tenant.
    pub(super) fn touch(&self, id: &str) {
        let mut state = self.state.lock();
        if state.idle.pin(id) {
            state.idle.unpin(id);
        }
    }

    /// A tenant is no more.
    pub(super) fn gone(&self, id: &str) {
        self.state.lock().idle.gone(id);
    }

    /// Whether somebody has it.
    pub(super) fn is_pinned(&self, id: &str) -> bool {
        self.state.lock().idle.is_pinned(id)
    }

    /// The tenant that nobody has and whose last use is longest ago. From then on it
    /// can be had by nobody, until it comes again.
    pub(super) fn oldest(&self, may_go: impl Fn(&str) -> bool) -> Option<String> {
        self.state.lock().idle.oldest(may_go)
    }

    fn pin(self: &Arc<Self>, id: &str) -> Option<Pin> {
        let pinned = self.state.lock().idle.pin(id);
        pinned.then(|| Pin { lookups: self.clone(), id: id.to_owned() })
    }

    /// What was said of these, where that still counts. While the tables are away it counts on, as
    /// what is known does: changes have ended it before.
    fn said_of(&self, keys: &[Key]) -> Vec<Option<Whose>> {
        let (now, is_away) = (Instant::now(), self.is_away());
        let state = self.state.lock();
        let said = |key: &Key| {
            let answer = state.answers.get(key).filter(|it| is_away || it.until > now);
            answer.map(|answer| answer.whose.clone())
        };
        keys.iter().map(said).collect()
    }

    fn whose(&self, user: &str) -> Whose {
        let key = Key::User(user.to_owned());
        if !key.can_be() {
            return Whose::Nobody;
        }
        let state = self.state.lock();
        // Gone meanwhile: nobody is let in by what may have changed.
        state.answers.get(&key).map_or(Whose::Several, |answer| answer.whose.clone())
    }
}

impl Catalog {
    /// The same catalog with those in it who have these keys, if the tables have them. None: this
    /// one is whole.
    ///
    /// # Errors
    ///
    /// The tables had to be asked, and could not.
    pub async fn with(&self, keys: &[Key]) -> Result<Option<Arc<Self>>, CannotTell> {
        let Some(lookups) = self.lookups.as_ref().filter(|_| self.is_partial) else {
            return Ok(None);
        };
        let keys: Vec<Key> = keys.iter().filter(|key| key.can_be()).cloned().collect();
        // Whoever was found may have left again, when very many come at once.
        for _ in 0..4 {
            // First what was said: a catalog that is older than an answer does not have whoever
            // was found.
            let said = lookups.said_of(&keys);
            let fresh = lookups.live.load();
            let lacks = |(key, said): (&Key, Option<Whose>)| match said {
                Some(Whose::One(id)) => fresh.known(&id).is_none().then(|| key.clone()),
                Some(_) => None,
                None => (!fresh.has(key)).then(|| key.clone()),
            };
            let asked: Vec<Key> = keys.iter().zip(said).filter_map(lacks).collect();
            if asked.is_empty() {
                return Ok(Some(fresh));
            }
            lookups.ask(asked).await?;
        }
        Err(CannotTell)
    }

    /// The tenant of this id, looked up if it is not known, and kept for as long as the pin is.
    ///
    /// # Errors
    ///
    /// The tables had to be asked, and could not.
    pub async fn seek(&self, id: &str) -> Result<Option<(Arc<Tenant>, Option<Pin>)>, CannotTell> {
        let Some(lookups) = &self.lookups else {
            return Ok(self.known(id).map(|known| (known.clone(), None)));
        };
        // It may leave between the answer and the pin, when very many come at once.
        for _ in 0..4 {
            let fresh = self.with(&[Key::Tenant(id.to_owned())]).await?;
            if fresh.as_deref().unwrap_or(self).known(id).is_none() {
                return Ok(None);
            }
            let pin = lookups.pin(id);
            // With the pin it stays: this is how it is now.
            let now = lookups.live.load();
            if let Some(known) = now.known(id)
                && (pin.is_some() || now.is_of_the_file(id))
            {
                return Ok(Some((known.clone(), pin)));
            }
            if !now.is_partial {
                return Ok(None);
            }
            lookups.ask(vec![Key::Tenant(id.to_owned())]).await?;
        }
        Err(CannotTell)
    }

    /// Keeps a tenant known for somebody who had it as one of the file's. None if it may have left,
    /// or changed unnoticed. With a pin, it is what a catalog has that is loaded from then on.
    pub fn keep(&self, id: &str) -> Option<Option<Pin>> {
        match &self.lookups {
            Some(lookups) if !self.is_of_the_file(id) => lookups.pin(id).map(Some),
            _ => Some(None),
        }
    }

    /// Whether tenants are looked up.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Whether tenants are looked up, and that cannot be done now.
    pub fn cannot_tell(&self) -> bool {
        self.is_partial && self.lookups.as_ref().is_some_and(|lookups| lookups.is_away())
    }

    /// How long whoever is refused, or told something of a user, waits at least: nothing where
    /// nobody is looked up.
    pub fn pace(&self) -> Duration {
        let lookups = self.lookups.as_ref().filter(|_| self.is_partial);
        lookups.map_or(Duration::ZERO, |lookups| lookups.pace())
    }

    /// Whether a user of this tenant is the only one of that name. Asked for after the user's key
    /// was looked up.
    pub fn is_alone(&self, user: &str, tenant: &str) -> bool {
        let Some(lookups) = self.lookups.as_ref().filter(|_| self.is_partial) else { return true };
        match lookups.whose(user) {
            Whose::Nobody => self.is_of_the_file(tenant),
            Whose::One(id) => id == tenant,
            Whose::Several => false,
        }
    }

    /// Whether it needs no look-up for this.
    fn has(&self, key: &Key) -> bool {
        match key {
            Key::Token(id) => self.tokens.contains_key(id),
            Key::Tenant(id) => self.tenants.contains_key(id.as_str()),
            Key::Certificate(name) => {
                let name = match name.split_once(':') {
                    Some(("san", san)) => CertificateName::San(san.to_owned()),
                    _ => CertificateName::Cn(name.get(3..).unwrap_or_default().to_owned()),
                };
                self.credentials.has_name(&name)
            }
            Key::User(_) => false,
        }
    }

    fn is_of_the_file(&self, id: &str) -> bool {
        self.of_file.contains(id)
    }
}
