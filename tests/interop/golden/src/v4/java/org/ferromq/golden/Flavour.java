package org.ferromq.golden;

import java.lang.reflect.Constructor;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import org.apache.rocketmq.common.TopicFilterType;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.store.CommitLog;
import org.apache.rocketmq.store.MessageExtBrokerInner;

/** What names classes of 4.9.7. */
final class Flavour {
    private Flavour() {
    }

    /** The hand-made bodies are all of 5.3.3. */
    static void bodies(Vectors out) {
    }

    static long tagsCode(String tag) {
        return MessageExtBrokerInner.tagsString2tagsCode(TopicFilterType.SINGLE_TAG, tag);
    }

    static void store(Vectors out, String name, Sample sample) throws Exception {
        if (sample.topic.length() > 127) {
            return; // 4.9.7 has one byte for the topic's length
        }
        MessageExtBrokerInner message = sample.into(new MessageExtBrokerInner());
        message.setBodyCRC(UtilAll.crc32(message.getBody()));
        message.setPropertiesString(MessageDecoder.messageProperties2String(message.getProperties()));
        Constructor<CommitLog.MessageExtEncoder> constructor = CommitLog.MessageExtEncoder.class.getDeclaredConstructor(int.class);
        constructor.setAccessible(true);
        CommitLog.MessageExtEncoder encoder = constructor.newInstance(1024 * 1024);
        Method encode = CommitLog.MessageExtEncoder.class.getDeclaredMethod("encode", MessageExtBrokerInner.class);
        encode.setAccessible(true);
        if (encode.invoke(encoder, message) != null) {
            throw new IllegalStateException(name + " was refused");
        }
        ByteBuffer buffer = encoder.getEncoderBuffer().duplicate();
        byte[] bytes = new byte[buffer.getInt(0)];
        buffer.position(0);
        buffer.limit(bytes.length);
        buffer.get(bytes);
        message.setQueueOffset(buffer.getLong(20));
        message.setCommitLogOffset(buffer.getLong(28));
        Sample.describe(out.block(name), message).bytes(bytes);
    }

    /** LZ4 and ZSTD bytes are those of the same libraries as in 5.3.3. */
    static void compression(Vectors out) {
    }

    static boolean hasStore() {
        return false;
    }

    static void storeFiles(Path golden, Path work, String version) {
        throw new IllegalStateException("5.3.3 writes the store files");
    }
}
