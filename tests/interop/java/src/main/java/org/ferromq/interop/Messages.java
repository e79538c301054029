// The messages that a driver sends: numbered, and described by `--keys`, `--size`, `--tag`, `--prop` and `--delay-level`.
package org.ferromq.interop;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;

final class Messages {
    /** What a body is filled up with after its key. */
    static final byte PADDING = '.';

    private final Options options;
    private final String topic;
    private final String keys;
    private final String tag;
    private final int size;
    private final int delayLevel;

    Messages(Options options) throws Options.Wrong {
        this.options = options;
        this.topic = options.required("topic");
        this.keys = options.text("keys", "k");
        this.tag = options.text("tag", "");
        this.size = options.count("size", 0);
        this.delayLevel = options.count("delay-level", 0);
    }

    Message number(long i) {
        String key = keys + i;
        byte[] head = key.getBytes(StandardCharsets.UTF_8);
        byte[] body = Arrays.copyOf(head, Math.max(size, head.length));
        Arrays.fill(body, head.length, body.length, PADDING);
        Message message = new Message(topic, tag, key, body);
        message.putUserProperty("seq", Long.toString(i));
        for (String property : options.all("prop")) {
            int equals = property.indexOf('=');
            if (equals > 0) {
                // Not putUserProperty, which refuses the names that RocketMQ itself gives a meaning.
                MessageAccessor.putProperty(message, property.substring(0, equals), property.substring(equals + 1));
            }
        }
        if (delayLevel > 0) {
            message.setDelayTimeLevel(delayLevel);
        }
        return message;
    }

    /** Whether a body is what `number` makes for this key. */
    static boolean isBodyOf(String keyText, byte[] body) {
        byte[] key = keyText.getBytes(StandardCharsets.UTF_8);
        if (body == null || body.length < key.length) {
            return false;
        }
        for (int at = 0; at < body.length; at++) {
            if (body[at] != (at < key.length ? key[at] : PADDING)) {
                return false;
            }
        }
        return true;
    }
}
