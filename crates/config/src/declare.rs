//! One declaration per key: [`config!`](crate::config), and what can be done with a struct it declares.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use crate::properties::{decode_text, parse_properties};

/// Why a config file cannot be used. The text names the file, the line, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("{}:{line}: `\\u` must be followed by four hexadecimal digits", file.display())]
    Malformed { file: PathBuf, line: usize },
    #[error("{}:{line}: {invalid}", file.display())]
    Invalid { file: PathBuf, line: usize, invalid: InvalidValue },
    /// A value that did not come from a file: a command-line flag, or a default that does not fit the rest.
    #[error(transparent)]
    Value(#[from] InvalidValue),
}

/// A value that its key cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is `{value}`, but must be {allowed}")]
pub struct InvalidValue {
    pub key: String,
    pub value: String,
    pub allowed: String,
}

/// A key and the line of its file it stands on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyAt {
    pub line: usize,
    pub key: String,
}

/// A config file that could be read, with what deserves a remark.
#[derive(Debug)]
pub struct LoadedConfig<C> {
    pub config: C,
    /// Keys that nobody knows, in the order of the file; likely typing errors.
    pub unknown: Vec<KeyAt>,
    /// Keys of RocketMQ that have no effect here.
    pub inert: Vec<KeyAt>,
    file: PathBuf,
    lines: HashMap<String, usize>,
}

impl<C: Configuration> LoadedConfig<C> {
    /// The error for a value that is wrong only together with others. It names the key's line if the key stands in the file.
    pub fn refuse(&self, key: &str, allowed: impl Into<String>) -> ConfigError {
        let value = self.config.listing().remove(key).unwrap_or_default();
        let invalid = InvalidValue { key: key.into(), value, allowed: allowed.into() };
        match self.lines.get(key) {
            Some(&line) => ConfigError::Invalid { file: self.file.clone(), line, invalid },
            None => invalid.into(),
        }
    }
}

/// One key, for the docs and `-p`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub key: &'static str,
    /// Its doc comment; empty for inert keys that have none.
    pub doc: String,
    /// What it may be; `None` for an inert key.
    pub allowed: Option<String>,
    /// `None` when the key is unset by default.
    pub default: Option<String>,
}

/// What a config holds beside its fields: text of inert and unknown keys, kept so that listings show them as Java's do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passive {
    pub inert: BTreeMap<&'static str, String>,
    pub unknown: BTreeMap<String, String>,
}

/// What [`Configuration::assign`] found the key to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    Effective,
    Inert,
    Unknown,
}

/// A struct made by [`config!`](crate::config). The first four are written by the macro.
pub trait Configuration: Clone + Default {
    /// Sets one key from text, which is trimmed first. Inert and unknown keys are kept as text. Unchanged on error.
    fn assign(&mut self, key: &str, text: &str) -> Result<KeyKind, InvalidValue>;
    /// Every effective key with its value, in the order of declaration. `None`: unset.
    fn effective(&self) -> Vec<(&'static str, Option<String>)>;
    fn declarations() -> Vec<Declaration>;
    fn passive(&self) -> &Passive;

    /// Every key that has a value, effective, inert or unknown, sorted as Java sorts.
    fn listing(&self) -> BTreeMap<String, String> {
        let passive = self.passive();
        let mut listing = passive.unknown.clone();
        listing.extend(passive.inert.iter().map(|(&key, text)| (key.to_owned(), text.clone())));
        listing.extend(self.effective().into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?))));
        listing
    }

    /// One `key=value` line per key, sorted, without escapes. Java: `MixAll.properties2String(…, true)`.
    fn to_properties(&self) -> String {
        self.listing().iter().fold(String::new(), |text, (key, value)| text + key + "=" + value + "\n")
    }

    /// Reads a whole file over the defaults.
    fn load(path: &Path) -> Result<LoadedConfig<Self>, ConfigError> {
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Unreadable { file: path.into(), source })?;
        Self::parse(&decode_text(&bytes), path)
    }

    /// Reads text over the defaults; `file` is only for messages. Where a key stands twice, the later one wins.
    fn parse(text: &str, file: &Path) -> Result<LoadedConfig<Self>, ConfigError> {
        let entries = parse_properties(text)
            .map_err(|malformed| ConfigError::Malformed { file: file.into(), line: malformed.line })?;
        let mut loaded = LoadedConfig {
            config: Self::default(),
            unknown: Vec::new(),
            inert: Vec::new(),
            file: file.into(),
            lines: HashMap::new(),
        };
        for entry in entries {
            let at = KeyAt { line: entry.line, key: entry.key };
            match loaded.config.assign(&at.key, &entry.value) {
                Ok(KeyKind::Effective) => {}
                Ok(KeyKind::Inert) => loaded.inert.push(at.clone()),
                Ok(KeyKind::Unknown) => loaded.unknown.push(at.clone()),
                Err(invalid) => return Err(ConfigError::Invalid { file: file.into(), line: at.line, invalid }),
            }
            loaded.lines.insert(at.key, at.line);
        }
        Ok(loaded)
    }

    /// A change at run time: all of it, or nothing if one value is impossible. Unknown keys are left out, as Java leaves them out
    /// (`Configuration.mergeIfExist`). Answers with the keys whose value is now different.
    fn apply<K: AsRef<str>, V: AsRef<str>>(&mut self, changes: &[(K, V)]) -> Result<Vec<String>, InvalidValue> {
        let before = self.listing();
        let mut next = self.clone();
        for (key, text) in changes {
            let mut with_it = next.clone();
            if with_it.assign(key.as_ref(), text.as_ref())? != KeyKind::Unknown || before.contains_key(key.as_ref()) {
                next = with_it;
            }
        }
        let changed = next
            .listing()
            .into_iter()
            .filter(|(key, text)| before.get(key) != Some(text))
            .map(|(key, _)| key)
            .collect();
        *self = next;
        Ok(changed)
    }
}

