//! Ext fields: the named texts in a frame's header, and how typed headers are read from and written to them.
//!
//! Fields stay encoded, as a slice of the frame; reading a typed header walks them once and builds no map.
//! `#[derive(Header)]` writes the walk (crate `protocol-derive`).

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use bytes::{BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;

use crate::binary_fields::{Entries, patch_len};
use crate::json_fields::{Members, Places, is_plain, write_escaped};
use crate::serialization::Serialization;
use crate::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};

/// The ext fields of one frame, still encoded. Java: `RemotingCommand.extFields`.
///
/// Checked when the frame was decoded, so walking them cannot fail. Keys may repeat; the last one counts.
#[derive(Clone, Default)]
pub struct Fields(Form);

#[derive(Clone, Default)]
enum Form {
    /// The header has no `extFields` member.
    #[default]
    Absent,
    /// The text of the JSON object, braces included, and where its members stand.
    Json(ByteString, Places),
    /// The map block of a binary header.
    Binary(Bytes),
}

impl Fields {
    /// Encodes a typed header into the JSON form.
    pub fn from_header(header: &dyn EncodeFields) -> Self {
        let mut out = BytesMut::with_capacity(256);
        write_json(&mut out, header);
        // The writer only ever writes whole `str`s, so this is UTF-8.
        ByteString::try_from(out.freeze())
            .map_or_else(|_| Self::default(), |text| Self(Form::Json(text, Places::unknown())))
    }

    /// `text` is a JSON object that the header's parser has walked without error.
    pub(crate) fn from_checked_json(text: ByteString, places: Places) -> Self {
        Self(Form::Json(text, places))
    }

    /// `block` is a map block that the header's parser has walked without error.
    pub(crate) fn from_checked_binary(block: Bytes) -> Self {
        Self(Form::Binary(block))
    }

    /// Whether the header has an `extFields` member at all. `{}` is present and empty.
    pub fn is_present(&self) -> bool {
        !matches!(self.0, Form::Absent)
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Bytes they take in the header.
    pub fn encoded_len(&self) -> usize {
        match &self.0 {
            Form::Absent => 0,
            Form::Json(text, _) => text.len(),
            Form::Binary(block) => block.len(),
        }
    }

    /// A copy that shares nothing with the frame they came in.
    #[must_use]
    pub fn into_owned(self) -> Self {
        Self(match self.0 {
            Form::Absent => Form::Absent,
            Form::Json(text, places) => Form::Json(ByteString::from(&*text), places),
            Form::Binary(block) => Form::Binary(Bytes::copy_from_slice(&block)),
        })
    }

    /// All fields as text, in the order they came. JSON nulls are left out, other JSON values are turned into text.
    pub fn iter(&self) -> FieldIter<'_> {
        FieldIter(match &self.0 {
            Form::Absent => Walk::Done,
            Form::Json(text, places) if places.are_known() => Walk::Places(text, places, 0),
            Form::Json(text, _) => Walk::Json(text, Members::of_checked(text)),
            Form::Binary(block) => Walk::Binary(block, Entries::new(block)),
        })
    }

    /// One field by name; the last one when the name repeats.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter().filter(|(key, _)| key == name).last().map(|(_, value)| value.text)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_present() {
            f.debug_map().entries(self.iter().map(|(k, v)| (k, v.text))).finish()
        } else {
            f.write_str("none")
        }
    }
}

impl EncodeFields for Fields {
    fn encode_fields(&self, out: &mut FieldWriter<'_>) {
        for (name, value) in self.iter() {
            out.text(&name, &value.text);
        }
    }
}

/// Walks [`Fields`]. See [`Fields::iter`].
pub struct FieldIter<'a>(Walk<'a>);

enum Walk<'a> {
    Done,
    /// The next member's number.
    Places(&'a ByteString, &'a Places, usize),
    Json(&'a ByteString, Members<'a>),
    Binary(&'a Bytes, Entries<'a>),
}

