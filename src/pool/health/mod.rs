//! [`Health`]: which hosts of a cluster answer, and which logins are let in, for the whole process.
//! Who is about to connect asks here first: at a host that is down one probe knocks now and then
//! (`probe.rs`), and everybody else is told at once. Its lock is held for a few look-ups; where all
//! hosts are well it is taken only when a connection was made.

mod record;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::{FixedState, RandomState};
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use record::Standing;
pub(super) use record::{FORGOTTEN, Record};

use crate::pool::arbiter::Post;
use crate::pool::health::record::{half, rest};
use crate::pool::logins::Logins;
use crate::pool::probe::Probe;
use crate::pool::trial::Trial;
use crate::server::{Blame, ConnectError, ConnectPlan, Conninfo, Host, Sign};

/// After so many failures in a row, each of them quick, clients wait for the next try: it is near.
const PATIENT: u32 = 3;

/// Most hosts of one cluster that are remembered; beyond, those that are well are forgotten.
const HOSTS_MAX: usize = 10_000;

/// What stands against a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Every host of the route is down.
    Down,
    /// No host that answers is what `target_session_attrs` asks for.
    Role,
    /// The server turned the gate's login away.
    Login,
    /// The login is not fit for its tenants.
    Unfit,
}

/// Why there will be no connection now, and when the next try is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    pub why: Why,
    pub next: Instant,
}

/// What one who would connect hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// So many may try.
    Room(usize),
    /// Others are trying, or a try is near: it will be told. `wake`: when to ask again by itself.
    Wait {
        wake: Option<Instant>,
    },
    Refused(Outage),
}

/// What came of an attempt's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    Counted,
    /// As many are trying as may.
    Busy,
    /// It is down, or not known.
    Down,
}

/// A host as the console shows it.
#[derive(Clone, Debug)]
pub struct HostFacts {
    pub host: Host,
    pub standing: Standing,
    pub since: Instant,
    /// Failures in a row.
    pub failures: u32,
    pub last_error: Option<String>,
    /// When it is down.
    pub next: Option<Instant>,
    /// Attempts under way.
    pub attempts: u32,
}

/// One cluster's hosts, as far as anybody asked for them.
#[derive(Debug)]
pub struct Health {
    pub(super) cluster: Arc<str>,
    mail: Arc<[mpsc::UnboundedSender<Post>]>,
    pub(super) book: Mutex<Book>,
    /// The fingerprint of the one host there is, if it is up and no login was turned away: whoever
    /// wants just that one has nothing to ask for. Else 0.
    calm: AtomicU64,
    /// The longest rest between two tries, in milliseconds.
    rest_max: AtomicU64,
    down: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    /// More than one record where routes reach a host in different ways.
    hosts: HashMap<Host, Vec<Record>, RandomState>,
    count: usize,
    /// How many hosts are down.
    down: Arc<AtomicUsize>,
    logins: Logins,
    /// Workers on which somebody waits for news.
    watching: Vec<bool>,
}

impl Health {
    pub fn new(cluster: Arc<str>, mail: Arc<[mpsc::UnboundedSender<Post>]>) -> Self {
        let down = Arc::<AtomicUsize>::default();
        let watching = vec![false; mail.len()];
        let book = Book { watching, down: down.clone(), ..Book::default() };
        Self {
            cluster,
            mail,
            book: Mutex::new(book),
            calm: AtomicU64::new(0),
            rest_max: AtomicU64::new(15_000),
            down,
        }
    }

    /// Sets the longest rest between two tries.
    pub fn set_rest_max(&self, rest: Duration) {
        let millis = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
        self.rest_max.store(millis, Ordering::Relaxed);
    }

    /// Whether one of this worker could connect, in a cluster of so many places; if not, the worker
    /// will be told of what happens. With the probes that are to be started.
    pub fn consult(
        self: &Arc<Self>,
        plan: &ConnectPlan,
        worker: usize,
        places: usize,
    ) -> (Outlook, Vec<Probe>) {
        if self.is_calm(plan) {
            return (Outlook::Room(usize::MAX), Vec::new());
        }
        let mut book = self.book.lock();
        if book.logins.purge(Instant::now()) {
            self.settle(&book);
        }
        let outlook = book.outlook(plan, places).0;
        if !matches!(outlook, Outlook::Room(_)) {
            book.watch(worker);
        }
        (outlook, self.start_probes(&mut book, plan))
    }

