package org.ferromq.golden;

import com.alibaba.fastjson.serializer.SerializerFeature;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.zip.InflaterInputStream;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.TopicFilterType;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.DataVersion;
import org.apache.rocketmq.remoting.protocol.admin.OffsetWrapper;
import org.apache.rocketmq.remoting.protocol.admin.ConsumeStats;
import org.apache.rocketmq.remoting.protocol.admin.TopicOffset;
import org.apache.rocketmq.remoting.protocol.admin.TopicStatsTable;
import org.apache.rocketmq.remoting.protocol.body.BrokerMemberGroup;
import org.apache.rocketmq.remoting.protocol.body.ClusterInfo;
import org.apache.rocketmq.remoting.protocol.body.ConsumerOffsetSerializeWrapper;
import org.apache.rocketmq.remoting.protocol.body.KVTable;
import org.apache.rocketmq.remoting.protocol.body.LockBatchRequestBody;
import org.apache.rocketmq.remoting.protocol.body.LockBatchResponseBody;
import org.apache.rocketmq.remoting.protocol.body.RegisterBrokerBody;
import org.apache.rocketmq.remoting.protocol.body.ResetOffsetBody;
import org.apache.rocketmq.remoting.protocol.body.SubscriptionGroupWrapper;
import org.apache.rocketmq.remoting.protocol.body.TopicConfigAndMappingSerializeWrapper;
import org.apache.rocketmq.remoting.protocol.body.TopicConfigSerializeWrapper;
import org.apache.rocketmq.remoting.protocol.filter.FilterAPI;
import org.apache.rocketmq.remoting.protocol.heartbeat.ConsumeType;
import org.apache.rocketmq.remoting.protocol.heartbeat.ConsumerData;
import org.apache.rocketmq.remoting.protocol.heartbeat.HeartbeatData;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;
import org.apache.rocketmq.remoting.protocol.heartbeat.ProducerData;
import org.apache.rocketmq.remoting.protocol.heartbeat.SubscriptionData;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.remoting.protocol.route.QueueData;
import org.apache.rocketmq.remoting.protocol.route.TopicRouteData;
import org.apache.rocketmq.remoting.protocol.statictopic.TopicQueueMappingInfo;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;

/** Bodies filled the way a name server, broker or client does, and the encodings that are not plain `encode()`. */
final class RealBodies {
    private RealBodies() {
    }

    static void add(Vectors out) throws Exception {
        route(out);
        registration(out);
        heartbeat(out);
        admin(out);
    }

    private static void route(Vectors out) {
        TopicRouteData route = new TopicRouteData();
        route.setQueueDatas(Arrays.asList(queue("broker-a", 4, 4, 6), queue("broker-b", 8, 8, 4)));
        route.setBrokerDatas(Arrays.asList(broker("broker-a", "127.0.0.1:10911", "127.0.0.1:20911"), broker("broker-b", "127.0.0.1:30911", null)));
        route.setFilterServerTable(new HashMap<>());
        bothRoutes(out, "real/TopicRouteData", route);

        TopicRouteData ordered = new TopicRouteData(route);
        ordered.setOrderTopicConf("broker-a:4;broker-b:8");
        bothRoutes(out, "real/TopicRouteData-ordered", ordered);

        TopicRouteData unicode = new TopicRouteData();
        unicode.setQueueDatas(Arrays.asList(queue("брокер", 1, 1, 6)));
        unicode.setBrokerDatas(Arrays.asList(broker("брокер", "主机:10911", null)));
        unicode.setFilterServerTable(new HashMap<>());
        unicode.setOrderTopicConf("a/b \"c\" é \uD83D\uDE80");
        bothRoutes(out, "real/TopicRouteData-unicode", unicode);

        bothRoutes(out, "real/TopicRouteData-full", (TopicRouteData) new Fill(true).object(TopicRouteData.class, 0));

        ClusterInfo cluster = new ClusterInfo();
        HashMap<String, BrokerData> brokers = new HashMap<>();
        brokers.put("broker-a", broker("broker-a", "127.0.0.1:10911", "127.0.0.1:20911"));
        brokers.put("broker-b", broker("broker-b", "127.0.0.1:30911", null));
        cluster.setBrokerAddrTable(brokers);
        HashMap<String, java.util.Set<String>> clusters = new HashMap<>();
        clusters.put("DefaultCluster", new HashSet<>(Arrays.asList("broker-a", "broker-b")));
        cluster.setClusterAddrTable(clusters);
        Bodies.json(out, "real/ClusterInfo", cluster, cluster.encode());

        BrokerMemberGroup group = new BrokerMemberGroup("DefaultCluster", "broker-a");
        group.getBrokerAddrs().put(0L, "127.0.0.1:10911");
        group.getBrokerAddrs().put(1L, "127.0.0.1:20911");
        Bodies.json(out, "real/BrokerMemberGroup", group, group.encode());
    }

