// `promote` and `tally`: user ids by the thousand, packed into messages and those into batches, and added up again.
package org.ferromq.interop;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;

final class Promote {
    /** Users of one message. */
    private static final int BUCKET = 1000;
    /** What a batch's bodies may add up to; the rest of a million bytes is for their heads. */
    private static final int BATCH_BYTES = 900_000;

    private Promote() {
    }

    /** Sends users 0, 1, 2, ... up to `--count`, from `--threads` threads. */
    static void run(Options options, Lines lines) throws Exception {
        String topic = options.required("topic");
        int threads = options.count("threads", 8);
        long users = options.number("count", BUCKET);
        long buckets = (users + BUCKET - 1) / BUCKET;
        DefaultMQProducer producer = Clients.producer(options);
        producer.start();
        lines.print("READY");
        AtomicLong next = new AtomicLong();
        AtomicLong acked = new AtomicLong();
        AtomicLong failed = new AtomicLong();
        int perBatch = BATCH_BYTES / (BUCKET * Long.BYTES);
        ExecutorService pool = Executors.newFixedThreadPool(threads);
        for (int thread = 0; thread < threads; thread++) {
            pool.execute(() -> {
                for (long first = next.getAndAdd(perBatch); first < buckets; first = next.getAndAdd(perBatch)) {
                    List<Message> batch = new ArrayList<>();
                    for (long bucket = first; bucket < Math.min(first + perBatch, buckets); bucket++) {
                        batch.add(new Message(topic, "", "b" + bucket, body(bucket * BUCKET, users)));
                    }
                    try {
                        SendResult result = producer.send(batch);
                        (result.getSendStatus() == SendStatus.SEND_OK ? acked : failed).addAndGet(batch.size());
                    } catch (Exception failure) {
                        failed.addAndGet(batch.size());
                        lines.print("FAIL", "b" + first, Lines.reason(failure));
                    }
                }
            });
        }
        pool.shutdown();
        pool.awaitTermination(10, TimeUnit.MINUTES);
        lines.print("DONE", acked, failed);
        producer.shutdown();
    }

    private static byte[] body(long first, long end) {
        ByteBuffer body = ByteBuffer.allocate((int) Math.min(BUCKET, end - first) * Long.BYTES);
        for (long user = first; body.hasRemaining(); user++) {
            body.putLong(user);
        }
        return body.array();
    }

    /** What one message adds to the count of users and to the sum of their ids. */
    static void tally(Options options, Lines lines) throws Exception {
        Push.run(options, lines, message -> {
            ByteBuffer body = ByteBuffer.wrap(message.getBody());
            long users = 0;
            long sum = 0;
            while (body.remaining() >= Long.BYTES) {
                sum += body.getLong();
                users++;
            }
            lines.print("BUCKET", message.getKeys(), users, sum);
        });
    }
}
