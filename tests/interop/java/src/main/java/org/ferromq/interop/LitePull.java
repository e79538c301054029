// `lite-pull`: the lite pull consumer, polled until standard input closes; it commits what it polled.
package org.ferromq.interop;

import java.util.concurrent.CountDownLatch;

import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.common.message.MessageExt;

final class LitePull {
    private LitePull() {
    }

    static void run(Options options, Lines lines) throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(options.required("group"));
        Clients.configure(consumer, options);
        consumer.setConsumeFromWhere(Clients.startFrom(options));
        consumer.setConsumeTimestamp(Clients.startTime(options));
        consumer.setPullBatchSize(options.count("batch-size", 32));
        if (options.has("sql")) {
            consumer.subscribe(options.required("topic"), MessageSelector.bySql(options.required("sql")));
        } else {
            consumer.subscribe(options.required("topic"), options.text("tags", "*"));
        }
        CountDownLatch stop = Lines.stdinClosed();
        consumer.start();
        lines.print("READY");
        long received = 0;
        while (stop.getCount() > 0) {
            for (MessageExt message : consumer.poll(200)) {
                lines.received(message, message.getBrokerName());
                received++;
            }
        }
        consumer.commitSync();
        lines.print("DONE", received);
        consumer.shutdown();
    }
}
