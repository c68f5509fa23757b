//! Ports for processes that are told theirs: chosen here, taken by the process a moment later.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// None of these is ever what the system chooses by itself for a listener or a connection, of which
/// the tests beside this one have many.
const OURS: Range<u16> = 10_000..32_000;

/// The state of a socket that listens, in the kernel's tables.
const LISTENS: &str = "0A";

/// A port of 127.0.0.1 that nobody used a moment ago.
pub fn unused() -> u16 {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (0..1_000).map(|_| fastrand::u16(OURS)).find(free).expect("a free port")
}

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
