//! Frames and typed headers against bytes made by the Java classes (tests/golden/README.md).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::BytesMut;
use ferromq_protocol::header::*;
use ferromq_protocol::{
    Command, DecodeFields, EncodeFields, FRAME_LEN_MAX, FieldWriter, Fields, HeaderError, RequestCode, Serialization,
    decode_frame,
};

/// One `[name]` block: its lines in order, and its bytes.
struct Vector {
    name: String,
    lines: Vec<(String, String)>,
    bytes: Vec<u8>,
}

impl Vector {
    fn value(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The lines under a prefix, in wire order.
    fn under(&self, prefix: &str) -> Vec<(String, String)> {
        let stripped =
            self.lines.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())));
        stripped.collect()
    }
}

fn vectors(file: &str) -> Vec<Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut vectors: Vec<Vector> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            vectors.push(Vector { name: name.trim_end_matches(']').to_owned(), lines: Vec::new(), bytes: Vec::new() });
            continue;
        }
        let vector = vectors.last_mut().expect("a line before the first block");
        if let Some(hex) = line.strip_prefix("bytes = ") {
            vector.bytes =
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
        } else {
            let (key, value) = line.split_once(" = \"").expect("key = \"value\"");
            vector.lines.push((key.to_owned(), serde_json::from_str(&format!("\"{value}")).expect("a JSON string")));
        }
    }
    assert!(!vectors.is_empty(), "{file} holds nothing");
    vectors
}

fn decode(vector: &Vector) -> Command {
    let mut buffer = BytesMut::from(&vector.bytes[..]);
    let command = decode_frame(&mut buffer, FRAME_LEN_MAX).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
    assert!(buffer.is_empty(), "{}", vector.name);
    command.unwrap_or_else(|| panic!("{}: not a whole frame", vector.name))
}

fn fields(fields: &Fields) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.into_owned(), value.into_text().into_owned())).collect()
}

/// Compares everything a block says about its frame and encodes the frame again.
fn check_frame(vector: &Vector, fields_prefix: &str) -> Command {
    let name = &vector.name;
    let command = decode(vector);
    let binary = vector.value("serialize") == Some("ROCKETMQ");
    assert_eq!(command.serialization, if binary { Serialization::Binary } else { Serialization::Json }, "{name}");
    assert_eq!(Some(command.code.to_string().as_str()), vector.value("code"), "{name}");
    assert_eq!(command.language.name(), vector.value("language"), "{name}");
    assert_eq!(Some(command.version.to_string().as_str()), vector.value("version"), "{name}");
    assert_eq!(Some(command.opaque.to_string().as_str()), vector.value("opaque"), "{name}");
    assert_eq!(Some(command.flags.0.to_string().as_str()), vector.value("flag"), "{name}");
    // The binary form cannot tell an empty remark from none.
    let remark = vector.value("remark").filter(|remark| !(binary && remark.is_empty()));
    assert_eq!(command.remark.as_deref(), remark, "{name}");
    assert_eq!(fields(&command.fields), vector.under(fields_prefix), "{name}");
    let mut out = BytesMut::new();
    command.encode_head(&mut out).unwrap_or_else(|error| panic!("{name}: {error}"));
    out.extend_from_slice(&command.body);
    assert_eq!(out, vector.bytes, "{name}");
    command
}

#[test]
fn frames() {
    for file in ["frames-5.3.3.txt", "frames-4.9.7.txt"] {
        for vector in vectors(file) {
            check_frame(&vector, "ext.");
        }
    }
}

/// What one typed header makes of a vector: its own fields again, as text.
type Recode = fn(&Command) -> Result<BTreeMap<String, String>, HeaderError>;

fn recode<H: DecodeFields + EncodeFields>(command: &Command) -> Result<BTreeMap<String, String>, HeaderError> {
    let header: H = command.header()?;
    Ok(fields(&Fields::from_header(&header)).into_iter().collect())
}

fn recode_short(command: &Command) -> Result<BTreeMap<String, String>, HeaderError> {
    let header: SendRequest = Command { code: RequestCode::SEND_MESSAGE_V2.0, ..command.clone() }.header()?;
    Ok(fields(&Fields::from_header(&header.short_names())).into_iter().collect())
}

