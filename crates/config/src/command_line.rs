//! Command-line options as commons-cli's `DefaultParser` and `HelpFormatter` treat them, for all programs that Java has too.
//!
//! Operators' scripts rely on the exact spellings it accepts (`-tTopic`, `-t=Topic`, `--top Topic`), on its passing over stray words and on
//! the exact usage text, so this is hand-written instead of taken from a crate that parses differently. Java: `ServerUtil`.

use std::collections::HashMap;
use std::ffi::OsString;

/// Width of a usage text. Java: `ServerUtil.printCommandLineHelp`.
const USAGE_WIDTH: usize = 110;

/// One option of a command, declared in Java's order (error messages list missing ones in it).
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Without its dash; empty for an option that only has a long name.
    pub short: &'static str,
    pub long: &'static str,
    pub takes_value: bool,
    pub required: bool,
    /// Options with the same group exclude each other, and one of them is required.
    pub group: Option<u8>,
    pub description: &'static str,
}

/// An optional option with a value.
pub const fn value(short: &'static str, long: &'static str, description: &'static str) -> OptionSpec {
    OptionSpec { short, long, takes_value: true, required: false, group: None, description }
}

/// An optional switch.
pub const fn switch(short: &'static str, long: &'static str, description: &'static str) -> OptionSpec {
    OptionSpec { takes_value: false, ..value(short, long, description) }
}

impl OptionSpec {
    pub const fn required(self) -> OptionSpec {
        OptionSpec { required: true, ..self }
    }

    /// Makes this one of the alternatives of which exactly one must be given.
    pub const fn one_of(self, group: u8) -> OptionSpec {
        OptionSpec { group: Some(group), ..self }
    }

    fn key(&self) -> &'static str {
        if self.short.is_empty() { self.long } else { self.short }
    }

    /// How the option stands in the synopsis.
    fn synopsis(&self, bare: bool) -> String {
        let dash = if self.short.is_empty() { "--" } else { "-" };
        let argument = if self.takes_value { " <arg>" } else { "" };
        if bare { format!("{dash}{}{argument}", self.key()) } else { format!("[{dash}{}{argument}]", self.key()) }
    }
}

/// The two options that every command and program has.
pub const COMMON: [OptionSpec; 2] = [HELP, NAMESRV_ADDR];
pub const HELP: OptionSpec = switch("h", "help", "Print help");
pub const NAMESRV_ADDR: OptionSpec =
    value("n", "namesrvAddr", "Name server address list, eg: '192.168.0.1:9876;192.168.0.2:9876'");

/// Why a command line was not understood; the text is commons-cli's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UsageError {
    #[error("this argument is not UTF-8: {0}")]
    NotUtf8(String),
    #[error("Unrecognized option: {0}")]
    Unknown(String),
    #[error("Ambiguous option: '{0}'  (could be: {1})")]
    Ambiguous(String, String),
    #[error("Missing argument for option: {0}")]
    MissingArgument(String),
    #[error("Missing required option{}: {}", if .0.len() == 1 { "" } else { "s" }, .0.join(", "))]
    MissingRequired(Vec<String>),
    #[error("The option '{0}' was specified but an option from this group has already been selected: '{1}'")]
    AlreadySelected(String, String),
}

/// The words of this process's command line, without its name.
pub fn arguments() -> Result<Vec<String>, UsageError> {
    let text = |word: OsString| word.into_string().map_err(|word| UsageError::NotUtf8(word.display().to_string()));
    std::env::args_os().skip(1).map(text).collect()
}

/// What a person should be told about words that belong to no option, all in one; `None` if there are none.
pub fn ignored(words: &[String], remark: &str) -> Option<String> {
    let shown: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    (!shown.is_empty()).then(|| format!("these words belong to no option and are ignored{remark}: {}", shown.join(" ")))
}

/// The options given on one command line. Values are trimmed; the first of a repeated option wins.
#[derive(Debug, Default)]
pub struct GivenOptions {
    values: HashMap<&'static str, Option<String>>,
    /// Words that belong to no option, in their order. Java passes over them in silence.
    pub stray: Vec<String>,
}

impl GivenOptions {
    /// Whether an option was given at all. One that was not among those parsed for never is.
    pub fn has(&self, option: &OptionSpec) -> bool {
        self.values.contains_key(option.key())
    }

    pub fn value(&self, option: &OptionSpec) -> Option<&str> {
        self.values.get(option.key()).and_then(Option::as_deref)
    }