    /// The right to try, if there is room.
    pub fn admit(self: &Arc<Self>, plan: &Arc<ConnectPlan>, places: usize) -> Option<Trial> {
        let trial = Trial::new(self, plan, places);
        if self.is_calm(plan) {
            return Some(trial);
        }
        let mut book = self.book.lock();
        match book.outlook(plan, places) {
            (Outlook::Room(_), first) => {
                book.reserve(plan, first);
                Some(trial.reserved(first, book.is_trying(plan)))
            }
            (Outlook::Wait { .. } | Outlook::Refused(_), _) => None,
        }
    }

    /// What one would hear who asked now.
    pub fn outlook(&self, plan: &ConnectPlan, places: usize) -> Outlook {
        match self.is_calm(plan) {
            true => Outlook::Room(usize::MAX),
            false => self.book.lock().outlook(plan, places).0,
        }
    }

    /// Has a worker told of what happens from now on.
    pub fn watch(&self, worker: usize) {
        self.book.lock().watch(worker);
    }

    /// A connection to this host ended in use: until somebody is answered there again, one at a
    /// time tries.
    pub fn doubt(&self, conninfo: &Arc<Conninfo>, at: usize) {
        let mut book = self.book.lock();
        if let Some(record) = book.record(conninfo, at)
            && record.standing == Standing::Up
        {
            record.stand(Standing::Unsure);
        }
        self.settle(&book);
    }

    /// Every host that somebody asked for, in order of name.
    pub fn hosts(&self) -> Vec<HostFacts> {
        let book = self.book.lock();
        let facts = |(host, record): (&Host, &Record)| HostFacts {
            host: host.clone(),
            standing: record.standing,
            since: record.since,
            failures: record.failures,
            last_error: record.last_error.clone(),
            next: (record.standing == Standing::Down).then_some(record.next),
            attempts: record.attempts,
        };
        let each = book.hosts.iter().flat_map(|(host, all)| all.iter().map(move |it| (host, it)));
        let mut hosts: Vec<HostFacts> = each.map(facts).collect();
        hosts.sort_by_cached_key(|facts| format!("{:?}", facts.host));
        hosts
    }

    /// How many of them are down.
    pub fn down(&self) -> usize {
        self.down.load(Ordering::Relaxed)
    }

    /// Counts an attempt at a host, if one more may be made now.
    pub(super) fn begin(&self, plan: &ConnectPlan, at: usize, places: usize) -> Begun {
        let mut book = self.book.lock();
        book.record_or_new(&plan.conninfo, at);
        let several = book.hosts.len() > 1;
        let begun = match book.record(&plan.conninfo, at) {
            None | Some(Record { standing: Standing::Down, .. }) => Begun::Down,
            Some(record) if record.room(several, places) == 0 => Begun::Busy,
            Some(record) => {
                record.count();
                Begun::Counted
            }
        };
        self.settle(&book);
        begun
    }

    /// What an attempt that was counted has heard; the first time it is not unanswered any more.
    pub(super) fn answered(&self, plan: &ConnectPlan, at: usize, sign: Sign, first: bool) {
        let mut book = self.book.lock();
        let Some(record) = book.record(&plan.conninfo, at) else { return };
        record.unanswered = record.unanswered.saturating_sub(u32::from(first));
        let unsure = record.standing == Standing::Unsure;
        // One that is down its probe will find to be back.
        if sign == Sign::Spoke && record.standing != Standing::Down {
            record.recover(&self.cluster);
        }
        self.settle(&book);
        if unsure {
            self.tell(&mut book, false);
        }
    }

    /// The end of an attempt that was counted.
    pub(super) fn finish(&self, plan: &ConnectPlan, at: usize, answered: bool) {
        let mut book = self.book.lock();
        if let Some(record) = book.record(&plan.conninfo, at) {
            record.attempts = record.attempts.saturating_sub(1);
            record.unanswered = record.unanswered.saturating_sub(u32::from(!answered));
        }
        self.tell(&mut book, false);
    }

