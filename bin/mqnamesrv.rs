//! `mqnamesrv`: the nameserver as a process. Flags and boot line are Java's `NamesrvStartup`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Parser;
use ferromq_namesrv::{Config, Configuration, Nameserver};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// FerroMQ nameserver. Without -c it listens on 0.0.0.0:9876.
#[derive(Parser)]
#[command(name = "mqnamesrv", version)]
struct Options {
    /// Configuration file (Java properties, RocketMQ's keys)
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Accepted for scripts that pass it; a nameserver needs no other nameserver
    #[arg(short = 'n', long = "namesrvAddr", value_name = "LIST")]
    namesrv_addr: Option<String>,
    /// Print every configuration item and exit
    #[arg(short = 'p', long = "printConfigItem")]
    print_config: bool,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let stderr = std::io::stderr;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal()).init();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mqnamesrv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let config = match &options.config_file {
        Some(file) => load(file)?,
        None => Config::default(),
    };
    if options.print_config {
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
