//! JSON as RocketMQ's peers really write it: a lenient reader and a writer for each textual form they accept.
//!
//! Java's serializer (fastjson 1.x) prints integer map keys bare and object map keys as object literals, prints one
//! object twice as a reference, and reads far more than the standard allows; Go and C++ clients lean on that. The
//! reader takes all of it; the types are plain serde types.

mod error;
mod key;
pub(crate) mod lexer;
mod number;
mod object;
mod read;
mod reference;
mod scan;
mod write;

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

pub use error::{DEPTH_MAX, JsonError, OBJECTS_MAX, REFERENCES_MAX};
pub use write::inline;

/// Reads a body or config file. Unknown members are ignored; a null or absent member takes the type's default when it
/// has `#[serde(default)]`; null elements and null map values are left out; numbers, booleans and strings stand for
/// each other; enum values may be names or ordinals; member names match ignoring case, `_` and `-`;
/// comments are blanks.
///
/// Nothing is allocated ahead of the text that asks for it; nesting, objects and references are bounded.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    read::from_slice(text, OBJECTS_MAX)
}

/// Reads a file that people may have edited; an error says line and column. It may hold any number of objects: what a table grew to must
/// be read again. Refuses what [`from_slice`], which reads bodies of newer peers,
/// takes for an empty value: an object that has members but none of the type's own. It is another file, or a name is misspelt.
pub fn from_file<T: DeserializeOwned + Serialize + Default>(text: &[u8]) -> Result<T, String> {
    let value = read::from_slice(text, u32::MAX).map_err(|error| error.in_text(text))?;
    let plain = |name: &String| name.replace(['_', '-'], "").to_ascii_lowercase();
    // Every table has a version; it says nothing.
    let names = |text: &[u8]| -> Vec<String> {
        let members = read::from_slice::<BTreeMap<String, IgnoredAny>>(text, u32::MAX).unwrap_or_default();
        members.into_keys().filter(|name| plain(name) != "dataversion").collect()
    };
    let (found, known) = (names(text), names(&to_vec(&T::default())));
    let is_known = |name: &String| known.iter().any(|known| plain(known) == plain(name));
    if !found.is_empty() && !known.is_empty() && !found.iter().any(is_known) {
        let shown: String = found.join(", ").chars().take(200).collect();
        return Err(format!("it holds `{shown}`, but nothing named `{}`", known.join("` or `")));
    }
    Ok(value)
}

/// Compact, integer keys quoted: what every client reads. Object keys are object literals.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    write::to_vec(value, write::Style::COMPACT)
}

/// Compact as Java prints it: like [`to_vec`] with integer keys bare. Route data for clients before 4.9.4.
pub fn to_vec_bare_keys<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    write::to_vec(value, write::Style::BARE_KEYS)
}

/// Compact, ASCII only, `/` escaped: the strict form of route data, byte for byte.
pub fn to_vec_ascii<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    write::to_vec(value, write::Style::ASCII)
}

/// Java's config file form: tabs, integer keys bare on the line of their brace, sets (see [`inline`]) on one line.
pub fn to_vec_pretty<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    write::to_vec(value, write::Style::PRETTY)
}

#[cfg(test)]
#[path = "json_test.rs"]
mod tests;