    /// What became of an attempt at a host. With the probes that are to be started.
    pub(super) fn heard(
        self: &Arc<Self>,
        plan: &Arc<ConnectPlan>,
        at: usize,
        result: Result<(), &ConnectError>,
    ) -> Vec<Probe> {
        let mut book = self.book.lock();
        let cluster = self.cluster.clone();
        let Some(record) = book.record(&plan.conninfo, at) else { return Vec::new() };
        match result {
            Err(error) if error.blame() == Blame::Host => {
                record.fail(&cluster, error, self.rest_max());
                let probes = self.start_probes(&mut book, plan);
                self.settle(&book);
                self.tell(&mut book, true);
                probes
            }
            // Nobody knows whose fault it is.
            Err(error) if error.blame() == Blame::Unknown => Vec::new(),
            // It answered, whatever it said.
            _ => {
                record.recover(&cluster);
                self.settle(&book);
                self.tell(&mut book, false);
                Vec::new()
            }
        }
    }

    /// What became of a login, at whichever host. True if it is news.
    pub(super) fn login_ended(&self, plan: &Arc<ConnectPlan>, trouble: Option<Why>) -> bool {
        let mut book = self.book.lock();
        let Some(why) = trouble else {
            let known = book.logins.remove(plan);
            self.settle(&book);
            self.tell(&mut book, false);
            return known;
        };
        let (now, rest_max) = (Instant::now(), self.rest_max());
        let mut news = false;
        book.logins.purge(now);
        if let Some(login) = book.logins.get_or_new(plan, why) {
            news = login.failures == 0 || login.why != why;
            (login.why, login.trying) = (why, false);
            login.failures = login.failures.saturating_add(1);
            login.next = now + rest(login.failures, rest_max);
        }
        self.settle(&book);
        self.tell(&mut book, true);
        news
    }

    /// No host that answers would do, and at another one others are trying: it is no failure, and
    /// one of this login at a time tries again soon.
    pub(super) fn login_waits(&self, plan: &Arc<ConnectPlan>) {
        let mut book = self.book.lock();
        let (now, rest_max) = (Instant::now(), self.rest_max());
        if let Some(login) = book.logins.get_or_new(plan, Why::Down) {
            login.trying = false;
            login.failures = (login.failures + 1).min(PATIENT);
            login.next = now + rest(login.failures, rest_max);
        }
        self.settle(&book);
        self.tell(&mut book, false);
    }

    /// A route is no one's any more: what is known of its login is of no use.
    pub fn forget(&self, plan: &ConnectPlan) {
        let mut book = self.book.lock();
        if book.logins.get(plan).is_some_and(|login| !login.trying) {
            book.logins.remove(plan);
            self.settle(&book);
        }
    }

    /// Who was to try a login has not.
    pub(super) fn login_left(&self, plan: &ConnectPlan) {
        let mut book = self.book.lock();
        if let Some(login) = book.logins.get(plan) {
            login.trying = false;
        }
        self.tell(&mut book, false);
    }

    pub(super) fn rest_max(&self) -> Duration {
        Duration::from_millis(self.rest_max.load(Ordering::Relaxed))
    }

    /// Notes whether there is anything to ask for.
    pub(super) fn settle(&self, book: &Book) {
        let mut hosts = book.hosts.iter();
        let only = hosts.next().filter(|_| hosts.next().is_none() && book.logins.is_empty());
        let well = |it: &Record| it.standing == Standing::Up && it.proven;
        let calm = only.filter(|(_, records)| records.len() == 1 && records.iter().all(well));
        self.calm.store(calm.map_or(0, |(host, _)| fingerprint(host)), Ordering::Relaxed);
    }

    fn is_calm(&self, plan: &ConnectPlan) -> bool {
        match plan.conninfo.hosts.as_slice() {
            [host] => self.calm.load(Ordering::Relaxed) == fingerprint(host),
            _ => false,
        }
    }

    /// Tells the workers that wait for news, or all of them.
    pub(super) fn tell(&self, book: &mut Book, all: bool) {
        for (mail, watching) in self.mail.iter().zip(&mut book.watching) {
            if std::mem::take(watching) || all {
                // A worker that is gone has nobody who waits.
                let _ = mail.send(Post::Hosts(self.cluster.clone()));
            }
        }
    }

