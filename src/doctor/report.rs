//! [`Report`]: what was found, and what could not be looked at.

use std::collections::BTreeSet;

use crate::doctor::check::{Check, Severity};
use crate::doctor::target::Target;

/// Questions about what all databases of a cluster share: one answer is enough.
const SHARED: [&str; 7] = ["TG301", "TG302", "TG305", "TG306", "TG915", "TG952", "TG953"];

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    /// The worst first, then by cluster, database and code.
    pub findings: Vec<Finding>,
    /// What was not looked at, and why. Not a finding, and not a clean bill either.
    pub unseen: Vec<Unseen>,
    /// Cluster and database of each place that was visited.
    pub visited: Vec<(String, String)>,
    /// The same of each that there was no way to.
    pub unreached: Vec<(String, String)>,
}

/// Something that would leak, or could.
#[derive(Debug)]
pub struct Finding {
    pub check: &'static Check,
    pub cluster: String,
    pub database: String,
    /// What it is about: its kind and its qualified name.
    pub object: String,
    pub detail: Option<String>,
    /// SQL that a superuser repairs it with; `None` if a person must.
    pub repair: Option<String>,
}

/// Something that was not looked at.
#[derive(Debug)]
pub struct Unseen {
    pub cluster: String,
    pub database: String,
    /// The question, or in words what else.
    pub what: String,
    pub reason: String,
    /// It should have worked: no wish of the caller's, and no missing right, explains it.
    pub failed: bool,
}

/// Where findings about one database go.
pub(super) struct Room<'report> {
    report: &'report mut Report,
    tell: &'report dyn Fn(&str),
    cluster: String,
    database: String,
}

impl Report {
    pub(super) fn room<'report>(
        &'report mut self,
        target: &Target,
        tell: &'report dyn Fn(&str),
    ) -> Room<'report> {
        let (cluster, database) = (target.cluster.name.clone(), target.dbname.clone());
        Room { report: self, tell, cluster, database }
    }

    /// Drops what is said twice and brings the rest in order.
    pub(super) fn settle(&mut self) {
        let mut said = BTreeSet::new();
        self.findings.retain(|found| {
            let shared = SHARED.contains(&found.check.code);
            let database = if shared { String::new() } else { found.database.clone() };
            let (object, detail) = (found.object.clone(), found.detail.clone());
            said.insert((found.cluster.clone(), database, found.check.code, object, detail))
        });
        self.findings.sort_by(|one, other| one.order().cmp(&other.order()));
    }

    /// How many findings are this bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|found| found.check.severity == severity).count()
    }

    /// Whether anything should have worked and did not.
    pub fn failed(&self) -> bool {
        self.unseen.iter().any(|unseen| unseen.failed)
    }
}

impl Finding {
    fn order(&self) -> (Severity, &str, &str, &str, &str) {
        (self.check.severity, &self.cluster, &self.database, self.check.code, &self.object)
    }
}

impl Room<'_> {
    /// Notes whether anybody could go in.
    pub(super) fn note_visit(&mut self, was_reached: bool) {
        let place = (self.cluster.clone(), self.database.clone());
        let Report { visited, unreached, .. } = &mut *self.report;
        if was_reached { visited.push(place) } else { unreached.push(place) }
    }

    /// Says what is done next.
    pub(super) fn tell(&self, step: &str) {
        (self.tell)(step);
    }

    pub(super) fn found(
        &mut self,
        check: &'static Check,
        object: impl Into<String>,
        detail: Option<String>,
        repair: Option<String>,
    ) {
        let (cluster, database) = (self.cluster.clone(), self.database.clone());
        let object = object.into();
        self.report.findings.push(Finding { check, cluster, database, object, detail, repair });
    }

    /// Something that a right is missing for, or that there is nothing to look at for.
    pub(super) fn unseen(&mut self, what: impl Into<String>, reason: impl Into<String>) {
        self.put_unseen(what.into(), reason.into(), false);
    }

    /// Something that should have worked.
    pub(super) fn failed(&mut self, what: impl Into<String>, reason: impl Into<String>) {
        self.put_unseen(what.into(), reason.into(), true);
    }

    fn put_unseen(&mut self, what: String, reason: String, failed: bool) {
        let (cluster, database) = (self.cluster.clone(), self.database.clone());
        self.report.unseen.push(Unseen { cluster, database, what, reason, failed });
    }
}
