//! The last good copy of the tables on disk: a line about it and how many tenants follow, then a
//! line for each. It holds passwords, so it is for its owner only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::records::TenantRecord;

/// Rises whenever an older gate could not read the lines.
const FORMAT: u32 = 2;

/// Longest line that is read: a tenant with all the credentials it may have.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Deserialize, Serialize)]
struct Head {
    tenantgate_catalog: u32,
    tenants: usize,
    about: About,
}

/// What a copy is one of.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct About {
    /// The number of the last change.
    pub version: i64,
    /// There are more tenants than are in it.
    pub is_part: bool,
    /// What verifiers are made up with, and some real ones.
    pub secret: String,
    pub samples: Vec<String>,
}

/// A copy and its tenants.
type Copy = (About, BTreeMap<String, Arc<TenantRecord>>);

/// Reads the copy; none if there is none.
///
/// # Errors
///
/// It cannot be read, others may read it or it is somebody else's, or it is not whole.
pub(super) fn read(path: &Path) -> io::Result<Option<Copy>> {
    // What is not a file may make whoever opens it wait.
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(facts) if !facts.is_file() => return Err(io::Error::other("it is not a file")),
        known => known?,
    };
    let file = File::open(path)?;
    let facts = file.metadata()?;
    let is_ours = facts.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || facts.mode() & 0o077 != 0 {
        return Err(io::Error::other("it does not belong to the gate alone (chmod 600)"));
    }
    let mut lines = BufReader::new(file);
    let broken = |error: serde_json::Error| {
        // Its words may hold what stands in the line.
        io::Error::other(format!("it is broken in column {}", error.column()))
    };
    let head: Head = serde_json::from_slice(&line(&mut lines)?).map_err(broken)?;
    if head.tenantgate_catalog != FORMAT {
        return Err(io::Error::other("it was written by another release"));
    }
    let mut records = BTreeMap::new();
    for _ in 0..head.tenants {
        let record: TenantRecord = serde_json::from_slice(&line(&mut lines)?).map_err(broken)?;
        records.insert(record.id.clone(), Arc::new(record));
    }
    if records.len() != head.tenants || !line(&mut lines)?.is_empty() {
        return Err(io::Error::other("it is not whole"));
    }
    Ok(Some((head.about, records)))
}

fn line(lines: &mut BufReader<File>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Writes a new copy, without some tenants, in the old one's place. Whoever reads meanwhile, or
/// after a crash, sees one or the other.
pub(super) fn write(
    path: &Path,
    about: About,
    records: &BTreeMap<String, Arc<TenantRecord>>,
    but: &BTreeSet<String>,
) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no name"))?;
    let new = folder.join(format!(".{}.new", name.display()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let mut out = BufWriter::new(file);
    let records = || records.values().filter(|record| !but.contains(&record.id));
    let head = Head { tenantgate_catalog: FORMAT, tenants: records().count(), about };
    serde_json::to_writer(&mut out, &head)?;
    out.write_all(b"\n")?;
    for record in records() {
        serde_json::to_writer(&mut out, &**record)?;
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&new, path)?;
    // The new name is on disk when its folder is.
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::gate::table::records::TenantColumns;

    fn records(count: usize) -> BTreeMap<String, Arc<TenantRecord>> {
        let record = |number: usize| {
            let columns = TenantColumns {
                isolation: "row".to_owned(),
                cluster: "main".to_owned(),
                connection_string: Some("host=x password='geh\u{2028}eim'\n".to_owned()),
                schema: None,
                role: None,
                tier: None,
                state: "active".to_owned(),
                overrides: "{}".to_owned(),
                placed: 7,
            };
            let id = format!("t{number}");
            let tenant = Some(columns);
            (id.clone(), Arc::new(TenantRecord { id, tenant, ..TenantRecord::default() }))
        };
        (0..count).map(record).collect()
    }

    fn about(version: i64) -> About {
        About { version, is_part: true, ..About::default() }
    }

    #[test]
    fn a_copy_is_its_owners_and_whole_or_it_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.copy");
        assert!(read(&path).unwrap().is_none());
        write(&path, about(4), &records(2), &BTreeSet::new()).unwrap();
        write(&path, about(5), &records(3), &BTreeSet::new()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let (read_about, read_back) = read(&path).unwrap().unwrap();
        assert!(read_about == about(5) && read_back == records(3));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
        let whole = fs::read(&path).unwrap();
        for cut in [whole.len() - 1, whole.len() - 20, 10, 0] {
            fs::write(&path, &whole[..cut]).unwrap();
            let error = read(&path).err();
            // The last line's end is no part of it.
            assert_eq!(error.is_some(), cut != whole.len() - 1, "{cut}");
            assert!(!error.is_some_and(|error| error.to_string().contains("geh")));
        }
        fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
        assert!(read(&path).is_err());
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).is_err(), "others may read it");
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.copy");
        write(&path, about(5), &records(3), &BTreeSet::new()).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..500 {
            let mut bytes = whole.clone();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            fs::write(&path, bytes).unwrap();
            if let Err(error) = read(&path) {
                assert!(!error.to_string().contains("geh"), "{error}");
            }
        }
    }
}
