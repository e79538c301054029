package org.ferromq.golden;

import java.io.IOException;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.rocketmq.common.BoundaryType;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.SystemClock;
import org.apache.rocketmq.common.message.MessageBatch;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageExtBatch;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.common.sysflag.MessageSysFlag;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.GetMessageResult;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.QueryMessageResult;
import org.apache.rocketmq.store.config.FlushDiskType;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/**
 * A real DefaultMessageStore with a clock that stands still between messages: what it writes, and what it answers.
 * The files are copied after a clean shutdown.
 */
final class StoreFiles {
    private static final int LOG_FILE = 16 * 1024;
    private static final int QUEUE_FILE = 20 * 100;
    private static final int SLOTS = 1000;
    private static final int ENTRIES = 4000;
    /** An index file is named by the real time; the copy gets the name of the still clock. */
    private static final String INDEX_NAME = "20231114221320000";
    private static final String LONG_TOPIC = "long-topic-" + "x".repeat(130);

    private final Path golden;
    private final Path root;
    private final String version;
    private final Clock clock = new Clock();
    private final Vectors out;
    private final List<long[]> appended = new ArrayList<>();
    private final List<String> names = new ArrayList<>();

    StoreFiles(Path golden, Path work, String version) {
        this.golden = golden;
        this.root = work.resolve("store");
        this.version = version;
        this.out = new Vectors("A store written by DefaultMessageStore of Apache RocketMQ " + version + ", closed cleanly. Made by tests/interop/golden/generate.\n"
            + "The whole files are in store-" + version + "/. mappedFileSizeCommitLog=" + LOG_FILE + " mappedFileSizeConsumeQueue=" + QUEUE_FILE
            + " maxHashSlotNum=" + SLOTS + " maxIndexNum=" + ENTRIES + "\n"
            + "append/N: one put, its result, and the record as it lies in the commit log. commitlog/, consumequeue/: the used prefix of a file.\n"
            + "get/, time/, query/: what the open store answered; no bytes.");
    }

    private static final class Clock extends SystemClock {
        private volatile long now = Fill.NOW;

        @Override
        public long now() {
            return now;
        }
    }

    void write() throws Exception {
        MessageStoreConfig config = new MessageStoreConfig();
        config.setStorePathRootDir(root.toString());
        config.setStorePathCommitLog(root.resolve("commitlog").toString());
        config.setMappedFileSizeCommitLog(LOG_FILE);
        config.setMappedFileSizeConsumeQueue(QUEUE_FILE);
        config.setMaxHashSlotNum(SLOTS);
        config.setMaxIndexNum(ENTRIES);
        config.setFlushDiskType(FlushDiskType.ASYNC_FLUSH);
        config.setFlushIntervalCommitLog(50);
        config.setFlushCommitLogThoroughInterval(50);
        config.setHaListenPort(0);
        config.setTimerWheelEnable(false);
        BrokerConfig broker = new BrokerConfig();
        DefaultMessageStore store = new DefaultMessageStore(config, new BrokerStatsManager("DefaultCluster", false),
            (topic, queueId, logicOffset, tagsCode, msgStoreTime, filterBitMap, properties) -> { }, broker, new ConcurrentHashMap<>());
        Field field = DefaultMessageStore.class.getDeclaredField("systemClock");
        field.setAccessible(true);
        field.set(store, clock);
        if (!store.load()) {
            throw new IllegalStateException("the store does not open");
        }
        store.start();
        put(store);
        while (store.dispatchBehindBytes() > 0) {
            Thread.sleep(10);
        }
        while (store.getStoreCheckpoint().getPhysicMsgTimestamp() < clock.now) {
            Thread.sleep(10); // or the time in the checkpoint depends on when the last flush came
        }
        answers(store);
        long end = store.getMaxPhyOffset();
        store.shutdown();
        if (Files.exists(root.resolve("abort"))) {
            throw new IllegalStateException("the store did not close cleanly");
        }
        files(end);
        out.write(golden.resolve("store-" + version + ".txt"));
    }

