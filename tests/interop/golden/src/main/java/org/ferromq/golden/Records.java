package org.ferromq.golden;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageBatch;
import org.apache.rocketmq.common.message.MessageClientIDSetter;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.sysflag.MessageSysFlag;
import org.apache.rocketmq.common.sysflag.PullSysFlag;
import org.apache.rocketmq.store.index.IndexFile;

/** Message records and the small encodings around them. */
final class Records {
    static final String UNIQUE = "7F000001126718B4AAC2000000000001";

    private Records() {
    }

    static Vectors vectors(String version, Path work) throws Exception {
        Vectors out = new Vectors("Message records of Apache RocketMQ " + version + ". Made by tests/interop/golden/generate.\n"
            + "decoder/*: MessageDecoder.encode(MessageExt). store/*: the store's MessageExtEncoder, before append fills in the physical offset.\n"
            + "batch/*: MessageDecoder.encodeMessages. prop.* are sorted by key here; their order in the bytes is Java's HashMap order.");
        Map<String, Sample> samples = samples();
        for (Map.Entry<String, Sample> entry : samples.entrySet()) {
            decoder(out, entry.getKey(), entry.getValue());
        }
        for (Map.Entry<String, Sample> entry : samples.entrySet()) {
            Flavour.store(out, "store/" + entry.getKey(), entry.getValue());
        }
        batches(out);
        ids(out);
        properties(out);
        tags(out);
        sums(out);
        compression(out);
        indexKeys(out, work);
        pullFlags(out);
        return out;
    }

    private static Map<String, Sample> samples() throws IOException {
        Map<String, Sample> samples = new LinkedHashMap<>();
        samples.put("plain", Sample.of("hello"));
        samples.put("properties", Sample.of("hello", "TAGS", "TagA", "KEYS", "key-1 key-2", "UNIQ_KEY", UNIQUE, "WAIT", "true",
            "CLUSTER", "DefaultCluster", "user", "value with spaces"));
        samples.put("body-empty", Sample.of(""));
        samples.put("unicode", Sample.of("тело 正文 \uD83D\uDE80", "TAGS", "标签", "KEYS", "ключ", "имя", "значение"));
        Sample v6born = Sample.of("hello", "TAGS", "TagA");
        v6born.bornHost = Sample.V6;
        samples.put("v6-born-host", v6born);
        Sample v6store = Sample.of("hello", "TAGS", "TagA");
        v6store.storeHost = Sample.V6;
        samples.put("v6-store-host", v6store);
        Sample v6 = Sample.of("hello", "TAGS", "TagA");
        v6.bornHost = Sample.V6;
        v6.storeHost = Sample.V6;
        samples.put("v6-both-hosts", v6);
        Sample retried = Sample.of("again", "TAGS", "TagA", "RETRY_TOPIC", "TopicTest", "ORIGIN_MESSAGE_ID", "7F00000100002A9F0000000000000000",
            "RECONSUME_TIME", "3", "DELAY", "5");
        retried.topic = "%RETRY%group-a";
        retried.queueId = 0;
        retried.reconsumeTimes = 3;
        samples.put("retried", retried);
        Sample prepared = Sample.of("half", "TRAN_MSG", "true", "PGROUP", "producer-group", "UNIQ_KEY", UNIQUE);
        prepared.sysFlag = MessageSysFlag.TRANSACTION_PREPARED_TYPE;
        samples.put("transaction-prepared", prepared);
        Sample committed = Sample.of("half", "TRAN_MSG", "true", "PGROUP", "producer-group", "UNIQ_KEY", UNIQUE);
        committed.sysFlag = MessageSysFlag.TRANSACTION_COMMIT_TYPE;
        committed.preparedTransactionOffset = 7_777;
        samples.put("transaction-commit", committed);
        Sample rolledBack = Sample.of("");
        rolledBack.sysFlag = MessageSysFlag.TRANSACTION_ROLLBACK_TYPE;
        rolledBack.preparedTransactionOffset = 7_777;
        samples.put("transaction-rollback", rolledBack);
        Sample multi = Sample.of("hello", "TAGS", "TagA||TagB");
        multi.sysFlag = MessageSysFlag.MULTI_TAGS_FLAG;
        multi.flag = 0x7fff0001;
        samples.put("flags", multi);
        Sample far = Sample.of("far", "TAGS", "TagA");
        far.queueOffset = Long.MAX_VALUE / 2;
        far.physicalOffset = (1L << 44) + 5;
        far.queueId = 1023;
        samples.put("far-offsets", far);
        Sample compressed = Sample.of("", "TAGS", "TagA");
        compressed.body = UtilAll.compress(repeated(5000), 5);
        compressed.sysFlag = MessageSysFlag.COMPRESSED_FLAG;
        samples.put("compressed-old-zlib", compressed);
        Sample zlib = Sample.of("", "TAGS", "TagA");
        zlib.body = compressed.body;
        zlib.sysFlag = MessageSysFlag.COMPRESSED_FLAG | MessageSysFlag.COMPRESSION_ZLIB_TYPE;
        samples.put("compressed-zlib", zlib);
        Sample topic127 = Sample.of("hello", "TAGS", "TagA");
        topic127.topic = "t".repeat(127);
        samples.put("topic-127", topic127);
        Sample topic128 = Sample.of("hello", "TAGS", "TagA");
        topic128.topic = "t".repeat(128);
        samples.put("topic-128", topic128);
        Sample topic200 = Sample.of("hello", "TAGS", "TagA");
        topic200.topic = "t".repeat(200);
        samples.put("topic-200", topic200);
        return samples;
    }

