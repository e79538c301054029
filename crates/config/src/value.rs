//! The types a config key can have, and how each reads and shows its text.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// A typed config value. Text comes in trimmed.
pub trait ConfigValue: Sized {
    /// What is allowed, to stand after "must be".
    fn allowed() -> String;
    fn parse_text(text: &str) -> Option<Self>;
    /// `None` (Java's null) leaves the key out of every listing.
    fn text(&self) -> Option<String>;
}

/// Java takes every text but `true` as false; here a typo is an error.
impl ConfigValue for bool {
    fn allowed() -> String {
        "true or false".into()
    }

    fn parse_text(text: &str) -> Option<Self> {
        match () {
            () if text.eq_ignore_ascii_case("true") => Some(true),
            () if text.eq_ignore_ascii_case("false") => Some(false),
            () => None,
        }
    }

    fn text(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! whole_numbers {
    ($($type:ty)*) => {$(
        impl ConfigValue for $type {
            fn allowed() -> String {
                range_text(&(<$type>::MIN..=<$type>::MAX))
            }

            fn parse_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn text(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}

whole_numbers!(u16 u32 u64 usize i32 i64);

impl ConfigValue for f64 {
    fn allowed() -> String {
        "a number".into()
    }

    fn parse_text(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// As Java shows a double: always with a fraction.
    fn text(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl ConfigValue for String {
    fn allowed() -> String {
        "text".into()
    }

    fn parse_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn text(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl ConfigValue for PathBuf {
    fn allowed() -> String {
        "a path".into()
    }

    fn parse_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.into())
    }

    fn text(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

/// A key that is null in Java until someone sets it. Empty text unsets it.
impl<T: ConfigValue> ConfigValue for Option<T> {
    fn allowed() -> String {
        T::allowed()
    }

    fn parse_text(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::parse_text(text).map(Some) }
    }

    fn text(&self) -> Option<String> {
        self.as_ref().and_then(T::text)
    }
}

/// An enum whose values have Java's constant names in a config file.
///
/// ```
/// ferromq_config::config_enum! {
///     /// When the lamp shines.
///     #[derive(Default)]
///     pub enum Mode {
///         #[default]
///         Always = "ALWAYS",
///         AtNight = "AT_NIGHT",
///     }
/// }
/// assert_eq!(Mode::AtNight.name(), "AT_NIGHT");
/// ```
#[macro_export]
macro_rules! config_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            /// The name it has in the config file.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl $crate::ConfigValue for $name {
            fn allowed() -> String {
                [$($text),+].join(" or ")
            }

            fn parse_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }

            fn text(&self) -> Option<String> {
                Some(self.name().to_owned())
            }
        }
    };
}

/// "a whole number from 1 to 100"
pub fn range_text<T: Display>(range: &RangeInclusive<T>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

/// Java's `user.home`, where its default paths live: `$HOME`, or the working directory where there is none.
pub fn home_dir() -> PathBuf {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_each_type_reads_back() {
        fn round<T: ConfigValue>(text: &str) -> Option<String> {
            T::parse_text(text).and_then(|value| value.text())
        }
        assert_eq!(round::<bool>("TRUE").as_deref(), Some("true"));
        assert_eq!(round::<bool>("yes"), None);
        assert_eq!(round::<u16>("65536"), None);
        assert_eq!(round::<i64>("-1").as_deref(), Some("-1"));
        assert_eq!(round::<f64>("1").as_deref(), Some("1.0"));
        assert_eq!(round::<PathBuf>(""), None);
        assert_eq!(Option::<PathBuf>::parse_text(""), Some(None));
        assert_eq!(round::<Option<u32>>("x"), None);
    }
}