impl<'a> Iterator for FieldIter<'a> {
    type Item = (Cow<'a, str>, FieldText<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Walk::Done => None,
            Walk::Places(source, places, next) => {
                let (name, value) = places.member(source, *next)?;
                *next += 1;
                Some((Cow::Borrowed(name), FieldText { text: value.into_text()?, source: Source::Json(source) }))
            }
            Walk::Json(source, members) => loop {
                // An error cannot happen in checked text; it would end the walk.
                let (name, value) = members.next_member().ok()??;
                if let Some(text) = value.into_text() {
                    return Some((name, FieldText { text, source: Source::Json(source) }));
                }
            },
            Walk::Binary(source, entries) => {
                let (name, value) = entries.next_entry().ok()??;
                let text = String::from_utf8_lossy(value);
                Some((String::from_utf8_lossy(name), FieldText { text, source: Source::Binary(source) }))
            }
        }
    }
}

/// The text of one field, with the frame it lies in, so that a value can be kept without copying.
#[derive(Clone, Debug)]
pub struct FieldText<'a> {
    text: Cow<'a, str>,
    source: Source<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Json(&'a ByteString),
    Binary(&'a Bytes),
    Elsewhere,
}

impl<'a> FieldText<'a> {
    /// The text, leaving an empty one.
    #[must_use]
    pub fn take(&mut self) -> FieldText<'a> {
        std::mem::replace(self, FieldText { text: Cow::Borrowed(""), source: Source::Elsewhere })
    }

    /// The text itself; borrowed unless it had escapes.
    pub fn into_text(self) -> Cow<'a, str> {
        self.text
    }

    /// As a shared slice of the frame; copies only text that had escapes.
    pub fn into_byte_string(self) -> ByteString {
        match (self.text, self.source) {
            (Cow::Borrowed(text), Source::Json(frame)) => frame.slice_ref(text),
            (Cow::Borrowed(text), Source::Binary(frame)) => {
                ByteString::try_from(frame.slice_ref(text.as_bytes())).unwrap_or_else(|_| ByteString::from(text))
            }
            (text, _) => ByteString::from(text.into_owned()),
        }
    }
}

impl std::ops::Deref for FieldText<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl<'a> From<&'a str> for FieldText<'a> {
    fn from(text: &'a str) -> Self {
        Self { text: Cow::Borrowed(text), source: Source::Elsewhere }
    }
}

/// A typed header that can be read from ext fields. Derive it with `#[derive(Header)]`.
pub trait DecodeFields: Sized {
    /// Reads the header. Unknown fields are passed over.
    fn decode_fields(fields: &Fields) -> Result<Self, HeaderError>;

    /// Reads the header of a request with this code; differs from `decode_fields` only where the code decides on the field names.
    fn decode_for(_code: i32, fields: &Fields) -> Result<Self, HeaderError> {
        Self::decode_fields(fields)
    }
}

/// A typed header, or any list of named texts, that can be written as ext fields.
pub trait EncodeFields {
    /// Writes every field that has a value.
    fn encode_fields(&self, out: &mut FieldWriter<'_>);
}

/// No fields: as a request header it gives no ext fields worth mentioning, in a reply it gives `"extFields":{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoFields;

impl DecodeFields for NoFields {
    fn decode_fields(_: &Fields) -> Result<Self, HeaderError> {
        Ok(Self)
    }
}

impl EncodeFields for NoFields {
    fn encode_fields(&self, _: &mut FieldWriter<'_>) {}
}

impl<T: EncodeFields + ?Sized> EncodeFields for &T {
    fn encode_fields(&self, out: &mut FieldWriter<'_>) {
        (**self).encode_fields(out);
    }
}

impl<T: EncodeFields> EncodeFields for Option<T> {
    fn encode_fields(&self, out: &mut FieldWriter<'_>) {
        if let Some(header) = self {
            header.encode_fields(out);
        }
    }
}

/// A header followed by more fields, for instance free ext fields after a typed header.
impl<A: EncodeFields, B: EncodeFields> EncodeFields for (A, B) {
    fn encode_fields(&self, out: &mut FieldWriter<'_>) {
        self.0.encode_fields(out);
        self.1.encode_fields(out);
    }
}

impl<K: AsRef<str>, V: AsRef<str>> EncodeFields for Vec<(K, V)> {
    fn encode_fields(&self, out: &mut FieldWriter<'_>) {
        for (name, value) in self {
            out.text(name.as_ref(), value.as_ref());
        }
    }
}

impl<K: AsRef<str>, V: AsRef<str>, const N: usize> EncodeFields for [(K, V); N] {
    fn encode_fields(&self, out: &mut FieldWriter<'_>) {
        for (name, value) in self {
            out.text(name.as_ref(), value.as_ref());
        }
    }
}

/// Writes ext fields into a frame, in the form the frame has.
pub struct FieldWriter<'a> {
    out: &'a mut BytesMut,
    serialization: Serialization,
    first: bool,
    /// Set when a name does not fit the binary form's 16-bit length.
    name_too_long: bool,
}

impl<'a> FieldWriter<'a> {
    pub(crate) fn new(out: &'a mut BytesMut, serialization: Serialization) -> Self {
        Self { out, serialization, first: true, name_too_long: false }
    }

