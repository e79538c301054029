//! `mqbroker`: starts a broker and stops it on SIGTERM or SIGINT.

use std::fs::OpenOptions;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::anyhow;
use ferromq_broker::{Broker, BrokerConfig};
use ferromq_config::command_line::{
    COMMON, GivenOptions, HELP, NAMESRV_ADDR, OptionSpec, UsageError, arguments, switch, usage, value,
};
use ferromq_config::{Configuration, LoadedConfig};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

#[path = "common/logging.rs"]
mod logging;

const CONFIG_FILE: OptionSpec = value("c", "configFile", "Broker config properties file");
const PRINT_CONFIG: OptionSpec = switch("p", "printConfigItem", "Print all config item");
const PRINT_IMPORTANT: OptionSpec = switch("m", "printImportantConfig", "Print important config item");
const LOG_FILE: OptionSpec = value(
    "",
    "logFile",
    "Append the log to this file instead of stderr. What is logged: environment variable FERROMQ_LOG, or RUST_LOG, such as info or ferromq_broker=debug",
);
const VERSION: OptionSpec = switch("V", "version", "Print version");

/// As Java's `BrokerStartup` has them, and two of our own.
const OPTIONS: [OptionSpec; 6] = [
    CONFIG_FILE,
    PRINT_CONFIG,
    PRINT_IMPORTANT,
    LOG_FILE,
    VERSION,
    switch("", ENABLE_PROXY, "Accepted for scripts that pass it; there is no gRPC proxy"),
];

/// Which RocketMQ's `mqbroker` script takes out of the line, wherever it stands; the other words then go to `ProxyStartup`.
const ENABLE_PROXY: &str = "enable-proxy";

const BROKER_CONFIG_PATH: OptionSpec = value("bc", "brokerConfigPath", "Broker config file path for local mode");

/// What `ProxyStartup` knows besides.
const PROXY_OPTIONS: [OptionSpec; 3] = [
    BROKER_CONFIG_PATH,
    value("pc", "proxyConfigPath", "Proxy config file path"),
    value("pm", "proxyMode", "Proxy run in local or cluster mode"),
];

