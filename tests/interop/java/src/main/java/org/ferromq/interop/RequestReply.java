// `request` and `reply`: one asks over a topic and waits for the answer, the other consumes and answers.
package org.ferromq.interop;

import java.nio.charset.StandardCharsets;
import java.util.concurrent.CompletableFuture;

import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.RequestCallback;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

final class RequestReply {
    private RequestReply() {
    }

    static void request(Options options, Lines lines) throws Exception {
        Messages messages = new Messages(options);
        DefaultMQProducer producer = Clients.producer(options);
        long start = options.number("start", 0);
        long end = start + options.number("count", 1);
        long timeoutMs = options.number("timeout-ms", Clients.TIMEOUT_MS);
        producer.start();
        lines.print("READY");
        long answered = 0;
        long failed = 0;
        for (long i = start; i < end; i++) {
            Message message = messages.number(i);
            try {
                Message reply = answerTo(producer, message, i, timeoutMs);
                lines.print("REPLY", message.getKeys(), new String(reply.getBody(), StandardCharsets.UTF_8));
                answered++;
            } catch (Exception failure) {
                lines.print("FAIL", message.getKeys(), Lines.reason(failure));
                failed++;
            }
        }
        lines.print("DONE", answered, failed);
        producer.shutdown();
    }

    /**
     * Asks with the form that takes a selector and a callback: in 5.3.3 the forms that wait return as soon as the
     * question is sent, and report a time-out.
     */
    private static Message answerTo(DefaultMQProducer producer, Message question, long number, long timeoutMs)
            throws Exception {
        CompletableFuture<Message> answer = new CompletableFuture<>();
        RequestCallback callback = new RequestCallback() {
            @Override
            public void onSuccess(Message reply) {
                answer.complete(reply);
            }

            @Override
            public void onException(Throwable failure) {
                answer.completeExceptionally(failure);
            }
        };
        producer.request(question, (queues, message, at) -> queues.get((int) ((Long) at % queues.size())), number,
            callback, timeoutMs);
        return answer.get();
    }

    static void reply(Options options, Lines lines) throws Exception {
        DefaultMQProducer producer = Clients.producer(options);
        producer.setProducerGroup(options.required("group") + "_replies");
        producer.start();
        Push.run(options, lines, message -> answer(producer, message, lines));
        producer.shutdown();
    }

    private static void answer(DefaultMQProducer producer, MessageExt request, Lines lines) {
        String key = Lines.key(request);
        try {
            Message reply = MessageUtil.createReplyMessage(request, ("re:" + key).getBytes(StandardCharsets.UTF_8));
            producer.send(reply);
            lines.print("REPLIED", key);
        } catch (Exception failure) {
            lines.print("FAIL", key, Lines.reason(failure));
        }
    }
}