    private void put(DefaultMessageStore store) {
        for (int i = 0; i < 6; i++) {
            Sample sample = Sample.of("message " + i, "TAGS", i % 2 == 0 ? "TagA" : "TagB", "KEYS", "key-" + i + " shared",
                "UNIQ_KEY", String.format("7F000001126718B4AAC2000000%06X", i), "CLUSTER", "DefaultCluster");
            sample.topic = "TopicTest";
            sample.queueId = i % 2;
            append(store, "tagged-" + i, sample);
        }
        Sample bare = Sample.of("no properties");
        bare.queueId = 0;
        append(store, "bare", bare);
        Sample unicode = Sample.of("тело 正文", "TAGS", "标签", "KEYS", "ключ");
        unicode.topic = "OtherTopic";
        unicode.queueId = 7;
        append(store, "unicode", unicode);
        Sample v6 = Sample.of("from afar", "TAGS", "TagA");
        v6.topic = "OtherTopic";
        v6.queueId = 7;
        v6.bornHost = Sample.V6;
        append(store, "v6-born-host", v6);
        batch(store);
        for (int type : new int[] {MessageSysFlag.TRANSACTION_PREPARED_TYPE, MessageSysFlag.TRANSACTION_COMMIT_TYPE, MessageSysFlag.TRANSACTION_ROLLBACK_TYPE}) {
            Sample transaction = Sample.of("transaction " + type, "TAGS", "TagT", "KEYS", "tx-" + type, "TRAN_MSG", "true", "PGROUP", "producer-group");
            transaction.queueId = 0;
            transaction.sysFlag = type;
            transaction.preparedTransactionOffset = type == MessageSysFlag.TRANSACTION_PREPARED_TYPE ? 0 : 5;
            append(store, "transaction-" + type, transaction);
        }
        Sample delayed = Sample.of("later", "TAGS", "TagA", "DELAY", "3", "REAL_TOPIC", "TopicTest", "REAL_QID", "1");
        delayed.topic = "SCHEDULE_TOPIC_XXXX";
        delayed.queueId = 2;
        append(store, "delayed", delayed);
        Sample longTopic = Sample.of("long topic", "TAGS", "TagA", "KEYS", "long");
        longTopic.topic = LONG_TOPIC;
        longTopic.queueId = 0;
        append(store, "long-topic", longTopic);
        for (int i = 0; i < 3; i++) {
            Sample large = Sample.of("", "TAGS", "Large", "KEYS", "large-" + i);
            large.body = Records.repeated(5000 + i);
            large.queueId = 1;
            append(store, "large-" + i, large); // the third one rolls to the next file
        }
        Sample last = Sample.of("last", "TAGS", "TagA", "KEYS", "key-0 last");
        last.queueId = 0;
        append(store, "last", last);
    }

    private void append(DefaultMessageStore store, String name, Sample sample) {
        clock.now += 1500;
        sample.bornTimestamp = clock.now - 10;
        sample.queueOffset = 0;
        MessageExtBrokerInner message = sample.into(new MessageExtBrokerInner());
        message.setPropertiesString(MessageDecoder.messageProperties2String(message.getProperties()));
        message.setTagsCode(MessageExtBrokerInner.tagsString2tagsCode(message.getTags()));
        record(store, name, store.putMessage(message), 1);
    }

    private void batch(DefaultMessageStore store) {
        clock.now += 1500;
        MessageExtBatch batch = new MessageExtBatch();
        Sample outer = Sample.of("");
        outer.queueId = 1;
        outer.queueOffset = 0;
        outer.bornTimestamp = clock.now - 10;
        outer.into(batch);
        batch.setBody(MessageBatch.generateFromList(Arrays.asList(
            Sample.of("batched 0", "TAGS", "TagA", "KEYS", "batch-0").message(),
            Sample.of("batched 1").message(),
            Sample.of("batched 2", "TAGS", "TagB", "UNIQ_KEY", Records.UNIQUE).message())).encode());
        record(store, "batch", store.putMessages(batch), 3);
    }

