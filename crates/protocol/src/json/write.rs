//! The writer: one serializer for all textual forms that `mod.rs` tells of.
//!
//! Differences to standard JSON are Java's: integer keys may be bare, an object as key is an object literal, and the
//! pretty form breaks lines where fastjson does (before string keys but not before others, in lists but not in sets).

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use super::number::java_double;

/// Name of the wrapper by which [`inline`] speaks to this writer; other serializers see the plain sequence.
const INLINE: &str = "ferromq_json_inline";

/// For `#[serde(serialize_with)]`: a sequence that is a set or a primitive array in Java, so that the pretty form
/// keeps it on one line. Without effect on the other forms.
pub fn inline<T: Serialize + ?Sized, S: Serializer>(sequence: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_newtype_struct(INLINE, sequence)
}

#[derive(Clone, Copy)]
pub(super) struct Style {
    quoted_integer_keys: bool,
    ascii: bool,
    pretty: bool,
}

impl Style {
    pub const COMPACT: Style = Style { quoted_integer_keys: true, ascii: false, pretty: false };
    pub const BARE_KEYS: Style = Style { quoted_integer_keys: false, ..Style::COMPACT };
    pub const ASCII: Style = Style { ascii: true, ..Style::COMPACT };
    pub const PRETTY: Style = Style { pretty: true, ..Style::BARE_KEYS };
}

pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T, style: Style) -> Vec<u8> {
    let mut writer = Writer { out: Vec::with_capacity(128), style, indent: 0, inline: false };
    match value.serialize(&mut writer) {
        Ok(()) => writer.out,
        // Only a map key no JSON dialect has (a list, a float) or a type that refuses itself comes here: our own bug.
        Err(error) => panic!("type without JSON form: {error}"),
    }
}

/// What a type can do wrong when it is written. Input never causes it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unwritable(String);

impl ser::Error for Unwritable {
    fn custom<T: fmt::Display>(reason: T) -> Unwritable {
        Unwritable(reason.to_string())
    }
}

struct Writer {
    out: Vec<u8>,
    style: Style,
    indent: usize,
    /// The next sequence is a set.
    inline: bool,
}

impl Writer {
    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn new_line(&mut self) {
        if self.style.pretty {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + self.indent, b'\t');
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push(b'"');
        for c in text.chars() {
            match c {
                '"' => self.raw("\\\""),
                '\\' => self.raw("\\\\"),
                '/' if self.style.ascii => self.raw("\\/"),
                '\u{8}' => self.raw("\\b"),
                '\t' => self.raw("\\t"),
                '\n' => self.raw("\\n"),
                '\u{C}' => self.raw("\\f"),
                '\r' => self.raw("\\r"),
                '\0'..='\u{1F}' | '\u{7F}'..='\u{9F}' | '\u{2028}' | '\u{2029}' => self.escaped(c),
                _ if self.style.ascii && !c.is_ascii() => self.escaped(c),
                _ => {
                    let mut buffer = [0; 4];
                    self.out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                }
            }
        }
        self.out.push(b'"');
    }

    fn escaped(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            self.raw(&format!("\\u{unit:04X}"));
        }
    }

    fn open<'w>(&'w mut self, bracket: u8, lines: bool) -> Level<'w> {
        self.out.push(bracket);
        self.indent += 1;
        Level { writer: self, first: true, lines }
    }
}

/// An open array or object.
struct Level<'w> {
    writer: &'w mut Writer,
    first: bool,
    /// Whether elements stand on lines of their own.
    lines: bool,
}

impl Level<'_> {
    fn separate(&mut self, lines: bool) {
        if !self.first {
            self.writer.out.push(b',');
        }
        self.first = false;
        if lines {
            self.writer.new_line();
        }
    }

    fn close(self, bracket: u8) {
        self.writer.indent -= 1;
        if self.lines && !self.first {
            self.writer.new_line();
        }
        self.writer.out.push(bracket);
    }
}

impl<'w> Serializer for &'w mut Writer {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = Level<'w>;
    type SerializeTuple = Level<'w>;
    type SerializeTupleStruct = Level<'w>;
    type SerializeTupleVariant = ser::Impossible<(), Unwritable>;
    type SerializeMap = Level<'w>;
    type SerializeStruct = Level<'w>;
    type SerializeStructVariant = ser::Impossible<(), Unwritable>;

