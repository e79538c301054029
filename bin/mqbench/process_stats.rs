//! What a process used so far, from `/proc`: CPU time and memory. Linux only.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// `USER_HZ`: the unit of the times in `/proc/PID/stat`, 100 on every Linux we run on.
const TICKS_PER_SECOND: u64 = 100;

/// One look at a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessStats {
    /// User and system time of all threads, in steps of 10 ms.
    pub cpu: Duration,
    /// Memory of its own, not backed by files, in bytes.
    pub rss_anon: u64,
    /// All resident memory, mapped files included, in bytes.
    pub rss: u64,
}

impl ProcessStats {
    /// Looks at the process `pid`.
    pub fn of(pid: u32) -> Result<Self> {
        Self::read(&pid.to_string()).with_context(|| format!("cannot look at process {pid}"))
    }

    /// Looks at this process.
    pub fn own() -> Result<Self> {
        Self::read("self").context("cannot look at this process")
    }

    fn read(process: &str) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        Ok(Self {
            cpu: cpu_of_stat(&stat).context("unreadable stat")?,
            rss_anon: status_bytes(&status, "RssAnon:").context("no RssAnon in status")?,
            rss: status_bytes(&status, "VmRSS:").context("no VmRSS in status")?,
        })
    }
}

/// Fields 14 and 15 of `/proc/PID/stat`. The name before them may contain blanks and parentheses.
fn cpu_of_stat(stat: &str) -> Option<Duration> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

fn status_bytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 9 0 100 1 1";
        assert_eq!(cpu_of_stat(stat), Some(Duration::from_secs(2)));
    }

    #[test]
    fn status_is_read_in_bytes() {
        assert_eq!(status_bytes("Name:\tx\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2048 * 1024));
    }

    #[test]
    fn this_process_can_be_looked_at() {
        assert!(ProcessStats::own().expect("proc").rss > 0);
        assert!(ProcessStats::of(u32::MAX).is_err());
    }
}