    /** The features are those of ClientRequestProcessor.getRouteInfoByTopic for clients since 4.9.4 or with acceptStandardJsonOnly. */
    private static void bothRoutes(Vectors out, String name, TopicRouteData route) {
        Bodies.json(out, name + "/legacy", route, route.encode());
        Bodies.json(out, name + "/strict", route, route.encode(SerializerFeature.BrowserCompatible, SerializerFeature.QuoteFieldNames,
            SerializerFeature.SkipTransientField, SerializerFeature.MapSortField));
    }

    private static QueueData queue(String broker, int read, int write, int perm) {
        QueueData queue = new QueueData();
        queue.setBrokerName(broker);
        queue.setReadQueueNums(read);
        queue.setWriteQueueNums(write);
        queue.setPerm(perm);
        return queue;
    }

    private static BrokerData broker(String name, String master, String slave) {
        HashMap<Long, String> addresses = new HashMap<>();
        addresses.put(0L, master);
        if (slave != null) {
            addresses.put(1L, slave);
        }
        return new BrokerData("DefaultCluster", name, addresses);
    }

    private static DataVersion version(long counter) {
        DataVersion version = new DataVersion();
        version.setTimestamp(Fill.NOW);
        version.setStateVersion(0);
        version.setCounter(new AtomicLong(counter));
        return version;
    }

    private static void registration(Vectors out) throws Exception {
        DataVersion version = version(3);
        Bodies.json(out, "real/DataVersion", version, version.encode());

        TopicConfig plain = new TopicConfig("TopicTest", 4, 4, 6);
        TopicConfig ordered = new TopicConfig("OrderTopic", 8, 8, 6, 1);
        ordered.setOrder(true);
        ordered.setTopicFilterType(TopicFilterType.MULTI_TAG);
        TopicConfig attributed = new TopicConfig("FifoTopic", 16, 16, 7);
        attributed.getAttributes().put("+message.type", "FIFO");
        attributed.getAttributes().put("cleanup.policy", "DELETE");
        for (TopicConfig config : Arrays.asList(plain, ordered, attributed)) {
            Bodies.json(out, "real/TopicConfig-" + config.getTopicName(), config, org.apache.rocketmq.remoting.protocol.RemotingSerializable.encode(config));
            out.block("real/TopicConfig-" + config.getTopicName() + "/line").put("class", TopicConfig.class.getName())
                .put("line", config.encode()).bytes(config.encode().getBytes(StandardCharsets.UTF_8));
        }

        TopicConfigSerializeWrapper topics = new TopicConfigSerializeWrapper();
        topics.setDataVersion(version);
        topics.getTopicConfigTable().put("TopicTest", plain);
        topics.getTopicConfigTable().put("OrderTopic", ordered);
        topics.getTopicConfigTable().put("FifoTopic", attributed);
        Bodies.json(out, "real/TopicConfigSerializeWrapper", topics, topics.encode());

        for (int i = 0; i < 3; i++) {
            TopicConfigAndMappingSerializeWrapper wrapper = new TopicConfigAndMappingSerializeWrapper();
            wrapper.setDataVersion(version);
            wrapper.setMappingDataVersion(version(0));
            if (i > 0) {
                wrapper.setTopicConfigTable(topics.getTopicConfigTable());
            }
            RegisterBrokerBody body = new RegisterBrokerBody();
            if (i > 1) {
                TopicQueueMappingInfo info = new TopicQueueMappingInfo("StaticTopic", 2, "broker-a", Fill.NOW);
                info.setCurrIdMap(new ConcurrentHashMap<>());
                info.getCurrIdMap().put(0, 1);
                info.getCurrIdMap().put(1, 0);
                wrapper.getTopicQueueMappingInfoMap().put("StaticTopic", info);
                body.setFilterServerList(Arrays.asList("127.0.0.1:5000"));
            }
            body.setTopicConfigSerializeWrapper(wrapper);
            String name = "real/RegisterBrokerBody-" + Arrays.asList("empty", "topics", "mapping").get(i);
            Bodies.json(out, name + "/plain", body, body.encode(false));
            byte[] compressed = body.encode(true);
            byte[] inflated = new InflaterInputStream(new ByteArrayInputStream(compressed)).readAllBytes();
            out.block(name + "/compressed").put("class", RegisterBrokerBody.class.getName())
                .put("inflatedHex", Vectors.hex(inflated)).bytes(compressed);
        }

        KVTable table = new KVTable();
        HashMap<String, String> kv = new HashMap<>();
        kv.put("OrderTopic", "broker-a:8;broker-b:8");
        table.setTable(kv);
        Bodies.json(out, "real/KVTable", table, table.encode());
    }

