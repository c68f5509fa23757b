//! What `/proc` tells about a process and the machine: CPU time, memory, and the facts printed
//! beside the figures. Where there is no `/proc`, figures are missing and nothing fails.

use std::fs;
use std::process::Command;
use std::time::Duration;

/// Ticks per second in `/proc/PID/stat`; Linux has shown the same number to programs for decades.
const TICKS: u64 = 100;

/// Servers of PostgreSQL end one after the other when a run is over.
const FAMILY_TRIES: usize = 50;
const FAMILY_REST: Duration = Duration::from_millis(10);

/// CPU time a process has used, all threads.
pub fn cpu(pid: u32) -> Option<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let path = task.ok()?.path().join("schedstat");
        // Finer than the ticks of `stat`, where the kernel keeps it.
        let Ok(text) = fs::read_to_string(path) else { return stat(pid).map(|stat| stat.own) };
        nanoseconds += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanoseconds))
}

/// CPU time of a process, of the children it has now, and of those it has waited for.
pub fn cpu_of_family(pid: u32) -> Option<Duration> {
    for _ in 0..FAMILY_TRIES {
        let before = stat(pid)?;
        let children = cpu_of_children(pid)?;
        // A child that was waited for in between may be missing from both.
        if stat(pid)?.waited_for == before.waited_for {
            return Some(before.own + before.waited_for + children);
        }
        std::thread::sleep(FAMILY_REST);
    }
    None
}

fn cpu_of_children(pid: u32) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(found) = stat(child).filter(|found| found.parent == pid) {
            sum += found.own;
        }
    }
    Some(sum)
}

struct Stat {
    parent: u32,
    own: Duration,
    waited_for: Duration,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, blanks and brackets too.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<u64> = rest.split_whitespace().map(|it| it.parse().unwrap_or(0)).collect();
    let ticks = |first: usize| -> Option<Duration> {
        let sum = fields.get(first)? + fields.get(first + 1)?;
        Some(Duration::from_millis(sum * 1000 / TICKS))
    };
    let parent = u32::try_from(*fields.get(1)?).ok()?;
    Some(Stat { parent, own: ticks(11)?, waited_for: ticks(13)? })
}

/// Memory of a process in bytes: its share of what it maps (PSS), else what is resident.
pub fn memory(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).ok();
    match rollup {
        Ok(text) => kilobytes(&text, "Pss:"),
        Err(_) => kilobytes(&status()?, "VmRSS:"),
    }
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// How many files this process may open.
pub fn open_files_max() -> usize {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(1024)
}

/// Processes that wanted a CPU over the last minute, on average.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// Processor, number of CPUs we may use, memory, kernel.
pub fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = kilobytes(&memory, "MemTotal:").unwrap_or(0) >> 30;
    let kernel = said("uname", &["-sr"]);
    format!("{model}, {cpus} CPUs, {memory} GiB, {kernel}")
}

/// The first line a program prints; empty if there is no such program.
pub fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}