    /// `true` only for the word "true", ignoring case, as `Boolean.parseBoolean`.
    pub fn flag(&self, option: &OptionSpec, default: bool) -> bool {
        self.value(option).map_or(default, |text| text.eq_ignore_ascii_case("true"))
    }

    /// What a person should be told about words that do nothing, all in one; `None` if there are none.
    pub fn stray_warning(&self) -> Option<String> {
        let settings = if self.stray.iter().any(|word| word.contains('=')) {
            ", as RocketMQ ignores them; settings belong into the file given with -c"
        } else {
            ", as RocketMQ ignores them"
        };
        ignored(&self.stray, settings)
    }

    /// Parses `words` against `specs`, which must include [`COMMON`].
    pub fn parse(specs: &[OptionSpec], words: &[String]) -> Result<GivenOptions, UsageError> {
        let mut parser = Parser { specs, given: GivenOptions::default(), selected: HashMap::new(), pending: None };
        let mut words = words.iter();
        for word in words.by_ref() {
            if parser.pending.is_none() && word == "--" {
                break;
            }
            parser.word(word)?;
        }
        parser.given.stray.extend(words.cloned());
        parser.finish()
    }
}

struct Parser<'a> {
    specs: &'a [OptionSpec],
    given: GivenOptions,
    selected: HashMap<u8, &'static str>,
    /// The option whose value is the next word.
    pending: Option<OptionSpec>,
}

impl Parser<'_> {
    fn word(&mut self, word: &str) -> Result<(), UsageError> {
        if let Some(spec) = self.pending.take() {
            if self.is_option(word) {
                return Err(UsageError::MissingArgument(spec.key().to_owned()));
            }
            self.store(spec, Some(without_quotes(word)));
            return Ok(());
        }
        if let Some(long) = word.strip_prefix("--") {
            self.long(word, long)
        } else if word.len() > 1 && word.starts_with('-') {
            self.short(word, &word[1..])
        } else {
            self.given.stray.push(word.to_owned());
            Ok(())
        }
    }

    fn long(&mut self, word: &str, name: &str) -> Result<(), UsageError> {
        let (name, attached) = match name.split_once('=') {
            Some((name, text)) => (name, Some(text)),
            None => (name, None),
        };
        match self.find_long(name)? {
            Some(spec) => self.take(spec, attached),
            None => Err(UsageError::Unknown(word.to_owned())),
        }
    }

    fn short(&mut self, word: &str, name: &str) -> Result<(), UsageError> {
        if let Some((name, text)) = name.split_once('=')
            && let Some(spec) = self.find_short(name).or(self.find_long(name)?)
        {
            return self.take(spec, Some(text));
        }
        if let Some(spec) = self.find_short(name) {
            return self.take(spec, None);
        }
        if let Some(spec) = self.find_long(name)? {
            return self.take(spec, None);
        }
        // `-tTopic`: a one-letter option with its value attached; `-pm`: several switches.
        for (at, letter) in name.char_indices() {
            let rest = &name[at + letter.len_utf8()..];
            let Some(spec) = self.find_short(&name[at..at + letter.len_utf8()]) else {
                return Err(UsageError::Unknown(word.to_owned()));
            };
            if spec.takes_value {
                return self.take(spec, Some(rest).filter(|rest| !rest.is_empty()));
            }
            self.take(spec, None)?;
        }
        Ok(())
    }

    fn take(&mut self, spec: OptionSpec, attached: Option<&str>) -> Result<(), UsageError> {
        if let Some(group) = spec.group {
            match self.selected.get(&group) {
                Some(other) if *other != spec.key() => {
                    return Err(UsageError::AlreadySelected(spec.key().to_owned(), (*other).to_owned()));
                }
                _ => {
                    self.selected.insert(group, spec.key());
                }
            }
        }
        match (spec.takes_value, attached) {
            (true, None) => self.pending = Some(spec),
            (_, text) => self.store(spec, text),
        }
        Ok(())
    }

    fn store(&mut self, spec: OptionSpec, text: Option<&str>) {
        self.given.values.entry(spec.key()).or_insert_with(|| text.map(|text| text.trim().to_owned()));
    }

    fn finish(mut self) -> Result<GivenOptions, UsageError> {
        if let Some(spec) = self.pending.take() {
            return Err(UsageError::MissingArgument(spec.key().to_owned()));
        }
        let mut missing = Vec::new();
        let mut groups_seen = Vec::new();
        for spec in self.specs {
            match spec.group {
                Some(group) if groups_seen.contains(&group) => {}
                Some(group) => {
                    groups_seen.push(group);
                    if !self.selected.contains_key(&group) {
                        let members: Vec<String> = self
                            .specs
                            .iter()
                            .filter(|other| other.group == Some(group))
                            .map(|other| format!("-{} {}", other.key(), other.description))
                            .collect();
                        missing.push(format!("[{}]", members.join(", ")));
                    }
                }
                None if spec.required && !self.given.has(spec) => missing.push(spec.key().to_owned()),
                None => {}
            }
        }
        if missing.is_empty() { Ok(self.given) } else { Err(UsageError::MissingRequired(missing)) }
    }

    /// Whether a word that follows an option is an option of its own and not that option's value.
    fn is_option(&self, word: &str) -> bool {
        match word.strip_prefix("--") {
            Some(long) => {
                let name = long.split('=').next().unwrap_or(long);
                word == "--" || !name.is_empty() && self.specs.iter().any(|spec| spec.long.trim().starts_with(name))
            }
            None => word.strip_prefix('-').is_some_and(|name| {
                !name.is_empty()
                    && (self.find_short(name).is_some() || self.specs.iter().any(|spec| spec.long.trim() == name))
            }),
        }
    }

    fn find_short(&self, name: &str) -> Option<OptionSpec> {
        self.specs.iter().find(|spec| !spec.short.is_empty() && spec.short == name).copied()
    }

    fn find_long(&self, name: &str) -> Result<Option<OptionSpec>, UsageError> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(exact) = self.specs.iter().find(|spec| spec.long.trim() == name) {
            return Ok(Some(*exact));
        }
        let matching: Vec<&OptionSpec> = self.specs.iter().filter(|spec| spec.long.starts_with(name)).collect();
        match matching.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(**one)),
            several => {
                let names: Vec<String> = several.iter().map(|spec| format!("'{}'", spec.long)).collect();
                Err(UsageError::Ambiguous(format!("--{name}"), names.join(", ")))
            }
        }
    }
}

