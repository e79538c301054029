//! Watches a run: a line each second, and the figures of the measured part at the end.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use serde_json::json;

use crate::process_stats::ProcessStats;
use crate::run::{Plan, Run, Tally, latencies};

/// How long workers may take to collect the last answers after the end of the measured part.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// How often the watcher looks whether anything ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What one worker does, on a thread of its own.
pub type Work = Box<dyn FnOnce() -> Result<()> + Send>;

/// The workers of a run and how to show them.
pub struct Watch {
    pub run: Arc<Run>,
    pub tallies: Vec<Arc<Tally>>,
    pub workers: Vec<Work>,
    pub plan: Plan,
    /// The server process to sample.
    pub pid: Option<u32>,
    /// The figures as one JSON object on standard output; the lines each second go to standard error then.
    pub json: bool,
    /// What was done to the messages: "sent", "received".
    pub verb: &'static str,
    pub body_len: Option<usize>,
}

type Thread = JoinHandle<Result<()>>;

/// Counters at one moment.
struct Sample {
    at: Instant,
    messages: u64,
    failures: u64,
    server: Option<ProcessStats>,
    own: ProcessStats,
}

impl Watch {
    /// Starts the workers, runs to the end of the plan and prints the figures. Fails when a worker failed, after the figures
    /// were printed.
    pub fn watch(mut self) -> Result<()> {
        let mut total = latencies();
        let mut first = self.sample()?;
        let threads: Vec<_> = self.workers.drain(..).map(start).collect::<Result<_>>()?;
        if !self.plan.warmup.is_zero() {
            self.live(&threads, Some(self.plan.warmup), "warm-up", &mut latencies())?;
            first = self.sample()?;
            self.run.take_lateness();
        }
        self.live(&threads, self.plan.duration, "", &mut total)?;
        let last = self.sample()?;
        self.run.stop();
        let problem = join(threads);
        self.print(&first, &last, &total);
        match problem {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }

    /// Prints a line each second until `length` is over or a worker ended; collects the latencies.
    fn live(
        &self,
        threads: &[Thread],
        length: Option<Duration>,
        label: &str,
        total: &mut Histogram<u64>,
    ) -> Result<()> {
        let begin = Instant::now();
        let mut line_at = begin + Duration::from_secs(1);
        let mut before = (begin, self.messages());
        let mut second = latencies();
        loop {
            thread::sleep(LOOK_EVERY);
            let now = Instant::now();
            let over = length.is_some_and(|length| now >= begin + length);
            let all_done = threads.iter().all(Thread::is_finished);
            let one_failed = self.run.is_stopped();
            let ends = over || all_done || one_failed;
            if now >= line_at || ends {
                for tally in &self.tallies {
                    tally.take_latencies(&mut second);
                }
                let messages = self.messages();
                if now >= line_at {
                    let rate = (messages - before.1) as f64 / (now - before.0).as_secs_f64();
                    self.line(&format!(
                        "{:>4} s  {rate:>9.0} msg/s  p50 {} p99 {} max {}  failed {}  {label}",
                        (now - begin).as_secs(),
                        ms(second.value_at_quantile(0.5)),
                        ms(second.value_at_quantile(0.99)),
                        ms(second.max()),
                        self.failures(),
                    ));
                    before = (now, messages);
                    line_at += Duration::from_secs(1);
                }
                total.add(&second)?;
                second.reset();
            }
            if ends {
                return Ok(());
            }
        }
    }

    fn line(&self, text: &str) {
        if self.json {
            eprintln!("{}", text.trim_end());
        } else {
            println!("{}", text.trim_end());
        }
    }

    fn messages(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.messages()).sum()
    }

