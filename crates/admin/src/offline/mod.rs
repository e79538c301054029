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
use ferromq_config::{ConfigValue, Entry, decode_text, parse_properties};
use ferromq_store::check::{CheckConfig, CheckError, RepairConfig, RepairError};
use ferromq_store::{DelayLevels, QUEUE_ENTRY_LEN};

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
    #[error("--repair: {0}")]
    Repair(#[from] RepairError),
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

/// What a broker.conf says.
struct Settings<'a> {
    file: &'a str,
    entries: Vec<Entry>,
}

impl Settings<'_> {
    /// Of the file that the options name, if they name one.
    fn read(given: &GivenOptions) -> Result<Option<Settings<'_>>, Failure> {
        let Some(file) = given.value(&CONFIG_FILE) else { return Ok(None) };
        let path = Path::new(file);
        let bytes = std::fs::read(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
        let entries =
            parse_properties(&decode_text(&bytes)).map_err(|error| Failure::Wrong(format!("{file}: {error}")))?;
        Ok(Some(Settings { file, entries }))
    }

    /// Of a key that is there twice the last one counts.
    fn text(&self, key: &str) -> Option<&str> {
        self.entries.iter().rev().find(|entry| entry.key == key).map(|entry| entry.value.trim())
    }

    fn parsed<T: ConfigValue>(&self, key: &str, default: T, kind: &str) -> Result<T, Failure> {
        let Some(text) = self.text(key) else { return Ok(default) };
        T::parse_text(text)
            .ok_or_else(|| Failure::Wrong(format!("{}: {key} is `{text}`, which is no {kind}", self.file)))
    }

    fn dirs(&self, key: &str) -> Vec<PathBuf> {
        let splitter = self.text("multiPathSplitter").filter(|splitter| !splitter.is_empty()).unwrap_or(",");
        dirs(self.text(key).unwrap_or_default(), splitter)
    }
}

/// Where the store is, as the options say it.
fn store_at(given: &GivenOptions, root: &Path) -> Result<CheckConfig, Failure> {
    let mut config = CheckConfig::at(root);
    if let Some(settings) = Settings::read(given)? {
        let number = |key, default| settings.parsed(key, default, "number");
        config.index_shape = Some((number("maxHashSlotNum", 5_000_000)?, number("maxIndexNum", 20_000_000)?));
        if let Some(levels) = settings.text("messageDelayLevel") {
            config.delay_levels =
                DelayLevels::parse(levels).map_err(|error| Failure::Wrong(format!("{}: {error}", settings.file)))?;
        }
        let read_only = settings.dirs("readOnlyCommitLogStorePaths");
        let mut log_dirs = settings.dirs("storePathCommitLog");
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

/// What a broker makes the files of the store with.
fn made_with(given: &GivenOptions) -> Result<RepairConfig, Failure> {
    let Some(settings) = Settings::read(given)? else {
        return Err(Failure::Wrong(
            "--repair needs -c with the broker's own file: what is made again must be as long as the rest".to_owned(),
        ));
    };
    let queue_file_len: u64 = settings.parsed("mappedFileSizeConsumeQueue", 6_000_000, "number")?;
    Ok(RepairConfig {
        read_only_log_dirs: settings.dirs("readOnlyCommitLogStorePaths"),
        segment_len: settings.parsed("mappedFileSizeCommitLog", 1 << 30, "number")?,
        queue_file_entries: queue_file_len.div_ceil(QUEUE_ENTRY_LEN as u64),
        index_enabled: settings.parsed("messageIndexEnable", true, "truth value")?,
    })
}

fn dirs(list: &str, splitter: &str) -> Vec<PathBuf> {
    list.split(splitter).map(str::trim).filter(|dir| !dir.is_empty()).map(PathBuf::from).collect()
}
