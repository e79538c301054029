//! `wipeWritePerm`: no more sends to a broker, on every nameserver. Java: `WipeWritePermSubCommand`.

use super::{Command, Context};
use crate::failure::Failure;
use ferromq_config::command_line::{OptionSpec, value};

const BROKER_NAME: OptionSpec = value("b", "brokerName", "broker name").required();

pub const COMMAND: Command = Command {
    name: "wipeWritePerm",
    description: "Wipe write perm of broker in all name server you defined in the -n param.",
    options: &[BROKER_NAME],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: WipeWritePermSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let broker = context.required(&BROKER_NAME);
    for nameserver in context.admin.nameservers().to_vec() {
        // One unreachable nameserver does not keep the others from being changed.
        match context.admin.wipe_write_perm(&nameserver, &broker).await {
            Ok(topics) => {
                context.line(format!("wipe write perm of broker[{broker}] in name server[{nameserver}] OK, {topics}"))
            }
            Err(error) => {
                context.line(format!("wipe write perm of broker[{broker}] in name server[{nameserver}] Failed"));
                eprintln!("{}", Failure::from(error));
            }
        }
    }
    Ok(())
}
