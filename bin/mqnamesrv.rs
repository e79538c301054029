//! `mqnamesrv`: the nameserver as a process. Flags and boot line are Java's `NamesrvStartup`.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use ferromq_config::command_line::{COMMON, GivenOptions, HELP, OptionSpec, arguments, switch, usage, value};
use ferromq_namesrv::{Config, Configuration, Nameserver};
use tokio::signal::unix::{SignalKind, signal};

#[path = "common/logging.rs"]
mod logging;

const CONFIG_FILE: OptionSpec = value("c", "configFile", "Name server config properties file");
const PRINT_CONFIG: OptionSpec = switch("p", "printConfigItem", "Print all config items");
const VERSION: OptionSpec = switch("V", "version", "Print version");

/// As Java's `NamesrvStartup` has them. `-n` is there for scripts that pass it: a nameserver needs no other nameserver.
const OPTIONS: [OptionSpec; 3] = [CONFIG_FILE, PRINT_CONFIG, VERSION];

fn main() -> ExitCode {
    let specs: Vec<OptionSpec> = COMMON.iter().chain(&OPTIONS).copied().collect();
    let given = match arguments().and_then(|words| GivenOptions::parse(&specs, &words)) {
        Ok(given) => given,
        Err(error) => {
            eprintln!("{error}");
            print!("{}", usage("mqnamesrv", &specs));
            return ExitCode::FAILURE;
        }
    };
    if given.has(&HELP) {
        print!("{}", usage("mqnamesrv", &specs));
        return ExitCode::SUCCESS;
    }
    if given.has(&VERSION) {
        println!("mqnamesrv {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let stderr = std::io::stderr;
    tracing_subscriber::fmt()
        .with_env_filter(logging::filter())
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
    if let Some(warning) = given.stray_warning() {
        tracing::warn!("{warning}");
    }
    match run(given.value(&CONFIG_FILE).map(Path::new), given.has(&PRINT_CONFIG)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mqnamesrv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config_file: Option<&Path>, print_config: bool) -> anyhow::Result<()> {
    let config = match config_file {
        Some(file) => load(file)?,
        None => Config::default(),
    };
    if print_config {
        print!("{}", config.to_properties());
        return Ok(());
    }
    ferromq_remoting::raise_open_files_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("namesrv").build();
    let runtime = runtime.map_err(|error| anyhow!("cannot start threads: {error}"))?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Before the boot line: whoever waits for it may send a signal at once.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| anyhow!("cannot wait for SIGTERM: {error}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| anyhow!("cannot wait for SIGINT: {error}"))?;
    let nameserver = Nameserver::start(config).await?;
    println!("The Name Server boot success. serializeType=JSON, address {}", nameserver.local_addr());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    nameserver.shutdown().await;
    Ok(())
}

/// Reads the file, which then also keeps changes made at run time, and reports keys that will not do what their writer hopes.
fn load(file: &Path) -> anyhow::Result<Config> {
    let loaded = Config::load(file)?;
    for unknown in &loaded.unknown {
        tracing::warn!("{}:{}: unknown key {} is ignored", file.display(), unknown.line, unknown.key);
    }
    for inert in &loaded.inert {
        tracing::info!("{}:{}: {} has no effect in FerroMQ", file.display(), inert.line, inert.key);
    }
    Ok(Config { config_store_path: file.to_owned(), ..loaded.config })
}
