package org.ferromq.golden;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnknownHostException;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeMap;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.sysflag.MessageSysFlag;

/** A message to encode, independent of the class that a version keeps it in. */
final class Sample {
    static final String V4 = "127.0.0.1";
    static final String V6 = "2001:db8:0:1::ff";

    String topic = "TopicTest";
    byte[] body = "hello".getBytes(StandardCharsets.UTF_8);
    int queueId = 3;
    int flag = 0;
    int sysFlag = 0;
    long queueOffset = 42;
    long physicalOffset = 123_456;
    long bornTimestamp = Fill.NOW;
    long storeTimestamp = Fill.NOW + 7;
    int reconsumeTimes = 0;
    long preparedTransactionOffset = 0;
    String bornHost = V4;
    String storeHost = V4;
    final Map<String, String> properties = new LinkedHashMap<>();

    static Sample of(String body, String... properties) {
        Sample sample = new Sample();
        sample.body = body.getBytes(StandardCharsets.UTF_8);
        for (int i = 0; i < properties.length; i += 2) {
            sample.properties.put(properties[i], properties[i + 1]);
        }
        return sample;
    }

    Message message() {
        Message message = new Message();
        fill(message);
        return message;
    }

    private void fill(Message message) {
        message.setTopic(topic);
        message.setFlag(flag);
        message.setBody(body);
        MessageAccessor.setProperties(message, new java.util.HashMap<>());
        properties.forEach((key, value) -> MessageAccessor.putProperty(message, key, value));
    }

    <T extends MessageExt> T into(T message) {
        fill(message);
        message.setQueueId(queueId);
        message.setQueueOffset(queueOffset);
        message.setCommitLogOffset(physicalOffset);
        message.setSysFlag(sysFlag);
        message.setBornTimestamp(bornTimestamp);
        message.setStoreTimestamp(storeTimestamp);
        message.setReconsumeTimes(reconsumeTimes);
        message.setPreparedTransactionOffset(preparedTransactionOffset);
        message.setBornHost(host(bornHost, 50001));
        message.setStoreHost(host(storeHost, 10911));
        if (bornHost.indexOf(':') >= 0) {
            message.setSysFlag(message.getSysFlag() | MessageSysFlag.BORNHOST_V6_FLAG);
        }
        if (storeHost.indexOf(':') >= 0) {
            message.setSysFlag(message.getSysFlag() | MessageSysFlag.STOREHOSTADDRESS_V6_FLAG);
        }
        return message;
    }

    static InetSocketAddress host(String address, int port) {
        try {
            return new InetSocketAddress(InetAddress.getByName(address), port);
        } catch (UnknownHostException e) {
            throw new IllegalStateException(e);
        }
    }

    /** The fields as they lie in the record. */
    static Vectors.Block describe(Vectors.Block block, MessageExt message) {
        block.put("topic", message.getTopic())
            .put("queueId", message.getQueueId())
            .put("flag", message.getFlag())
            .put("queueOffset", message.getQueueOffset())
            .put("physicalOffset", message.getCommitLogOffset())
            .put("sysFlag", message.getSysFlag())
            .put("bornTimestamp", message.getBornTimestamp())
            .put("bornHost", text((InetSocketAddress) message.getBornHost()))
            .put("storeTimestamp", message.getStoreTimestamp())
            .put("storeHost", text((InetSocketAddress) message.getStoreHost()))
            .put("reconsumeTimes", message.getReconsumeTimes())
            .put("preparedTransactionOffset", message.getPreparedTransactionOffset())
            .put("bodyCrc", message.getBodyCRC())
            .put("bodyHex", message.getBody() == null ? null : Vectors.hex(message.getBody()));
        properties(block, message.getProperties());
        return block;
    }

    static void properties(Vectors.Block block, Map<String, String> properties) {
        if (properties != null) {
            new TreeMap<>(properties).forEach((key, value) -> block.put("prop." + key, value));
        }
    }

    private static String text(InetSocketAddress address) {
        String host = address.getAddress().getHostAddress();
        return host.indexOf(':') >= 0 ? "[" + host + "]:" + address.getPort() : host + ":" + address.getPort();
    }
}
