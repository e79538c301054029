//! The serde side of the lenient reader: asks the scanner for what the wanted type needs.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, SeqAccess, Visitor};

use super::error::{JsonError, without_frame};
use super::key::variant_name;
use super::number;
use super::object::{MapEntries, StructMembers};
use super::scan::{Scalar, Scanner};

pub(super) fn from_slice<T: DeserializeOwned>(text: &[u8], objects_max: u32) -> Result<T, JsonError> {
    // Bytes that are not UTF-8 are replaced, as Java does.
    let text = String::from_utf8_lossy(without_frame(text));
    let mut scanner = Scanner::new(&text, objects_max);
    if scanner.lexer.peek().is_none() {
        return Err(JsonError::Empty);
    }
    let value = T::deserialize(&mut scanner)?;
    if scanner.lexer.peek().is_some() {
        return scanner.syntax("the end");
    }
    Ok(value)
}

impl<'t> Scanner<'t> {
    /// Reads one value with `read`, on the other side of a reference if one stands here.
    pub(super) fn value<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, JsonError>) -> Result<T, JsonError> {
        let Some(resume) = self.follow_reference()? else {
            return read(self);
        };
        self.enter()?;
        // A reference to a reference is followed by the same rule.
        let value = self.value_behind_reference(read)?;
        self.leave();
        self.lexer.at = resume;
        Ok(value)
    }

    fn value_behind_reference<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, JsonError>,
    ) -> Result<T, JsonError> {
        while self.follow_reference()?.is_some() {}
        read(self)
    }

    /// A scalar turned into something by `convert`, or an error that names what was wanted.
    pub(super) fn converted<T>(&mut self, wanted: &str, convert: fn(&Scalar<'_>) -> Option<T>) -> Result<T, JsonError> {
        self.lexer.peek();
        let at = self.lexer.at;
        let scalar = self.scalar()?;
        convert(&scalar)
            .ok_or_else(|| JsonError::Value { at, reason: format!("{wanted} expected, not {}", shown(&scalar)) })
    }

    /// Gives errors of the visited type, which know no position, the one where reading stands.
    pub(super) fn placed<T>(&self, at: usize, result: Result<T, JsonError>) -> Result<T, JsonError> {
        result.map_err(|error| match error {
            JsonError::Value { at: 0, reason } => JsonError::Value { at, reason },
            other => other,
        })
    }

    pub(super) fn object_start(&mut self) -> Result<(), JsonError> {
        if self.lexer.peek() != Some(b'{') {
            return self.syntax("an object");
        }
        self.objects_left = self.objects_left.checked_sub(1).ok_or(JsonError::TooManyObjects)?;
        self.enter()?;
        self.lexer.at += 1;
        Ok(())
    }

    fn visit_map<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        let at = self.lexer.at;
        self.object_start()?;
        let result = visitor.visit_map(MapEntries { scanner: self });
        let value = self.placed(at, result)?;
        self.lexer.expect(b'}', "a closing brace")?;
        self.leave();
        Ok(value)
    }

    fn visit_seq<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        let at = self.lexer.at;
        if self.lexer.peek() != Some(b'[') {
            return self.syntax("an array");
        }
        self.enter()?;
        self.lexer.at += 1;
        let result = visitor.visit_seq(Elements { scanner: self });
        let value = self.placed(at, result)?;
        while self.lexer.peek_element() != Some(b']') {
            // A tuple took fewer elements than there are.
            self.skip_value()?;
        }
        self.lexer.at += 1;
        self.leave();
        Ok(value)
    }

    fn text<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        if matches!(self.lexer.peek(), Some(b'{' | b'[')) {
            // An object where text is wanted: its JSON text, as in Java.
            let start = self.lexer.at;
            self.skip_value()?;
            return visitor.visit_str(&self.lexer.text[start..self.lexer.at]);
        }
        match self.scalar()? {
            Scalar::Text(text) => visitor.visit_str(&text),
            Scalar::Number(text) => visitor.visit_str(text),
            Scalar::Bool(value) => visitor.visit_str(if value { "true" } else { "false" }),
            Scalar::Null => visitor.visit_str(""),
        }
    }
}

fn shown(scalar: &Scalar<'_>) -> String {
    match scalar {
        Scalar::Null => "null".to_owned(),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Number(text) => text.chars().take(40).collect(),
        Scalar::Text(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
    }
}

macro_rules! integers {
    ($($method:ident => $visit:ident: $type:ty),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            let number = self.converted("an integer in range", |scalar| {
                number::integer(scalar).and_then(|number| <$type>::try_from(number).ok())
            })?;
            visitor.$visit(number)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for &mut Scanner<'_> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.value(|scanner| match scanner.lexer.peek() {
            Some(b'{') => scanner.visit_map(visitor),
            Some(b'[') => scanner.visit_seq(visitor),
            _ => match scanner.scalar()? {
                Scalar::Null => visitor.visit_unit(),
                Scalar::Bool(value) => visitor.visit_bool(value),
                Scalar::Text(text) => visitor.visit_str(&text),
                Scalar::Number(text) => match (text.parse::<i64>(), text.parse::<u64>(), text.parse::<f64>()) {
                    (Ok(number), _, _) => visitor.visit_i64(number),
                    (_, Ok(number), _) => visitor.visit_u64(number),
                    (_, _, Ok(number)) => visitor.visit_f64(number),
                    _ => scanner.syntax("a number"),
                },
            },
        })
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_bool(self.converted("a boolean", number::boolean)?)
    }

    integers! {
        deserialize_i8 => visit_i8: i8, deserialize_i16 => visit_i16: i16, deserialize_i32 => visit_i32: i32,
        deserialize_i64 => visit_i64: i64, deserialize_u8 => visit_u8: u8, deserialize_u16 => visit_u16: u16,
        deserialize_u32 => visit_u32: u32, deserialize_u64 => visit_u64: u64,
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_f64(self.converted("a number", number::double)?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.text(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.text(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.lexer.at_null() {
            self.scalar()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.value(|scanner| scanner.visit_seq(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.value(|scanner| scanner.visit_map(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.value(|scanner| {
            scanner.lexer.peek();
            let at = scanner.lexer.at;
            scanner.object_start()?;
            let result = visitor.visit_map(StructMembers { scanner, fields, seen: 0 });
            let value = scanner.placed(at, result)?;
            scanner.lexer.expect(b'}', "a closing brace")?;
            scanner.leave();
            Ok(value)
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.lexer.peek();
        let at = self.lexer.at;
        let scalar = self.scalar()?;
        let name = variant_name(&scalar, variants).ok_or_else(|| JsonError::Value {
            at,
            reason: format!("one of {variants:?} expected, not {}", shown(&scalar)),
        })?;
        let name: StrDeserializer<'_, JsonError> = name.into_deserializer();
        visitor.visit_enum(name)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.skip_value()?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_unit(visitor)
    }

    serde::forward_to_deserialize_any! { bytes byte_buf }
}

/// The elements of an array; nulls are left out.
struct Elements<'s, 't> {
    scanner: &'s mut Scanner<'t>,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        loop {
            match self.scanner.lexer.peek_element() {
                Some(b']') => return Ok(None),
                None => return self.scanner.syntax("a closing bracket"),
                Some(_) if self.scanner.lexer.at_null() => self.scanner.skip_value()?,
                Some(_) => return seed.deserialize(&mut *self.scanner).map(Some),
            }
        }
    }
}
