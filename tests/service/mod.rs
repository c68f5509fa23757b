//! The gate as a service of a machine: Unix sockets and who connects to them, the service manager,
//! the page a person looks at.

mod page;
mod systemd;
mod unix;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

/// A folder that every user of the machine may look into.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}