/// Default of an inert key as RocketMQ shows it: text, a number, true or false, or `None` for a key that is unset.
pub trait InertDefault {
    fn text(self) -> Option<String>;
}

macro_rules! inert_defaults {
    ($($type:ty)*) => {$(
        impl InertDefault for $type {
            fn text(self) -> Option<String> {
                crate::ConfigValue::text(&self)
            }
        }
    )*};
}

inert_defaults!(bool i64 f64 String);

impl InertDefault for &str {
    fn text(self) -> Option<String> {
        Some(self.to_owned())
    }
}

impl InertDefault for Option<&str> {
    fn text(self) -> Option<String> {
        self.map(str::to_owned)
    }
}

/// Declares a config struct, one line per key: `/// doc`, `"javaKey" => field: type = default`, with `in low..=high` after the key where
/// a number has bounds. Keys of RocketMQ that do nothing here stand in an `inert` block as `"javaKey" => default`. Types are those that
/// implement [`ConfigValue`](crate::ConfigValue). The struct gets a further field `passive` for inert and unknown keys. See the crate's example.
#[macro_export]
macro_rules! config {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[doc = $doc:expr])* $key:literal $(in $range:expr)? => $field:ident : $type:ty = $default:expr ),* $(,)?
        }
        $( inert { $( $(#[doc = $inert_doc:expr])* $inert_key:literal => $inert_default:expr ),* $(,)? } )?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
            /// Text of keys without effect.
            pub passive: $crate::Passive,
        }

        impl ::core::default::Default for $name {
            fn default() -> Self {
                let mut passive = $crate::Passive::default();
                $( $(
                    if let Some(text) = $crate::InertDefault::text($inert_default) {
                        passive.inert.insert($inert_key, text);
                    }
                )* )?
                Self { $( $field: $default, )* passive }
            }
        }

        impl $crate::Configuration for $name {
            fn assign(&mut self, key: &str, text: &str) -> ::core::result::Result<$crate::KeyKind, $crate::InvalidValue> {
                let text = text.trim();
                match key {
                    $( $key => {
                        let invalid = |allowed: String| $crate::InvalidValue { key: key.to_owned(), value: text.to_owned(), allowed };
                        let value = <$type as $crate::ConfigValue>::parse_text(text)
                            $( .filter(|value| ($range).contains(value)) )?
                            .ok_or_else(|| invalid({
                                #[allow(unused_variables, reason = "a range, if there is one, says more than the type")]
                                let allowed = <$type as $crate::ConfigValue>::allowed;
                                $( let allowed = || $crate::range_text(&($range)); )?
                                allowed()
                            }))?;
                        self.$field = value;
                        Ok($crate::KeyKind::Effective)
                    } )*
                    $( $( $inert_key => {
                        self.passive.inert.insert($inert_key, text.to_owned());
                        Ok($crate::KeyKind::Inert)
                    } )* )?
                    _ => {
                        self.passive.unknown.insert(key.to_owned(), text.to_owned());
                        Ok($crate::KeyKind::Unknown)
                    }
                }
            }

            fn effective(&self) -> Vec<(&'static str, Option<String>)> {
                vec![ $( ($key, $crate::ConfigValue::text(&self.$field)) ),* ]
            }

            fn passive(&self) -> &$crate::Passive {
                &self.passive
            }

            fn declarations() -> Vec<$crate::Declaration> {
                let defaults = Self::default();
                let mut declarations = Vec::new();
                $( declarations.push($crate::Declaration {
                    key: $key,
                    doc: [$($doc),*].map(|line: &str| line.trim()).join(" "),
                    allowed: Some({
                        #[allow(unused_variables, reason = "as in assign")]
                        let allowed = <$type as $crate::ConfigValue>::allowed;
                        $( let allowed = || $crate::range_text(&($range)); )?
                        allowed()
                    }),
                    default: $crate::ConfigValue::text(&defaults.$field),
                }); )*
                $( $( declarations.push($crate::Declaration {
                    key: $inert_key,
                    doc: { let lines: &[&str] = &[$($inert_doc),*]; lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ") },
                    allowed: None,
                    default: $crate::InertDefault::text($inert_default),
                }); )* )?
                declarations
            }
        }
    };
}

#[cfg(test)]
#[path = "declare_test.rs"]
mod tests;