/// A command line, understood.
#[derive(Debug, Default, PartialEq)]
struct Args {
    config_file: Option<PathBuf>,
    /// Wins over the file.
    namesrv_addr: Option<String>,
    print: Option<Print>,
    log_file: Option<PathBuf>,
    /// What on it does not do what its writer may hope.
    remarks: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Print {
    Help,
    Version,
    /// Every setting.
    Config,
    /// The settings that matter most.
    Important,
}

impl Args {
    fn parse(words: &[String]) -> Result<Args, UsageError> {
        let proxy = words.iter().any(|word| word.strip_prefix("--") == Some(ENABLE_PROXY));
        let given = GivenOptions::parse(&specs(proxy), words)?;
        let path = |option| given.value(option).map(PathBuf::from);
        let mut remarks: Vec<String> = given.stray_warning().into_iter().collect();
        if proxy {
            remarks.push("--enable-proxy has no effect: there is no gRPC proxy; clients of the remoting protocol connect to the broker".into());
        }
        let print = [
            (HELP, Print::Help),
            (VERSION, Print::Version),
            (PRINT_CONFIG, Print::Config),
            (PRINT_IMPORTANT, Print::Important),
        ];
        Ok(Args {
            config_file: path(&CONFIG_FILE).or_else(|| path(&BROKER_CONFIG_PATH)),
            namesrv_addr: given.value(&NAMESRV_ADDR).map(str::to_owned),
            print: print.into_iter().find(|(option, _)| given.has(option)).map(|(_, print)| print),
            log_file: path(&LOG_FILE),
            remarks,
        })
    }
}

fn specs(proxy: bool) -> Vec<OptionSpec> {
    let proxy_options = if proxy { &PROXY_OPTIONS[..] } else { &[] };
    COMMON.iter().chain(&OPTIONS).chain(proxy_options).copied().collect()
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
    let args = match arguments().and_then(|words| Args::parse(&words)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            print!("{}", usage("mqbroker", &specs(false)));
            return ExitCode::FAILURE;
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mqbroker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    match args.print {
        Some(Print::Help) => {
            print!("{}", usage("mqbroker", &specs(false)));
            return Ok(());
        }
        Some(Print::Version) => {
            println!("mqbroker {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        Some(Print::Config | Print::Important) | None => {}
    }
    let mut loaded = match &args.config_file {
        Some(file) => BrokerConfig::load(file)?,
        None => BrokerConfig::parse("", Path::new("command line"))?,
    };
    if let Some(list) = &args.namesrv_addr {
        loaded.config.namesrv_addr = Some(list.clone());
    }
    let remarks = remarks(&loaded, args.config_file.as_deref());
    let config = BrokerConfig::complete(loaded)?;
    if let Some(print) = args.print {
        for remark in &args.remarks {
            eprintln!("mqbroker: {remark}");
        }
        let listing = config.listing();
        for (key, value) in
            listing.iter().filter(|(key, _)| print == Print::Config || IMPORTANT.contains(&key.as_str()))
        {
            println!("{key}={value}");
        }
        return Ok(());
    }
    start_log(args.log_file.as_deref())?;
    for remark in args.remarks.iter().chain(&remarks) {
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
    let mut broker = tokio::select! {
        broker = Broker::start(config, config_file) => broker?,
        // A recovery may take minutes. What it leaves is what a kill would.
        _ = terminate.recv() => {
            info!("SIGTERM: stopping before the store is open");
            return Ok(());
        }
        _ = interrupt.recv() => {
            info!("SIGINT: stopping before the store is open");
            return Ok(());
        }
    };
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
fn remarks(loaded: &LoadedConfig<BrokerConfig>, file: Option<&Path>) -> Vec<String> {
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
    let log = tracing_subscriber::fmt().with_env_filter(logging::filter()).with_target(true);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Args {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Args::parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Lines from guides, compose files and charts; all of them start Java's broker.
    #[test]
    fn lines_that_start_rocketmq_start_this() {
        for line in [
            "-c broker.conf -n 127.0.0.1:9876",
            "-n 127.0.0.1:9876 -c broker.conf",
            "-c broker.conf -n 127.0.0.1:9876 autoCreateTopicEnable=true",
            "autoCreateTopicEnable=true -c broker.conf -n 127.0.0.1:9876",
            "start -n=127.0.0.1:9876 autoCreateTopicEnable=true --configFile=broker.conf &",
            "-cbroker.conf --namesrv 127.0.0.1:9876",
            "-configFile broker.conf -namesrvAddr \"127.0.0.1:9876\" -c other.conf",
            "-n 127.0.0.1:9876 --enable-proxy -c broker.conf",
            "--enable-proxy -n 127.0.0.1:9876 -pc rmq-proxy.json -bc broker.conf -pm local",
        ] {
            let args = parse(line);
            assert_eq!(args.config_file.as_deref(), Some("broker.conf".as_ref()), "{line}");
            assert_eq!(args.namesrv_addr.as_deref(), Some("127.0.0.1:9876"), "{line}");
            assert_eq!(args.print, None, "{line}");
            let odd = line.contains("autoCreateTopicEnable") || line.contains("proxy");
            assert_eq!(args.remarks.len(), usize::from(odd), "{line}: {:?}", args.remarks);
        }
    }

    #[test]
    fn settings_are_printed_wherever_the_switch_stands() {
        for (line, print) in [
            ("-c broker.conf -p -n x:1", Print::Config),
            ("-m stray -c broker.conf -n x:1", Print::Important),
            ("-c broker.conf -mp -n x:1", Print::Config),
            ("-p -c broker.conf -n x:1 -h", Print::Help),
        ] {
            let args = parse(line);
            assert_eq!((args.print, args.config_file.is_some()), (Some(print), true), "{line}");
        }
        assert!(Args::parse(&["-x".to_owned()]).is_err());
    }
}
