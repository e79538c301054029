//! A map key that was written as a name: text for most types, a number, an enum constant, or a quoted object.

use std::borrow::Cow;

use serde::de::value::StrDeserializer;
use serde::de::{self, IntoDeserializer, Visitor};

use super::error::{JsonError, OBJECTS_MAX};
use super::number;
use super::scan::{Scalar, Scanner};

pub(super) struct Key<'t> {
    pub name: Cow<'t, str>,
}

impl Key<'_> {
    fn wrong(&self, wanted: &str) -> JsonError {
        let shown: String = self.name.chars().take(40).collect();
        JsonError::Value { at: 0, reason: format!("{wanted} expected as key, not {shown:?}") }
    }
}

macro_rules! integers {
    ($($method:ident => $visit:ident: $type:ty),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            let number = self.name.trim().parse::<$type>().map_err(|_| self.wrong("an integer in range"))?;
            visitor.$visit(number)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Key<'_> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_str(&self.name)
    }

    integers! {
        deserialize_i8 => visit_i8: i8, deserialize_i16 => visit_i16: i16, deserialize_i32 => visit_i32: i32,
        deserialize_i64 => visit_i64: i64, deserialize_u8 => visit_u8: u8, deserialize_u16 => visit_u16: u16,
        deserialize_u32 => visit_u32: u32, deserialize_u64 => visit_u64: u64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        let value = number::boolean(&Scalar::Text(Cow::Borrowed(&self.name))).ok_or_else(|| self.wrong("a boolean"))?;
        visitor.visit_bool(value)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    /// Newer Java writes an object key as a string that holds the object's JSON.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        Scanner::new(&self.name, OBJECTS_MAX).deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        let name = variant_name(&Scalar::Text(Cow::Borrowed(&self.name)), variants)
            .ok_or_else(|| self.wrong("an enum constant"))?;
        let name: StrDeserializer<'_, JsonError> = name.into_deserializer();
        visitor.visit_enum(name)
    }

    serde::forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// An enum constant by its name (ignoring case) or its ordinal.
pub(super) fn variant_name(scalar: &Scalar<'_>, variants: &'static [&'static str]) -> Option<&'static str> {
    if let Scalar::Text(text) = scalar {
        if let Some(name) = variants.iter().find(|name| name.eq_ignore_ascii_case(text.trim())) {
            return Some(name);
        }
        if text.trim().is_empty() {
            return None;
        }
    }
    if matches!(scalar, Scalar::Null | Scalar::Bool(_)) {
        return None;
    }
    variants.get(usize::try_from(number::integer(scalar)?).ok()?).copied()
}