/// Java class to our struct. Headers without fields, and those of requests nobody answers yet, are not here.
const CLASSES: &[(&str, Recode)] = &[
    ("AddWritePermOfBrokerRequestHeader", recode::<AddWritePermRequest>),
    ("AddWritePermOfBrokerResponseHeader", recode::<AddWritePermReply>),
    ("BrokerHeartbeatRequestHeader", recode::<BrokerHeartbeatRequest>),
    ("CheckRocksdbCqWriteProgressRequestHeader", recode::<ConsumeQueueProgressRequest>),
    ("CheckTransactionStateRequestHeader", recode::<CheckTransactionRequest>),
    ("CloneGroupOffsetRequestHeader", recode::<CloneGroupOffsetRequest>),
    ("ConsumeMessageDirectlyResultRequestHeader", recode::<ConsumeDirectlyRequest>),
    ("ConsumerSendMsgBackRequestHeader", recode::<SendBackRequest>),
    ("CreateTopicRequestHeader", recode::<CreateTopicRequest>),
    ("DeleteKVConfigRequestHeader", recode::<KvKeyRequest>),
    ("DeleteSubscriptionGroupRequestHeader", recode::<DeleteGroupRequest>),
    ("DeleteTopicFromNamesrvRequestHeader", recode::<DeleteTopicInNamesrvRequest>),
    ("DeleteTopicRequestHeader", recode::<DeleteTopicRequest>),
    ("EndTransactionRequestHeader", recode::<EndTransactionRequest>),
    ("ExchangeHAInfoRequestHeader", recode::<HaInfoRequest>),
    ("ExchangeHAInfoResponseHeader", recode::<HaInfoRequest>),
    ("ExportRocksDBConfigToJsonRequestHeader", recode::<ExportConfigRequest>),
    ("GetBrokerConfigResponseHeader", recode::<BrokerConfigReply>),
    ("GetBrokerMemberGroupRequestHeader", recode::<BrokerMemberGroupRequest>),
    ("GetConsumeStatsInBrokerHeader", recode::<BrokerConsumeStatsRequest>),
    ("GetConsumeStatsRequestHeader", recode::<ConsumeStatsRequest>),
    ("GetConsumerConnectionListRequestHeader", recode::<ConsumerConnectionRequest>),
    ("GetConsumerListByGroupRequestHeader", recode::<ConsumerListRequest>),
    ("GetConsumerRunningInfoRequestHeader", recode::<ConsumerRunningInfoRequest>),
    ("GetConsumerStatusRequestHeader", recode::<ConsumerStatusRequest>),
    ("GetEarliestMsgStoretimeRequestHeader", recode::<EarliestStoreTimeRequest>),
    ("GetEarliestMsgStoretimeResponseHeader", recode::<EarliestStoreTimeReply>),
    ("GetKVConfigRequestHeader", recode::<KvKeyRequest>),
    ("GetKVConfigResponseHeader", recode::<KvGetReply>),
    ("GetKVListByNamespaceRequestHeader", recode::<KvNamespaceRequest>),
    ("GetMaxOffsetRequestHeader", recode::<MaxOffsetRequest>),
    ("GetMaxOffsetResponseHeader", recode::<OffsetReply>),
    ("GetMinOffsetRequestHeader", recode::<MinOffsetRequest>),
    ("GetMinOffsetResponseHeader", recode::<OffsetReply>),
    ("GetProducerConnectionListRequestHeader", recode::<ProducerConnectionRequest>),
    ("GetRouteInfoRequestHeader", recode::<RouteRequest>),
    ("GetSubscriptionGroupConfigRequestHeader", recode::<GroupConfigRequest>),
    ("GetTopicConfigRequestHeader", recode::<TopicConfigRequest>),
    ("GetTopicStatsInfoRequestHeader", recode::<TopicStatsRequest>),
    ("GetTopicsByClusterRequestHeader", recode::<TopicsByClusterRequest>),
    ("NotifyConsumerIdsChangedRequestHeader", recode::<ConsumerIdsChangedRequest>),
    ("NotifyMinBrokerIdChangeRequestHeader", recode::<MinBrokerIdChange>),
    ("PullMessageRequestHeader", recode::<PullRequest>),
    ("PullMessageResponseHeader", recode::<PullReply>),
    ("PutKVConfigRequestHeader", recode::<KvPutRequest>),
    ("QueryConsumeQueueRequestHeader", recode::<QueryConsumeQueueRequest>),
    ("QueryConsumeTimeSpanRequestHeader", recode::<ConsumeTimeSpanRequest>),
    ("QueryConsumerOffsetRequestHeader", recode::<QueryOffsetRequest>),
    ("QueryConsumerOffsetResponseHeader", recode::<OffsetReply>),
    ("QueryCorrectionOffsetHeader", recode::<QueryCorrectionOffsetRequest>),
    ("QueryDataVersionRequestHeader", recode::<DataVersionRequest>),
    ("QueryDataVersionResponseHeader", recode::<DataVersionReply>),
    ("QueryMessageRequestHeader", recode::<QueryMessageRequest>),
    ("QueryMessageResponseHeader", recode::<QueryMessageReply>),
    ("QuerySubscriptionByConsumerRequestHeader", recode::<SubscriptionByConsumerRequest>),
    ("QueryTopicConsumeByWhoRequestHeader", recode::<TopicConsumersRequest>),
    ("QueryTopicsByConsumerRequestHeader", recode::<TopicsByConsumerRequest>),
    ("RecallMessageRequestHeader", recode::<RecallRequest>),
    ("RecallMessageResponseHeader", recode::<RecallReply>),
    ("RegisterBrokerRequestHeader", recode::<RegisterBrokerRequest>),
    ("RegisterBrokerResponseHeader", recode::<RegisterBrokerReply>),
    ("RegisterTopicRequestHeader", recode::<RegisterTopicRequest>),
    ("ReplyMessageRequestHeader", recode::<PushReplyRequest>),
    ("ResetMasterFlushOffsetHeader", recode::<ResetFlushOffsetRequest>),
    ("ResetOffsetRequestHeader", recode::<ResetOffsetRequest>),
    ("ResumeCheckHalfMessageRequestHeader", recode::<ResumeCheckHalfMessageRequest>),
    ("SearchOffsetRequestHeader", recode::<SearchOffsetRequest>),
    ("SearchOffsetResponseHeader", recode::<OffsetReply>),
    ("SendMessageRequestHeader", recode::<SendRequest>),
    ("SendMessageRequestHeaderV2", recode_short),
    ("SendMessageResponseHeader", recode::<SendReply>),
    ("UnRegisterBrokerRequestHeader", recode::<UnregisterBrokerRequest>),
    ("UnregisterClientRequestHeader", recode::<UnregisterClientRequest>),
    ("UpdateConsumerOffsetRequestHeader", recode::<UpdateOffsetRequest>),
    ("UpdateGroupForbiddenRequestHeader", recode::<GroupForbiddenRequest>),
    ("ViewBrokerStatsDataRequestHeader", recode::<BrokerStatsRequest>),
    ("ViewMessageRequestHeader", recode::<ViewMessageRequest>),
    ("WipeWritePermOfBrokerRequestHeader", recode::<WipeWritePermRequest>),
    ("WipeWritePermOfBrokerResponseHeader", recode::<WipeWritePermReply>),
];

