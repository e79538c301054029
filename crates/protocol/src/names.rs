//! Topic and group names as they came over the wire.
//!
//! A name is a slice of the frame it arrived in, so cloning it is cheap, but it keeps the frame's buffer alive:
//! call `into_owned` before storing one for long.

use std::borrow::Borrow;
use std::fmt;

use bytestring::ByteString;

/// Longest topic name a client may use, in UTF-16 units. Java: `TopicValidator.TOPIC_MAX_LENGTH`.
pub const TOPIC_LEN_MAX: usize = 127;
/// Longest group name, in UTF-16 units: with `%RETRY%` before it, it must still be a topic that can be stored. Java's clients allow 255
/// (`Validators.CHARACTER_MAX_LENGTH`), and such a group's retries are lost.
pub const GROUP_LEN_MAX: usize = crate::message::record::TOPIC_LEN_MAX - crate::topics::RETRY_PREFIX.len();

/// Why a name is refused. The text is what a Java broker puts in the remark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("The specified {0} is blank.")]
    Blank(NameKind),
    #[error("The specified {0} contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")]
    IllegalCharacters(NameKind),
    #[error("The specified {0} is longer than {0} max length.")]
    TooLong(NameKind),
}

/// What kind of name a [`NameError`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    Topic,
    Group,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameKind::Topic => "topic",
            NameKind::Group => "group",
        })
    }
}

fn validate(name: &str, kind: NameKind, len_max: usize) -> Result<(), NameError> {
    // Blank as Java's StringUtils.isBlank sees it: nothing but white space.
    if name.trim().is_empty() {
        return Err(NameError::Blank(kind));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'_' | b'-')) {
        return Err(NameError::IllegalCharacters(kind));
    }
    // Only ASCII is left here, so bytes are UTF-16 units.
    if name.len() > len_max {
        return Err(NameError::TooLong(kind));
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:expr, $len_max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(ByteString);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// A copy that shares nothing with the frame it came in.
            #[must_use]
            pub fn into_owned(self) -> Self {
                Self(ByteString::from(&*self.0))
            }

            /// Checks the rules a broker applies to names it did not make itself: not blank, only
            /// `% | a-z A-Z 0-9 _ -`, bounded length. Java: `TopicValidator.validateTopic`.
            pub fn validate(&self) -> Result<(), NameError> {
                validate(&self.0, $kind, $len_max)
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        // Same hash as `str`, so that maps keyed by the name can be asked with a `&str`.
        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl From<ByteString> for $name {
            fn from(name: ByteString) -> Self {
                Self(name)
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(ByteString::from(name))
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(ByteString::from(name))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }
    };
}

name_type!(
    /// Name of a topic. Holds whatever came over the wire; [`TopicName::validate`] checks it.
    TopicName,
    NameKind::Topic,
    TOPIC_LEN_MAX
);
name_type!(
    /// Name of a producer or consumer group. Holds whatever came over the wire; [`GroupName::validate`] checks it.
    GroupName,
    NameKind::Group,
    GROUP_LEN_MAX
);

impl GroupName {
    /// Whether a group's retry and dead-letter topics can be: its name is valid, or blank, as one that comes into being by being used may be.
    pub fn can_be_retried(group: &str) -> bool {
        group.trim().is_empty() || GroupName::from(group).validate().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_rules() {
        assert_eq!(TopicName::from("%RETRY%g_1-x|y").validate(), Ok(()));
        assert_eq!(TopicName::from(" ").validate().unwrap_err().to_string(), "The specified topic is blank.");
        assert_eq!(
            TopicName::from("a b").validate().unwrap_err().to_string(),
            "The specified topic contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
        );
        assert_eq!(
            TopicName::from("t".repeat(128)).validate().unwrap_err().to_string(),
            "The specified topic is longer than topic max length."
        );
        assert_eq!(TopicName::from("t".repeat(127)).validate(), Ok(()));
    }

    #[test]
    fn the_retry_topic_of_every_group_can_be_stored() {
        assert_eq!(GroupName::from("g".repeat(248)).validate(), Ok(()));
        for bad in ["g".repeat(249), "a/b".into(), "..".into(), "a@b".into(), "\0".into(), "ü".into(), " ".into()] {
            assert!(GroupName::from(&*bad).validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_map_of_names_answers_to_str() {
        let mut map = std::collections::HashMap::new();
        map.insert(TopicName::from("T"), 1);
        assert_eq!(map.get("T"), Some(&1));
    }
}
