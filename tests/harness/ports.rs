//! Who listens at a port: one that was free when it was chosen may be another's by now.

use std::collections::HashSet;
use std::fs;

/// The state of a socket that listens, in the kernel's tables.
const LISTENS: &str = "0A";

/// Whether it is this process that listens at a port of this machine. Where there
/// are no such tables it is taken for true.
pub fn listens(pid: u32, port: u16) -> bool {
    let table = |name| fs::read_to_string(format!("/proc/{pid}/net/{name}"));
    let Ok(table) = table("tcp").map(|v4| v4 + &table("tcp6").unwrap_or_default()) else {
        return true;
    };
    let at_port = format!(":{port:04X}");
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[_, local, _, state, _, _, _, _, _, inode, ..] = words.as_slice() else { return None };
        (local.ends_with(&at_port) && state == LISTENS).then(|| format!("socket:[{inode}]"))
    };
    let sockets: HashSet<String> = table.lines().filter_map(of_line).collect();
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    links.into_iter().any(|link| sockets.contains(&*link.to_string_lossy()))
}
