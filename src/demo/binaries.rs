//! Where PostgreSQL's programs lie on this machine. Nothing is installed from here: `make demo` and
//! `make test` do that, and the error says how to do it by hand.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Names the folder to use instead of searching.
const FOLDER_VARIABLE: &str = "TENANTGATE_PG_BIN";

/// Parent, prefix in front of a version, and what is below: Debian, Fedora (PGDG), Homebrew on its
/// three roots, Postgres.app, Alpine, and versions unpacked by hand.
const PATTERNS: [(&str, &str, &str); 8] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt", "postgresql-", "bin"),
];

/// A folder that holds `postgres` and `initdb`.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Looks in `TENANTGATE_PG_BIN`, then in `PATH`, then where `pg_config` points, then in the
    /// usual folders of distributions. The error is one line that says what to install.
    pub fn find() -> Result<Self> {
        if let Some(folder) = env::var_os(FOLDER_VARIABLE) {
            let Some(found) = Self::within(Path::new(&folder)) else {
                let folder = folder.display();
                bail!("{FOLDER_VARIABLE} is {folder}, which has no postgres and initdb in it");
            };
            return Ok(found);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path)
            .chain(pg_config_folder())
            .chain(usual_folders())
            .find_map(|folder| Self::within(&folder));
        match found {
            Some(found) => Ok(found),
            None => bail!(
                "no PostgreSQL server on this machine: {}, or name its folder in {FOLDER_VARIABLE}",
                install_advice()
            ),
        }
    }

    /// The folder behind `folder`'s links, if both programs are there.
    pub fn within(folder: &Path) -> Option<Self> {
        let server = folder.join("postgres").canonicalize().ok()?;
        // The server looks for its other files beside its real place, so that is where we call it.
        let real = server.parent()?.to_owned();
        let has = |program: &str| real.join(program).is_file();
        (has("postgres") && has("initdb")).then_some(Self { folder: real })
    }

    /// The path of a program: in the folder found, else the bare name for `PATH` to resolve.
    pub fn program(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        if path.is_file() { path } else { PathBuf::from(name) }
    }

    /// The major version, as the server says it.
    pub fn major(&self) -> Result<u32> {
        let program = self.program("postgres");
        let output = Command::new(&program).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = text.split(' ').find_map(|word| version(OsStr::new(word), ""));
        number.with_context(|| format!("{} does not tell its version", program.display()))
    }

    /// Where the programs lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn pg_config_folder() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (!text.trim().is_empty()).then(|| PathBuf::from(text.trim()))
}

/// All folders that match [`PATTERNS`], the newest version of each kind first.
fn usual_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for (parent, prefix, below) in PATTERNS {
        let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((version(&entry.file_name(), prefix)?, entry.path())))
            .collect();
        found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        folders.extend(found.into_iter().map(|(_, path)| path.join(below)));
    }
    folders
}

/// The major version in a folder's name: 15 in `15`, `pgsql-15`, `postgresql@15`.
fn version(name: &OsStr, prefix: &str) -> Option<u32> {
    let rest = name.to_str()?.strip_prefix(prefix)?;
    rest.split('.').next()?.parse().ok()
}

/// What to type on this machine, judged by the package manager that is here.
fn install_advice() -> &'static str {
    let has = |path: &str| Path::new(path).exists();
    if cfg!(target_os = "macos") {
        "brew install postgresql@18"
    } else if has("/usr/bin/apt-get") {
        "apt-get install postgresql"
    } else if has("/usr/bin/dnf") {
        "dnf install postgresql-server postgresql-contrib"
    } else if has("/sbin/apk") {
        "apk add postgresql postgresql-contrib"
    } else {
        "install the PostgreSQL server package"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_folder_names_and_compared_as_numbers() {
        assert_eq!(version(OsStr::new("9"), ""), Some(9));
        assert_eq!(version(OsStr::new("postgresql@18"), "postgresql@"), Some(18));
        assert_eq!(version(OsStr::new("pgsql-17.2"), "pgsql-"), Some(17));
        assert_eq!(version(OsStr::new("pgadmin"), "pgsql-"), None);
    }
}
