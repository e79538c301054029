// `pull`: reads every queue of a topic once, from an offset up to its end, with the classic pull consumer; then, with
// `--await`, waits at the end of the last one for so many messages more.
package org.ferromq.interop;

import java.util.TreeSet;

import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class Pull {
    private Pull() {
    }

    static void run(Options options, Lines lines) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(options.required("group"));
        Clients.configure(consumer, options);
        MessageSelector selector = options.has("sql")
            ? MessageSelector.bySql(options.required("sql"))
            : MessageSelector.byTag(options.text("tags", "*"));
        consumer.start();
        long received = 0;
        MessageQueue last = null;
        long next = 0;
        String topic = options.required("topic");
        for (MessageQueue queue : new TreeSet<>(consumer.fetchSubscribeMessageQueues(topic))) {
            long end = consumer.maxOffset(queue);
            last = queue;
            next = Math.max(options.number("from-offset", 0), consumer.minOffset(queue));
            while (next < end) {
                PullResult result = pull(consumer, queue, selector, next, options.count("batch-size", 32));
                if (result.getMsgFoundList() != null) {
                    for (MessageExt message : result.getMsgFoundList()) {
                        lines.received(message, queue.getBrokerName());
                        received++;
                    }
                }
                if (result.getNextBeginOffset() <= next) {
                    throw new IllegalStateException(queue + " is stuck at " + next + " of " + end + ": "
                        + result.getPullStatus());
                }
                next = result.getNextBeginOffset();
            }
        }
        long wanted = received + options.count("await", 0);
        if (received < wanted) {
            lines.print("READY");
        }
        while (received < wanted) {
            // The broker holds the request until there is something, or for 20 s.
            PullResult result = consumer.pullBlockIfNotFound(last, options.text("tags", "*"), next, 32);
            if (result.getMsgFoundList() != null) {
                for (MessageExt message : result.getMsgFoundList()) {
                    lines.received(message, last.getBrokerName());
                    received++;
                }
            }
            next = result.getNextBeginOffset();
        }
        lines.print("DONE", received);
        consumer.shutdown();
    }

    private static PullResult pull(DefaultMQPullConsumer consumer, MessageQueue queue, MessageSelector selector,
            long offset, int max) throws Exception {
        for (int refused = 0; ; refused++) {
            try {
                return consumer.pull(queue, selector, offset, max);
            } catch (MQClientException failure) {
                // The client refuses expressions until a heartbeat was answered with the broker's version.
                if (refused == 100 || !String.valueOf(failure.getMessage()).contains("does not upgrade to support")) {
                    throw failure;
                }
                Thread.sleep(100);
            }
        }
    }
}