    fn serialize_bool(self, value: bool) -> Result<(), Unwritable> {
        self.raw(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Unwritable> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Unwritable> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Unwritable> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Unwritable> {
        self.raw(&value.to_string());
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Unwritable> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Unwritable> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Unwritable> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Unwritable> {
        self.raw(&value.to_string());
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Unwritable> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Unwritable> {
        self.raw(java_double(value).as_deref().unwrap_or("null"));
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Unwritable> {
        self.string(value.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), Unwritable> {
        self.string(value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unwritable> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<(), Unwritable> {
        self.raw("null");
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unwritable> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unwritable> {
        self.serialize_none()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unwritable> {
        self.serialize_none()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Unwritable> {
        self.string(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<(), Unwritable> {
        self.inline = name == INLINE;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: &T,
    ) -> Result<(), Unwritable> {
        Err(Unwritable(format!("enum variant {name}::{variant} with content")))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Level<'w>, Unwritable> {
        let lines = !std::mem::take(&mut self.inline);
        let mut level = self.open(b'[', lines);
        if !lines {
            // What stands inside a set is indented as if the set were not there.
            level.writer.indent -= 1;
        }
        level.lines = lines;
        Ok(level)
    }

    fn serialize_tuple(self, _: usize) -> Result<Level<'w>, Unwritable> {
        self.inline = true;
        self.serialize_seq(None)
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Level<'w>, Unwritable> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unwritable> {
        Err(Unwritable(format!("enum variant {name}::{variant} with content")))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Level<'w>, Unwritable> {
        Ok(self.open(b'{', true))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Level<'w>, Unwritable> {
        Ok(self.open(b'{', true))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unwritable> {
        Err(Unwritable(format!("enum variant {name}::{variant} with content")))
    }
}

impl ser::SerializeSeq for Level<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        self.separate(self.lines);
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Unwritable> {
        if !self.lines {
            self.writer.indent += 1;
        }
        self.close(b']');
        Ok(())
    }
}

impl ser::SerializeTuple for Level<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        ser::SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), Unwritable> {
        ser::SerializeSeq::end(self)
    }
}

impl ser::SerializeTupleStruct for Level<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        ser::SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), Unwritable> {
        ser::SerializeSeq::end(self)
    }
}

impl ser::SerializeStruct for Level<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unwritable> {
        self.separate(true);
        self.writer.string(name);
        self.writer.out.push(b':');
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Unwritable> {
        self.close(b'}');
        Ok(())
    }
}

impl ser::SerializeMap for Level<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unwritable> {
        key.serialize(KeyWriter { level: self })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        self.writer.out.push(b':');
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Unwritable> {
        self.close(b'}');
        Ok(())
    }
}

/// Writes one map key with the separator before it: only text keys start a line.
struct KeyWriter<'l, 'w> {
    level: &'l mut Level<'w>,
}

impl KeyWriter<'_, '_> {
    fn text(self, key: &str) -> Result<(), Unwritable> {
        self.level.separate(true);
        self.level.writer.string(key);
        Ok(())
    }

    fn integer(self, key: impl fmt::Display) -> Result<(), Unwritable> {
        self.level.separate(false);
        let key = if self.level.writer.style.quoted_integer_keys { format!("\"{key}\"") } else { key.to_string() };
        self.level.writer.raw(&key);
        Ok(())
    }

    fn no_key<T>(what: &str) -> Result<T, Unwritable> {
        Err(Unwritable(format!("{what} as map key")))
    }
}

impl<'l> Serializer for KeyWriter<'l, '_> {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = ser::Impossible<(), Unwritable>;
    type SerializeTuple = ser::Impossible<(), Unwritable>;
    type SerializeTupleStruct = ser::Impossible<(), Unwritable>;
    type SerializeTupleVariant = ser::Impossible<(), Unwritable>;
    type SerializeMap = ser::Impossible<(), Unwritable>;
    type SerializeStruct = Level<'l>;
    type SerializeStructVariant = ser::Impossible<(), Unwritable>;

    fn serialize_bool(self, key: bool) -> Result<(), Unwritable> {
        self.integer(key)
    }

    fn serialize_i8(self, key: i8) -> Result<(), Unwritable> {
        self.integer(key)
    }

    fn serialize_i16(self, key: i16) -> Result<(), Unwritable> {
        self.integer(key)
    }

    fn serialize_i32(self, key: i32) -> Result<(), Unwritable> {
        self.integer(key)
    }

    fn serialize_i64(self, key: i64) -> Result<(), Unwritable> {
        self.integer(key)
    }

    fn serialize_u8(self, key: u8) -> Result<(), Unwritable> {
        self.integer(key)
    }

    fn serialize_u16(self, key: u16) -> Result<(), Unwritable> {
        self.integer(key)
    }

    fn serialize_u32(self, key: u32) -> Result<(), Unwritable> {
        self.integer(key)
    }

    fn serialize_u64(self, key: u64) -> Result<(), Unwritable> {
        self.integer(key)
    }

    fn serialize_f32(self, _: f32) -> Result<(), Unwritable> {
        Self::no_key("a float")
    }

    fn serialize_f64(self, _: f64) -> Result<(), Unwritable> {
        Self::no_key("a float")
    }

    fn serialize_char(self, key: char) -> Result<(), Unwritable> {
        self.text(key.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, key: &str) -> Result<(), Unwritable> {
        self.text(key)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Unwritable> {
        Self::no_key("bytes")
    }

    fn serialize_none(self) -> Result<(), Unwritable> {
        Self::no_key("nothing")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, key: &T) -> Result<(), Unwritable> {
        key.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unwritable> {
        Self::no_key("nothing")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unwritable> {
        Self::no_key("nothing")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Unwritable> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, key: &T) -> Result<(), Unwritable> {
        key.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Unwritable> {
        Self::no_key("an enum with content")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Unwritable> {
        Self::no_key("a list")
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Unwritable> {
        Self::no_key("a list")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Unwritable> {
        Self::no_key("a list")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unwritable> {
        Self::no_key("an enum with content")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Unwritable> {
        Self::no_key("a map")
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Level<'l>, Unwritable> {
        self.level.separate(false);
        (&mut *self.level.writer).serialize_struct(name, len)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unwritable> {
        Self::no_key("an enum with content")
    }
}
