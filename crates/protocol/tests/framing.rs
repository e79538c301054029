//! Frames as official clients and careless ones send them: captured bytes, lists of fields there and back, malformed input.

use bytes::{BufMut as _, Bytes, BytesMut};
use ferromq_protocol::header::{MaxOffsetRequest, PullRequest, SendReply, SendRequest, UpdateOffsetRequest};
use ferromq_protocol::{
    Command, FRAME_LEN_MAX, Fields, FrameError, HEADER_LEN_MAX, HeaderError, NoFields, QueueId, QueueOffset, Reply,
    RequestCode, RequestId, ResponseCode, Serialization, UnreadableValue, decode_frame,
};
use proptest::prelude::*;

fn json_frame(header: &str, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_u32((4 + header.len() + body.len()) as u32);
    frame.put_u32(header.len() as u32);
    frame.put_slice(header.as_bytes());
    frame.put_slice(body);
    frame
}

fn decode(mut frame: BytesMut) -> Result<Option<Command>, FrameError> {
    decode_frame(&mut frame, FRAME_LEN_MAX)
}

fn command(header: &str) -> Command {
    decode(json_frame(header, b"")).expect("well-formed").expect("whole")
}

fn list(fields: &Fields) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.into_owned(), value.into_text().into_owned())).collect()
}

fn encoded(command: &Command) -> BytesMut {
    let mut out = BytesMut::new();
    command.encode_head(&mut out).expect("fits");
    out.put_slice(&command.body);
    out
}