    /// Probes for the hosts of a route that are down and have none.
    fn start_probes(self: &Arc<Self>, book: &mut Book, plan: &ConnectPlan) -> Vec<Probe> {
        let mut probes = Vec::new();
        for at in 0..plan.conninfo.hosts.len() {
            let Some(record) = book.record(&plan.conninfo, at) else { continue };
            if record.standing == Standing::Down {
                (record.asked, record.at) = (Instant::now(), at);
                record.conninfo = plan.conninfo.clone();
                if !std::mem::replace(&mut record.probed, true) {
                    probes.push(Probe::new(self, &plan.conninfo, at));
                }
            }
        }
        probes
    }
}

impl Book {
    /// How it stands with a route, and the first host that may be tried.
    fn outlook(&mut self, plan: &ConnectPlan, places: usize) -> (Outlook, Option<usize>) {
        let now = Instant::now();
        if let Some(login) = self.logins.get(plan)
            && (login.trying || now < login.next)
        {
            let (near, next) = (login.failures <= PATIENT, login.next);
            let wake = (!login.trying).then_some(next);
            let outlook = match near {
                true => Outlook::Wait { wake },
                false => Outlook::Refused(Outage { why: login.why, next: next.max(now) }),
            };
            return (outlook, None);
        }
        // Where a cluster has hosts of several tenants, none may take all places with attempts.
        let several = self.hosts.len() > 1;
        let (mut busy, mut near, mut next) = (false, false, None::<Instant>);
        for at in 0..plan.conninfo.hosts.len() {
            let Some(record) = self.record(&plan.conninfo, at) else {
                return (Outlook::Room(half(places)), Some(at));
            };
            let room = record.room(several, places);
            match record.standing {
                Standing::Down => {
                    near |= record.failures <= PATIENT && !record.slow;
                    next = Some(next.map_or(record.next, |next| next.min(record.next)));
                }
                _ if room > 0 => return (Outlook::Room(room), Some(at)),
                _ => busy = true,
            }
        }
        if busy || near {
            return (Outlook::Wait { wake: None }, None);
        }
        let next = next.unwrap_or(now).max(now);
        (Outlook::Refused(Outage { why: Why::Down, next }), None)
    }

    /// Counts a trial, so that the next one who asks knows of it.
    fn reserve(&mut self, plan: &ConnectPlan, first: Option<usize>) {
        if let Some(login) = self.logins.get(plan) {
            login.trying = true;
        }
        if let Some(at) = first
            && let Some(record) = self.record_or_new(&plan.conninfo, at)
        {
            record.count();
        }
    }

    /// Whether a login that was turned away is being tried.
    fn is_trying(&mut self, plan: &ConnectPlan) -> bool {
        self.logins.get(plan).is_some_and(|login| login.trying)
    }

    fn watch(&mut self, worker: usize) {
        if let Some(watching) = self.watching.get_mut(worker) {
            *watching = true;
        }
    }

    pub(super) fn record(&mut self, conninfo: &Conninfo, at: usize) -> Option<&mut Record> {
        let records = self.hosts.get_mut(conninfo.hosts.get(at)?)?;
        records.iter_mut().find(|record| record.conninfo.reaches_as(conninfo))
    }

    fn record_or_new(&mut self, conninfo: &Arc<Conninfo>, at: usize) -> Option<&mut Record> {
        if self.record(conninfo, at).is_none() {
            if self.count >= HOSTS_MAX {
                let kept = |it: &Record| it.standing == Standing::Down || it.attempts > 0;
                self.hosts.retain(|_, records| {
                    records.retain(kept);
                    !records.is_empty()
                });
                self.count = self.hosts.values().map(Vec::len).sum();
            }
            let host = conninfo.hosts.get(at)?.clone();
            self.hosts.entry(host).or_default().push(Record::new(conninfo, at, &self.down));
            self.count += 1;
        }
        self.record(conninfo, at)
    }
}

fn fingerprint(host: &Host) -> u64 {
    FixedState::default().hash_one(host) | 1
}