    private void record(DefaultMessageStore store, String name, PutMessageResult result, int count) {
        if (!result.isOk()) {
            throw new IllegalStateException(name + ": " + result.getPutMessageStatus());
        }
        long offset = result.getAppendMessageResult().getWroteOffset();
        String ids = result.getAppendMessageResult().getMsgId();
        for (int i = 0; i < count; i++) {
            MessageExt message = store.lookMessageByOffset(offset);
            ByteBuffer buffer = store.selectOneMessageByOffset(offset).getByteBuffer();
            byte[] bytes = new byte[buffer.remaining()];
            buffer.get(bytes);
            appended.add(new long[] {offset, bytes.length});
            names.add(count == 1 ? name : name + "-" + i);
            Sample.describe(out.block("append/" + names.get(names.size() - 1))
                    .put("status", result.getPutMessageStatus())
                    .put("putQueueOffset", result.getAppendMessageResult().getLogicsOffset())
                    .put("putMsgId", ids)
                    .put("msgId", message.getMsgId()), message)
                .bytes(bytes);
            offset += bytes.length;
        }
    }

    private void answers(DefaultMessageStore store) throws Exception {
        Object[][] queues = {{"TopicTest", 0}, {"TopicTest", 1}, {"OtherTopic", 7}, {LONG_TOPIC, 0}, {"SCHEDULE_TOPIC_XXXX", 2}, {"NoSuchTopic", 0}};
        for (Object[] queue : queues) {
            String topic = (String) queue[0];
            int queueId = (Integer) queue[1];
            long min = store.getMinOffsetInQueue(topic, queueId);
            long max = store.getMaxOffsetInQueue(topic, queueId);
            for (long from : new TreeSet<>(Arrays.asList(-1L, 0L, 1L, max - 1, max, max + 1, max + 100))) {
                String name = "get/" + topic + "/" + queueId + "/" + from;
                GetMessageResult result = store.getMessage("group-a", topic, queueId, from, 32, null);
                List<Long> found = new ArrayList<>(result.getMessageQueueOffset());
                out.block(name).put("topic", topic).put("queueId", queueId).put("offset", from)
                    .put("status", result.getStatus())
                    .put("nextBeginOffset", result.getNextBeginOffset())
                    .put("minOffset", result.getMinOffset()).put("maxOffset", result.getMaxOffset())
                    .put("queueMin", min).put("queueMax", max)
                    .put("found", found.stream().map(String::valueOf).collect(Collectors.joining(" ")))
                    .bytes(new byte[0]);
                result.release();
            }
        }
        for (BoundaryType type : BoundaryType.values()) {
            for (long time : new long[] {0, 1499, 1500, 1501, 3000, 4500, 6000, 7500, 10000, 20000, 25499, 25500, 25501, 60000}) {
                out.block("time/TopicTest/0/" + type.getName() + "/" + time).put("timestamp", Fill.NOW + time)
                    .put("offset", store.getOffsetInQueueByTime("TopicTest", 0, Fill.NOW + time, type))
                    .bytes(new byte[0]);
            }
        }
        Object[][] queries = {
            {"TopicTest", "key-0", 32}, {"TopicTest", "shared", 32}, {"TopicTest", "shared", 2}, {"TopicTest", Records.UNIQUE, 32}, {"OtherTopic", "ключ", 32},
            {"TopicTest", "nothing", 32}, {"OtherTopic", "key-0", 32}, {LONG_TOPIC, "long", 32}, {"TopicTest", "tx-4", 32}, {"TopicTest", "tx-12", 32},
        };
        for (Object[] query : queries) {
            QueryMessageResult result = store.queryMessage((String) query[0], (String) query[1], (Integer) query[2], 0, Long.MAX_VALUE);
            StringBuilder offsets = new StringBuilder();
            for (ByteBuffer buffer : result.getMessageBufferList()) {
                offsets.append(offsets.length() == 0 ? "" : " ").append(buffer.getLong(28));
            }
            out.block("query/" + query[0] + "/" + query[1] + "/" + query[2]).put("topic", query[0]).put("key", query[1]).put("max", query[2])
                .put("physicalOffsets", offsets)
                .put("indexLastUpdateTimestamp", result.getIndexLastUpdateTimestamp())
                .put("indexLastUpdatePhysicalOffset", result.getIndexLastUpdatePhyoffset())
                .bytes(new byte[0]);
            result.release();
        }
    }