#[test]
fn a_body_is_what_is_left() {
    let command = decode(json_frame(r#"{"code":310,"opaque":7,"version":317,"language":"GO","remark":""}"#, b"hello"))
        .unwrap()
        .unwrap();
    assert_eq!(command.body, "hello");
    assert_eq!(command.remark.as_deref(), Some(""));
    assert_eq!(command.request_code(), RequestCode::SEND_MESSAGE_V2);
}

#[test]
fn frames_come_in_pieces() {
    let whole = [json_frame(r#"{"code":1}"#, b"x"), json_frame(r#"{"code":2}"#, b"")].concat();
    let mut buffer = BytesMut::new();
    let mut codes = Vec::new();
    for byte in whole {
        buffer.put_u8(byte);
        while let Some(command) = decode_frame(&mut buffer, FRAME_LEN_MAX).unwrap() {
            codes.push(command.code);
        }
    }
    assert_eq!(codes, [1, 2]);
    assert!(buffer.is_empty());
}

#[test]
fn lengths_that_lie_are_seen_at_once() {
    let start = |words: &[u32]| {
        let mut frame = BytesMut::new();
        words.iter().for_each(|word| frame.put_u32(*word));
        decode(frame)
    };
    assert!(matches!(start(&[0xffff_ffff]), Err(FrameError::TooLong { .. })));
    assert!(matches!(start(&[16_777_213]), Err(FrameError::TooLong { len: 16_777_217, .. })));
    assert_eq!(start(&[16_777_212]).map(|command| command.is_none()), Ok(true));
    assert!(matches!(start(&[0]), Err(FrameError::TooShort { .. })));
    assert!(matches!(start(&[3]), Err(FrameError::TooShort { .. })));
    assert!(matches!(start(&[4, 0]), Err(FrameError::TooShort { .. })));
    assert!(matches!(start(&[8, 0, 0]), Err(FrameError::HeaderLen { header: 0, .. })));
    assert!(matches!(start(&[8, 5000, 0]), Err(FrameError::HeaderLen { header: 5000, .. })));
    assert!(matches!(start(&[8, 0x0700_0004, 0]), Err(FrameError::Serialization(7))));
    // "GET /" read as a length.
    assert!(matches!(decode(BytesMut::from(&b"GET / HTTP/1.1\r\n"[..])), Err(FrameError::TooLong { .. })));
}

#[test]
fn a_smaller_limit_counts_the_length_word() {
    let frame = json_frame(r#"{"code":1}"#, b"xyz");
    let len = frame.len();
    assert!(decode_frame(&mut frame.clone(), len).unwrap().is_some());
    assert!(decode_frame(&mut frame.clone(), len - 1).is_err());
}

#[test]
fn frames_over_the_limit_are_not_written() {
    let command = Command::request(RequestCode::SEND_MESSAGE, &NoFields).with_body(vec![0; FRAME_LEN_MAX]);
    let mut out = BytesMut::from(&b"before"[..]);
    assert!(matches!(command.encode_head(&mut out), Err(FrameError::TooLong { .. })));
    assert_eq!(out, "before");
}

#[test]
fn a_header_has_a_length_at_most() {
    let header = |len: usize| {
        let around = r#"{"code":1,"remark":""}"#;
        format!(r#"{{"code":1,"remark":"{}"}}"#, "r".repeat(len - around.len()))
    };
    assert!(decode(json_frame(&header(HEADER_LEN_MAX), b"x")).unwrap().is_some());
    let len = HEADER_LEN_MAX + 1;
    assert_eq!(decode(json_frame(&header(len), b"x")).unwrap_err(), FrameError::HeaderTooLong { len });
}

#[test]
fn slices_of_the_frame_are_not_copied() {
    let frame = json_frame(r#"{"code":11,"extFields":{"topic":"TopicA"}}"#, b"");
    let range = frame.as_ptr_range();
    let command = decode(frame).unwrap().unwrap();
    let (_, topic) = command.fields.iter().next().unwrap();
    assert!(range.contains(&topic.into_byte_string().as_bytes().as_ptr()));
}

const PULL: &str = r#"{"code":11,"extFields":{"commitOffset":"3","consumerGroup":"G","maxMsgNums":"32","queueId":"-1","queueOffset":"-1","subVersion":"9","subscription":"*","suspendTimeoutMillis":"15000","sysFlag":"6","topic":"T","bname":"b"},"flag":0,"opaque":5}"#;

#[test]
fn a_pull_keeps_what_java_would_look_at() {
    let pull: PullRequest = command(PULL).header().unwrap();
    assert_eq!(
        (pull.topic.as_str(), pull.consumer_group.as_str(), pull.queue_id, pull.queue_offset),
        ("T", "G", -1, -1)
    );
    assert_eq!((pull.subscription.as_deref(), pull.expression_type, pull.sub_version), (Some("*"), None, 9));
    assert_eq!(command(PULL).field("bname").as_deref(), Some("b"));
}

#[test]
fn unreadable_numbers_count_as_absent() {
    for value in [r#""abc""#, r#""99999999999""#, r#""""#, r#"" 1""#, "null"] {
        let command = command(&format!(r#"{{"code":30,"extFields":{{"queueId":{value},"topic":"T"}}}}"#));
        let error = command.header::<MaxOffsetRequest>().unwrap_err();
        assert_eq!(error, HeaderError::Missing { header: "MaxOffsetRequest", field: "queueId" }, "{value}");
    }
    let command = command(r#"{"code":30,"extFields":{"queueId":0,"topic":"T"}}"#);
    let header: MaxOffsetRequest = command.header().unwrap();
    assert_eq!((header.queue_id, header.committed), (QueueId(0), true));
}

#[test]
fn negative_ids_are_none_or_an_error() {
    let fields = r#""extFields":{"queueId":"-1","topic":"T","consumerGroup":"G"}"#;
    let optional: UpdateOffsetRequest = command(&format!(r#"{{"code":15,{fields}}}"#)).header().unwrap();
    assert_eq!((optional.queue_id, optional.commit_offset), (None, None));
    let error = command(&format!(r#"{{"code":30,{fields}}}"#)).header::<MaxOffsetRequest>().unwrap_err();
    assert!(matches!(error, HeaderError::Invalid { field: "queueId", reason: UnreadableValue::Negative, .. }));
}

#[test]
fn short_names_are_strict() {
    let header = r#"{"code":310,"extFields":{"a":"PG","b":"T","c":"TBW102","d":"4","e":"0","f":"0","g":"1795220483806","h":"0","i":"KEYS\u0001k1\u0002TAGS\u0001TagA\u0002","j":"abc","k":"x"},"opaque":109}"#;
    let error = command(header).header::<SendRequest>().unwrap_err();
    assert_eq!(error.to_string(), "java.lang.NumberFormatException: For input string: \"abc\"");
    let send: SendRequest = command(&header.replace("abc", "1")).header().unwrap();
    assert_eq!(send.properties.as_deref(), Some("KEYS\u{1}k1\u{2}TAGS\u{1}TagA\u{2}"));
    assert_eq!((send.reconsume_times, send.unit_mode, send.batch), (1, false, false));
}

#[test]
fn long_names_are_lenient() {
    let send: SendRequest = command(
        r#"{"code":10,"extFields":{"producerGroup":"PG","topic":"T","defaultTopic":"TBW102","defaultTopicQueueNums":4,"queueId":-1,"sysFlag":0,"bornTimestamp":1,"flag":0,"reconsumeTimes":"x","batch":"TRUE","a":"nobody"}}"#,
    )
    .header()
    .unwrap();
    assert_eq!((send.producer_group.as_str(), send.queue_id, send.reconsume_times, send.batch), ("PG", -1, 0, true));
}

#[test]
fn a_reply_as_java_writes_it() {
    let reply = Reply::ok().header(SendReply {
        msg_id: "0A".into(),
        queue_id: QueueId(1),
        queue_offset: QueueOffset(2),
        region: Some("DefaultRegion".into()),
        trace_on: Some(true),
        ..SendReply::default()
    });
    let mut out = BytesMut::new();
    reply.encode_head(RequestId { opaque: 3, serialization: Serialization::Json }, &mut out).unwrap();
    let text = r#"{"code":0,"extFields":{"msgId":"0A","queueId":"1","queueOffset":"2","MSG_REGION":"DefaultRegion","TRACE_ON":"true"},"flag":1,"language":"JAVA","opaque":3,"serializeTypeCurrentRPC":"JSON","version":479}"#;
    assert_eq!(std::str::from_utf8(&out[8..]).unwrap(), text);
    assert_eq!(out, json_frame(text, b""));
}

#[test]
fn replies_leave_as_the_request_came() {
    let id = RequestId { opaque: -7, serialization: Serialization::Binary };
    let reply = Reply::error(ResponseCode::QUERY_NOT_FOUND, "none")
        .empty_header()
        .body_chunks(vec![Bytes::from("ab"), Bytes::from("c")]);
    let mut out = BytesMut::new();
    reply.encode_head(id, &mut out).unwrap();
    reply.body.iter().for_each(|chunk| out.put_slice(chunk));
    let command = decode(out).unwrap().unwrap();
    assert_eq!(
        (command.response_code(), command.id(), command.flags.is_response()),
        (ResponseCode::QUERY_NOT_FOUND, id, true)
    );
    assert_eq!((command.remark.as_deref(), &command.body[..]), (Some("none"), &b"abc"[..]));
}

#[test]
fn empty_and_absent_fields_differ_in_json() {
    let id = RequestId { opaque: 1, serialization: Serialization::Json };
    for (reply, present) in [(Reply::ok(), false), (Reply::ok().empty_header(), true)] {
        let mut out = BytesMut::new();
        reply.encode_head(id, &mut out).unwrap();
        assert_eq!(decode(out).unwrap().unwrap().fields.is_present(), present);
    }
    assert!(!Command::request(RequestCode::HEART_BEAT, &NoFields).fields.is_present());
}

#[test]
fn codes_that_do_not_fit_the_binary_form_are_refused() {
    let mut command = Command::request(RequestCode::POP_MESSAGE, &NoFields);
    assert!(command.encode_head(&mut BytesMut::new()).is_ok());
    command.serialization = Serialization::Binary;
    assert!(matches!(
        command.encode_head(&mut BytesMut::new()),
        Err(FrameError::NotBinary { field: "code", value: 200_050 })
    ));
}

#[test]
fn the_last_of_repeated_names_counts() {
    let command = command(r#"{"code":30,"extFields":{"queueId":"1","topic":"A","queueId":"2"}}"#);
    assert_eq!(command.field("queueId").as_deref(), Some("2"));
    assert_eq!(command.header::<MaxOffsetRequest>().unwrap().queue_id, QueueId(2));
}

/// Any text, but no empty names: Java has none in its binary form.
fn any_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("(?s).{1,8}", "(?s).{0,20}"), 0..8)
}

proptest! {
    #[test]
    fn fields_there_and_back(
        sent in any_fields(),
        remark in prop::option::of("(?s).{1,20}"),
        body in prop::collection::vec(any::<u8>(), 0..40),
        code in any::<i16>(),
        opaque in any::<i32>(),
        binary in any::<bool>(),
    ) {
        let mut command = Command::request(RequestCode(code.into()), &sent).with_body(body.clone());
        command.opaque = opaque;
        command.remark = remark.clone().map(Into::into);
        command.serialization = if binary { Serialization::Binary } else { Serialization::Json };
        let bytes = encoded(&command);
        let back = decode(bytes.clone()).unwrap().unwrap();
        prop_assert_eq!(list(&back.fields), sent);
        prop_assert_eq!((back.code, back.opaque), (i32::from(code), opaque));
        prop_assert_eq!(back.remark.as_deref(), remark.as_deref());
        prop_assert_eq!(&back.body[..], &body[..]);
        prop_assert_eq!(encoded(&back), bytes);
    }

    #[test]
    fn random_headers_never_panic(header in prop::collection::vec(any::<u8>(), 1..200), serialization in 0u32..3) {
        let mut frame = BytesMut::new();
        frame.put_u32(4 + header.len() as u32);
        frame.put_u32(serialization << 24 | header.len() as u32);
        frame.put_slice(&header);
        if let Ok(Some(command)) = decode(frame) {
            read_everything(&command);
        }
    }

    #[test]
    fn mangled_json_never_panics(at in 0..PULL.len(), what in "[\\{\\}\\[\\]\"'\\\\:,a0ué ]{0,3}", cut in 0usize..6) {
        let mut text = PULL.to_owned();
        let end = (at + cut).min(text.len());
        text.replace_range(at..end, &what);
        if let Ok(Some(command)) = decode(json_frame(&text, b"")) {
            read_everything(&command);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(Some(command)) = decode(BytesMut::from(&bytes[..])) {
            read_everything(&command);
        }
    }
}

/// A frame that was accepted can be read, shown and written, and what is written is the same frame.
fn read_everything(command: &Command) {
    let (pull, send): (Result<PullRequest, _>, Result<SendRequest, _>) = (command.header(), command.header());
    let _shown = format!("{command:?} {pull:?} {send:?}");
    let mut out = BytesMut::new();
    if command.encode_head(&mut out).is_ok() {
        out.put_slice(&command.body);
        let back = decode(out).expect("what we write can be read").expect("whole");
        assert_eq!(list(&back.fields), list(&command.fields));
        assert_eq!(back.code, command.code);
    }
}
