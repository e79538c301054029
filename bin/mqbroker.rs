//! `mqbroker`: starts a broker and stops it on SIGTERM or SIGINT.

use std::fs::OpenOptions;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::anyhow;
use clap::Parser;
use ferromq_broker::{Broker, BrokerConfig};
use ferromq_config::{Configuration, Loaded};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// FerroMQ broker. Reads the same broker.conf as Apache RocketMQ.
#[derive(Parser)]
#[command(name = "mqbroker", version)]
struct Args {
    /// Properties file with the broker's settings.
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Nameservers, `host:port;host:port`; wins over the file.
    #[arg(short = 'n', long = "namesrvAddr", value_name = "LIST")]
    namesrv_addr: Option<String>,
    /// Print every setting and exit.
    #[arg(short = 'p', long = "printConfigItem")]
    print_config: bool,
    /// Print the settings that matter most and exit.
    #[arg(short = 'm', long = "printImportantConfig")]
    print_important: bool,
    /// Append the log to this file instead of stderr. What is logged: environment variable FERROMQ_LOG, such as `info` or `ferromq_broker=debug`.
    #[arg(long = "logFile", value_name = "FILE")]
    log_file: Option<PathBuf>,
}

/// What -m prints. Java: the fields marked `@ImportantField`.
const IMPORTANT: [&str; 22] = [
    "autoCreateSubscriptionGroup",
    "autoCreateTopicEnable",
    "brokerClusterName",
    "brokerIP1",
    "brokerIP2",
    "brokerId",
    "brokerName",
    "brokerRole",
    "deleteWhen",
    "fetchNamesrvAddrByAddressServer",
    "fileReservedTime",
    "flushDiskType",
    "flushIntervalCommitLog",
    "listenPort",
    "mappedFileSizeCommitLog",
    "maxMessageSize",
    "msgTraceTopicName",
    "namesrvAddr",
    "rejectTransactionMessage",
    "storePathCommitLog",
    "storePathRootDir",
    "traceTopicEnable",
];

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mqbroker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let mut loaded = match &args.config_file {
        Some(file) => BrokerConfig::load(file)?,
        None => BrokerConfig::parse("", Path::new("command line"))?,
    };
    if let Some(list) = &args.namesrv_addr {
        loaded.config.namesrv_addr = Some(list.clone());
    }
    let remarks = remarks(&loaded, args.config_file.as_deref());
    let config = BrokerConfig::complete(loaded)?;
    if args.print_config || args.print_important {
        let listing = config.listing();
        for (key, value) in listing.iter().filter(|(key, _)| args.print_config || IMPORTANT.contains(&key.as_str())) {
            println!("{key}={value}");
        }
        return Ok(());
    }
    start_log(args.log_file.as_deref())?;
    for remark in remarks {
        warn!("{remark}");
    }
    ferromq_remoting::raise_open_files_limit();
    // Connections have threads of their own; this one accepts them, and looks after the broker's duties.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| anyhow!("cannot start the runtime: {error}"))?;
    runtime.block_on(serve(config, args.config_file.clone()))
}

async fn serve(config: BrokerConfig, config_file: Option<PathBuf>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut broker = Broker::start(config, config_file).await?;
    tokio::select! {
        line = broker.boot_line() => {
            println!("{line}");
            tokio::select! {
                _ = terminate.recv() => info!("SIGTERM: stopping"),
                _ = interrupt.recv() => info!("SIGINT: stopping"),
            }
        }
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
    }
    broker.shutdown().await;
    Ok(())
}

/// What a reader of the file should know: keys that nobody knows, each with its line, and those without effect, all in one.
fn remarks(loaded: &Loaded<BrokerConfig>, file: Option<&Path>) -> Vec<String> {
    let Some(file) = file else { return Vec::new() };
    let mut remarks: Vec<String> = loaded
        .unknown
        .iter()
        .map(|at| {
            format!(
                "{}:{}: unknown key `{}` is ignored; correct its spelling or remove the line",
                file.display(),
                at.line,
                at.key
            )
        })
        .collect();
    if !loaded.inert.is_empty() {
        let keys: Vec<String> = loaded.inert.iter().map(|at| format!("{} (line {})", at.key, at.line)).collect();
        remarks.push(format!("{}: these RocketMQ keys have no effect in FerroMQ: {}", file.display(), keys.join(", ")));
    }
    remarks
}

fn start_log(file: Option<&Path>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("FERROMQ_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(true);
    match file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
                anyhow!(
                    "cannot write the log to {}: {error}; make it writable, or give --logFile another path",
                    path.display()
                )
            })?;
            log.with_ansi(false).with_writer(Mutex::new(file)).init();
        }
        None => log.with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).init(),
    }
    Ok(())
}
