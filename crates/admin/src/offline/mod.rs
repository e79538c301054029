//! Commands of our own, which look at the files of a store and ask nobody. They need no nameserver; what they print they print as
//! they go, because there may be any amount of it; and unlike Java's commands, their exit code tells.

mod config_files;
mod store_check;
mod store_dump;

#[cfg(test)]
mod offline_test;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ferromq_config::command_line::{GivenOptions, HELP, OptionSpec, value};
use ferromq_config::{decode_text, parse_properties};
use ferromq_store::DelayLevels;
use ferromq_store::check::{CheckConfig, CheckError};

/// All of them, in the order of the help list.
pub const COMMANDS: &[OfflineCommand] = &[store_check::COMMAND, store_dump::COMMAND];

/// Could not do what it was asked for.
pub const FAILED: u8 = 2;

const LOG_DIR: OptionSpec = value(
    "",
    "log-dir",
    "where the commit log is if not in DIR/commitlog; several directories are separated by commas",
);
const CONFIG_FILE: OptionSpec = value(
    "c",
    "configFile",
    "the broker.conf: where the log is, maxHashSlotNum, maxIndexNum and messageDelayLevel are taken from it",
);

pub struct OfflineCommand {
    pub name: &'static str,
    pub description: &'static str,
    pub options: &'static [OptionSpec],
    /// Gives the exit code.
    pub run: fn(&GivenOptions, &Path, &mut Out<'_>) -> Result<u8, Failure>,
}

impl OfflineCommand {
    pub fn all_options(&self) -> Vec<OptionSpec> {
        [HELP, LOG_DIR, CONFIG_FILE].iter().chain(self.options).copied().collect()
    }

    /// Runs it with the words that follow its name; `usage` is its usage text.
    pub fn execute(&self, words: &[String], usage: &str) -> u8 {
        let given = match GivenOptions::parse(&self.all_options(), words) {
            Ok(given) => given,
            Err(error) => {
                eprint!("{error}\n{usage}");
                return FAILED;
            }
        };
        if given.has(&HELP) {
            crate::print(usage);
            return 0;
        }
        let [dir] = given.stray.as_slice() else {
            eprint!("mqadmin: one directory of a store is wanted\n{usage}");
            return FAILED;
        };
        let mut to = BufWriter::new(std::io::stdout().lock());
        let done = (self.run)(&given, Path::new(dir), &mut Out { to: &mut to });
        // What was found comes before what kept it from going on.
        let _ = to.flush();
        done.unwrap_or_else(|failure| {
            eprintln!("mqadmin: {failure}");
            FAILED
        })
    }
}

/// Why a command could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Wrong(String),
}

/// Standard output. A reader that has gone away is not an error worth a message.
pub struct Out<'a> {
    to: &'a mut dyn Write,
}

impl Out<'_> {
    pub fn text(&mut self, text: &str) {
        let _ = self.to.write_all(text.as_bytes());
    }

    pub fn line(&mut self, text: impl AsRef<str>) {
        self.text(text.as_ref());
        self.text("\n");
    }
}

/// Where the store is, as the options say it.
fn store_at(given: &GivenOptions, root: &Path) -> Result<CheckConfig, Failure> {
    let mut config = CheckConfig::at(root);
    if let Some(file) = given.value(&CONFIG_FILE) {
        let path = Path::new(file);
        let bytes = std::fs::read(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
        let text = decode_text(&bytes);
        let entries = parse_properties(&text).map_err(|error| Failure::Wrong(format!("{file}: {error}")))?;
        // Of a key that is there twice the last one counts.
        let setting = |key: &str| entries.iter().rev().find(|entry| entry.key == key).map(|entry| entry.value.trim());
        let number = |key: &str, default: u32| match setting(key) {
            Some(text) => {
                text.parse().map_err(|_| Failure::Wrong(format!("{file}: {key} is `{text}`, which is no number")))
            }
            None => Ok(default),
        };
        config.index_shape = Some((number("maxHashSlotNum", 5_000_000)?, number("maxIndexNum", 20_000_000)?));
        if let Some(levels) = setting("messageDelayLevel") {
            config.delay_levels =
                DelayLevels::parse(levels).map_err(|error| Failure::Wrong(format!("{file}: {error}")))?;
        }
        let splitter = setting("multiPathSplitter").filter(|splitter| !splitter.is_empty()).unwrap_or(",");
        let listed = |key: &str| dirs(setting(key).unwrap_or_default(), splitter);
        let read_only = listed("readOnlyCommitLogStorePaths");
        let mut log_dirs = listed("storePathCommitLog");
        if log_dirs.is_empty() && !read_only.is_empty() {
            log_dirs.push(root.join("commitlog"));
        }
        // One that is no longer written to may be in both.
        log_dirs.extend(read_only.into_iter().filter(|dir| !log_dirs.contains(dir)).collect::<Vec<_>>());
        config.log_dirs = log_dirs;
    }
    if let Some(list) = given.value(&LOG_DIR) {
        config.log_dirs = dirs(list, ",");
    }
    Ok(config)
}

fn dirs(list: &str, splitter: &str) -> Vec<PathBuf> {
    list.split(splitter).map(str::trim).filter(|dir| !dir.is_empty()).map(PathBuf::from).collect()
}
