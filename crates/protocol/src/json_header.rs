//! The JSON header, serialization type 0. Java: `RemotingSerializable` over fastjson.
//!
//! Headers are read on every request: the text is walked once, slices of it are kept, and only undoing escapes allocates.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;

use crate::fields::{EncodeFields, Fields, write_json};
use crate::frame_error::FrameError;
use crate::head::{Flags, Head, HeadParts};
use crate::json::lexer::Value;
use crate::json_fields::{Members, Places, write_escaped};
use crate::language::Language;

/// Reads a header; `header` is exactly the header's bytes. Bytes that are not UTF-8 are replaced, as Java does.
pub(crate) fn parse(header: Bytes) -> Result<Head, FrameError> {
    let text = match ByteString::try_from(header.clone()) {
        Ok(text) => text,
        Err(_) => ByteString::from(String::from_utf8_lossy(&header).into_owned()),
    };
    let mut head = Head {
        code: 0,
        language: Language::JAVA,
        version: 0,
        opaque: 0,
        flags: Flags::default(),
        remark: None,
        fields: Fields::default(),
    };
    let mut members = Members::open(&text)?;
    loop {
        let at = members.at();
        let Some(name) = members.next_name()? else { break };
        if &*name == "extFields" && members.is_object() {
            let mut places = Places::default();
            let object = members.object(&mut places)?;
            head.fields = Fields::from_checked_json(text.slice_ref(object), places);
            continue;
        }
        let value = members.value()?;
        let bad = |expected| FrameError::Json { expected, at };
        match &*name {
            "code" => head.code = int(&value).ok_or(bad("a number as code"))?,
            "version" => head.version = int(&value).ok_or(bad("a number as version"))?,
            "opaque" => head.opaque = int(&value).ok_or(bad("a number as opaque"))?,
            "flag" => head.flags = Flags(int(&value).ok_or(bad("a number as flag"))?),
            "language" => head.language = language(&value).ok_or(bad("a known language"))?,
            "remark" => {
                head.remark = value.into_text().map(|remark| match remark {
                    Cow::Borrowed(remark) => text.slice_ref(remark),
                    Cow::Owned(remark) => remark.into(),
                });
            }
            "extFields" => match value {
                Value::Bare("null") => head.fields = Fields::default(),
                _ => return Err(bad("an object as extFields")),
            },
            _ => {}
        }
    }
    members.expect_end()?;
    Ok(head)
}

/// Writes a header as Java does: members in alphabetical order, absent ones left out, compact.
pub(crate) fn write(out: &mut BytesMut, head: &HeadParts<'_>, fields: Option<&dyn EncodeFields>) {
    out.put_slice(b"{\"code\":");
    put_int(out, head.code);
    if let Some(fields) = fields {
        out.put_slice(b",\"extFields\":");
        write_json(out, fields);
    }
    out.put_slice(b",\"flag\":");
    put_int(out, head.flags.0);
    if let Some(language) = head.language.name() {
        out.put_slice(b",\"language\":\"");
        out.put_slice(language.as_bytes());
        out.put_u8(b'"');
    }
    out.put_slice(b",\"opaque\":");
    put_int(out, head.opaque);
    if let Some(remark) = head.remark {
        out.put_slice(b",\"remark\":\"");
        write_escaped(out, remark);
        out.put_u8(b'"');
    }
    out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    put_int(out, head.version);
    out.put_u8(b'}');
}

fn put_int(out: &mut BytesMut, value: i32) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// As an integer, quoted or not; null and the empty text are 0.
fn int(value: &Value<'_>) -> Option<i32> {
    match *value {
        Value::Bare("null") | Value::Quoted { inner: "" | "null", .. } => Some(0),
        Value::Bare(text) | Value::Quoted { inner: text, escaped: false } => text.parse().ok(),
        _ => None,
    }
}

