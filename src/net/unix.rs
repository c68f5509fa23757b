//! Unix sockets to listen on. A lock file beside the socket keeps two processes from sharing one,
//! and a socket that somebody listens on is never taken away; what a crash left behind is.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::net::settings::UnixAddress;

/// The second line of our lock files; PostgreSQL's have the path of a data folder there.
const MARK: &str = "tenantgate";

/// Another process may come or go between two looks at a lock file, but not this often.
const LOCK_TRIES: usize = 16;

/// A socket file of ours and its lock. Dropping it removes both.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    lock_path: PathBuf,
    /// Locked as long as this lives, also if the process dies without a word.
    lock: File,
    /// Which file the socket is, so that nobody else's is removed. `None` before it is there.
    made: Option<(u64, u64)>,
}

/// Opens the socket, with its file and lock unless it is abstract.
///
/// # Errors
///
/// Somebody listens there, or owns the lock, or there is something that is not a socket, or the
/// folder cannot be written to.
pub fn listen(
    address: &UnixAddress,
    backlog: i32,
) -> io::Result<(UnixListener, Option<SocketFile>)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if address.is_abstract() {
        socket.bind(&socket_name(address)?)?;
        socket.listen(backlog)?;
        return Ok((socket.into(), None));
    }
    let mut file = SocketFile::claim(address.path())?;
    remove_stale(&file.path)?;
    socket.bind(&SockAddr::unix(&file.path)?)?;
    file.made = Some(identity(&fs::symlink_metadata(&file.path)?));
    // Nobody can connect before listen(2), so there is no moment with other permissions.
    fs::set_permissions(&file.path, fs::Permissions::from_mode(address.mode))?;
    socket.listen(backlog)?;
    Ok((socket.into(), Some(file)))
}

/// The kernel's name of the socket: an abstract one starts with a zero byte where people write `@`.
fn socket_name(address: &UnixAddress) -> io::Result<SockAddr> {
    let path = address.path();
    let bytes = path.as_os_str().as_bytes();
    let name = [b"\0", bytes.get(1..).unwrap_or_default()].concat();
    SockAddr::unix(Path::new(std::ffi::OsStr::from_bytes(&name)))
}

impl SocketFile {
    /// Makes the lock file and locks it.
    fn claim(path: PathBuf) -> io::Result<Self> {
        let mut lock_path = path.clone().into_os_string();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        for _ in 0..LOCK_TRIES {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&lock_path);
            let lock = match made {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    remove_old_lock(&lock_path)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Somebody may have opened, locked and removed it meanwhile.
            if lock.try_lock().is_ok() && is_at(&lock, &lock_path)? {
                let mut file = Self { path, lock_path, lock, made: None };
                // PostgreSQL reads the process id here, and leaves the socket alone.
                writeln!(file.lock, "{}\n{MARK}", std::process::id())?;
                return Ok(file);
            }
        }
        Err(in_use("its lock file keeps changing hands"))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever removed them by hand, or made others in their place, meant it.
        let there = fs::symlink_metadata(&self.path).ok().map(|found| identity(&found));
        if self.made.is_some() && there == self.made {
            let _ = fs::remove_file(&self.path);
        }
        if is_at(&self.lock, &self.lock_path).unwrap_or(false) {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

/// Removes a lock file whose owner is gone: one of ours that nobody holds.
fn remove_old_lock(lock_path: &Path) -> io::Result<()> {
    let mut old = match OpenOptions::new().read(true).open(lock_path) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    (&mut old).take(1024).read_to_string(&mut text)?;
    let mut lines = text.lines();
    let pid = lines.next().unwrap_or_default().to_owned();
    match old.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(in_use(&format!("process {pid} listens there")));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if !is_at(&old, lock_path)? {
        return Ok(());
    }
    // An empty one is ours too: its maker died before the first line.
    if !text.is_empty() && lines.next() != Some(MARK) {
        let name = lock_path.display();
        let text =
            format!("{name} is of another program, process {pid}; remove it if that is gone");
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    fs::remove_file(lock_path)
}

/// Removes a socket nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::other("there is something that is not a socket"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose queue is full must not hold us up; it answers that it would.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => Err(in_use("somebody listens there")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(in_use("somebody listens there"))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Whether an open file is the one at this path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(identity(&found) == identity(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn in_use(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("address in use: {why}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn at(folder: &Path) -> UnixAddress {
        UnixAddress { folder: folder.to_owned(), port: 6432, mode: 0o700 }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_socket_has_its_permissions_and_a_lock_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let address = at(folder.path());
        let (listener, file) = listen(&address, 8).unwrap();
        UnixStream::connect(address.path()).unwrap();
        let mode = fs::metadata(address.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let lock = fs::read_to_string(folder.path().join(".s.PGSQL.6432.lock")).unwrap();
        assert_eq!(lock, format!("{}\ntenantgate\n", std::process::id()));
        drop((listener, file));
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn a_socket_somebody_listens_on_is_not_stolen() {
        let folder = tempfile::tempdir().unwrap();
        let address = at(folder.path());
        let _first = listen(&address, 8).unwrap();
        let error = listen(&address, 8).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        // Also one without a lock file, such as a program's that keeps none.
        let other = UnixAddress { port: 1, ..at(folder.path()) };
        let _listener = UnixListener::bind(other.path()).unwrap();
        let error = listen(&other, 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
        UnixStream::connect(other.path()).unwrap();
        UnixStream::connect(address.path()).unwrap();
    }

    #[test]
    fn what_a_crash_left_behind_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let address = at(folder.path());
        drop(UnixListener::bind(address.path()).unwrap());
        let lock = folder.path().join(".s.PGSQL.6432.lock");
        for left in ["", "4711\ntenantgate\n"] {
            fs::write(&lock, left).unwrap();
            let _opened = listen(&address, 8).unwrap();
            UnixStream::connect(address.path()).unwrap();
        }
    }

    #[test]
    fn other_programs_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let address = at(folder.path());
        fs::write(address.path(), "precious").unwrap();
        assert!(listen(&address, 8).unwrap_err().to_string().contains("not a socket"));
        let lock = folder.path().join(".s.PGSQL.6432.lock");
        fs::write(&lock, "4711\n/var/lib/postgresql\n").unwrap();
        assert!(listen(&address, 8).unwrap_err().to_string().contains("process 4711"));
        fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(address.path(), &lock).unwrap();
        listen(&address, 8).unwrap_err();
        assert_eq!(fs::read_to_string(address.path()).unwrap(), "precious");
    }

    #[test]
    fn a_socket_that_replaced_ours_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let address = at(folder.path());
        let opened = listen(&address, 8).unwrap();
        fs::remove_file(address.path()).unwrap();
        let _other = UnixListener::bind(address.path()).unwrap();
        drop(opened);
        assert_eq!(names(folder.path()), [".s.PGSQL.6432"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_has_libpqs_name_and_no_file() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("@tenantgate-{}", std::process::id());
        let address = UnixAddress { folder: name.clone().into(), port: 6432, mode: 0o777 };
        let (_listener, file) = listen(&address, 8).unwrap();
        assert!(file.is_none());
        let name = format!("{}/.s.PGSQL.6432", &name[1..]);
        let name = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        UnixStream::connect_addr(&name).unwrap();
        assert_eq!(listen(&address, 8).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
