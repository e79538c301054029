package org.ferromq.golden;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.compression.CompressorFactory;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.common.message.MessageVersion;
import org.apache.rocketmq.store.MessageExtEncoder;
import org.apache.rocketmq.store.config.MessageStoreConfig;

/** What names classes of 5.3.3. */
final class Flavour {
    private Flavour() {
    }

    static void bodies(Vectors out) throws Exception {
        RealBodies.add(out);
    }

    static long tagsCode(String tag) {
        return MessageExtBrokerInner.tagsString2tagsCode(tag);
    }

    static void store(Vectors out, String name, Sample sample) {
        MessageExtBrokerInner message = sample.into(new MessageExtBrokerInner());
        message.setBodyCRC(UtilAll.crc32(message.getBody()));
        message.setPropertiesString(MessageDecoder.messageProperties2String(message.getProperties()));
        if (sample.topic.length() > 127) {
            message.setVersion(MessageVersion.MESSAGE_VERSION_V2); // CommitLog.asyncPutMessage does, with autoMessageVersionOnTopicLen
        }
        MessageExtEncoder encoder = new MessageExtEncoder(new MessageStoreConfig());
        if (encoder.encode(message) != null) {
            throw new IllegalStateException(name + " was refused");
        }
        ByteBuffer buffer = encoder.getEncoderBuffer();
        byte[] bytes = new byte[buffer.getInt(0)];
        buffer.get(bytes);
        message.setCommitLogOffset(buffer.getLong(28));
        Sample.describe(out.block(name), message).bytes(bytes);
    }

    static void compression(Vectors out) throws IOException {
        for (CompressionType type : CompressionType.values()) {
            byte[] body = Records.repeated(2000);
            out.block("compressed/" + type.name().toLowerCase()).put("type", type).put("compressionFlag", type.getCompressionFlag())
                .put("bodyHex", Vectors.hex(body)).bytes(CompressorFactory.getCompressor(type).compress(body, 5));
        }
    }

    static boolean hasStore() {
        return true;
    }

    static void storeFiles(Path golden, Path work, String version) throws Exception {
        new StoreFiles(golden, work, version).write();
    }
}
