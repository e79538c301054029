// `recall`: sends numbered messages for a later time and takes every second one back. Client 5.3.3 only.
package org.ferromq.interop;

import java.lang.reflect.Method;

import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;

final class Recall {
    private Recall() {
    }

    static void run(Options options, Lines lines) throws Exception {
        // 4.9.8 has neither; the driver compiles with both.
        Method handle = SendResult.class.getMethod("getRecallHandle");
        Method recall = DefaultMQProducer.class.getMethod("recallMessage", String.class, String.class);
        Messages messages = new Messages(options);
        String topic = options.required("topic");
        DefaultMQProducer producer = Clients.producer(options);
        producer.start();
        lines.print("READY");
        long recalled = 0;
        long start = options.number("start", 0);
        for (long i = start; i < start + options.number("count", 2); i++) {
            var message = messages.number(i);
            SendResult result = producer.send(message);
            lines.acknowledged(message.getKeys(), result);
            if (i % 2 == 1) {
                recall.invoke(producer, topic, handle.invoke(result));
                lines.print("RECALLED", message.getKeys());
                recalled++;
            }
        }
        lines.print("DONE", recalled);
        producer.shutdown();
    }
}