    fn failures(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.failures()).sum()
    }

    fn sample(&self) -> Result<Sample> {
        Ok(Sample {
            server: self.pid.map(ProcessStats::of).transpose()?,
            own: ProcessStats::own()?,
            messages: self.messages(),
            failures: self.failures(),
            at: Instant::now(),
        })
    }

    fn print(&self, first: &Sample, last: &Sample, latencies: &Histogram<u64>) {
        let seconds = (last.at - first.at).as_secs_f64();
        let messages = last.messages - first.messages;
        let failures = last.failures - first.failures;
        let rate = messages as f64 / seconds;
        let per_message = |from: Duration, to: Duration| {
            (messages > 0).then(|| (to.saturating_sub(from)).as_secs_f64() * 1e6 / messages as f64)
        };
        let server_cpu = first.server.zip(last.server).and_then(|(from, to)| per_message(from.cpu, to.cpu));
        let own_cpu = per_message(first.own.cpu, last.own.cpu);
        let first_failure = self.run.first_failure();
        let late = self.run.take_lateness();
        let quantile = |quantile: f64| latencies.value_at_quantile(quantile);
        if self.json {
            let us = |ns: u64| ns as f64 / 1000.0;
            let figures = json!({
                "seconds": seconds,
                "messages": messages,
                "failures": failures,
                "first_failure": first_failure,
                "messages_per_s": rate,
                "body_mb_per_s": self.body_len.map(|len| rate * len as f64 / 1e6),
                "latency_us": {
                    "p50": us(quantile(0.5)), "p99": us(quantile(0.99)), "p99.9": us(quantile(0.999)),
                    "p99.99": us(quantile(0.9999)), "max": us(latencies.max()), "mean": latencies.mean() / 1000.0,
                },
                "own_lateness_us": (!late.is_empty()).then(|| json!({
                    "p50": us(late.value_at_quantile(0.5)), "p99": us(late.value_at_quantile(0.99)),
                    "p99.9": us(late.value_at_quantile(0.999)), "max": us(late.max()),
                })),
                "server_cpu_us_per_message": server_cpu,
                "own_cpu_us_per_message": own_cpu,
                "server_rss_anon_bytes": last.server.map(|server| server.rss_anon),
                "server_rss_bytes": last.server.map(|server| server.rss),
            });
            println!("{figures}");
            return;
        }
        println!(
            "{messages} messages {} in {seconds:.2} s: {rate:.0} msg/s{}",
            self.verb,
            match self.body_len {
                Some(len) => format!(", {:.1} MB/s of bodies", rate * len as f64 / 1e6),
                None => String::new(),
            }
        );
        println!(
            "latency p50 {} p99 {} p99.9 {} p99.99 {} max {}",
            ms(quantile(0.5)),
            ms(quantile(0.99)),
            ms(quantile(0.999)),
            ms(quantile(0.9999)),
            ms(latencies.max()),
        );
        if let (Some(cpu), Some(server)) = (server_cpu, last.server) {
            let mb = |bytes: u64| bytes as f64 / 1e6;
            println!(
                "server: {cpu:.2} us CPU per message, {:.1} MB of its own, {:.1} MB resident",
                mb(server.rss_anon),
                mb(server.rss)
            );
        }
        if let Some(cpu) = own_cpu {
            println!("mqbench: {cpu:.2} us CPU per message");
        }
        if !late.is_empty() {
            println!("mqbench: late by p99 {} max {}", ms(late.value_at_quantile(0.99)), ms(late.max()));
        }
        if failures > 0 || first_failure.is_some() {
            println!(
                "failures: {failures}, the first: {}",
                first_failure.as_deref().unwrap_or("before the measured part")
            );
        }
    }
}

/// A thread with a small stack: there may be thousands.
fn start(work: Work) -> Result<Thread> {
    Ok(thread::Builder::new().stack_size(256 * 1024).spawn(work)?)
}

/// Waits for the workers; the first problem one of them had.
fn join(threads: Vec<Thread>) -> Option<anyhow::Error> {
    let deadline = Instant::now() + DRAIN_MAX;
    let mut problem = None;
    for thread in threads {
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(LOOK_EVERY);
        }
        if !thread.is_finished() {
            problem.get_or_insert_with(|| anyhow!("the last answers did not come within {} s", DRAIN_MAX.as_secs()));
            continue;
        }
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => problem = problem.or(Some(error)),
            Err(_) => problem = problem.or_else(|| Some(anyhow!("a worker panicked"))),
        }
    }
    problem
}

/// Nanoseconds as milliseconds, for people.
fn ms(ns: u64) -> String {
    format!("{:.3} ms", ns as f64 / 1e6)
}