    pub(crate) fn name_too_long(&self) -> bool {
        self.name_too_long
    }

    /// Writes one field. Its name is one of ours, which needs no escapes.
    pub fn field<V: FieldValue>(&mut self, name: &'static str, value: &V) {
        debug_assert!(is_plain(name), "{name}");
        self.write(name, false, !V::IS_PLAIN, |out| value.encode(out));
    }

    /// Writes one field that is text already.
    pub fn text(&mut self, name: &str, value: &str) {
        self.write(name, true, true, |out| out.write_str(value));
    }

    fn write(
        &mut self,
        name: &str,
        escape_name: bool,
        escape: bool,
        value: impl FnOnce(&mut ValueWriter<'_>) -> fmt::Result,
    ) {
        match self.serialization {
            Serialization::Json => {
                self.out.put_slice(if self.first { b"\"" } else { b",\"" });
                if escape_name {
                    write_escaped(self.out, name);
                } else {
                    self.out.put_slice(name.as_bytes());
                }
                self.out.put_slice(b"\":\"");
                // Writing to a growing buffer cannot fail, and neither do the values' own encoders.
                let _infallible = value(&mut ValueWriter { out: self.out, escape });
                self.out.put_u8(b'"');
            }
            Serialization::Binary => {
                let Ok(name_len) = i16::try_from(name.len()) else {
                    self.name_too_long = true;
                    return;
                };
                self.out.put_i16(name_len);
                self.out.put_slice(name.as_bytes());
                let start = self.out.len();
                self.out.put_i32(0);
                let _infallible = value(&mut ValueWriter { out: self.out, escape: false });
                patch_len(self.out, start);
            }
        }
        self.first = false;
    }
}

/// Writes the ext fields' JSON object, braces included.
pub(crate) fn write_json(out: &mut BytesMut, fields: &dyn EncodeFields) {
    out.put_u8(b'{');
    fields.encode_fields(&mut FieldWriter::new(out, Serialization::Json));
    out.put_u8(b'}');
}

/// Where a value's text goes; escapes it when the frame is JSON.
struct ValueWriter<'a> {
    out: &'a mut BytesMut,
    escape: bool,
}

impl fmt::Write for ValueWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.escape {
            write_escaped(self.out, text);
        } else {
            self.out.put_slice(text.as_bytes());
        }
        Ok(())
    }
}

/// A type one ext field can hold. The wire form is always text.
pub trait FieldValue: Sized {
    /// Whether its text never needs escapes, as digits do not.
    const IS_PLAIN: bool = false;

    /// Reads the text; may take it away, unless it cannot be read.
    fn decode(text: &mut FieldText<'_>) -> Result<Self, UnreadableValue>;

    /// Writes the text. Fails only if the writer does.
    fn encode<W: fmt::Write>(&self, out: &mut W) -> fmt::Result;
}

/// Why a field's text is not a value of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableValue {
    /// Not decimal digits, or out of the type's range. Java: `NumberFormatException`.
    #[error("not a number of the expected range")]
    Number,
    /// A number, but negative where only zero and up make sense.
    #[error("negative")]
    Negative,
    /// Text outside the values that are allowed.
    #[error("not one of the known values")]
    Unknown,
}

/// Why a typed header cannot be read.
///
/// Brokers answer with code 1 (SYSTEM_ERROR) and this text unless the request says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A required field is absent, or (most headers) its number cannot be read.
    #[error("the field {header}.{field} is missing")]
    Missing { header: &'static str, field: &'static str },
    /// A field is there and its value is no use.
    #[error("{}", invalid_text(header, field, value, *reason))]
    Invalid { header: &'static str, field: &'static str, value: String, reason: UnreadableValue },
}

