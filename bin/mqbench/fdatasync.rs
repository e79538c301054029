//! `mqbench fdatasync`: what the disk alone allows a broker that syncs before it answers.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::fs::{FallocateFlags, fallocate};
use serde_json::json;

use crate::run::latencies;

/// The file is written from the beginning again when it is full.
const FILE_LEN: u64 = 64 * 1024 * 1024;

#[derive(Args, Debug)]
pub struct Options {
    /// Directory on the disk in question; a file of 64 MiB is made there and removed
    #[arg(long)]
    dir: PathBuf,
    /// Bytes per message
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    size: u64,
    /// Messages that are written together before each sync
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
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
    fallocate(&file, FallocateFlags::empty(), 0, FILE_LEN).context("cannot allocate the file")?;
    file.sync_all().context("cannot sync the file")?;
    let bytes = vec![b'm'; usize::try_from(options.size * options.group)?];
    let mut took = latencies();
    let mut at = 0;
    let begin = Instant::now();
    while begin.elapsed() < options.duration {
        let start = Instant::now();
        if at + bytes.len() as u64 > FILE_LEN {
            at = 0;
        }
        file.write_all_at(&bytes, at).context("cannot write")?;
        file.sync_data().context("cannot sync")?;
        at += bytes.len() as u64;
        took.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    let per_s = took.len() as f64 / begin.elapsed().as_secs_f64();
    let ms = |quantile: f64| took.value_at_quantile(quantile) as f64 / 1e6;
    if options.json {
        let figures = json!({
            "syncs_per_s": per_s, "messages_per_s": per_s * options.group as f64,
            "latency_us": { "p50": ms(0.5) * 1e3, "p99": ms(0.99) * 1e3, "max": took.max() as f64 / 1e3 },
        });
        println!("{figures}");
    } else {
        println!("{per_s:.0} syncs/s of {} messages: p50 {:.3} ms p99 {:.3} ms", options.group, ms(0.5), ms(0.99));
    }
    Ok(())
}
