//! Statements that stand in for unnamed ones: a text that comes again and again without a name is
//! prepared once, under a name nobody else knows, and used in its place. They live and die with the
//! other statements of the server connection, so no other tenant ever meets one.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use foldhash::fast::RandomState;

use crate::server::{Settings, Statement, Statements};

/// Most of them on one server connection; the one that was not used for longest makes room.
const STAND_INS_MAX: usize = 100;

/// Most texts whose number of times is remembered.
const SEEN_MAX: usize = 1000;

/// After so many uses a stand-in is prepared anew. For an unnamed statement PostgreSQL makes a plan
/// at each Bind, with the values it is given; for one with a name it does so five times and may go
/// over to a plan for all values then (`choose_custom_plan` in plancache.c).
const USES_MAX: u32 = 5;

/// And after this time: what PostgreSQL looks at when it parses, and not again for what is parsed
/// already (casts, operators, who is a member of which role), counts no later than that.
const AGE_MAX: Duration = Duration::from_secs(1);

/// How many times more a text must come when its stand-in has failed.
const FAILED_TIMES: i64 = 100;

/// What is prepared under the name of a stand-in.
#[derive(Debug)]
struct Entry {
    name: Rc<[u8]>,
    statement: Rc<Statement>,
    /// The session's settings it was prepared under.
    settings: Rc<Settings>,
    uses: u32,
    /// When it was prepared.
    since: Instant,
    /// When it was used last, in uses of any.
    last: u64,
}

/// The stand-ins of a server connection, and what may become one.
#[derive(Debug, Default)]
pub struct StandIns {
    hasher: RandomState,
    entries: HashMap<u64, Entry, RandomState>,
    seen: HashMap<u64, i64, RandomState>,
    uses: u64,
}

/// A stand-in that is to be used.
#[derive(Debug)]
pub struct StandIn {
    pub name: Rc<[u8]>,
    /// The server does not have it, or had enough of it: what it has of this name is to be closed,
    /// and the statement prepared.
    pub anew: bool,
}

impl Statements {
    /// The stand-in for an unnamed statement, if there is one, or shall be because its text was
    /// seen so many times. `lasts` is asked when it would be the first time.
    pub fn stand_in(
        &mut self,
        statement: &Rc<Statement>,
        settings: &Rc<Settings>,
        threshold: u32,
        lasts: impl FnOnce() -> bool,
    ) -> Option<StandIn> {
        let mut stand_ins = self.stand_ins.take().unwrap_or_default();
        let found = stand_ins.find(statement, settings, self).or_else(|| {
            if !stand_ins.is_wanted(statement, threshold) {
                return None;
            }
            if !lasts() {
                stand_ins.never(statement);
                return None;
            }
            stand_ins.make(statement, settings)
        });
        self.stand_ins = Some(stand_ins);
        found
    }

    /// What stood in for this one has failed.
    pub fn stand_in_failed(&mut self, statement: &Rc<Statement>) {
        if let Some(stand_ins) = &mut self.stand_ins {
            let digest = stand_ins.digest(statement);
            stand_ins.entries.remove(&digest);
            stand_ins.seen.insert(digest, -FAILED_TIMES);
        }
    }
}

impl StandIns {
    fn digest(&self, statement: &Statement) -> u64 {
        self.hasher.hash_one((&statement.text, &statement.types))
    }

    fn find(
        &mut self,
        statement: &Rc<Statement>,
        settings: &Rc<Settings>,
        held: &Statements,
    ) -> Option<StandIn> {
        let digest = self.digest(statement);
        let entry = self.entries.get_mut(&digest)?;
        let same = Rc::ptr_eq(&entry.statement, statement) || entry.statement == *statement;
        let same_settings = Rc::ptr_eq(&entry.settings, settings) || entry.settings == *settings;
        if !same || !same_settings {
            return None;
        }
        self.uses += 1;
        entry.last = self.uses;
        let now = Instant::now();
        let old = entry.uses >= USES_MAX || now.duration_since(entry.since) >= AGE_MAX;
        let anew = old || !held.is(&entry.name, &entry.statement);
        if anew {
            (entry.uses, entry.since) = (0, now);
            entry.statement = statement.clone();
        }
        entry.uses += 1;
        Some(StandIn { name: entry.name.clone(), anew })
    }

    /// Notes that a text came once more.
    fn is_wanted(&mut self, statement: &Statement, threshold: u32) -> bool {
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        let seen = self.seen.entry(self.digest(statement)).or_default();
        *seen += 1;
        *seen >= i64::from(threshold)
    }

    /// A text for which nothing may stand in, however often it comes.
    fn never(&mut self, statement: &Statement) {
        let digest = self.digest(statement);
        self.seen.insert(digest, i64::MIN);
    }

    /// A new one, in the place of another if there are too many. `None` if the system has no random
    /// numbers.
    fn make(&mut self, statement: &Rc<Statement>, settings: &Rc<Settings>) -> Option<StandIn> {
        let digest = self.digest(statement);
        let old = match self.entries.len() >= STAND_INS_MAX {
            true => self.entries.iter().min_by_key(|(_, entry)| entry.last).map(|(key, _)| *key),
            false => None,
        };
        let old = self.entries.remove(&digest).or_else(|| self.entries.remove(&old?));
        let name = old.map_or_else(new_name, |old| Some(old.name))?;
        self.uses += 1;
        let entry = Entry {
            name: name.clone(),
            statement: statement.clone(),
            settings: settings.clone(),
            uses: 1,
            since: Instant::now(),
            last: self.uses,
        };
        self.entries.insert(digest, entry);
        Some(StandIn { name, anew: true })
    }
}

/// 128 random bits: no client of the tenant hits it by chance.
fn new_name() -> Option<Rc<[u8]>> {
    let mut random = [0_u8; 16];
    rand::fill(&mut random).ok()?;
    Some(format!("tenantgate_{:032x}", u128::from_be_bytes(random)).into_bytes().into())
}
