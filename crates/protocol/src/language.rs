//! The language a peer says it is written in. Java: `LanguageCode`.

use std::fmt;

/// Open enum over the one-byte language code (Java: `LanguageCode`). It only matters for listings and one reset-offset body.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Language(pub u8);

const NAMES: [&str; 14] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST",
    "NODE_JS",
];

impl Language {
    pub const JAVA: Self = Self(0);
    pub const CPP: Self = Self(1);
    pub const DOTNET: Self = Self(2);
    pub const PYTHON: Self = Self(3);
    pub const DELPHI: Self = Self(4);
    pub const ERLANG: Self = Self(5);
    pub const RUBY: Self = Self(6);
    pub const OTHER: Self = Self(7);
    pub const HTTP: Self = Self(8);
    pub const GO: Self = Self(9);
    pub const PHP: Self = Self(10);
    pub const OMS: Self = Self(11);
    pub const RUST: Self = Self(12);
    pub const NODE_JS: Self = Self(13);
    /// A name nobody knows. Never written: the member is left out, as Java leaves out a null.
    pub const UNKNOWN: Self = Self(u8::MAX);

    /// The name in JSON; `None` for a code outside the table.
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0)).copied()
    }

    /// The code of a JSON name, [`Language::UNKNOWN`] for a name outside the table. Case matters.
    pub fn from_name(name: &str) -> Self {
        let ordinal = NAMES.iter().position(|known| *known == name).and_then(|at| u8::try_from(at).ok());
        ordinal.map_or(Self::UNKNOWN, Self)
    }
}

impl Default for Language {
    fn default() -> Self {
        Self::JAVA
    }
}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Language({})", self.0),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name().unwrap_or("UNKNOWN"))
    }
}

/// As the name, or null for a code outside the table.
impl serde::Serialize for Language {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name().serialize(serializer)
    }
}

/// From a name, an ordinal (C++ clients) or null (JAVA).
impl<'de> serde::Deserialize<'de> for Language {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Form {
            Name(String),
            Ordinal(u8),
            Null(()),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Name(name) => Self::from_name(&name),
            Form::Ordinal(ordinal) => Self(ordinal),
            Form::Null(()) => Self::JAVA,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ordinals_agree() {
        assert_eq!(Language::from_name("GO"), Language::GO);
        assert_eq!(Language::NODE_JS.name(), Some("NODE_JS"));
        assert_eq!(Language::from_name("KLINGON"), Language::UNKNOWN);
        assert_eq!(Language(99).name(), None);
    }
}
