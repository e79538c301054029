//! What a header says, however it is written.

use std::fmt;

use bytestring::ByteString;

use crate::fields::Fields;
use crate::language::Language;
use crate::serialization::Serialization;

/// The flag word: bit 0 response, bit 1 one-way. Other bits are kept and mean nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(pub i32);

impl Flags {
    pub const RESPONSE: Self = Self(1);
    pub const ONEWAY: Self = Self(2);

    /// An answer; only then does `opaque` belong to one of our requests.
    pub fn is_response(self) -> bool {
        self.0 & Self::RESPONSE.0 != 0
    }

    /// Nobody waits for an answer; none may be written, not even on error.
    pub fn is_oneway(self) -> bool {
        self.0 & Self::ONEWAY.0 != 0
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#b})", self.0)
    }
}

/// What a reply needs from its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    pub opaque: i32,
    pub serialization: Serialization,
}

/// What a header decoder found.
pub(crate) struct Head {
    pub code: i32,
    pub language: Language,
    pub version: i32,
    pub opaque: i32,
    pub flags: Flags,
    pub remark: Option<ByteString>,
    pub fields: Fields,
}

#[cfg(test)]
impl Head {
    pub(crate) fn parts(&self) -> HeadParts<'_> {
        HeadParts {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flags: self.flags,
            remark: self.remark.as_deref(),
        }
    }
}

/// What the header encoders write besides the ext fields.
pub(crate) struct HeadParts<'a> {
    pub code: i32,
    pub language: Language,
    pub version: i32,
    pub opaque: i32,
    pub flags: Flags,
    pub remark: Option<&'a str>,
}
