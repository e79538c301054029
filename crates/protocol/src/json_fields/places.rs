//! Where the ext fields of a JSON header stand, so that a typed header is read without looking for quotes again.

use crate::json::lexer::{Value, escape};
use crate::short_text::first_of;

/// Where the members of a small object stand in its text, so that they need not be looked for again.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    list: [Place; Self::MAX],
    /// `None`: too many members, or one that does not fit a [`Place`]; the text must be walked.
    count: Option<u8>,
}

/// One member: byte positions in the object's text.
#[derive(Clone, Copy, Default)]
struct Place {
    name: u16,
    name_len: u8,
    escaped: bool,
    value: u16,
    value_len: u16,
}

impl Default for Places {
    fn default() -> Self {
        Self { list: [Place::default(); Self::MAX], count: Some(0) }
    }
}

impl Places {
    /// A send has 14 ext fields, with a signature and a namespace up to 20.
    const MAX: usize = 20;

    /// Nothing noted: the text must be walked.
    pub(crate) fn unknown() -> Self {
        Self { count: None, ..Self::default() }
    }

    /// Notes a member of `object`, whose text both borrow from; a name with escapes is `None`. Nulls are no fields.
    #[inline]
    pub(super) fn note(&mut self, object: &str, name: Option<&str>, value: &Value<'_>) {
        let Some(count) = self.count else { return };
        let (text, escaped) = match *value {
            Value::Bare("null") => return,
            Value::Quoted { inner, escaped } => (inner, escaped),
            Value::Bare(text) | Value::Nested(text) => (text, false),
        };
        let place = || {
            let name = name?;
            let at = |part: &str| u16::try_from(part.as_ptr().addr() - object.as_ptr().addr()).ok();
            Some(Place {
                name: at(name)?,
                name_len: u8::try_from(name.len()).ok()?,
                escaped,
                value: at(text)?,
                value_len: u16::try_from(text.len()).ok()?,
            })
        };
        self.count = match (self.list.get_mut(usize::from(count)), place()) {
            (Some(free), Some(place)) => {
                *free = place;
                Some(count + 1)
            }
            _ => None,
        };
    }

    /// Whether all members were noted.
    pub(crate) fn are_known(&self) -> bool {
        self.count.is_some()
    }

    /// The member number `index` of `object`, as it stands there.
    #[inline]
    pub(crate) fn member<'a>(&self, object: &'a str, index: usize) -> Option<(&'a str, Value<'a>)> {
        let place = self.list.get(..usize::from(self.count?))?.get(index)?;
        let (name, value) = (usize::from(place.name), usize::from(place.value));
        let name = object.get(name..name + usize::from(place.name_len))?;
        let inner = object.get(value..value + usize::from(place.value_len))?;
        Some((name, Value::Quoted { inner, escaped: place.escaped }))
    }
}

/// Walks an object as nearly all clients write one: texts only, no white space, plain names, no more members than there are
/// [`Places`]. Gives its length, braces included; `None` where anything else is met. All there is per member is two searches
/// for a quote: the general walk takes twice as long.
pub(super) fn compact_object(bytes: &[u8], places: &mut Places) -> Option<usize> {
    let mut at = 1;
    let mut count = 0;
    loop {
        if *bytes.get(at)? != b'"' {
            return None;
        }
        let name = at + 1;
        // Where a backslash ends it, what follows is not the expected.
        let name_len = first_of(b'"', b'\\', &bytes[name..])?;
        let mut end = name + name_len;
        if bytes.get(end..end + 3)? != b"\":\"" {
            return None;
        }
        let value = end + 3;
        end = value;
        let mut escaped = false;
        loop {
            end += first_of(b'"', b'\\', &bytes[end..])?;
            if bytes[end] == b'"' {
                break;
            }
            escaped = true;
            end += escape(&bytes[end..])?.1;
        }
        *places.list.get_mut(count)? = Place {
            name: u16::try_from(name).ok()?,
            name_len: u8::try_from(name_len).ok()?,
            escaped,
            value: u16::try_from(value).ok()?,
            value_len: u16::try_from(end - value).ok()?,
        };
        count += 1;
        match *bytes.get(end + 1)? {
            b',' => at = end + 2,
            b'}' => {
                places.count = u8::try_from(count).ok();
                return Some(end + 2);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::fields::write_json;
    use crate::json_fields::Members;

    proptest::proptest! {
        #[test]
        fn the_quick_walk_finds_what_the_general_one_finds(
            members in proptest::collection::vec(("[a-zA-Z_]{1,9}", "([a-z é订\"\\\\\u{1}\u{2}]|[0-9]{1,13}){0,12}"), 1..24)
        ) {
            let mut text = BytesMut::new();
            write_json(&mut text, &members);
            let text = std::str::from_utf8(&text).unwrap();
            let mut walk = Members::of_checked(text);
            let mut wanted = Vec::new();
            while let Some((name, value)) = walk.next_member().unwrap() {
                wanted.push((name.into_owned(), value.into_text().unwrap().into_owned()));
            }
            let as_written = members.clone();
            proptest::prop_assert_eq!(&wanted, &as_written);
            let mut places = Places::default();
            match compact_object(text.as_bytes(), &mut places) {
                Some(len) => {
                    proptest::prop_assert_eq!(len, text.len());
                    let found: Vec<_> = (0..)
                        .map_while(|index| places.member(text, index))
                        .map(|(name, value)| (name.to_owned(), value.into_text().unwrap().into_owned()))
                        .collect();
                    proptest::prop_assert_eq!(found, wanted);
                }
                None => proptest::prop_assert!(members.len() > Places::MAX),
            }
            // Whatever is cut off or changed, it is not walked past its end.
            for end in 0..text.len() {
                proptest::prop_assert!(compact_object(&text.as_bytes()[..end], &mut places).is_none());
            }
        }
    }
}
