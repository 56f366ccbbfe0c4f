//! What processes use, by the kernel's own accounts.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Clock ticks of `/proc/PID/stat` a second: 100 on every Linux of today.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time, user and system, of these processes and all their descendants, the dead ones that
/// were waited for included.
pub fn cpu(roots: &[u32]) -> Result<Duration> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut ticks: HashMap<u32, (u64, u64)> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may be gone by now.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((_, fields)) = stat.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<u64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        // Fields after the name: state, ppid (1), …, utime (11), stime (12), cutime (13), cstime (14).
        let Some(&[own_user, own_system, dead_user, dead_system]) = fields.get(11..15) else {
            continue;
        };
        let parent = u32::try_from(fields[1]).unwrap_or(0);
        children.entry(parent).or_default().push(pid);
        ticks.insert(pid, (own_user + own_system, dead_user + dead_system));
    }
    let mut total = 0;
    let mut open: Vec<u32> = roots.to_vec();
    while let Some(pid) = open.pop() {
        let (own, dead) = ticks.get(&pid).copied().unwrap_or((0, 0));
        total += own + dead;
        open.extend(children.get(&pid).into_iter().flatten());
    }
    Ok(Duration::from_millis(total * 1000 / TICKS_PER_SECOND))
}

/// Resident memory now and at its peak, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// `VmRSS`.
    pub now_kib: u64,
    /// `VmHWM`.
    pub peak_kib: u64,
}

/// Memory of one process.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| value.split_whitespace().next())
            .and_then(|value| value.parse().ok())
            .with_context(|| format!("no {name} of process {pid}"))
    };
    Ok(Memory { now_kib: field("VmRSS:")?, peak_kib: field("VmHWM:")? })
}

/// The peak of a process begins anew from what it has now.
pub fn forget_peak(pid: u32) -> Result<()> {
    // proc(5): 5 stands for the peak.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("process {pid} keeps its peak"))
}

/// The value at `percent` of a set of times.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
}