    private void files(long end) throws IOException {
        Path target = golden.resolve("store-" + version);
        deleteTree(target);
        for (Path file : listed(root.resolve("commitlog"))) {
            long start = Long.parseLong(file.getFileName().toString());
            if (start >= end) {
                continue; // allocated ahead
            }
            byte[] all = copy(file, target.resolve("commitlog").resolve(file.getFileName()));
            int used = (int) Math.min(all.length, end - start);
            out.block("commitlog/" + file.getFileName()).put("fileSize", all.length).put("used", used).bytes(Arrays.copyOf(all, used));
        }
        for (Path file : listed(root.resolve("consumequeue"))) {
            Path relative = root.relativize(file);
            byte[] all = copy(file, target.resolve(relative));
            ByteBuffer buffer = ByteBuffer.wrap(all);
            int used = 0;
            Vectors.Block block = out.block(relative.toString()).put("fileSize", all.length);
            while (used < all.length && buffer.getInt(used + 8) > 0) {
                block.put("unit." + used / 20, buffer.getLong(used) + " " + buffer.getInt(used + 8) + " " + buffer.getLong(used + 12));
                used += 20;
            }
            block.put("used", used).bytes(Arrays.copyOf(all, used));
        }
        for (Path file : listed(root.resolve("index"))) {
            index(copy(file, target.resolve("index").resolve(INDEX_NAME)));
        }
        byte[] checkpoint = copy(root.resolve("checkpoint"), target.resolve("checkpoint"));
        ByteBuffer buffer = ByteBuffer.wrap(checkpoint);
        out.block("checkpoint").put("fileSize", checkpoint.length)
            .put("physicMsgTimestamp", buffer.getLong())
            .put("logicsMsgTimestamp", buffer.getLong())
            .put("indexMsgTimestamp", buffer.getLong())
            .put("masterFlushedOffset", buffer.getLong())
            .put("confirmPhyOffset", buffer.getLong())
            .bytes(Arrays.copyOf(checkpoint, 40));
        byte[] lock = Files.readAllBytes(root.resolve("lock"));
        out.block("lock").put("text", new String(lock, StandardCharsets.UTF_8)).bytes(lock);
    }

    private void index(byte[] all) {
        ByteBuffer buffer = ByteBuffer.wrap(all);
        Vectors.Block block = out.block("index/" + INDEX_NAME).put("fileSize", all.length)
            .put("beginTimestamp", buffer.getLong()).put("endTimestamp", buffer.getLong())
            .put("beginPhysicalOffset", buffer.getLong()).put("endPhysicalOffset", buffer.getLong())
            .put("hashSlotCount", buffer.getInt());
        int count = buffer.getInt();
        block.put("indexCount", count);
        for (int slot = 0; slot < SLOTS; slot++) {
            int value = buffer.getInt();
            if (value != 0) {
                block.put("slot." + slot, value);
            }
        }
        for (int i = 1; i < count; i++) {
            int at = 40 + SLOTS * 4 + i * 20;
            block.put("entry." + i, buffer.getInt(at) + " " + buffer.getLong(at + 4) + " " + buffer.getInt(at + 12) + " " + buffer.getInt(at + 16));
        }
        block.bytes(Arrays.copyOf(all, 40));
    }

    private static List<Path> listed(Path folder) throws IOException {
        try (Stream<Path> files = Files.walk(folder)) {
            return files.filter(Files::isRegularFile).sorted().collect(Collectors.toList());
        }
    }

    private static byte[] copy(Path from, Path to) throws IOException {
        byte[] bytes = Files.readAllBytes(from);
        Files.createDirectories(to.getParent());
        Files.write(to, bytes);
        return bytes;
    }

    private static void deleteTree(Path folder) throws IOException {
        if (!Files.exists(folder)) {
            return;
        }
        try (Stream<Path> files = Files.walk(folder)) {
            for (Path file : files.sorted(Comparator.reverseOrder()).collect(Collectors.toList())) {
                Files.delete(file);
            }
        }
    }
}