fn invalid_text(header: &str, field: &str, value: &str, reason: UnreadableValue) -> String {
    match reason {
        // What a Java peer shows for headers with a hand-written decoder.
        UnreadableValue::Number => {
            format!("java.lang.NumberFormatException: For input string: \"{value}\"")
        }
        _ => format!("the field {header}.{field} has the value \"{value}\", which is {reason}"),
    }
}

impl HeaderError {
    /// The wire name of the field that is missing or unreadable.
    pub fn field(&self) -> &'static str {
        match self {
            HeaderError::Missing { field, .. } | HeaderError::Invalid { field, .. } => field,
        }
    }
}

impl FieldValue for ByteString {
    fn decode(text: &mut FieldText<'_>) -> Result<Self, UnreadableValue> {
        Ok(text.take().into_byte_string())
    }

    fn encode<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
        out.write_str(self)
    }
}

impl FieldValue for String {
    fn decode(text: &mut FieldText<'_>) -> Result<Self, UnreadableValue> {
        Ok(text.take().into_text().into_owned())
    }

    fn encode<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
        out.write_str(self)
    }
}

impl FieldValue for TopicName {
    fn decode(text: &mut FieldText<'_>) -> Result<Self, UnreadableValue> {
        Ok(text.take().into_byte_string().into())
    }

    fn encode<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
        out.write_str(self)
    }
}

impl FieldValue for GroupName {
    fn decode(text: &mut FieldText<'_>) -> Result<Self, UnreadableValue> {
        Ok(text.take().into_byte_string().into())
    }

    fn encode<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
        out.write_str(self)
    }
}

/// True only for `true` in any case, as Java's `Boolean.parseBoolean`.
impl FieldValue for bool {
    const IS_PLAIN: bool = true;

    fn decode(text: &mut FieldText<'_>) -> Result<Self, UnreadableValue> {
        Ok(text.eq_ignore_ascii_case("true"))
    }

    fn encode<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
        out.write_str(if *self { "true" } else { "false" })
    }
}

macro_rules! number_value {
    ($($type:ty),*) => {$(
        impl FieldValue for $type {
            const IS_PLAIN: bool = true;

            fn decode(text: &mut FieldText<'_>) -> Result<Self, UnreadableValue> {
                text.parse().map_err(|_| UnreadableValue::Number)
            }

            fn encode<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
                out.write_str(itoa::Buffer::new().format(*self))
            }
        }
    )*};
}

number_value!(i32, i64);

macro_rules! unsigned_value {
    ($($type:ident($signed:ty)),*) => {$(
        impl FieldValue for $type {
            const IS_PLAIN: bool = true;

            fn decode(text: &mut FieldText<'_>) -> Result<Self, UnreadableValue> {
                let value: $signed = text.parse().map_err(|_| UnreadableValue::Number)?;
                value.try_into().map($type).map_err(|_| UnreadableValue::Negative)
            }

            fn encode<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
                out.write_str(itoa::Buffer::new().format(self.0))
            }
        }
    )*};
}

unsigned_value!(QueueId(i32), QueueOffset(i64), PhysicalOffset(i64));

/// What the derive's walk calls; not for hand-written code.
#[doc(hidden)]
pub mod derive {
    use super::{FieldText, FieldValue, HeaderError, UnreadableValue};

    /// Reads one value. Lenient headers take an unreadable number for an absent field, as Java's reflective decoder does.
    pub fn read<T: FieldValue>(
        header: &'static str,
        field: &'static str,
        strict: bool,
        mut text: FieldText<'_>,
    ) -> Result<Option<T>, HeaderError> {
        match T::decode(&mut text) {
            Ok(value) => Ok(Some(value)),
            Err(UnreadableValue::Number) if !strict => Ok(None),
            Err(reason) => Err(HeaderError::Invalid { header, field, value: text.into_text().into_owned(), reason }),
        }
    }

    /// As [`read`], for optional fields: a negative number where none makes sense is "none".
    pub fn read_optional<T: FieldValue>(
        header: &'static str,
        field: &'static str,
        strict: bool,
        text: FieldText<'_>,
    ) -> Result<Option<T>, HeaderError> {
        match read(header, field, strict, text) {
            Err(HeaderError::Invalid { reason: UnreadableValue::Negative, .. }) => Ok(None),
            other => other,
        }
    }

    /// The value of a required field.
    pub fn required<T>(header: &'static str, field: &'static str, value: Option<T>) -> Result<T, HeaderError> {
        value.ok_or(HeaderError::Missing { header, field })
    }
}
