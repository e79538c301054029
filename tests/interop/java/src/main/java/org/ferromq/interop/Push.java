// `push`: a push consumer that reports every delivery and every change of its own share of the queues.
package org.ferromq.interop;

import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.stream.Collectors;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.message.MessageExt;

final class Push {
    private final Options options;
    private final Lines lines;
    private final Consumer<MessageExt> afterwards;
    private final String topic;
    private final int failFirst;
    private final int delayLevel;
    private final boolean quiet;
    private final DefaultMQPushConsumer consumer;
    private final AtomicLong deliveries = new AtomicLong();

    private Push(Options options, Lines lines, Consumer<MessageExt> afterwards) throws Options.Wrong {
        this.options = options;
        this.lines = lines;
        this.afterwards = afterwards;
        this.topic = options.required("topic");
        this.failFirst = options.count("fail-first", 0);
        this.delayLevel = options.count("delay-level", 0);
        this.quiet = options.has("quiet");
        this.consumer = new DefaultMQPushConsumer(options.required("group"), options.has("trace"), null);
    }

    /** `afterwards` gets each message that was reported. */
    static void run(Options options, Lines lines, Consumer<MessageExt> afterwards) throws Exception {
        new Push(options, lines, afterwards).run();
    }

    private void run() throws Exception {
        Clients.configure(consumer, options);
        consumer.setConsumeThreadMax(options.count("threads", 8));
        consumer.setConsumeThreadMin(options.count("threads", 8));
        consumer.setConsumeFromWhere(Clients.startFrom(options));
        consumer.setConsumeTimestamp(Clients.startTime(options));
        consumer.setMaxReconsumeTimes(options.count("max-reconsume", -1));
        // A message is reported before the client has noted it as consumed. Without waiting for that, the last offsets
        // it commits may be behind what was reported, and the next member of the group gets those messages again.
        consumer.setAwaitTerminationMillisWhenShutdown(10_000);
        if (options.has("broadcast")) {
            broadcast();
        }
        if (options.has("sql")) {
            consumer.subscribe(topic, MessageSelector.bySql(options.required("sql")));
        } else {
            consumer.subscribe(topic, options.text("tags", "*"));
        }
        if (options.has("orderly")) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) ->
                deliver(messages, context.getMessageQueue().getBrokerName())
                    ? ConsumeOrderlyStatus.SUCCESS
                    : ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT);
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                context.setDelayLevelWhenNextConsume(delayLevel);
                return deliver(messages, context.getMessageQueue().getBrokerName())
                    ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS
                    : ConsumeConcurrentlyStatus.RECONSUME_LATER;
            });
        }
        consumer.start();
        lines.print("READY");
        reportUntil(Lines.stdinClosed());
        consumer.shutdown();
        lines.print("DONE", deliveries);
    }

    /** The listener is called with one message at a time, the client's default. True if it is consumed. */
    private boolean deliver(List<MessageExt> messages, String brokerName) {
        boolean consumed = true;
        for (MessageExt message : messages) {
            deliveries.incrementAndGet();
            if (!quiet) {
                lines.received(message, brokerName);
            }
            afterwards.accept(message);
            consumed &= message.getReconsumeTimes() >= failFirst;
        }
        return consumed;
    }

    /** What is true of the consumer as a whole, each time it has changed. */
    private void reportUntil(CountDownLatch stop) throws InterruptedException {
        String reported = "";
        long counted = 0;
        do {
            String assigned = consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable()
                .keySet().stream()
                .filter(queue -> queue.getTopic().equals(topic))
                .sorted()
                .map(queue -> queue.getBrokerName() + ":" + queue.getQueueId())
                .collect(Collectors.joining(","));
            if (!assigned.equals(reported)) {
                reported = assigned;
                lines.print("ASSIGNED", assigned);
            }
            if (quiet && counted != deliveries.get()) {
                counted = deliveries.get();
                lines.print("COUNT", counted);
            }
        } while (!stop.await(200, TimeUnit.MILLISECONDS));
    }

    private void broadcast() {
        // The enum moved to another package between 4.9 and 5.x; taken from a value, its name need not be written.
        consumer.setMessageModel(Enum.valueOf(consumer.getMessageModel().getDeclaringClass(), "BROADCASTING"));
    }
}
