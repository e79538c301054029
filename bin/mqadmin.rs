//! `mqadmin COMMAND [options]`: operates nameservers and brokers. Same commands, options and output as RocketMQ's.

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mqadmin: cannot start: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    std::process::ExitCode::from(runtime.block_on(ferromq_admin::run(&arguments)))
}
