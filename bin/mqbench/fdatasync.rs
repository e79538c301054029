//! `mqbench fdatasync`: what the disk alone allows a broker that syncs before it answers.
//!
//! Appends to an allocated file, as a log does. A full file is emptied and allocated again, since bytes that are written a second
//! time sync faster; that is not part of the time.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::fs::{FallocateFlags, fallocate};
use serde_json::json;

use crate::run::latencies;

/// Room of the file, in bytes; one group of messages always fits.
const FILE_LEN: u64 = 256 * 1024 * 1024;

#[derive(Args, Debug)]
pub struct Options {
    /// Directory on the disk in question; a file of 256 MiB is made there and removed
    #[arg(long)]
    dir: PathBuf,
    /// Bytes per message
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    size: u64,
    /// Messages that are written together before each sync
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=4096))]
    group: u64,
    /// Length of the run
    #[arg(long, short, value_parser = crate::parse_duration, default_value = "3s")]
    duration: Duration,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(options: Options) -> Result<()> {
    let path = options.dir.join(format!("mqbench-fdatasync-{}", std::process::id()));
    let result = measure(&options, &path);
    // Nothing to remove when it could not be made; the first error is the one to tell.
    let _ = std::fs::remove_file(&path);
    result
}

fn measure(options: &Options, path: &std::path::Path) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let file = file.with_context(|| format!("cannot make {}", path.display()))?;
    allocate(&file)?;
    let bytes = vec![b'm'; usize::try_from(options.size * options.group)?];
    let mut took = latencies();
    let mut at = 0;
    let mut syncing = Duration::ZERO;
    while syncing < options.duration {
        if at + bytes.len() as u64 > FILE_LEN {
            allocate(&file)?;
            at = 0;
        }
        let start = Instant::now();
        file.write_all_at(&bytes, at).context("cannot write")?;
        file.sync_data().context("cannot sync")?;
        at += bytes.len() as u64;
        let elapsed = start.elapsed();
        syncing += elapsed;
        took.saturating_record(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
    }
    let per_s = took.len() as f64 / syncing.as_secs_f64();
    let ms = |quantile: f64| took.value_at_quantile(quantile) as f64 / 1e6;
    if options.json {
        let figures = json!({
            "syncs_per_s": per_s, "messages_per_s": per_s * options.group as f64,
            "latency_us": {
                "p50": ms(0.5) * 1e3, "p99": ms(0.99) * 1e3, "p99.9": ms(0.999) * 1e3, "p99.99": ms(0.9999) * 1e3,
                "max": took.max() as f64 / 1e3,
            },
        });
        println!("{figures}");
    } else {
        println!(
            "{per_s:.0} syncs/s of {} messages, {:.0} msg/s: p50 {:.3} ms p99 {:.3} ms",
            options.group,
            per_s * options.group as f64,
            ms(0.5),
            ms(0.99)
        );
    }
    Ok(())
}

/// Makes the file empty and takes its disk space again.
fn allocate(file: &File) -> Result<()> {
    file.set_len(0).context("cannot empty the file")?;
    fallocate(file, FallocateFlags::empty(), 0, FILE_LEN).context("cannot allocate the file")?;
    file.sync_all().context("cannot sync the file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cli, run_command};
    use clap::Parser as _;

    #[test]
    fn the_file_is_gone_afterwards() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_str().expect("a name in UTF-8");
        let fdatasync = |line: &str| {
            let line = format!("mqbench fdatasync --dir {path}{line} -d 10ms");
            run_command(Cli::try_parse_from(line.split(' ')).expect("arguments"))
        };
        fdatasync(" --group 64").expect("a run");
        fdatasync(" --json").expect("a run");
        assert_eq!(dir.path().read_dir().expect("the directory").count(), 0);
        assert!(fdatasync("/none").is_err());
    }

    #[test]
    fn the_largest_group_fits() {
        let line = "mqbench fdatasync --dir . --size 65536 --group 4096";
        let Ok(Cli { command: crate::Command::Fdatasync(options) }) = Cli::try_parse_from(line.split(' ')) else {
            panic!("{line}");
        };
        assert!(options.size * options.group <= FILE_LEN);
    }
}