    private static SubscriptionData subscription(String topic, String expression) throws Exception {
        SubscriptionData data = FilterAPI.buildSubscriptionData(topic, expression);
        data.setSubVersion(Fill.NOW);
        return data;
    }

    private static ConsumerData consumer(String group, ConsumeType type, MessageModel model, ConsumeFromWhere from, SubscriptionData... data) {
        ConsumerData consumer = new ConsumerData();
        consumer.setGroupName(group);
        consumer.setConsumeType(type);
        consumer.setMessageModel(model);
        consumer.setConsumeFromWhere(from);
        consumer.setSubscriptionDataSet(new LinkedHashSet<>(Arrays.asList(data)));
        return consumer;
    }

    private static void heartbeat(Vectors out) throws Exception {
        for (String expression : Arrays.asList("*", "", "TagA", "TagA || TagB", "TagA||TagB || Tag C", "标签 || TagA")) {
            SubscriptionData data = subscription("TopicTest", expression);
            Bodies.json(out, "real/SubscriptionData " + (expression.isEmpty() ? "(empty)" : expression), data,
                org.apache.rocketmq.remoting.protocol.RemotingSerializable.encode(data));
        }

        ProducerData producer = new ProducerData();
        producer.setGroupName("producer-group");
        HeartbeatData producing = new HeartbeatData();
        producing.setClientID("127.0.0.1@4711");
        producing.getProducerDataSet().add(producer);
        fingerprinted(out, "real/HeartbeatData-producer", producing);

        HeartbeatData consuming = new HeartbeatData();
        consuming.setClientID("127.0.0.1@4711");
        consuming.getConsumerDataSet().add(consumer("group-a", ConsumeType.CONSUME_PASSIVELY, MessageModel.CLUSTERING,
            ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET, subscription("TopicTest", "TagA || TagB"), subscription("%RETRY%group-a", "*")));
        fingerprinted(out, "real/HeartbeatData-consumer", consuming);

        HeartbeatData both = new HeartbeatData();
        both.setClientID("127.0.0.1@4711#2");
        ProducerData inner = new ProducerData();
        inner.setGroupName("CLIENT_INNER_PRODUCER");
        both.setProducerDataSet(new LinkedHashSet<>(Arrays.asList(producer, inner)));
        both.setConsumerDataSet(new LinkedHashSet<>(Arrays.asList(
            consumer("group-a", ConsumeType.CONSUME_PASSIVELY, MessageModel.CLUSTERING, ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
                subscription("TopicTest", "*")),
            consumer("group-b", ConsumeType.CONSUME_ACTIVELY, MessageModel.BROADCASTING, ConsumeFromWhere.CONSUME_FROM_TIMESTAMP,
                subscription("TopicTest", "TagA")))));
        both.setWithoutSub(false);
        fingerprinted(out, "real/HeartbeatData-both", both);

        HeartbeatData light = new HeartbeatData();
        light.setClientID("127.0.0.1@4711");
        light.getProducerDataSet().add(producer);
        light.setWithoutSub(true);
        light.setHeartbeatFingerprint(consuming.computeHeartbeatFingerprint());
        Bodies.json(out, "real/HeartbeatData-v2-light", light, light.encode());
    }

