//! [`CopyOnDisk`]: when the copy of what is known is written, and what goes into it. Both reading
//! and writing are done beside the one who follows the tables.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_blocking};

use super::cache::{self, About};
use super::read::{Line, ReadError};
use super::records::TenantRecord;
use super::{Again, Books, Records, TableState};
use crate::catalog::{Catalog, TableSettings, Tenant};
use crate::server::Conninfo;

/// How often the copy on disk is written at most, since all of it is written each time: this long,
/// or this many times what it took.
const COPY_EVERY: Duration = Duration::from_secs(5);
const COPY_SHARE: u32 = 20;

/// The copy on disk: whether it is older than what is known, and how it is written.
pub(super) struct CopyOnDisk {
    file: Option<PathBuf>,
    conninfo: Arc<Conninfo>,
    again: Arc<Again>,
    /// Something changed that it does not have.
    pub stale: bool,
    /// Which tenants are known in it, where not all are.
    moves: u64,
    writing: Option<JoinHandle<Result<Written, ReadError>>>,
    /// When the last one of what is known then was begun, and how long that took.
    began: Option<Instant>,
    took: Duration,
    /// What is being written is what is known now.
    is_anew: bool,
}

/// What became of a copy.
pub(super) struct Written {
    /// Nobody was left out but those who are to be.
    is_whole: bool,
}

/// Who does not go into a copy.
struct But {
    withheld: BTreeSet<String>,
    catalog: Arc<Catalog>,
}

/// What goes into a copy where not all tenants are known: these, as they were in one state.
struct Part {
    conninfo: Arc<Conninfo>,
    about: About,
    lineage: Option<String>,
    /// Those who are known, and what they were found to be.
    known: Vec<String>,
}

impl CopyOnDisk {
    pub(super) fn new(settings: &TableSettings, again: Arc<Again>) -> Self {
        let (file, conninfo) = (settings.cache_file.clone(), settings.conninfo.clone());
        let (stale, moves, writing, began, took, is_anew) = Default::default();
        Self { file, conninfo, again, stale, moves, writing, began, took, is_anew }
    }

    /// Begins to write the copy, unless that was done just now.
    pub(super) fn keep(&mut self, books: &Books, about: &About, lineage: Option<&String>) {
        let Some(file) = self.file.clone() else {
            self.stale = false;
            return;
        };
        let composer = books.common.composer.lock();
        let (is_part, moves, position) =
            (composer.is_partial(), composer.moves(), composer.position());
        self.stale |= is_part && self.moves != moves;
        if self.writing.is_some() {
            return;
        }
        let at_once = self.again.copy.swap(false, Ordering::AcqRel);
        let but = But { withheld: self.again.withheld.lock().clone(), catalog: composer.catalog() };
        if at_once && is_part {
            self.begin_without(file, but);
            return;
        }
        let is_due = self.stale && self.pause().is_zero();
        if !(at_once || is_due) || (is_part && position != Some(about.version)) {
            return;
        }
        (self.began, self.is_anew) = (Some(Instant::now()), true);
        (self.stale, self.moves) = (false, moves);
        let about = About { is_part, ..about.clone() };
        self.writing = Some(match is_part {
            true => {
                let (conninfo, lineage) = (self.conninfo.clone(), lineage.cloned());
                let part = Part { conninfo, about, lineage, known: composer.known() };
                tokio::spawn(write_part(part, file, but))
            }
            false => {
                let records = books.records.clone();
                tokio::spawn(write(file, about, records, but, true))
            }
        });
    }

    /// Begins to write what is there anew without some, which needs no database. How long that
    /// takes says nothing of when what is known by now is to be written.
    fn begin_without(&mut self, file: PathBuf, but: But) {
        (self.stale, self.is_anew) = (true, false);
        self.writing = Some(tokio::spawn(leave_out(file, but)));
    }

    /// Waits until what is being written is.
    pub(super) async fn written(&mut self) -> Result<Written, ReadError> {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let written = writing.await;
        self.writing = None;
        written.unwrap_or_else(|error| Err(io::Error::from(error).into()))
    }

    /// Notes what became of it.
    pub(super) fn end(&mut self, written: Result<Written, ReadError>, state: &TableState) {
        if self.is_anew {
            self.took = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        }
        match written {
            Ok(Written { is_whole }) => {
                self.stale |= !is_whole;
                state.copied();
            }
            Err(error) => {
                self.stale = true;
                let file = self.file.as_ref().map(|file| file.display().to_string());
                tracing::error!(file, %error, "could not keep the copy of the catalog");
            }
        }
    }

    /// How long it is until it is to be written again, if it is.
    pub(super) fn due(&self) -> Option<Duration> {
        (self.stale && self.writing.is_none()).then(|| self.pause().max(Duration::from_millis(50)))
    }

    fn pause(&self) -> Duration {
        let every = COPY_EVERY.max(self.took * COPY_SHARE);
        self.began.map_or(Duration::ZERO, |began| every.saturating_sub(began.elapsed()))
    }
}

/// Reads those who are known, and writes them.
async fn write_part(part: Part, file: PathBuf, but: But) -> Result<Written, ReadError> {
    let Part { conninfo, about, lineage, known } = part;
    let line = Line::open(&conninfo, None).await?;
    if !line.is_of(lineage.as_ref()) {
        return Err(ReadError::Another);
    }
    let (changed, mut read) = line.as_of(&known, about.version).await?;
    // What changed since was not held against all others yet: the next copy has it.
    changed.iter().for_each(|id| drop(read.remove(id)));
    let records = read.into_iter().map(|(id, record)| (id, Arc::new(record))).collect();
    write(file, about, records, but, changed.is_empty()).await
}