/// A value in quotes of its own, as lists of words in compose files have it. Java: `Util.stripLeadingAndTrailingQuotes`.
fn without_quotes(word: &str) -> &str {
    match word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
        Some(inner) if !inner.contains('"') => inner,
        _ => word,
    }
}

/// The usage text of a program or of one of its commands (`mqadmin topicList`), ending with a newline.
pub fn usage(command: &str, specs: &[OptionSpec]) -> String {
    let mut sorted: Vec<&OptionSpec> = specs.iter().collect();
    sorted.sort_by_key(|spec| spec.key().to_ascii_lowercase());

    let mut synopsis = format!("usage: {command} ");
    let mut groups_seen = Vec::new();
    for (at, spec) in sorted.iter().enumerate() {
        match spec.group {
            Some(group) if groups_seen.contains(&group) => {}
            Some(group) => {
                groups_seen.push(group);
                let members: Vec<String> = sorted
                    .iter()
                    .filter(|other| other.group == Some(group))
                    .map(|other| other.synopsis(true))
                    .collect();
                synopsis.push_str(&members.join(" | "));
            }
            None => synopsis.push_str(&spec.synopsis(spec.required)),
        }
        if at + 1 < sorted.len() {
            synopsis.push(' ');
        }
    }
    let mut text = String::new();
    wrap(&mut text, &synopsis, "usage: ".len());

    let heads: Vec<String> = sorted
        .iter()
        .map(|spec| {
            let name = if spec.short.is_empty() {
                format!("    --{}", spec.long)
            } else {
                format!(" -{},--{}", spec.short, spec.long)
            };
            if spec.takes_value { name + " <arg>" } else { name }
        })
        .collect();
    let widest = heads.iter().map(String::len).max().unwrap_or(0);
    for (head, spec) in heads.iter().zip(&sorted) {
        wrap(&mut text, &format!("{head:widest$}   {}", spec.description), widest + 3);
    }
    text
}

/// Breaks `line` at blanks so that no line is longer than [`USAGE_WIDTH`]; continued lines are indented. Java: `HelpFormatter.renderWrappedText`.
fn wrap(out: &mut String, line: &str, indent: usize) {
    let mut rest = line.to_owned();
    while let Some(at) = wrap_position(&rest, indent) {
        out.push_str(rest[..at].trim_end());
        out.push('\n');
        rest = format!("{:indent$}{}", "", rest[at..].trim());
    }
    out.push_str(rest.trim_end());
    out.push('\n');
}