    private static void fingerprinted(Vectors out, String name, HeartbeatData data) {
        byte[] bytes = data.encode();
        out.block(name).put("class", HeartbeatData.class.getName())
            .put("json", new String(bytes, StandardCharsets.UTF_8))
            .put("fingerprint", data.computeHeartbeatFingerprint())
            .bytes(bytes);
    }

    private static void admin(Vectors out) {
        MessageQueue first = new MessageQueue("TopicTest", "broker-a", 0);
        MessageQueue second = new MessageQueue("TopicTest", "broker-a", 1);

        ConsumeStats stats = new ConsumeStats();
        OffsetWrapper wrapper = new OffsetWrapper();
        wrapper.setBrokerOffset(100);
        wrapper.setConsumerOffset(90);
        wrapper.setPullOffset(95);
        wrapper.setLastTimestamp(Fill.NOW);
        stats.getOffsetTable().put(first, wrapper);
        stats.setConsumeTps(12.5);
        Bodies.json(out, "real/ConsumeStats", stats, stats.encode());

        TopicStatsTable table = new TopicStatsTable();
        TopicOffset offset = new TopicOffset();
        offset.setMinOffset(0);
        offset.setMaxOffset(100);
        offset.setLastUpdateTimestamp(Fill.NOW);
        table.getOffsetTable().put(first, offset);
        table.getOffsetTable().put(second, new TopicOffset());
        Bodies.json(out, "real/TopicStatsTable", table, table.encode());

        LockBatchRequestBody lock = new LockBatchRequestBody();
        lock.setConsumerGroup("group-a");
        lock.setClientId("127.0.0.1@4711");
        lock.getMqSet().add(first);
        lock.getMqSet().add(second);
        Bodies.json(out, "real/LockBatchRequestBody", lock, lock.encode());
        LockBatchResponseBody locked = new LockBatchResponseBody();
        locked.getLockOKMQSet().add(first);
        Bodies.json(out, "real/LockBatchResponseBody", locked, locked.encode());

        ResetOffsetBody reset = new ResetOffsetBody();
        HashMap<MessageQueue, Long> offsets = new HashMap<>();
        offsets.put(first, 7L);
        offsets.put(second, 0L);
        reset.setOffsetTable(offsets);
        Bodies.json(out, "real/ResetOffsetBody", reset, reset.encode());

        ConsumerOffsetSerializeWrapper consumed = new ConsumerOffsetSerializeWrapper();
        consumed.setDataVersion(version(1));
        ConcurrentHashMap<Integer, Long> queues = new ConcurrentHashMap<>();
        queues.put(0, 90L);
        queues.put(1, 0L);
        consumed.getOffsetTable().put("TopicTest@group-a", queues);
        Bodies.json(out, "real/ConsumerOffsetSerializeWrapper", consumed, consumed.encode());

        SubscriptionGroupWrapper groups = new SubscriptionGroupWrapper();
        groups.setDataVersion(version(2));
        SubscriptionGroupConfig group = new SubscriptionGroupConfig();
        group.setGroupName("group-a");
        groups.getSubscriptionGroupTable().put("group-a", group);
        Bodies.json(out, "real/SubscriptionGroupWrapper", groups, groups.encode());
    }
}