    static byte[] repeated(int length) {
        byte[] body = new byte[length];
        for (int i = 0; i < length; i++) {
            body[i] = (byte) ('a' + i % 26);
        }
        return body;
    }

    private static void decoder(Vectors out, String name, Sample sample) throws Exception {
        if (sample.topic.length() > 127) {
            return; // this encoder knows only one byte of topic length; store/* has these
        }
        MessageExt message = sample.into(new MessageExt());
        message.setBodyCRC(UtilAll.crc32(message.getBody()));
        byte[] bytes = MessageDecoder.encode(message, false);
        Vectors.Block block = Sample.describe(out.block("decoder/" + name), message);
        if (message.getBody().length > 0) {
            MessageExt decoded = MessageDecoder.decode(ByteBuffer.wrap(bytes), true, false, false);
            block.put("msgId", decoded.getMsgId());
        }
        block.bytes(bytes);
    }

    private static void batches(Vectors out) {
        Sample flagged = Sample.of("three", "TAGS", "TagB", "KEYS", "k3");
        flagged.flag = 9;
        batch(out, "one", Sample.of("one"));
        batch(out, "three", Sample.of("one", "TAGS", "TagA", "UNIQ_KEY", UNIQUE), Sample.of("two"), flagged);
        batch(out, "with-empty-body", Sample.of(""), Sample.of("x", "имя", "значение"));
    }

    private static void batch(Vectors out, String name, Sample... samples) {
        List<Message> messages = new ArrayList<>();
        Vectors.Block block = out.block("batch/" + name).put("count", samples.length);
        for (int i = 0; i < samples.length; i++) {
            Message message = samples[i].message();
            messages.add(message);
            block.put(i + ".flag", message.getFlag())
                .put(i + ".bodyHex", Vectors.hex(message.getBody()))
                .put(i + ".properties", MessageDecoder.messageProperties2String(message.getProperties()));
        }
        block.bytes(MessageBatch.generateFromList(messages).encode());
    }

    private static void ids(Vectors out) {
        Object[][] ids = {
            {Sample.V4, 10911, 0L}, {"192.168.255.1", 65535, 123_456_789_012L}, {Sample.V6, 10911, 4096L}, {"10.0.0.1", 1, Long.MAX_VALUE},
        };
        for (Object[] id : ids) {
            InetSocketAddress address = Sample.host((String) id[0], (Integer) id[1]);
            String text = MessageDecoder.createMessageId(address, (Long) id[2]);
            out.block("message-id/" + text).put("host", id[0]).put("port", id[1]).put("offset", id[2]).put("id", text)
                .bytes(UtilAll.string2bytes(text));
        }
        for (String id : Arrays.asList(UNIQUE, "C0A80102FFFE3D4EAC69124A5B6C7FFF", "AC1100020001659E0DE82F4B3C5DFFFF",
            "20010DB80000000100000000000000FF126718B4AAC2000000000001")) {
            byte[] bytes = UtilAll.string2bytes(id);
            ByteBuffer tail = ByteBuffer.wrap(bytes, bytes.length - 12, 12);
            tail.getShort();
            out.block("unique-id/" + id).put("id", id)
                .put("ip", MessageClientIDSetter.getIPStrFromID(id))
                .put("pid", MessageClientIDSetter.getPidFromID(id))
                .put("loaderHash", tail.getInt())
                .put("millisSinceMonth", tail.getInt() & 0xffff_ffffL)
                .put("counter", tail.getShort() & 0xffff)
                .bytes(bytes);
        }
    }

