//! Tests of the lenient reader and the writer's forms, on small types of every kind.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Queue {
    broker_name: String,
    queue_id: i32,
    topic: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Mode {
    #[default]
    Broadcasting,
    Clustering,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct All {
    flag: bool,
    list: Vec<i64>,
    map: BTreeMap<i32, String>,
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    offsets: BTreeMap<Queue, i64>,
    queues: Vec<Queue>,
    rate: f64,
    #[serde(serialize_with = "inline")]
    set: Vec<String>,
}

fn read(text: &str) -> All {
    from_slice(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn queue(id: i32) -> Queue {
    Queue { broker_name: "b".into(), queue_id: id, topic: "T".into() }
}

#[test]
fn keys_of_all_kinds() {
    let expected: BTreeMap<_, _> = [(0, "a".to_owned()), (1, "b".to_owned())].into();
    for text in [r#"{"map":{0:"a",1:"b"}}"#, r#"{map:{"0":"a",'1':'b',},}"#, "{ 'map' : {0 : \"a\" ,, 1:\"b\"\n} }\n"] {
        assert_eq!(read(text).map, expected, "{text}");
    }
    let expected: BTreeMap<_, _> = [(queue(0), 5), (queue(1), 6)].into();
    for text in [
        r#"{"offsets":{{"brokerName":"b","queueId":0,"topic":"T"}:5,{"topic":"T","brokerName":"b","queueId":"1"}:"6"}}"#,
        r#"{"offsets":{"{\"brokerName\":\"b\",\"queueId\":0,\"topic\":\"T\"}":5,{brokerName:'b',queueId:1,topic:'T'}:6}}"#,
    ] {
        assert_eq!(read(text).offsets, expected, "{text}");
    }
}

#[test]
fn values_stand_for_each_other() {
    let read = read(
        r#"{"flag":"true","list":["1",2,null,3.0],"mode":1,"rate":"0.5","set":[1,true,"x"],"note":7,"unknown":{{"a":1}:[{}]},"queues":null}"#,
    );
    assert!(read.flag);
    assert_eq!(read.list, [1, 2, 3]);
    assert_eq!(read.mode, Mode::Clustering);
    assert_eq!(read.rate, 0.5);
    assert_eq!(read.set, ["1", "true", "x"]);
    assert_eq!(read.note.as_deref(), Some("7"));
    assert!(read.queues.is_empty());
}

#[test]
fn names_match_as_in_java() {
    assert_eq!(read(r#"{"queues":[{"BrokerName":"b","queue_id":3,"TOPIC":"T"}]}"#).queues, [queue(3)]);
    assert_eq!(read(r#"{"mode":"clustering"}"#).mode, Mode::Clustering);
    // Java takes the last of a repeated member; we take the first and go on.
    assert_eq!(read(r#"{"rate":1,"rate":2}"#).rate, 1.0);
}

#[test]
fn references_are_followed() {
    let text = r#"{"queues":[{"brokerName":"b","queueId":0,"topic":"T"},{"$ref":"$.queues[0]"}],"offsets":{{"$ref":"$.queues[0]"}:9},
        "map":{0:"x"},"list":[4]}"#;
    let value = read(text);
    assert_eq!(value.queues, [queue(0), queue(0)]);
    assert_eq!(value.offsets, [(queue(0), 9)].into());
    let nested: BTreeMap<String, BTreeMap<String, Vec<Queue>>> =
        from_slice(br#"{"a":{"x\\y.z":[{"queueId":1}]},"b":{"k":[{"$ref":"$.a.x\\\\y\\.z[0]"}]}}"#).unwrap();
    assert_eq!(nested["b"]["k"][0].queue_id, 1);
    for text in [
        r#"{"queues":[{"$ref":"$.queues[0]"}]}"#,
        r#"{"queues":[{"$ref":"$.nothing"}]}"#,
        r#"{"queues":[{"$ref":".."}]}"#,
        r#"{"queues":[{"$ref":"$.queues[7]"}]}"#,
    ] {
        assert!(matches!(from_slice::<All>(text.as_bytes()), Err(JsonError::Reference { .. })), "{text}");
    }
}

#[test]
fn hostile_texts_are_refused() {
    let deep = format!("{{\"unknown\":{}", "[".repeat(100_000));
    assert!(matches!(from_slice::<All>(deep.as_bytes()), Err(JsonError::TooDeep { .. })));
    let deep = "{{".repeat(100_000);
    assert!(matches!(from_slice::<BTreeMap<Queue, i32>>(deep.as_bytes()), Err(JsonError::TooDeep { .. })));
    let many = format!("[{}]", "{},".repeat(OBJECTS_MAX as usize + 1));
    assert_eq!(from_slice::<Vec<Queue>>(many.as_bytes()), Err(JsonError::TooManyObjects));
    // Each level names the next twice: 2^60 objects if nobody counted.
    let levels: Vec<_> =
        (0..50).map(|n| format!(r#""l{n}":[{{"$ref":"$.l{0}"}},{{"$ref":"$.l{0}"}}]"#, n + 1)).collect();
    let bomb = format!("{{{},\"l50\":[]}}", levels.join(","));
    assert!(from_slice::<BTreeMap<String, serde_json::Value>>(bomb.as_bytes()).is_err());
    for text in [
        "{",
        "[1]",
        "{\"flag\"",
        "{\"flag\":",
        "{\"flag\":tru}",
        "{} x",
        "\"",
        "{\"note\":\"\\",
        "{\"note\":\"\\u12\"}",
        "{\"list\":[1",
        "nul",
    ] {
        assert!(from_slice::<All>(text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(from_slice::<All>(b" \n"), Err(JsonError::Empty));
}

/// Each text beside what fastjson 1.2.83 reads from it, `None` where it fails.
#[test]
fn hand_edited_texts_read_as_in_java() {
    type Offsets = BTreeMap<String, BTreeMap<i32, i64>>;
    let one = Some(&[(0, 1)][..]);
    for (text, expected) in [
        (r#"{"offsetTable":{}}"#, Some(&[][..])),
        (r#"/* c */{"offsetTable":{"a@b":{0:1}}}"#, one),
        (r#"{/* c */"offsetTable":{"a@b":{0:1}}}"#, one),
        ("// x\n{\"offsetTable\":{// y\r\n\"a@b\":{0:1}}}", one),
        ("{\"offsetTable\":{\"a@b\":{0:1}}}\n// end", one),
        (r#"{"offsetTable":{/**/"a@b":{0:/***/1}}}"#, one),
        (r#"{"offsetTable":{"a@b":{/*x*/0:1,/*y*/1:2/*z*/,}}}"#, Some(&[(0, 1), (1, 2)][..])),
        (r#"{'offsetTable':{'a@b':{'0':1}}}"#, one),
        (r#"{offsetTable:{'a@b':{0:1,},},}"#, one),
        ("\u{feff}{\"offsetTable\":{\"a@b\":{0:1}}}", one),
        ("{\"offsetTable\":{\"a@b\":{0:1}}}\0\0", one),
        ("{\"offsetTable\":{\"a@b\":{0:1}}}\r\n\u{1a}", one),
        (r#"{"offsetTable":{"a@b":{0:1L}}}"#, one),
        (r#"{"offsetTable":{"a@b":{0:1.0}}}"#, one),
        (r#"{"offsetTable":{"a@b":{0:"1"}}}"#, one),
        (r#"{"offsetTable":{"a@b":{0:+1}}}"#, one),
        (r#"{"offsetTable":{"a@b":{0:01}}}"#, one),
        (r#"{"offsetTable":{"a@b":{0:1,0:2}}}"#, Some(&[(0, 2)][..])),
        (r#"{"OffsetTable":{"a@b":{0:1}}}"#, one),
        (r#"{"@type":"x.Y","x":undefined,"offsetTable":{"a@b":{0:1}}}"#, one),
        (r#"{"x":[1,2,],"offsetTable":{"a@b":{0:1}}}"#, one),
        ("\0\0", None),
        ("# c\n{\"offsetTable\":{\"a@b\":{0:1}}}", None),
        (r#"{"offsetTable":{"a@b":{0:1}}} # end"#, None),
        (r#"{"offsetTable":{"a@b":{0:1}}};"#, None),
        (r#"{"offsetTable":{"a@b":{0:1}}}}"#, None),
        (r#"{"offsetTable":{"a@b":{0:1}}}/"#, None),
        (r#"{"offsetTable":{"a@b":{0:1}}"#, None),
        (r#"{"offsetTable":{"a@b":{0:"#, None),
        (r#"{"offsetTable" {"a@b":{0:1}}}"#, None),
        (r#"{"offsetTable":{"a@b":{"x":1}}}"#, None),
        (r#"{"offsetTable":{"a@b":{0:0x10}}}"#, None),
        (r#"/* unclosed {"offsetTable":{}}"#, None),
        (r#"{"offsetTable":{/* unclosed "a@b":{0:1}}}"#, None),
    ] {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct File {
            offset_table: Offsets,
        }
        let read = from_slice::<File>(text.as_bytes()).ok().map(|file| file.offset_table);
        let expected = expected.map(|queues| match queues {
            [] => Offsets::new(),
            queues => [("a@b".to_owned(), queues.iter().copied().collect())].into(),
        });
        assert_eq!(read, expected, "{text:?}");
    }
}

#[test]
fn a_file_of_another_kind_is_not_an_empty_one() {
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct File {
        data_version: i32,
        offset_table: BTreeMap<String, i64>,
    }
    let read = |text: &str| from_file::<File>(text.as_bytes());
    let empty = Ok(File::default());
    for text in [
        "{}",
        "{/* nothing yet */}",
        r#"{"dataVersion":0}"#,
        r#"{"offset_table":{},"other":1}"#,
        r#"{"OffsetTable":{}}"#,
    ] {
        assert_eq!(read(text), empty, "{text}");
    }
    for text in [r#"{"dataVersion":7,"offsetTabel":{"a":1}}"#, r#"{"topicConfigTable":{},"dataVersion":7}"#] {
        assert!(read(text).unwrap_err().contains("but nothing named `offsetTable`"), "{text}");
    }
    let many = format!("[{}]", "{},".repeat(OBJECTS_MAX as usize + 1));
    assert_eq!(from_file::<Vec<Queue>>(many.as_bytes()).unwrap().len(), OBJECTS_MAX as usize + 1);
    assert_eq!(read("{\n x").unwrap_err(), "line 2, column 3: JSON syntax: a colon expected at byte 4");
}

#[test]
fn errors_say_where() {
    let text = "\u{feff}{\n\t\"queues\":[\n\t\t{\"topic\":\"\u{e9}\", \"queueId\":x}]\n}";
    let error = from_slice::<All>(text.as_bytes()).unwrap_err();
    let place = error.in_text(text.as_bytes());
    assert!(place.starts_with("line 3, column 27: JSON syntax: a value expected"), "{place}");
    let error = from_slice::<All>(br#"{"queues":[{"queueId":"x"}]}"#).unwrap_err();
    assert_eq!(error.to_string(), "JSON value at byte 22: an integer in range expected, not \"x\"");
}

#[test]
fn strings_and_escapes() {
    let value: Vec<String> =
        from_slice(br#"['it\'s', "a\"b\\c\/d\n\t\u8ba2\u5355", "\ud83d\ude00", "\ud83d", "\x41\0"]"#).unwrap();
    assert_eq!(value, ["it's", "a\"b\\c/d\n\t订单", "\u{1F600}", "\u{FFFD}", "A\0"]);
    let text = "a\"\\/\u{1}\u{7f}\n订\u{1F600}";
    assert_eq!(to_vec(text), "\"a\\\"\\\\/\\u0001\\u007F\\n订\u{1F600}\"".as_bytes());
    assert_eq!(to_vec_ascii(text), b"\"a\\\"\\\\\\/\\u0001\\u007F\\n\\u8BA2\\uD83D\\uDE00\"");
}

fn sample() -> All {
    All {
        flag: true,
        list: vec![1, 2],
        map: [(0, "a".to_owned()), (1, "b".to_owned())].into(),
        mode: Mode::Clustering,
        note: None,
        offsets: [(queue(0), 5)].into(),
        queues: vec![],
        rate: 1.0,
        set: vec!["x".into(), "y".into()],
    }
}

#[test]
fn compact_forms() {
    let quoted = r#"{"flag":true,"list":[1,2],"map":{"0":"a","1":"b"},"mode":"CLUSTERING","offsets":{{"brokerName":"b","queueId":0,"topic":"T"}:5},"queues":[],"rate":1.0,"set":["x","y"]}"#;
    assert_eq!(String::from_utf8(to_vec(&sample())).unwrap(), quoted);
    let bare = quoted.replace("\"0\":", "0:").replace("\"1\":", "1:");
    assert_eq!(String::from_utf8(to_vec_bare_keys(&sample())).unwrap(), bare);
    assert_eq!(read(quoted), sample());
    assert_eq!(read(&bare), sample());
}

#[test]
fn pretty_form_breaks_lines_like_java() {
    let mut value = sample();
    value.offsets.clear();
    let pretty = "{\n\t\"flag\":true,\n\t\"list\":[\n\t\t1,\n\t\t2\n\t],\n\t\"map\":{0:\"a\",1:\"b\"\n\t},\n\t\"mode\":\"CLUSTERING\",\n\t\"offsets\":{},\n\t\"queues\":[],\n\t\"rate\":1.0,\n\t\"set\":[\"x\",\"y\"]\n}";
    assert_eq!(String::from_utf8(to_vec_pretty(&value)).unwrap(), pretty);
    assert_eq!(read(pretty), value);
}

proptest! {
    #[test]
    fn any_text_is_handled(text in "[\\[\\]{}:,\"'0-9a-z$\\\\ ./*\n-]{0,80}") {
        let _ = from_slice::<All>(text.as_bytes());
        let _ = from_slice::<serde_json::Value>(text.as_bytes());
        let _ = from_slice::<BTreeMap<Queue, Vec<Queue>>>(text.as_bytes());
    }

    #[test]
    fn damaged_text_is_handled(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = to_vec(&sample());
        let at = at.index(text.len());
        text[at] = byte;
        let _ = from_slice::<All>(&text);
    }

    #[test]
    fn texts_survive(texts in proptest::collection::vec("\\PC{0,10}|[\u{0}-\u{ff}]{0,10}", 0..5)) {
        for written in [to_vec(&texts), to_vec_bare_keys(&texts), to_vec_ascii(&texts), to_vec_pretty(&texts)] {
            prop_assert_eq!(&from_slice::<Vec<String>>(&written).unwrap(), &texts);
        }
    }

    #[test]
    fn doubles_survive(value in any::<f64>()) {
        if value.is_finite() {
            prop_assert_eq!(from_slice::<f64>(&to_vec(&value)).unwrap(), value);
        }
    }
}