/// Fields of Java's base classes, which our structs leave to `Command::field`.
const BASE: [&str; 5] = ["ns", "nsd", "bname", "oway", "lo"];
/// A Java primitive or our default, written although the vector has no such field.
const FILLED_IN: [&str; 3] = ["false", "0", "-1"];

/// Fields we demand although Java only forgets to: without a topic it fails later on.
const STRICTER: [(&str, &str); 1] = [("QueryConsumeQueueRequestHeader", "topic")];

#[test]
fn headers() {
    let mut seen = std::collections::BTreeSet::new();
    for file in ["headers-5.3.3.txt", "headers-4.9.7.txt"] {
        for vector in vectors(file) {
            let command = check_frame(&vector, "field.");
            let class = vector.name.split('/').next().expect("a name");
            let Some((class, recode)) = CLASSES.iter().find(|(name, _)| *name == class) else {
                continue;
            };
            seen.insert(*class);
            let mut ours = match recode(&command) {
                Err(HeaderError::Missing { field, .. }) if STRICTER.contains(&(class, field)) => {
                    continue;
                }
                other => other.unwrap_or_else(|error| panic!("{}: {error}", vector.name)),
            };
            let mut java: BTreeMap<_, _> = vector.under("field.").into_iter().collect();
            // 4.9's name of the same field; we read both and write 5.x's.
            if let Some(value) = java.remove("removeOffset") {
                java.insert("cleanOffset".to_owned(), value);
            }
            for name in BASE {
                java.remove(name);
                ours.remove(name);
            }
            // `committed` is from 5.0, and true without saying so.
            ours.retain(|name, value| {
                java.contains_key(name) || !(FILLED_IN.contains(&value.as_str()) || name == "committed")
            });
            assert_eq!(ours, java, "{}", vector.name);
        }
    }
    let unseen: Vec<_> = CLASSES.iter().filter(|(class, _)| !seen.contains(class)).map(|(class, _)| class).collect();
    assert!(unseen.is_empty(), "no vectors for {unseen:?}");
}

