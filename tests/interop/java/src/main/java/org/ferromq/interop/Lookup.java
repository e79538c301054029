// `query`, `route`, `offsets`, `offset-at`: questions that send and consume nothing.
package org.ferromq.interop;

import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;

import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageClientExt;
import org.apache.rocketmq.common.message.MessageClientIDSetter;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class Lookup {
    /** `NO_MESSAGE`: the client's own code for a query without a result. */
    private static final int NOTHING_FOUND = 208;

    private Lookup() {
    }

    static void query(Options options, Lines lines) throws Exception {
        String topic = options.required("topic");
        DefaultMQProducer producer = started(options);
        List<MessageExt> found = new ArrayList<>();
        try {
            if (options.has("unique-key")) {
                // Not viewMessage: given a unique key, that one takes it for an offset id and dials what it decodes to.
                MessageExt message = producer.getDefaultMQProducerImpl()
                    .queryMessageByUniqKey(topic, options.required("unique-key"));
                if (message != null) {
                    found.add(message);
                }
            } else if (options.has("offset-id")) {
                found.add(producer.viewMessage(topic, options.required("offset-id")));
            } else {
                options.required("key");
                for (String key : options.all("key")) {
                    found.addAll(byKey(producer, topic, key, options.count("max", 32)));
                }
            }
        } catch (MQClientException failure) {
            if (failure.getResponseCode() != NOTHING_FOUND) {
                throw failure;
            }
        }
        for (MessageExt message : found) {
            String offsetId = message instanceof MessageClientExt
                ? ((MessageClientExt) message).getOffsetMsgId()
                : message.getMsgId();
            String uniqueKey = MessageClientIDSetter.getUniqID(message);
            lines.print("FOUND", Lines.key(message), message.getBrokerName(), message.getQueueId(),
                message.getQueueOffset(), uniqueKey == null ? offsetId : uniqueKey, offsetId);
        }
        lines.print("DONE", found.size());
        producer.shutdown();
    }

    private static List<MessageExt> byKey(DefaultMQProducer producer, String topic, String key, int max)
            throws Exception {
        try {
            return producer.queryMessage(topic, key, max, 0, Long.MAX_VALUE).getMessageList();
        } catch (MQClientException failure) {
            if (failure.getResponseCode() == NOTHING_FOUND) {
                return List.of();
            }
            throw failure;
        }
    }

    static void route(Options options, Lines lines) throws Exception {
        DefaultMQProducer producer = started(options);
        List<MessageQueue> queues = producer.fetchPublishMessageQueues(options.required("topic"));
        for (MessageQueue queue : new TreeSet<>(queues)) {
            lines.print("QUEUE", queue.getBrokerName(), queue.getQueueId());
        }
        lines.print("DONE", queues.size());
        producer.shutdown();
    }

    static void offsets(Options options, Lines lines) throws Exception {
        DefaultMQProducer producer = started(options);
        List<MessageQueue> queues = producer.fetchPublishMessageQueues(options.required("topic"));
        for (MessageQueue queue : new TreeSet<>(queues)) {
            lines.print("QUEUE", queue.getBrokerName(), queue.getQueueId(), producer.minOffset(queue),
                producer.maxOffset(queue));
        }
        lines.print("DONE", queues.size());
        producer.shutdown();
    }

    static void offsetAt(Options options, Lines lines) throws Exception {
        DefaultMQProducer producer = started(options);
        MessageQueue queue = new MessageQueue(options.required("topic"), options.required("broker"),
            options.count("queue", 0));
        options.required("timestamp");
        lines.print("OFFSET", producer.searchOffset(queue, options.number("timestamp", 0)));
        lines.print("DONE", 1);
        producer.shutdown();
    }

    private static DefaultMQProducer started(Options options) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        producer.start();
        return producer;
    }
}
