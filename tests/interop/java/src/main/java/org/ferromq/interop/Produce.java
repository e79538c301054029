// `produce`: sends numbered messages in one of four modes and accounts for each of them.
//
// A failed send is reported and the next message follows, so a broker may be killed and restarted underneath.
package org.ferromq.interop;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;

import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.MessageQueueSelector;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

final class Produce {
    private final Options options;
    private final Lines lines;
    private final DefaultMQProducer producer;
    private final String topic;
    private final Messages messages;
    private final MessageQueueSelector selector;
    private final AtomicLong acked = new AtomicLong();
    private final AtomicLong failed = new AtomicLong();

    private Produce(Options options, Lines lines) throws Options.Wrong {
        this.options = options;
        this.lines = lines;
        this.producer = Clients.producer(options);
        this.topic = options.required("topic");
        this.messages = new Messages(options);
        this.selector = selector(options);
    }

    static void run(Options options, Lines lines) throws Exception {
        new Produce(options, lines).run();
    }

    private void run() throws Exception {
        String mode = options.text("mode", "sync");
        boolean endless = options.has("until-stdin-closes");
        long start = options.number("start", 0);
        long end = start + (endless ? options.number("count", Long.MAX_VALUE - start) : options.number("count", 1));
        int step = mode.equals("batch") ? Math.max(1, options.count("batch-size", 10)) : 1;
        int inflight = Math.max(1, options.count("inflight", 32));
        long failPauseMs = options.number("fail-pause-ms", 20);
        long paceMs = options.number("pace-ms", 0);
        Semaphore room = new Semaphore(inflight);
        CountDownLatch stop = endless ? Lines.stdinClosed() : new CountDownLatch(1);

        producer.start();
        lines.print("READY");
        long failuresSeen = 0;
        for (long i = start; i < end && stop.getCount() > 0; i += step) {
            long failuresNow = failed.get();
            if (failuresNow > failuresSeen && failPauseMs > 0) {
                Thread.sleep(failPauseMs);
            }
            failuresSeen = failuresNow;
            switch (mode) {
                case "sync":
                    sync(i);
                    break;
                case "async":
                    room.acquire();
                    async(i, room);
                    break;
                case "oneway":
                    oneway(i);
                    break;
                case "batch":
                    batch(i, Math.min(end, i + step));
                    break;
                default:
                    throw new Options.Wrong("unknown mode " + mode);
            }
            if (paceMs > 0) {
                Thread.sleep(paceMs);
            }
        }
        // Every outstanding callback gives its permit back, at the latest when its request times out.
        room.acquire(inflight);
        lines.print("DONE", acked, failed);
        producer.shutdown();
    }

    private void sync(long i) {
        Message message = messages.number(i);
        try {
            acknowledged(message.getKeys(),
                selector == null ? producer.send(message) : producer.send(message, selector, i));
        } catch (Exception failure) {
            failed(message.getKeys(), failure);
        }
    }

    private void async(long i, Semaphore room) {
        Message message = messages.number(i);
        AtomicBoolean answered = new AtomicBoolean();
        SendCallback callback = new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                if (answered.compareAndSet(false, true)) {
                    acknowledged(message.getKeys(), result);
                    room.release();
                }
            }

            @Override
            public void onException(Throwable failure) {
                if (answered.compareAndSet(false, true)) {
                    failed(message.getKeys(), failure);
                    room.release();
                }
            }
        };
        try {
            if (selector == null) {
                producer.send(message, callback);
            } else {
                producer.send(message, selector, i, callback);
            }
        } catch (Exception failure) {
            callback.onException(failure);
        }
    }

    private void oneway(long i) {
        Message message = messages.number(i);
        try {
            if (selector == null) {
                producer.sendOneway(message);
            } else {
                producer.sendOneway(message, selector, i);
            }
            acked.incrementAndGet();
            lines.print("SENT", message.getKeys());
        } catch (Exception failure) {
            failed(message.getKeys(), failure);
        }
    }

    private void batch(long from, long to) {
        List<Message> batch = new ArrayList<>();
        for (long i = from; i < to; i++) {
            batch.add(messages.number(i));
        }
        try {
            SendResult result = selector == null
                ? producer.send(batch)
                : producer.send(batch, selector.select(queues(), batch.get(0), from));
            String[] ids = split(result.getMsgId(), batch.size());
            String[] offsetIds = split(result.getOffsetMsgId(), batch.size());
            for (int at = 0; at < batch.size(); at++) {
                acked.incrementAndGet();
                MessageQueue queue = result.getMessageQueue();
                lines.print("ACK", batch.get(at).getKeys(), result.getSendStatus(), ids[at], offsetIds[at],
                    queue.getBrokerName(), queue.getQueueId(), result.getQueueOffset() + at);
            }
        } catch (Exception failure) {
            for (Message message : batch) {
                failed(message.getKeys(), failure);
            }
        }
    }

    /** A batch is answered with its ids joined by commas; one id alone is given to each message. */
    private static String[] split(String ids, int count) {
        String[] parts = ids == null ? new String[0] : ids.split(",");
        if (parts.length == count) {
            return parts;
        }
        String[] same = new String[count];
        Arrays.fill(same, ids == null || ids.isEmpty() ? "-" : ids);
        return same;
    }

    private void acknowledged(String key, SendResult result) {
        acked.incrementAndGet();
        lines.acknowledged(key, result);
    }

    private void failed(String key, Throwable failure) {
        failed.incrementAndGet();
        lines.print("FAIL", key, Lines.reason(failure));
    }

    private List<MessageQueue> queues() throws MQClientException {
        return producer.fetchPublishMessageQueues(topic);
    }

    /** `--queue` names the one queue to send to, `--orderly` spreads by message number; neither means round robin. */
    private static MessageQueueSelector selector(Options options) throws Options.Wrong {
        if (options.has("queue")) {
            int queueId = options.count("queue", 0);
            String broker = options.text("broker", null);
            return (queues, message, number) -> queues.stream()
                .filter(queue -> queue.getQueueId() == queueId)
                .filter(queue -> broker == null || queue.getBrokerName().equals(broker))
                .findFirst()
                .orElseThrow(() -> new IllegalStateException("no queue " + queueId + " in the route"));
        }
        if (options.has("orderly")) {
            return (queues, message, number) -> queues.get((int) ((Long) number % queues.size()));
        }
        return null;
    }
}