    private static void properties(Vectors out) {
        String[][] cases = {
            {"empty"}, {"one", "TAGS", "TagA"}, {"two", "TAGS", "TagA", "KEYS", "a b"},
            {"many", "TAGS", "TagA", "KEYS", "k1 k2", "UNIQ_KEY", UNIQUE, "WAIT", "true", "CLUSTER", "DefaultCluster", "DELAY", "3",
                "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6", "g", "7", "h", "8"},
            {"empty-value", "TAGS", "", "KEYS", "k"}, {"unicode", "имя", "значение", "标签", "值\uD83D\uDE80"},
        };
        for (String[] one : cases) {
            Map<String, String> map = new HashMap<>();
            for (int i = 1; i < one.length; i += 2) {
                map.put(one[i], one[i + 1]);
            }
            String text = MessageDecoder.messageProperties2String(map);
            Vectors.Block block = out.block("properties/" + one[0]);
            Sample.properties(block, map);
            block.put("text", text).bytes(text.getBytes(StandardCharsets.UTF_8));
        }
        String[][] parses = {
            {"trailing", "TAGS\u0001TagA\u0002"}, {"no-trailing", "TAGS\u0001TagA\u0002KEYS\u0001k"}, {"no-value", "TAGS\u0001\u0002KEYS\u0001k\u0002"},
            {"no-separator", "TAGS\u0002KEYS\u0001k\u0002"}, {"two-separators", "a\u0001b\u0001c\u0002KEYS\u0001k\u0002"},
            {"empty-parts", "\u0002\u0002KEYS\u0001k\u0002\u0002"}, {"no-name", "\u0001value\u0002KEYS\u0001k\u0002"}, {"repeated", "a\u00011\u0002a\u00012\u0002"},
            {"cut", "KEYS\u0001k\u0002TAGS"}, {"cut-value", "KEYS\u0001k\u0002TAGS\u0001"}, {"empty", ""},
        };
        for (String[] one : parses) {
            Vectors.Block block = out.block("parse-properties/" + one[0]).put("text", one[1]);
            Sample.properties(block, MessageDecoder.string2messageProperties(one[1]));
            block.bytes(one[1].getBytes(StandardCharsets.UTF_8));
        }
    }

    private static void tags(Vectors out) {
        for (String tag : Arrays.asList("", "TagA", "TagB", "*", "TagA||TagB", "tag with spaces", "标签", "Тег", "\uD83D\uDE80", "polygenelubricants",
            "AaAa", "BBBB", "a-rather-long-tag-whose-hash-has-overflowed-many-times")) {
            out.block("tag/" + (tag.isEmpty() ? "(empty)" : tag)).put("tag", tag).put("code", Flavour.tagsCode(tag))
                .bytes(tag.getBytes(StandardCharsets.UTF_8));
        }
    }

    private static void sums(Vectors out) {
        byte[] counting = new byte[256];
        for (int i = 0; i < counting.length; i++) {
            counting[i] = (byte) i;
        }
        byte[][] bodies = {new byte[0], {0}, {(byte) 0xff}, "hello".getBytes(StandardCharsets.UTF_8), "123456789".getBytes(StandardCharsets.UTF_8), counting,
            repeated(1000)};
        for (byte[] body : bodies) {
            out.block("crc32/" + body.length + "-" + UtilAll.crc32(body)).put("crc32", UtilAll.crc32(body)).bytes(body);
        }
    }

    private static void compression(Vectors out) throws IOException {
        for (int level : new int[] {1, 5, 9}) {
            byte[] body = repeated(2000);
            out.block("compressed/zlib-" + level).put("type", "ZLIB").put("bodyHex", Vectors.hex(body)).bytes(UtilAll.compress(body, level));
        }
        Flavour.compression(out);
    }

    private static void indexKeys(Vectors out, Path work) throws IOException {
        IndexFile file = new IndexFile(work.resolve("0").toString(), 10, 10, 0, 0);
        for (String key : Arrays.asList("TopicTest#key-1", "TopicTest#key-2", "TopicTest#" + UNIQUE, "%RETRY%group-a#k", "TopicTest#ключ", "#",
            "polygenelubricants")) {
            int hash = file.indexKeyHashMethod(key);
            out.block("index-key/" + key).put("key", key).put("hash", hash).put("slot1000", hash % 1000).put("slot5000000", hash % 5_000_000)
                .bytes(key.getBytes(StandardCharsets.UTF_8));
        }
        file.destroy(0);
    }

    private static void pullFlags(Vectors out) {
        for (int bits = 0; bits < 32; bits++) {
            boolean commit = (bits & 1) != 0;
            boolean suspend = (bits & 2) != 0;
            boolean subscription = (bits & 4) != 0;
            boolean classFilter = (bits & 8) != 0;
            boolean lite = (bits & 16) != 0;
            int flag = PullSysFlag.buildSysFlag(commit, suspend, subscription, classFilter, lite);
            out.block("pull-flag/" + flag).put("commitOffset", commit).put("suspend", suspend).put("subscription", subscription)
                .put("classFilter", classFilter).put("litePull", lite).put("value", flag)
                .bytes(ByteBuffer.allocate(4).putInt(flag).array());
        }
    }
}
