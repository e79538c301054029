//! Config files written by a Java broker, read into our types and written again: the same bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::json;

fn round_trip<T: Serialize + DeserializeOwned>(text: &str) {
    let value: T = json::from_slice(text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(json::to_vec_pretty(&value)).unwrap(), text);
}

#[test]
fn consumer_offsets() {
    round_trip::<ConsumerOffsetTable>(concat!(
        "{\n\t\"dataVersion\":{\n\t\t\"counter\":22,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1795222120567\n\t},\n",
        "\t\"groupTopicMap\":{\n\t\t\"PopG\":[\"TopicPop\",\"%RETRY%PopG_TopicPop\"],\n\t\t\"PULLG\":[\"TopicWire2\"]\n\t},\n",
        "\t\"offsetTable\":{\n\t\t\"TopicTest@CID_bcast@broadcast\":{0:6,1:9,2:8,3:7\n\t\t},\n\t\t\"TopicWire2@PULLG\":{1:1,99:3\n\t\t}\n\t}\n}",
    ));
}

#[test]
fn delay_offsets() {
    round_trip::<DelayOffsetTable>(
        "{\n\t\"dataVersion\":{\n\t\t\"counter\":2,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1795221246935\n\t},\n\t\"offsetTable\":{3:12\n\t}\n}",
    );
}

#[test]
fn groups() {
    round_trip::<SubscriptionGroupTable>(concat!(
        "{\n\t\"dataVersion\":{\n\t\t\"counter\":41,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1795221951145\n\t},\n\t\"forbiddenTable\":{},\n",
        "\t\"subscriptionGroupTable\":{\n\t\t\"CID_retry2\":{\n\t\t\t\"attributes\":{},\n\t\t\t\"brokerId\":0,\n\t\t\t\"consumeBroadcastEnable\":false,\n",
        "\t\t\t\"consumeEnable\":true,\n\t\t\t\"consumeFromMinEnable\":false,\n\t\t\t\"consumeMessageOrderly\":false,\n\t\t\t\"consumeTimeoutMinute\":15,\n",
        "\t\t\t\"groupName\":\"CID_retry2\",\n\t\t\t\"groupRetryPolicy\":{\n\t\t\t\t\"customizedRetryPolicy\":{\n\t\t\t\t\t\"next\":[1000,5000]\n\t\t\t\t},\n",
        "\t\t\t\t\"type\":\"CUSTOMIZED\"\n\t\t\t},\n\t\t\t\"groupSysFlag\":0,\n\t\t\t\"notifyConsumerIdsChangedEnable\":true,\n\t\t\t\"retryMaxTimes\":16,\n",
        "\t\t\t\"retryQueueNums\":1,\n\t\t\t\"whichBrokerWhenConsumeSlowly\":1\n\t\t}\n\t}\n}",
    ));
}

#[test]
fn topics() {
    round_trip::<TopicConfigTable>(concat!(
        "{\n\t\"dataVersion\":{\n\t\t\"counter\":51,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1795222172514\n\t},\n\t\"topicConfigTable\":{\n",
        "\t\t\"nobroker\":{\n\t\t\t\"attributes\":{},\n\t\t\t\"order\":false,\n\t\t\t\"perm\":6,\n\t\t\t\"readQueueNums\":4,\n\t\t\t\"topicFilterType\":\"SINGLE_TAG\",\n",
        "\t\t\t\"topicName\":\"nobroker\",\n\t\t\t\"topicSysFlag\":0,\n\t\t\t\"writeQueueNums\":4\n\t\t}\n\t}\n}",
    ));
    // A file of a 4.x broker has neither attributes nor a state version.
    let old: TopicConfigTable =
        json::from_slice(br#"{"dataVersion":{"counter":1,"timestamp":2},"topicConfigTable":{"T":{"order":true,"perm":4,"topicName":"T"}}}"#).unwrap();
    let topic = &old.topic_config_table["T"];
    assert_eq!((topic.order, topic.perm, topic.write_queue_nums), (true, 4, 16));
}

#[test]
fn topic_mappings() {
    round_trip::<TopicQueueMappingTable>(concat!(
        "{\n\t\"dataVersion\":{\n\t\t\"counter\":2,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1795221723306\n\t},\n\t\"topicQueueMappingInfoMap\":{\n\t\t\"StaticT\":{\n",
        "\t\t\t\"bname\":\"broker-a\",\n\t\t\t\"currIdMap\":{},\n\t\t\t\"dirty\":false,\n\t\t\t\"epoch\":1795221723294,\n\t\t\t\"hostedQueues\":{0:[\n\t\t\t\t\t{\n",
        "\t\t\t\t\t\t\"bname\":\"broker-a\",\n\t\t\t\t\t\t\"endOffset\":-1,\n\t\t\t\t\t\t\"gen\":0,\n\t\t\t\t\t\t\"logicOffset\":0,\n\t\t\t\t\t\t\"queueId\":0,\n",
        "\t\t\t\t\t\t\"startOffset\":0,\n\t\t\t\t\t\t\"timeOfEnd\":-1,\n\t\t\t\t\t\t\"timeOfStart\":-1\n\t\t\t\t\t}\n\t\t\t\t],1:[]\n\t\t\t},\n",
        "\t\t\t\"scope\":\"__global__\",\n\t\t\t\"topic\":\"StaticT\",\n\t\t\t\"totalQueues\":2\n\t\t}\n\t}\n}",
    ));
}
