//! `mqadmin`: one flat table of commands over `ferromq-client`.
//!
//! Standard output, exit codes and option spellings are Java's, byte for byte where nothing is volatile. A failure prints the
//! Java exception's line and cause on stderr, without stack frames, and leaves the exit code 0 as Java does.

mod commands;
mod failure;
mod text;

use std::io::Write;

use commands::{COMMANDS, Command, Context};
use ferromq_client::{Admin, AdminConfig};
use ferromq_config::command_line::{COMMON, GivenOptions, HELP, NAMESRV_ADDR, OptionSpec, ignored, usage};

/// Runs one command line (without the program's name) and returns the exit code.
pub async fn run(arguments: &[String]) -> u8 {
    let mut out = String::new();
    let code = match arguments {
        [] => {
            out.push_str(&command_list());
            0
        }
        [help, name] if help == "help" => {
            out.push_str(&find(name).map_or_else(|| unknown(name), usage_of));
            0
        }
        [name, rest @ ..] => match find(name) {
            Some(command) => return execute(command, rest).await,
            None => {
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

fn command_list() -> String {
    let mut text = String::from("The most commonly used mqadmin commands are:\n");
    for command in COMMANDS {
        text.push_str(&format!("   {:<35} {}\n", command.name, command.description));
    }
    text.push_str("\nSee 'mqadmin help <command>' for more information on a specific command.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_texts_and_list_are_those_of_java() {
        let golden = include_str!("../../../tests/golden/mqadmin-usage.txt");
        let mut compared = 0;
        for block in golden.split("\n$ ").skip(1) {
            let (name, text) = block.split_once('\n').expect("a name and a text");
            let text = text.trim_end();
            if name == "(list)" {
                let listed: Vec<String> =
                    command_list().lines().filter(|line| line.starts_with("   ")).map(str::to_owned).collect();
                assert_eq!(listed.join("\n"), text);
            } else {
                let command = find(name).unwrap_or_else(|| panic!("{name} is one of our commands"));
                assert_eq!(usage_of(command).trim_end(), text, "{name}");
                compared += 1;
            }
        }
        assert_eq!(compared, COMMANDS.len());
    }
}