/// The fields that Java 5.3.3, and 4.9.8 where it has the class, marks `@CFNotNull`.
const REQUIRED: &[(&str, &str)] = &[
    ("AddWritePermOfBrokerRequestHeader", "brokerName"),
    ("AddWritePermOfBrokerResponseHeader", "addTopicCount"),
    ("BrokerHeartbeatRequestHeader", "clusterName brokerAddr brokerName"),
    ("CheckRocksdbCqWriteProgressRequestHeader", "topic"),
    ("CheckTransactionStateRequestHeader", "tranStateTableOffset commitLogOffset"),
    ("CloneGroupOffsetRequestHeader", "srcGroup destGroup"),
    ("ConsumeMessageDirectlyResultRequestHeader", "consumerGroup"),
    ("ConsumerSendMsgBackRequestHeader", "offset group delayLevel"),
    ("CreateTopicRequestHeader", "topic defaultTopic readQueueNums writeQueueNums perm topicFilterType order"),
    ("DeleteKVConfigRequestHeader", "namespace key"),
    ("DeleteSubscriptionGroupRequestHeader", "groupName"),
    ("DeleteTopicFromNamesrvRequestHeader", "topic"),
    ("DeleteTopicRequestHeader", "topic"),
    ("EndTransactionRequestHeader", "producerGroup tranStateTableOffset commitLogOffset commitOrRollback msgId"),
    ("ExchangeHAInfoRequestHeader", ""),
    ("ExchangeHAInfoResponseHeader", ""),
    ("ExportRocksDBConfigToJsonRequestHeader", "configType"),
    ("GetBrokerConfigResponseHeader", "version"),
    ("GetBrokerMemberGroupRequestHeader", "clusterName brokerName"),
    ("GetConsumeStatsInBrokerHeader", "isOrder"),
    ("GetConsumeStatsRequestHeader", "consumerGroup"),
    ("GetConsumerConnectionListRequestHeader", "consumerGroup"),
    ("GetConsumerListByGroupRequestHeader", "consumerGroup"),
    ("GetConsumerRunningInfoRequestHeader", "consumerGroup clientId"),
    ("GetConsumerStatusRequestHeader", "topic group"),
    ("GetEarliestMsgStoretimeRequestHeader", "topic queueId"),
    ("GetEarliestMsgStoretimeResponseHeader", "timestamp"),
    ("GetKVConfigRequestHeader", "namespace key"),
    ("GetKVConfigResponseHeader", ""),
    ("GetKVListByNamespaceRequestHeader", "namespace"),
    ("GetMaxOffsetRequestHeader", "topic queueId"),
    ("GetMaxOffsetResponseHeader", "offset"),
    ("GetMinOffsetRequestHeader", "topic queueId"),
    ("GetMinOffsetResponseHeader", "offset"),
    ("GetProducerConnectionListRequestHeader", "producerGroup"),
    ("GetRouteInfoRequestHeader", "topic"),
    ("GetSubscriptionGroupConfigRequestHeader", "group"),
    ("GetTopicConfigRequestHeader", "topic"),
    ("GetTopicStatsInfoRequestHeader", "topic"),
    ("GetTopicsByClusterRequestHeader", "cluster"),
    ("NotifyConsumerIdsChangedRequestHeader", "consumerGroup"),
    ("NotifyMinBrokerIdChangeRequestHeader", ""),
    (
        "PullMessageRequestHeader",
        "consumerGroup topic queueId queueOffset maxMsgNums sysFlag commitOffset suspendTimeoutMillis subVersion",
    ),
    ("PullMessageResponseHeader", "suggestWhichBrokerId nextBeginOffset minOffset maxOffset"),
    ("PutKVConfigRequestHeader", "namespace key value"),
    ("QueryConsumeQueueRequestHeader", ""),
    ("QueryConsumeTimeSpanRequestHeader", "topic group"),
    ("QueryConsumerOffsetRequestHeader", "consumerGroup topic queueId"),
    ("QueryConsumerOffsetResponseHeader", "offset"),
    ("QueryCorrectionOffsetHeader", "compareGroup topic"),
    ("QueryDataVersionRequestHeader", "brokerName brokerAddr clusterName brokerId"),
    ("QueryDataVersionResponseHeader", "changed"),
    ("QueryMessageRequestHeader", "topic key maxNum beginTimestamp endTimestamp"),
    ("QueryMessageResponseHeader", "indexLastUpdateTimestamp indexLastUpdatePhyoffset"),
    ("QuerySubscriptionByConsumerRequestHeader", "group"),
    ("QueryTopicConsumeByWhoRequestHeader", "topic"),
    ("QueryTopicsByConsumerRequestHeader", "group"),
    ("RecallMessageRequestHeader", "topic recallHandle"),
    ("RecallMessageResponseHeader", "msgId"),
    ("RegisterBrokerRequestHeader", "brokerName brokerAddr clusterName haServerAddr brokerId"),
    ("RegisterBrokerResponseHeader", ""),
    ("RegisterTopicRequestHeader", "topic"),
    (
        "ReplyMessageRequestHeader",
        "producerGroup topic defaultTopic defaultTopicQueueNums queueId sysFlag bornTimestamp flag bornHost storeHost storeTimestamp",
    ),
    ("ResetMasterFlushOffsetHeader", "masterFlushOffset"),
    ("ResetOffsetRequestHeader", "group topic timestamp isForce"),
    ("ResumeCheckHalfMessageRequestHeader", ""),
    ("SearchOffsetRequestHeader", "topic queueId timestamp"),
    ("SearchOffsetResponseHeader", "offset"),
    (
        "SendMessageRequestHeader",
        "producerGroup topic defaultTopic defaultTopicQueueNums queueId sysFlag bornTimestamp flag",
    ),
    ("SendMessageRequestHeaderV2", "a b c d e f g h"),
    ("SendMessageResponseHeader", "msgId queueId queueOffset"),
    ("UnRegisterBrokerRequestHeader", "brokerName brokerAddr clusterName brokerId"),
    ("UnregisterClientRequestHeader", "clientID"),
    ("UpdateConsumerOffsetRequestHeader", "consumerGroup topic queueId commitOffset"),
    ("UpdateGroupForbiddenRequestHeader", "group topic"),
    ("ViewBrokerStatsDataRequestHeader", "statsName statsKey"),
    ("ViewMessageRequestHeader", "offset"),
    ("WipeWritePermOfBrokerRequestHeader", "brokerName"),
    ("WipeWritePermOfBrokerResponseHeader", "wipeTopicCount"),
];

