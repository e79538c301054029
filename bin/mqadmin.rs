//! `mqadmin COMMAND [options]`: operates nameservers and brokers. Same commands, options and output as RocketMQ's.

fn main() -> std::process::ExitCode {
    let arguments = match ferromq_config::command_line::arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("mqadmin: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mqadmin: cannot start: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    std::process::ExitCode::from(runtime.block_on(ferromq_admin::run(&arguments)))
}
