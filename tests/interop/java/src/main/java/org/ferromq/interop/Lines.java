// Protocol lines: words joined by one space, each line written and flushed as a whole.
package org.ferromq.interop;

import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.StringJoiner;
import java.util.concurrent.CountDownLatch;

import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class Lines {
    private final PrintStream out;
    private List<String> shown = List.of();

    Lines(PrintStream out) {
        this.out = out;
    }

    /** What `received` adds about each message: `born`, `stored`, `size`, or the name of a property. */
    void show(List<String> names) {
        shown = names;
    }

    synchronized void print(Object... words) {
        StringJoiner line = new StringJoiner(" ");
        for (Object word : words) {
            line.add(word == null || word.toString().isEmpty() ? "-" : word.toString());
        }
        byte[] bytes = (line + "\n").getBytes(StandardCharsets.UTF_8);
        out.write(bytes, 0, bytes.length);
        out.flush();
    }

    void acknowledged(String key, SendResult result) {
        MessageQueue queue = result.getMessageQueue();
        print("ACK", key, result.getSendStatus(), result.getMsgId(), result.getOffsetMsgId(), queue.getBrokerName(),
            queue.getQueueId(), result.getQueueOffset());
    }

    /** One delivered message, what is to be shown of it, and one line more when its body is not what `produce` makes. */
    void received(MessageExt message, String brokerName) {
        print("RECV", key(message), brokerName, message.getQueueId(), message.getQueueOffset(), message.getMsgId(),
            message.getReconsumeTimes());
        for (String name : shown) {
            print("WITH", key(message), name, word(shownValue(message, name)));
        }
        if (message.getProperty("seq") != null && !Messages.isBodyOf(key(message), message.getBody())) {
            print("BADBODY", key(message), message.getBody() == null ? 0 : message.getBody().length);
        }
    }

    static String key(MessageExt message) {
        return word(message.getKeys());
    }

    private static String shownValue(MessageExt message, String name) {
        switch (name) {
            case "born":
                return Long.toString(message.getBornTimestamp());
            case "stored":
                return Long.toString(message.getStoreTimestamp());
            case "size":
                return Integer.toString(message.getStoreSize());
            default:
                return message.getProperty(name);
        }
    }

    /** A failure and what caused it as one line: classes and messages, without line breaks. */
    static String reason(Throwable failure) {
        StringJoiner text = new StringJoiner("; caused by ");
        for (Throwable at = failure; at != null; at = at.getCause()) {
            text.add(at.getClass().getSimpleName() + ": " + at.getMessage());
        }
        return text.toString().replaceAll("\\s+", " ").trim();
    }

    static String word(String text) {
        return text == null ? "-" : text.trim().replaceAll("\\s+", ",");
    }

    /** Reaches zero when standard input ends, which is how a parent asks a driver to stop. */
    static CountDownLatch stdinClosed() {
        CountDownLatch closed = new CountDownLatch(1);
        Thread watcher = new Thread(() -> {
            try {
                InputStream in = System.in;
                while (in.read() >= 0) {
                    continue;
                }
            } catch (IOException gone) {
                System.err.println("driver: standard input: " + gone);
            } finally {
                closed.countDown();
            }
        }, "stdin-watcher");
        watcher.setDaemon(true);
        watcher.start();
        return closed;
    }
}