/// A name or an ordinal of the table. Unknown names are unknown languages, unknown ordinals are errors: as in Java.
fn language(value: &Value<'_>) -> Option<Language> {
    match *value {
        Value::Bare("null") => Some(Language::JAVA),
        Value::Quoted { inner, .. } => Some(Language::from_name(inner)),
        Value::Bare(ordinal) => ordinal.parse().ok().map(Language).filter(|language| language.name().is_some()),
        Value::Nested(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{Just, Strategy};
    use proptest::strategy::Union;

    use super::*;
    use crate::json;

    fn head(text: &str) -> Result<Head, FrameError> {
        parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn list(head: &Head) -> Vec<(String, String)> {
        head.fields.iter().map(|(name, value)| (name.into_owned(), value.into_text().into_owned())).collect()
    }

    #[test]
    fn what_java_sends_comes_back_the_same() {
        for text in [
            r#"{"code":105,"extFields":{"topic":"TopicA"},"flag":0,"language":"JAVA","opaque":0,"serializeTypeCurrentRPC":"JSON","version":479}"#,
            r#"{"code":0,"flag":1,"language":"JAVA","opaque":-12,"remark":"a\"b\\c\n\u0001","serializeTypeCurrentRPC":"JSON","version":479}"#,
            r#"{"code":22,"extFields":{},"flag":1,"language":"GO","opaque":2147483647,"serializeTypeCurrentRPC":"JSON","version":479}"#,
        ] {
            let head = head(text).unwrap();
            let mut out = BytesMut::new();
            let fields = head.fields.is_present().then_some(&head.fields as &dyn EncodeFields);
            write(&mut out, &head.parts(), fields);
            assert_eq!(std::str::from_utf8(&out).unwrap(), text);
        }
    }

    #[test]
    fn variations_clients_send() {
        let head = head("{code:206,'flag':0,language:'JAVA',\"opaque\":\"77\",,version:479,x:{a:[1,'}']},}\n").unwrap();
        assert_eq!((head.code, head.opaque, head.version, head.language), (206, 77, 479, Language::JAVA));
        assert_eq!(head.remark, None);
    }

    #[test]
    fn white_space_may_stand_anywhere_between_tokens() {
        let tokens = [
            "{",
            "\"code\"",
            ":",
            "105",
            ",",
            "\"extFields\"",
            ":",
            "{",
            "\"topic\"",
            ":",
            "\"T\"",
            ",",
            "\"n\"",
            ":",
            "5",
            "}",
            ",",
            "\"opaque\"",
            ":",
            "7",
            "}",
        ];
        for at in 0..=tokens.len() {
            for space in [" ", "\n", "\t  "] {
                let text = [tokens[..at].concat(), space.to_owned(), tokens[at..].concat()].concat();
                let head = head(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
                assert_eq!((head.code, head.opaque), (105, 7), "{text:?}");
                assert_eq!(list(&head), [("topic".into(), "T".into()), ("n".into(), "5".into())], "{text:?}");
            }
        }
        // As Python writes it.
        assert_eq!(list(&head(&tokens.join(" ")).unwrap()).len(), 2);
    }

    #[test]
    fn absent_members() {
        let head = head("{}").unwrap();
        assert_eq!(
            (head.code, head.opaque, head.version, head.flags, head.language),
            (0, 0, 0, Flags(0), Language::JAVA)
        );
        assert!(!head.fields.is_present());
        assert!(!super::parse(Bytes::from_static(b"{\"extFields\":null}")).unwrap().fields.is_present());
    }

    #[test]
    fn languages() {
        assert_eq!(head(r#"{"language":"KLINGON"}"#).unwrap().language, Language::UNKNOWN);
        assert_eq!(head(r#"{"language":9}"#).unwrap().language, Language::GO);
        assert_eq!(head(r#"{"language":null}"#).unwrap().language, Language::JAVA);
        assert!(head(r#"{"language":99}"#).is_err());
    }

    #[test]
    fn ext_values_become_text() {
        let head = head(r#"{"extFields":{"a":1,"b":true,"c":null,"d":{"x":1},"e":"\u0001\ud83d\ude00\x41","f":-2.5}}"#)
            .unwrap();
        let want = [("a", "1"), ("b", "true"), ("d", r#"{"x":1}"#), ("e", "\u{1}😀A"), ("f", "-2.5")];
        assert_eq!(list(&head), want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn lone_surrogates_are_replaced() {
        let head = head(r#"{"extFields":{"a":"\ud83dx","b":"\ude00","c":"\ud83d\ud83d\ude00","d":"\ud83d"}}"#).unwrap();
        let values: Vec<_> = list(&head).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["\u{fffd}x", "\u{fffd}", "\u{fffd}😀", "\u{fffd}"]);
    }

    #[test]
    fn what_closes_the_connection() {
        for text in [
            "",
            " ",
            "[]",
            "null",
            "{",
            "{bad json}",
            r#"{"code":206"#,
            r#"{"code":x}"#,
            r#"{"code":1}}"#,
            r#"{"code":1} x"#,
            r#"{"extFields":[1]}"#,
            r#"{"extFields":"x"}"#,
            r#"{"extFields":{"a" 1}}"#,
            r#"{"remark":"\q"}"#,
            r#"{"code":1e99}"#,
            r#"{"remark":"\u12"}"#,
            r#"{"a":[}"#,
            r#"{"code":99999999999}"#,
            "{\"a\":\"\\",
            "{'a':{",
            r#"{"a":1"b":2}"#,
        ] {
            // A list closed by a brace is not seen as long as nobody looks into it; the frame's end then is.
            assert!(head(text).is_err(), "{text}");
        }
    }

    #[test]
    fn escapes_are_fastjsons() {
        let mut out = BytesMut::new();
        write_escaped(&mut out, "\u{1}\u{b}\u{1f}\u{7f}\u{80}\u{9f}\u{a0}é/'\u{2028}\u{2026}订😀\"\\\t");
        let want = "\\u0001\\u000B\\u001F\\u007F\\u0080\\u009F\u{a0}é/'\\u2028\u{2026}订😀\\\"\\\\\\t";
        assert_eq!(std::str::from_utf8(&out).unwrap(), want);
    }

    #[test]
    fn integers() {
        for value in [0, 7, -1, i32::MAX, i32::MIN] {
            let mut out = BytesMut::new();
            put_int(&mut out, value);
            assert_eq!(std::str::from_utf8(&out).unwrap(), value.to_string());
        }
    }

    proptest::proptest! {
        /// A header and a body are read by the same rules.
        #[test]
        fn a_text_is_taken_here_as_it_is_in_a_body(
            members in proptest::collection::vec((blank(), name(), blank(), blank(), value(), blank()), 0..6)
        ) {
            // A comment without an end may take a comma with it, which a body can do without.
            let takes_a_comma = |behind: &&str| *behind == "/* none";
            proptest::prop_assume!(!members.iter().any(|(.., behind)| takes_a_comma(behind)));
            let members: Vec<String> = members
                .iter()
                .map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"))
                .collect();
            let object = format!("{{{}}}", members.join(","));
            let body = json::from_slice::<BTreeMap<String, String>>(object.as_bytes());
            let header = head(&format!("{{\"extFields\":{object}}}"));
            proptest::prop_assert_eq!(header.is_ok(), body.is_ok(), "{}: {:?}", object, body);
            if let (Ok(header), Ok(body)) = (header, body) {
                proptest::prop_assert_eq!(list(&header).into_iter().collect::<BTreeMap<_, _>>(), body, "{}", object);
            }
        }
    }

    /// Mostly something that may stand between two marks.
    fn blank() -> impl Strategy<Value = &'static str> {
        let taken = ["", " ", "\t\r\n", "\u{c}\u{8}", "/* one */", "// two\n"].map(Just);
        proptest::prop_oneof![12 => Union::new(taken), 1 => Just("\u{b}"), 1 => Just("/"), 1 => Just("/* none")]
    }

    fn name() -> impl Strategy<Value = &'static str> {
        Union::new(["a", "\"b\"", "'c'", "_d-1.$", "é", "\"\\u0041\\x42\"", "\"\""].map(Just))
    }

    fn value() -> impl Strategy<Value = &'static str> {
        let taken = [
            "\"text\"",
            "'it\\'s'",
            "\"\\ud83d\\ude00\\v\\0\\/\u{1}é\"",
            "\"\\ud83d\"",
            "12",
            "-2.5E3",
            "true",
            "false",
            "null",
            "undefined",
            "NaN",
            "{x:[1,'}']}",
            "[ ]",
        ];
        let refused = ["word", "\"\\q\"", "\"\\x4\"", "\"open", ""].map(Just);
        proptest::prop_oneof![12 => Union::new(taken.map(Just)), 1 => Union::new(refused)]
    }

    /// Slashes that begin no comment, as many as a header takes.
    #[test]
    fn what_is_passed_over_costs_its_length() {
        for mark in ["/*", "//", "/", "["] {
            let text = format!("{{\"a\":[{}", mark.repeat(500_000));
            let begun = std::time::Instant::now();
            assert!(head(&text).is_err(), "{mark}");
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{mark}: {:?}", begun.elapsed());
        }
    }
}
