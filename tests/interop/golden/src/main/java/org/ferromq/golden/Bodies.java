package org.ferromq.golden;

import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;
import org.apache.rocketmq.remoting.protocol.RemotingSerializable;

/** Every JSON body of the protocol: with all fields set, and as its class makes it. */
final class Bodies {
    /** Parts of bodies that are no bodies themselves, but worth a vector of their own. */
    private static final Set<String> PARTS = new HashSet<>(Arrays.asList("OffsetWrapper", "TopicOffset", "RollbackStats", "Connection",
        "QueueTimeSpan", "ConsumeStatus", "ProcessQueueInfo", "PopProcessQueueInfo", "ProducerInfo", "BrokerStatsItem", "ConsumerData",
        "ProducerData", "SubscriptionData", "BrokerData", "QueueData", "SubscriptionGroupConfig", "SimpleSubscriptionData",
        "ConsumeQueueData", "BatchAck", "MessageQueueAssignment"));
    /** Written to disk as well, indented. */
    private static final Set<String> PRETTY = new HashSet<>(Arrays.asList("TopicConfigSerializeWrapper", "SubscriptionGroupWrapper",
        "ConsumerOffsetSerializeWrapper", "TopicQueueMappingSerializeWrapper", "MessageRequestModeSerializeWrapper"));

    private Bodies() {
    }

    static Vectors vectors(String version) throws Exception {
        Vectors out = new Vectors("Bodies of Apache RocketMQ " + version + ". Made by tests/interop/golden/generate.\n"
            + "json: the bytes as text. NAME/full: every field set by reflection (a field without a getter is not in the JSON).\n"
            + "NAME/empty: as the class makes it. NAME/pretty: as written to a config file. real/*: filled the way a server or client does.");
        for (Class<?> type : Classes.inPackage("/protocol/")) {
            boolean body = RemotingSerializable.class.isAssignableFrom(type);
            if (!body && !PARTS.contains(Classes.shortName(type))) {
                continue;
            }
            String name = Classes.shortName(type);
            Object full = new Fill(true).object(type, 0);
            json(out, name + "/full", full, encode(full));
            if (PRETTY.contains(name)) {
                json(out, name + "/pretty", full, RemotingSerializable.toJson(full, true).getBytes(StandardCharsets.UTF_8));
            }
            if (Fill.hasPlainConstructor(type)) {
                Object empty = Fill.blank(type);
                stopClock(empty);
                json(out, name + "/empty", empty, encode(empty));
            }
        }
        Flavour.bodies(out);
        return out;
    }

    /** encode() where there is one, so that overrides count. */
    private static byte[] encode(Object object) {
        return object instanceof RemotingSerializable ? ((RemotingSerializable) object).encode() : RemotingSerializable.encode(object);
    }

    static void json(Vectors out, String name, Object object, byte[] bytes) {
        out.block(name).put("class", object.getClass().getName())
            .put("json", new String(bytes, StandardCharsets.UTF_8))
            .bytes(bytes);
    }

    /** Replaces times that a constructor took from the clock, here and in the parts of an object. */
    static void stopClock(Object object) {
        for (Field field : Classes.fields(object.getClass())) {
            try {
                if (Modifier.isStatic(field.getModifiers()) || !field.getDeclaringClass().getName().startsWith("org.apache.rocketmq")) {
                    continue;
                }
                Object value = field.get(object);
                if (value instanceof Long && (Long) value > Fill.NOW) {
                    field.set(object, Fill.NOW);
                } else if (value != null && value.getClass().getName().startsWith("org.apache.rocketmq") && !value.getClass().isEnum()) {
                    stopClock(value);
                }
            } catch (IllegalAccessException e) {
                throw new IllegalStateException(field + " cannot be reached", e);
            }
        }
    }
}
