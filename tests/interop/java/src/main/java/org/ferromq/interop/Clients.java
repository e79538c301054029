// What every client of this driver has in common: where the name server is, a unique instance name, quick timers.
package org.ferromq.interop;

import java.text.SimpleDateFormat;
import java.util.Date;

import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;

final class Clients {
    /** How long an answer may take; the client's own 3 s are too short for a machine that is busy with other things. */
    static final int TIMEOUT_MS = 30_000;

    private Clients() {
    }

    static void configure(ClientConfig client, Options options) throws Options.Wrong {
        int pollMs = options.count("poll-ms", 1000);
        client.setNamesrvAddr(options.required("namesrv"));
        client.setInstanceName(options.text("instance",
            "driver-" + ProcessHandle.current().pid() + "-" + System.nanoTime()));
        client.setVipChannelEnabled(false);
        client.setPollNameServerInterval(pollMs);
        client.setHeartbeatBrokerInterval(pollMs);
        client.setPersistConsumerOffsetInterval(options.count("persist-ms", pollMs));
        client.setMqClientApiTimeout(TIMEOUT_MS);
    }

    static DefaultMQProducer producer(Options options) throws Options.Wrong {
        DefaultMQProducer producer = new DefaultMQProducer(options.text("group", "driver-producer"),
            options.has("trace"), null);
        configureProducer(producer, options);
        return producer;
    }

    static void configureProducer(DefaultMQProducer producer, Options options) throws Options.Wrong {
        configure(producer, options);
        int retries = options.count("retries", 0);
        producer.setRetryTimesWhenSendFailed(retries);
        producer.setRetryTimesWhenSendAsyncFailed(retries);
        producer.setSendMsgTimeout(options.count("timeout-ms", TIMEOUT_MS));
    }

    /** `--from`: where a consumer starts whose group has no offset yet. */
    static ConsumeFromWhere startFrom(Options options) throws Options.Wrong {
        String where = options.text("from", "last");
        switch (where) {
            case "first":
                return ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET;
            case "last":
                return ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET;
            case "timestamp":
                return ConsumeFromWhere.CONSUME_FROM_TIMESTAMP;
            default:
                throw new Options.Wrong("unknown --from " + where);
        }
    }

    /** `--timestamp` in the client's own spelling, which knows no fractions of a second. */
    static String startTime(Options options) throws Options.Wrong {
        return new SimpleDateFormat("yyyyMMddHHmmss")
            .format(new Date(options.number("timestamp", System.currentTimeMillis())));
    }
}
