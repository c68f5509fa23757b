//! [`Watched`]: a file that is read again when it has changed, and a list of ids in one.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::catalog::Live;

/// A file that changed so lately may change again without its time telling.
const SETTLED: Duration = Duration::from_secs(2);

/// How often the log says that a file is still of no use.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Longest list: about a million ids.
const LIST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A file, and how it looked when it was read.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    bytes_max: u64,
    seen: Mutex<Option<Stamp>>,
    /// Why what was read then is of no use.
    fault: Mutex<Option<String>>,
    /// What was told last, and when.
    told: Mutex<Option<(String, Instant)>>,
}

/// What tells that a file is another one now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// It had not been touched for a while.
    settled: bool,
}

impl Watched {
    pub(super) fn new(path: &Path, bytes_max: u64) -> Self {
        Self {
            path: path.to_owned(),
            bytes_max,
            seen: Mutex::default(),
            fault: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Whether the file, as it was read, had not been touched for a while.
    fn is_settled(&self) -> bool {
        self.seen.lock().as_ref().is_some_and(|seen| seen.settled)
    }

    /// Remembers that what was read is of no use: until the file is another one, that is what
    /// [`Watched::changed`] answers.
    pub(super) fn refuse(&self, why: &str) {
        *self.fault.lock() = Some(why.to_owned());
    }

    /// Whether the log should say this: it is news, or was said a minute ago.
    pub(super) fn is_worth_telling(&self, why: &str) -> bool {
        let mut told = self.told.lock();
        let known =
            told.as_ref().is_some_and(|(text, at)| text == why && at.elapsed() < TELL_AGAIN);
        if !known {
            *told = Some((why.to_owned(), Instant::now()));
        }
        !known
    }

    /// The file's bytes if it is another one than at the last call.
    pub(super) fn changed(&self) -> Result<Option<Vec<u8>>, String> {
        let unreadable = |error: io::Error| format!("cannot read {}: {error}", self.path.display());
        let found = fs::metadata(&self.path).map_err(unreadable)?;
        let age = found.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        let stamp = Stamp {
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            // A time to come tells of no write of this moment.
            settled: age.is_none_or(|age| age > SETTLED),
        };
        let mut seen = self.seen.lock();
        if stamp.settled && seen.as_ref() == Some(&stamp) {
            return self.fault.lock().clone().map_or(Ok(None), Err);
        }
        if stamp.size > self.bytes_max {
            let (path, most) = (self.path.display(), self.bytes_max);
            return Err(format!("{path} has {} bytes, more than {most}", stamp.size));
        }
        let bytes = fs::read(&self.path).map_err(unreadable)?;
        *seen = Some(stamp);
        *self.fault.lock() = None;
        Ok(Some(bytes))
    }
}

/// Ids of tokens (`jti`) that were revoked before their time: one on each line, ` #` starts a
/// comment. What is added counts at the next look, what is taken away when the file has not been
/// touched for two seconds: until then it may be half of a file.
#[derive(Debug)]
pub(super) struct DenyList {
    file: Watched,
    ids: Live<HashSet<Box<str>>>,
}

impl DenyList {
    /// Reads the list.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let list =
            Self { file: Watched::new(path, LIST_BYTES_MAX), ids: Live::new(HashSet::new()) };
        list.look().map(|_| list)
    }

    /// Reads it again if it has changed; true if it says something else now. What cannot be read
    /// leaves it as it was.
    pub(super) fn look(&self) -> Result<bool, String> {
        let Some(bytes) = self.file.changed()? else { return Ok(false) };
        let text = String::from_utf8(bytes).map_err(|_| {
            let why = format!("{} is not UTF-8", self.file.path.display());
            self.file.refuse(&why);
            why
        })?;
        let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().map(id_of);
        let mut ids: HashSet<Box<str>> = lines.filter(|id| !id.is_empty()).map(Box::from).collect();
        if !self.file.is_settled() {
            // Somebody may be in the middle of writing it: nothing is taken off the list yet.
            ids.extend(self.ids.load().iter().cloned());
        }
        let changed = *self.ids.load() != ids;
        if changed {
            self.ids.replace(ids);
        }
        Ok(changed)
    }

    pub(super) fn is_worth_telling(&self, why: &str) -> bool {
        self.file.is_worth_telling(why)
    }

    pub(super) fn has(&self, jti: &str) -> bool {
        self.ids.load().contains(jti)
    }
}

/// The id on a line. An id may have a `#` in it: a comment has a blank ahead of its own.
fn id_of(line: &str) -> &str {
    let after_blank = |at: &usize| line[..*at].ends_with([' ', '\t']) || *at == 0;
    let comment = line.match_indices('#').map(|(at, _)| at).find(after_blank);
    line[..comment.unwrap_or(line.len())].trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_again_when_it_has_changed_and_kept_when_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("denied");
        assert!(DenyList::read(&path).unwrap_err().contains("denied"));
        let write = |text: &[u8], age: u64| {
            fs::write(&path, text).unwrap();
            let at = SystemTime::now() - Duration::from_secs(age);
            fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        };
        write("\u{feff}urn:x#1\n# leaked\none \n\n two # on monday\n".as_bytes(), 60);
        let list = DenyList::read(&path).unwrap();
        assert!(list.has("one") && list.has("two") && !list.has("# leaked") && !list.has(""));
        assert!(list.has("urn:x#1") && !list.has("urn:x"));
        assert!(!list.look().unwrap());
        write(b"", 0);
        assert!(!list.look().unwrap() && list.has("one"), "somebody may be writing it");
        write(b"six\n", 0);
        assert!(list.look().unwrap());
        assert!(list.has("six") && list.has("one"));
        write(b"six\n", 30);
        assert!(list.look().unwrap());
        assert!(list.has("six") && !list.has("one"));
        fs::write(&path, b"\xff\n").unwrap();
        assert!(list.look().is_err() && list.has("six"));
        write(b"\xff\n", 60);
        assert!(list.look().is_err() && list.look().is_err(), "it is still of no use");
        write(b"six\n", 60);
        assert!(!list.look().unwrap() && list.has("six"));
        fs::remove_file(&path).unwrap();
        assert!(list.look().is_err() && list.has("six"));
    }
}
