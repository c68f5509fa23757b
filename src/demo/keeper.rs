//! Processes we start and how they end, also when we are killed ourselves: signals by process id,
//! the user to run as when we are root, and a [`Keeper`] that cleans up behind us.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use aws_lc_rs::rand;

/// What the keeper's shell does. Its standard input is a pipe nobody writes to: it ends when the
/// process that holds the other end does, however that ends. `$1` is the folder, the rest are files
/// whose first line is a process id.
const SCRIPT: &str = r#"
trap '' INT HUP TERM
while read -r _; do :; done
folder=$1; shift
for file in "$@"; do
    pid=
    read -r pid 2>/dev/null < "$file" || continue
    # Who was started in the background ignores QUIT, unless it handles it; nobody ignores KILL.
    for name in QUIT KILL; do
        kill -s "$name" "$pid" 2>/dev/null || break
        tries=0
        # PostgreSQL removes its file; a zombie nobody waits for would answer signals for ever.
        while [ -e "$file" ] && kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 50 ]; do
            sleep 0.1; tries=$((tries + 1))
        done
        [ -e "$file" ] || break
    done
done
rm -rf "$folder"
"#;

/// A folder of ours under the system's temporary folder, and a small shell that removes it and ends
/// the processes named in it as soon as this value, or this whole process, is gone.
#[derive(Debug)]
pub struct Keeper {
    folder: PathBuf,
    shell: Child,
}

impl Keeper {
    /// Makes a folder only we may enter. `pid_files` are relative to it; whoever starts a process
    /// there writes its id into one, or the process does so itself.
    pub fn new(kind: &str, pid_files: &[&str]) -> Result<Self> {
        let name = format!("tenantgate-{kind}-{}", hex(&random::<6>()?));
        // The real path, because macOS hands out one that leads through a link.
        let parent = std::env::temp_dir();
        let parent = parent.canonicalize().unwrap_or(parent);
        let folder = parent.join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot create folder {}", folder.display()))?;
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "tenantgate-keeper"])
            .arg(&folder)
            .args(pid_files.iter().map(|file| folder.join(file)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own, so that ctrl-C at the terminal reaches us and not the keeper.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { folder, shell })
    }

    /// The folder that will be removed.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Wait, so that a folder is gone when the value is. An error means it was waited for.
        let _ = self.shell.wait();
    }
}

/// The user PostgreSQL runs as when we are root, which it refuses to run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// `None` when we are not root and need no other. Else `postgres`, else `nobody`.
    pub fn to_drop_to() -> Result<Option<Self>> {
        if effective_uid()? != 0 {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        let found = ["postgres", "nobody"].into_iter().find_map(|name| Self::named(name, &passwd));
        match found {
            Some(user) => Ok(Some(user)),
            None => {
                bail!("PostgreSQL does not run as root, and there is no user postgres or nobody")
            }
        }
    }

    fn named(name: &str, passwd: &str) -> Option<Self> {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { uid, gid })
    }

    /// Makes `path` this user's.
    pub fn own(self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to user {}", path.display(), self.uid))
    }
}

/// A command that runs as `user`, in a process group of its own and without libpq's environment.
pub fn command(program: &Path, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command.process_group(0).stdin(Stdio::null());
    command
}

/// Sends `name` (`QUIT`, `HUP`, ...) to a process we started. The shell's own `kill` is used: it is
/// there where the program of that name is not.
pub fn signal(pid: u32, name: &str) -> io::Result<()> {
    let status = Command::new("sh")
        .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match rand::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => bail!("the system gives no random bytes"),
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whoever creates a file owns it; that tells our id without a system call binding.
fn effective_uid() -> Result<u32> {
    if let Ok(process) = fs::metadata("/proc/self") {
        return Ok(process.uid());
    }
    let output = Command::new("id").arg("-u").output().context("cannot run id -u")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().context("id -u did not print a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd = "postgres2:x:7:8::/:/bin/sh\npostgres:x:101:104:,,,:/var:/bin/bash\n";
        assert_eq!(User::named("postgres", passwd), Some(User { uid: 101, gid: 104 }));
        assert_eq!(User::named("nobody", passwd), None);
    }

    fn is_ended_by_its_keeper(mut process: Command) {
        let keeper = Keeper::new("test", &["sleep.pid"]).unwrap();
        let folder = keeper.folder().to_owned();
        let mut sleep = process.spawn().unwrap();
        fs::write(folder.join("sleep.pid"), format!("{}\n", sleep.id())).unwrap();
        // Somebody must wait for the child, or it stays a zombie that still answers signals.
        let waiter = std::thread::spawn(move || sleep.wait().unwrap());
        drop(keeper);
        assert!(!folder.exists());
        assert!(!waiter.join().unwrap().success());
    }

    #[test]
    fn a_keepers_folder_goes_with_it_and_so_does_the_process_named_there() {
        let mut sleep = command(Path::new("sleep"), None);
        sleep.arg("600");
        is_ended_by_its_keeper(sleep);
    }

    /// What a shell starts in the background ignores INT and QUIT, and so does what that starts.
    #[test]
    fn a_process_that_ignores_the_signal_is_ended_too() {
        let mut shell = command(Path::new("sh"), None);
        shell.args(["-c", "trap '' INT QUIT; exec sleep 600"]);
        is_ended_by_its_keeper(shell);
    }
}