async fn write(
    file: PathBuf,
    about: About,
    records: Records,
    but: But,
    is_whole: bool,
) -> Result<Written, ReadError> {
    let written = spawn_blocking(move || match about.is_part {
        true => {
            let seated = but.seated(records);
            cache::write(&file, about, &seated, &but.withheld)
        }
        false => cache::write(&file, about, &records, &but.of(&records)),
    });
    written.await.map_err(io::Error::from).flatten()?;
    Ok(Written { is_whole })
}

async fn leave_out(file: PathBuf, but: But) -> Result<Written, ReadError> {
    let written = spawn_blocking(move || match cache::read(&file)? {
        Some((about, records)) if about.is_part => {
            cache::write(&file, about, &records, &but.withheld)
        }
        // All were known when it was written.
        Some((about, records)) => {
            let about = About { is_part: true, ..about };
            cache::write(&file, about, &but.seated(records), &but.withheld)
        }
        None => Ok(()),
    });
    written.await.map_err(io::Error::from).flatten()?;
    Ok(Written { is_whole: true })
}

impl But {
    /// Of all rows. Those at fault may be so for a tenant that is withheld: without it they would
    /// be in force where it was.
    fn of(&self, records: &Records) -> BTreeSet<String> {
        let mut but = self.withheld.clone();
        if !but.is_empty() {
            let is_out = |id: &&String| self.catalog.known(id).is_none();
            but.extend(records.keys().filter(is_out).cloned());
        }
        but
    }

    /// The rows with the seats that their tenants have.
    fn seated(&self, records: Records) -> Records {
        let seated = |(id, record): (String, Arc<TenantRecord>)| {
            let seat = self.catalog.known(&id).map(Tenant::seat);
            (id, Arc::new(TenantRecord { seat, ..Arc::unwrap_or_clone(record) }))
        };
        records.into_iter().map(seated).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::{build, plan};
    use crate::catalog::{Change, Composer};
    use crate::gate::table::records::TenantColumns;

    fn silo(id: &str, placed: i64) -> (String, Arc<TenantRecord>) {
        let columns = TenantColumns {
            isolation: "silo".to_owned(),
            cluster: "main".to_owned(),
            connection_string: Some("host=127.0.0.1 user=one dbname=one".to_owned()),
            schema: None,
            role: None,
            tier: None,
            state: "active".to_owned(),
            overrides: "{}".to_owned(),
            placed,
        };
        let (id, tenant) = (id.to_owned(), Some(columns));
        (id.clone(), Arc::new(TenantRecord { id, tenant, ..TenantRecord::default() }))
    }

    fn composer(records: &Records) -> Composer {
        let mut composer = Composer::new(build(&plan([])));
        composer.apply(records.values().map(|record| Change::Put(record.row())).collect());
        composer
    }

    #[tokio::test]
    async fn who_is_at_fault_does_not_come_into_force_for_one_who_is_withheld() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("catalog.copy");
        let records: Records = [silo("first", 1), silo("second", 2)].into();
        let catalog = composer(&records).catalog();
        assert!(catalog.known("first").is_some() && catalog.known("second").is_none());
        let but = |withheld: &[&str]| But {
            withheld: withheld.iter().map(|id| (*id).to_owned()).collect(),
            catalog: catalog.clone(),
        };
        let begin = || {
            let (about, records) = cache::read(&file).unwrap().unwrap();
            match about.is_part {
                true => {
                    let mut composer = composer(&Records::new());
                    let seated = |it: &Arc<TenantRecord>| (it.row(), it.seat.clone());
                    composer.restore_part(records.values().map(seated).collect());
                    composer.known()
                }
                false => {
                    composer(&records).catalog().tenants().map(|it| it.id.to_string()).collect()
                }
            }
        };
        let whole = || write(file.clone(), About::default(), records.clone(), but(&[]), true);
        whole().await.unwrap();
        assert_eq!(begin(), ["first"]);
        let about = About::default();
        write(file.clone(), about, records.clone(), but(&["first"]), true).await.unwrap();
        assert!(begin().is_empty(), "the other would be on its data");
        // The same of a whole one that is there when not all are known any more.
        whole().await.unwrap();
        leave_out(file.clone(), but(&["first"])).await.unwrap();
        assert!(begin().is_empty(), "the other would be on its data");
        whole().await.unwrap();
        leave_out(file.clone(), but(&[])).await.unwrap();
        assert_eq!(begin(), ["first"]);
    }

    #[tokio::test]
    async fn to_leave_somebody_out_does_not_put_the_next_copy_off() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("catalog.copy");
        let records: Records = [silo("first", 1)].into();
        let but = || But { withheld: BTreeSet::new(), catalog: composer(&records).catalog() };
        write(file.clone(), About::default(), records.clone(), but(), true).await.unwrap();
        let settings = TableSettings {
            conninfo: Arc::new(Conninfo::parse("host=127.0.0.1 user=x dbname=x").unwrap()),
            mover: None,
            cache_file: Some(file.clone()),
            poll: TableSettings::POLL_DEFAULT,
            known: TableSettings::KNOWN_DEFAULT,
            hosts: Vec::new(),
            secrets_folder: None,
        };
        let mut copy = CopyOnDisk::new(&settings, Arc::default());
        // As if the last one were from a while ago.
        copy.began = Instant::now().checked_sub(Duration::from_secs(60));
        copy.begin_without(file, but());
        let written = copy.written().await;
        copy.end(written, &TableState::default());
        assert!(copy.due().is_some_and(|due| due <= COPY_EVERY), "{:?}", copy.due());
    }
}
