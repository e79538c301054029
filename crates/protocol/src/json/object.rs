//! Members of objects: those of a struct, matched to its fields, and the entries of a map, whose keys may be anything.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess};

use super::error::JsonError;
use super::key::Key;
use super::scan::Scanner;

/// The members of an object that a struct has fields for. Unknown, null and repeated ones are passed over.
pub(super) struct StructMembers<'s, 't> {
    pub scanner: &'s mut Scanner<'t>,
    pub fields: &'static [&'static str],
    /// One bit per field already given out; fields past the 128th are not watched for repetition.
    pub seen: u128,
}

impl StructMembers<'_, '_> {
    /// The field a member name means: exactly, or ignoring case and `_`/`-` as Java does.
    fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| *field == name).or_else(|| {
            let plain = |text: &'static str| text.bytes().filter(|byte| !matches!(byte, b'_' | b'-'));
            let wanted = || name.bytes().filter(|byte| !matches!(byte, b'_' | b'-'));
            self.fields.iter().position(|field| {
                plain(field).map(|b| b.to_ascii_lowercase()).eq(wanted().map(|b| b.to_ascii_lowercase()))
            })
        })
    }
}

impl<'de> MapAccess<'de> for StructMembers<'_, '_> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        loop {
            match self.scanner.lexer.peek_element() {
                Some(b'}') => return Ok(None),
                None => return self.scanner.syntax("a closing brace"),
                Some(b'{' | b'[') => {
                    self.scanner.skip_name()?;
                    self.scanner.skip_value()?;
                    continue;
                }
                Some(_) => {}
            }
            let name = self.scanner.lexer.name()?;
            let index = self.field(&name);
            self.scanner.lexer.expect(b':', "a colon")?;
            let bit = index.map_or(0, |index| 1u128.checked_shl(index as u32).unwrap_or(0));
            match index.and_then(|index| self.fields.get(index)) {
                Some(field) if self.seen & bit == 0 && !self.scanner.lexer.at_null() => {
                    self.seen |= bit;
                    let field: StrDeserializer<'_, JsonError> = (*field).into_deserializer();
                    return seed.deserialize(field).map(Some);
                }
                _ => self.scanner.skip_value()?,
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        self.scanner.lexer.peek();
        let at = self.scanner.lexer.at;
        let result = seed.deserialize(&mut *self.scanner);
        self.scanner.placed(at, result)
    }
}

/// The entries of an object read as a map; those with null values are left out.
pub(super) struct MapEntries<'s, 't> {
    pub scanner: &'s mut Scanner<'t>,
}

impl<'de> MapAccess<'de> for MapEntries<'_, '_> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        loop {
            match self.scanner.lexer.peek_element() {
                Some(b'}') => return Ok(None),
                None => return self.scanner.syntax("a closing brace"),
                Some(_) => {}
            }
            let start = self.scanner.lexer.at;
            self.scanner.skip_name()?;
            if self.scanner.lexer.at_null() {
                self.scanner.skip_value()?;
                continue;
            }
            self.scanner.lexer.at = start;
            let key = if matches!(self.scanner.lexer.peek(), Some(b'{' | b'[')) {
                seed.deserialize(&mut *self.scanner)?
            } else {
                let name = self.scanner.lexer.name()?;
                let result = seed.deserialize(Key { name });
                self.scanner.placed(start, result)?
            };
            self.scanner.lexer.expect(b':', "a colon")?;
            return Ok(Some(key));
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        self.scanner.lexer.peek();
        let at = self.scanner.lexer.at;
        let result = seed.deserialize(&mut *self.scanner);
        self.scanner.placed(at, result)
    }
}
