//! `mqbench`: loads any RocketMQ-compatible broker and says what it cost.
//!
//! `producer` and `consumer` speak the wire protocol over plain sockets, so that the tool takes little of the machine it measures
//! on; `null-server` answers sends without storing anything and shows what the transport alone can do.

mod consumer;
mod fdatasync;
mod null_server;
mod process_stats;
mod producer;
mod replies;
mod report;
mod run;
mod send_frames;
mod target;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};
use ferromq_config::command_line::ignored;

/// Load generator for RocketMQ-compatible brokers.
#[derive(Parser)]
#[command(name = "mqbench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send messages and report throughput, latency and CPU per message
    Producer(producer::Options),
    /// Pull messages from all queues and report throughput and end-to-end latency
    Consumer(consumer::Options),
    /// Write and sync as fast as the disk does: the ceiling of a broker that syncs before it answers
    Fdatasync(fdatasync::Options),
    /// Answer sends without storing them: the ceiling of the transport
    NullServer(null_server::Options),
}

/// Exit codes: 0 done, 1 the run failed, 2 the arguments make no sense (clap's own code too).
fn main() -> ExitCode {
    ferromq_remoting::raise_open_files_limit();
    let (cli, stray) = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if let Some(warning) = ignored(&stray, "") {
        eprintln!("mqbench: {warning}");
    }
    match run_command(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mqbench: {error:#}");
            if error.is::<BadArguments>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// The command line, and the words on it that belong to no option: passed over as in RocketMQ's own tools, wherever they stand.
fn parse(words: impl IntoIterator<Item = OsString>) -> Result<(Cli, Vec<String>), clap::Error> {
    let stray = || Arg::new("stray").num_args(0..).hide(true);
    let matches = Cli::command().mut_subcommands(|command| command.arg(stray())).try_get_matches_from(words)?;
    let words = matches.subcommand().and_then(|(_, matches)| matches.get_many::<String>("stray"));
    let words = words.into_iter().flatten().cloned().collect();
    Ok((Cli::from_arg_matches(&matches)?, words))
}

fn run_command(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Producer(options) => producer::run(options),
        Command::Consumer(options) => consumer::run(options),
        Command::Fdatasync(options) => fdatasync::run(options),
        Command::NullServer(options) => null_server::run(options),
    }
}

/// Arguments that are well-formed each and impossible together.
#[derive(Debug)]
struct BadArguments(String);

impl std::fmt::Display for BadArguments {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for BadArguments {}

/// `Err` with exit code 2.
fn refuse<T>(text: impl Into<String>) -> anyhow::Result<T> {
    Err(BadArguments(text.into()).into())
}

/// A time span on the command line: `10s`, `500ms`, `2m`, or a bare number of seconds.
fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: f64 = digits.parse().map_err(|_| format!("`{text}` is not a time span such as 10s, 500ms or 2m"))?;
    let seconds = match &text[digits.len()..] {
        "" | "s" => value,
        "ms" => value / 1000.0,
        "m" => value * 60.0,
        unit => return Err(format!("unknown unit `{unit}`; use ms, s or m")),
    };
    std::time::Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_spans() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "-1s", "1h", "ten"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn stray_words_are_passed_over() {
        for line in [
            "producer x -n 127.0.0.1:9876 y=1",
            "producer x y=1 --namesrv 127.0.0.1:9876",
            "producer -n 127.0.0.1:9876 x y=1",
        ] {
            let words = std::iter::once("mqbench").chain(line.split(' ')).map(OsString::from);
            let (cli, stray) = parse(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(matches!(cli.command, Command::Producer(_)));
            assert_eq!(stray, ["x", "y=1"], "{line}");
        }
        assert!(parse(["mqbench", "producer", "--no-such"].map(OsString::from)).is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
