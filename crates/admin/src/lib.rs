//! `mqadmin`: one flat table of commands over `ferromq-client`, and a short one of our own over the files of a store.
//!
//! Standard output, exit codes and option spellings are Java's, byte for byte where nothing is volatile. A failure prints the
//! Java exception's line and cause on stderr, without stack frames, and leaves the exit code 0 as Java does.

mod commands;
mod failure;
mod offline;
mod text;

use std::io::Write;

use commands::{COMMANDS, Command, Context};
use ferromq_client::{Admin, AdminConfig};
use ferromq_config::command_line::{COMMON, GivenOptions, HELP, NAMESRV_ADDR, OptionSpec, ignored, usage};
use offline::OfflineCommand;

/// Runs one command line (without the program's name) and returns the exit code.
pub async fn run(arguments: &[String]) -> u8 {
    let mut out = String::new();
    let code = match arguments {
        [] => {
            out.push_str(&command_list());
            0
        }
        [help, name] if help == "help" => {
            out.push_str(&match (find(name), find_offline(name)) {
                (Some(command), _) => usage_of(command),
                (None, Some(command)) => usage_of_offline(command),
                (None, None) => unknown(name),
            });
            0
        }
        [name, rest @ ..] => match (find(name), find_offline(name)) {
            (Some(command), _) => return execute(command, rest).await,
            (None, Some(command)) => return command.execute(rest, &usage_of_offline(command)),
            (None, None) => {
                out.push_str(&unknown(name));
                0
            }
        },
    };
    print(&out);
    code
}

async fn execute(command: &Command, words: &[String]) -> u8 {
    let given = match GivenOptions::parse(&all_options(command), words) {
        Ok(given) => given,
        Err(error) => {
            eprintln!("{error}");
            print(&usage_of(command));
            return 1;
        }
    };
    if let Some(warning) = ignored(&given.stray, "") {
        eprintln!("mqadmin: {warning}");
    }
    if given.has(&HELP) {
        print(&usage_of(command));
        return 0;
    }
    let namesrv = given.value(&NAMESRV_ADDR).map(str::to_owned).or_else(|| std::env::var("NAMESRV_ADDR").ok());
    let admin = Admin::new(AdminConfig::new(namesrv.as_deref().unwrap_or_default()));
    let mut context = Context::new(admin, given, usage_of(command));
    let result = (command.run)(&mut context).await;
    print(&context.take_output());
    if let Err(failure) = result {
        match command.failure {
            Some(headline) => eprintln!("{headline}\nCaused by: {failure}"),
            None => eprintln!("{failure}"),
        }
    }
    context.admin.shutdown().await;
    0
}

/// Writes to stdout; a reader that has gone away is not an error worth a message.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name.eq_ignore_ascii_case(name))
}

fn find_offline(name: &str) -> Option<&'static OfflineCommand> {
    offline::COMMANDS.iter().find(|command| command.name.eq_ignore_ascii_case(name))
}

fn unknown(name: &str) -> String {
    format!("The sub command {name} not exist.\n")
}

/// The common ones and the command's own, which may say a common one in other words.
fn all_options(command: &Command) -> Vec<OptionSpec> {
    let common = COMMON.iter().filter(|common| command.options.iter().all(|own| own.short != common.short));
    common.chain(command.options).copied().collect()
}

fn usage_of(command: &Command) -> String {
    usage(&format!("mqadmin {}", command.name), &all_options(command))
}

fn usage_of_offline(command: &OfflineCommand) -> String {
    usage(&format!("mqadmin {} DIR", command.name), &command.all_options())
}

fn command_list() -> String {
    let mut text = String::from("The most commonly used mqadmin commands are:\n");
    let java = COMMANDS.iter().map(|command| (command.name, command.description));
    let own = offline::COMMANDS.iter().map(|command| (command.name, command.description));
    for (name, description) in java.chain(own) {
        text.push_str(&format!("   {name:<35} {description}\n"));
    }
    text.push_str("\nSee 'mqadmin help <command>' for more information on a specific command.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without what is our own.
    fn javas_part(usage: &str) -> String {
        let lines: Vec<&str> = usage.trim_end().lines().filter(|line| !line.contains("FerroMQ's own")).collect();
        lines.join("\n").replace(" [--json]", "")
    }

    #[test]
    fn usage_texts_and_list_are_those_of_java() {
        let golden = include_str!("../../../tests/golden/mqadmin-usage.txt");
        let mut compared = 0;
        for block in golden.split("\n$ ").skip(1) {
            let (name, text) = block.split_once('\n').expect("a name and a text");
            let text = text.trim_end();
            if name == "(list)" {
                let mut listed: Vec<String> =
                    command_list().lines().filter(|line| line.starts_with("   ")).map(str::to_owned).collect();
                let own = listed.split_off(COMMANDS.len());
                assert_eq!(listed.join("\n"), text);
                assert!(
                    own.iter().zip(offline::COMMANDS).all(|(line, command)| line.contains(command.name)),
                    "{own:?}"
                );
            } else {
                let command = find(name).unwrap_or_else(|| panic!("{name} is one of our commands"));
                assert_eq!(javas_part(&usage_of(command)), text, "{name}");
                compared += 1;
            }
        }
        assert_eq!(compared, COMMANDS.len());
    }
}
