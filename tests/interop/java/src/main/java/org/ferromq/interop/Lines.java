// Protocol lines: words joined by one space, each line written and flushed as a whole.
package org.ferromq.interop;

import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.StringJoiner;
import java.util.concurrent.CountDownLatch;

import org.apache.rocketmq.common.message.MessageExt;

final class Lines {
    private final PrintStream out;

    Lines(PrintStream out) {
        this.out = out;
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

    /** One delivered message, and a second line when its body is not what `produce` makes. */
    void received(MessageExt message, String brokerName) {
        print("RECV", key(message), brokerName, message.getQueueId(), message.getQueueOffset(), message.getMsgId(),
            message.getReconsumeTimes());
        if (message.getProperty("seq") != null && !bodyIsOurs(message)) {
            print("BADBODY", key(message), message.getBody() == null ? 0 : message.getBody().length);
        }
    }

    static String key(MessageExt message) {
        return word(message.getKeys());
    }

    private static boolean bodyIsOurs(MessageExt message) {
        byte[] key = key(message).getBytes(StandardCharsets.UTF_8);
        byte[] body = message.getBody();
        if (body == null || body.length < key.length) {
            return false;
        }
        for (int at = 0; at < body.length; at++) {
            if (body[at] != (at < key.length ? key[at] : Produce.PADDING)) {
                return false;
            }
        }
        return true;
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
