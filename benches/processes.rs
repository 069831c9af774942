//! What processes have used, from /proc (Linux).

use std::fs;
use std::time::Duration;

/// Linux counts processor time in hundredths of a second, on every architecture that it has in common with us.
const TICK: Duration = Duration::from_millis(10);

/// A process's processor time so far.
pub fn processor_time(process: u32) -> Duration {
    let [user, system, ..] = ticks(process).expect("the process runs");
    TICK * (user + system)
}

/// Processor time so far of a process that starts others, and of all that it started, without one of those.
pub fn family_processor_time(parent: u32, without: Option<u32>) -> Duration {
    // A parent's counts of its children are of those that have ended.
    let of_parent = ticks(parent).expect("the process runs");
    let children = read(&format!("/proc/{parent}/task/{parent}/children"));
    let children = children.expect("the process runs");
    let of_children = children
        .split_whitespace()
        .map(|child| child.parse().expect("a process id"))
        .filter(|child| Some(*child) != without)
        // One that has ended since has become its parent's.
        .filter_map(ticks)
        .map(|[user, system, ..]| user + system);
    TICK * (of_parent.iter().sum::<u32>() + of_children.sum::<u32>())
}

/// The most memory that a process has had resident so far, in MiB.
pub fn peak_memory(process: u32) -> f64 {
    status(process, "VmHWM:")
}

/// The memory that a process has resident, in MiB.
pub fn memory(process: u32) -> f64 {
    status(process, "VmRSS:")
}

fn status(process: u32, name: &str) -> f64 {
    let status = read(&format!("/proc/{process}/status")).expect("the process runs");
    let kib = status.lines().find_map(|line| {
        let kib = line.strip_prefix(name)?.strip_suffix("kB")?;
        kib.trim().parse::<f64>().ok()
    });
    kib.expect("Linux reports it") / 1024.0
}

/// Processor time in ticks: in user mode, in the kernel, and both again for children that have ended.
fn ticks(process: u32) -> Option<[u32; 4]> {
    let stat = read(&format!("/proc/{process}/stat"))?;
    // The program's name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields
        .split_whitespace()
        .skip(11)
        .map(|field| field.parse().expect("a number"));
    Some(std::array::from_fn(|_| ticks.next().expect("four counts")))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}