fn wrap_position(text: &str, indent: usize) -> Option<usize> {
    if text.len() <= USAGE_WIDTH {
        return None;
    }
    // All usage texts are ASCII, so byte positions are columns.
    match text.as_bytes()[..=USAGE_WIDTH].iter().rposition(|byte| *byte == b' ') {
        Some(at) if at >= indent => Some(at),
        _ => Some(USAGE_WIDTH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: OptionSpec = value("t", "topic", "topic name").required();

    fn parse(specs: &[OptionSpec], line: &[&str]) -> Result<GivenOptions, UsageError> {
        let all: Vec<OptionSpec> = COMMON.iter().chain(specs).copied().collect();
        GivenOptions::parse(&all, &line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn spellings_of_one_option_are_equivalent() {
        for line in [
            &["-t", "T"][..],
            &["-tT"],
            &["-t=T"],
            &["--topic", "T"],
            &["--topic=T"],
            &["--top", "T"],
            &["-topic", "T"],
            &["foo", "-t", " T ", "bar"],
            &["-t", "T", "-t", "U"],
        ] {
            assert_eq!(parse(&[TOPIC], line).unwrap().value(&TOPIC), Some("T"), "{line:?}");
        }
        assert_eq!(parse(&[TOPIC], &["-t", "-1"]).unwrap().value(&TOPIC), Some("-1"));
        assert_eq!(parse(&[TOPIC], &["-t", "\"T\""]).unwrap().value(&TOPIC), Some("T"));
        let [print, more] = [switch("p", "print", ""), switch("m", "more", "")];
        let switches = [print, more, TOPIC];
        let given = parse(&switches, &["-pmtT", "-h"]).unwrap();
        assert!(given.has(&print) && given.has(&more) && given.has(&HELP) && given.value(&TOPIC) == Some("T"));
    }

    #[test]
    fn stray_words_are_kept_wherever_they_stand() {
        let print = switch("p", "print", "");
        let switches = [print, TOPIC];
        for line in [
            &["a", "-p", "b=1", "-t", "T", "c"][..],
            &["a", "b=1", "-t", "T", "-p", "c"],
            &["-t", "T", "-p", "--", "a", "b=1", "c"],
        ] {
            let given = parse(&switches, line).unwrap();
            assert!(given.has(&print) && given.value(&TOPIC) == Some("T"), "{line:?}");
            assert_eq!(given.stray, ["a", "b=1", "c"], "{line:?}");
            let warning = given.stray_warning().unwrap();
            assert!(warning.contains("file given with -c: `a` `b=1` `c`"), "{warning}");
        }
    }

    #[test]
    fn errors_use_the_words_of_commons_cli() {
        let group = [
            value("b", "brokerAddr", "create topic to which broker").one_of(0),
            value("c", "clusterName", "create topic to which cluster").one_of(0),
            TOPIC,
        ];
        for (line, text) in [
            (&["-zz"][..], "Unrecognized option: -zz"),
            (&["-hz", "-t", "T"], "Unrecognized option: -hz"),
            (&["-t", "-n"], "Missing argument for option: t"),
            (&["-t"], "Missing argument for option: t"),
            (
                &["-t", "T"],
                "Missing required option: [-b create topic to which broker, -c create topic to which cluster]",
            ),
            (
                &["-t", "T", "-b", "x", "-c", "y"],
                "The option 'c' was specified but an option from this group has already been selected: 'b'",
            ),
            (&[], "Missing required options: [-b create topic to which broker, -c create topic to which cluster], t"),
            (
                &["--", "-t", "T", "-b", "x"],
                "Missing required options: [-b create topic to which broker, -c create topic to which cluster], t",
            ),
        ] {
            assert_eq!(parse(&group, line).unwrap_err().to_string(), text, "{line:?}");
        }
        let body = value("d", "printBody ", "");
        let print = [value("p", "print msg", ""), body];
        assert_eq!(
            parse(&print, &["--print", "true"]).unwrap_err().to_string(),
            "Ambiguous option: '--print'  (could be: 'print msg', 'printBody ')"
        );
        assert_eq!(parse(&print, &["--printBody", "true"]).unwrap().value(&body), Some("true"));
    }
}