/// Marked in Java and not needed here: its handlers do without them.
const LENIENT: [(&str, &str); 6] = [
    ("CreateTopicRequestHeader", "defaultTopic"),
    ("CreateTopicRequestHeader", "order"),
    ("GetConsumeStatsInBrokerHeader", "isOrder"),
    ("ResetOffsetRequestHeader", "isForce"),
    // An answer of their own, in Java's handler too.
    ("UpdateConsumerOffsetRequestHeader", "queueId"),
    ("UpdateConsumerOffsetRequestHeader", "commitOffset"),
];

/// Clients that are written by hand leave out what they may.
#[test]
fn what_java_does_not_require_may_be_left_out() {
    assert_eq!(REQUIRED.len(), CLASSES.len());
    for ((class, recode), (of, required)) in CLASSES.iter().zip(REQUIRED) {
        assert_eq!(class, of);
        let mut required: Vec<&str> = required.split_whitespace().collect();
        required.extend(STRICTER.iter().filter(|(strict, _)| strict == class).map(|(_, field)| field));
        let with = |names: &[&str]| {
            let fields: Vec<_> = names.iter().map(|name| (*name, "1")).collect();
            recode(&Command::request(RequestCode(0), &fields))
        };
        with(&required).unwrap_or_else(|error| panic!("{class} with {required:?}: {error}"));
        for left_out in required.iter().filter(|field| !LENIENT.contains(&(class, field))) {
            let others: Vec<_> = required.iter().copied().filter(|field| field != left_out).collect();
            let error = with(&others).expect_err(&format!("{class} without {left_out}"));
            assert_eq!(error.field(), *left_out, "{class}");
        }
    }
}

/// Lists of fields that have no struct are headers too.
#[test]
fn a_list_of_fields_is_a_header() {
    struct Tags;
    impl EncodeFields for Tags {
        fn encode_fields(&self, out: &mut FieldWriter<'_>) {
            out.text("MSG_REGION", "DefaultRegion");
        }
    }
    let both = (Tags, vec![("TRACE_ON", "true")]);
    let want = [("MSG_REGION", "DefaultRegion"), ("TRACE_ON", "true")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(fields(&Fields::from_header(&both)), want);
}
