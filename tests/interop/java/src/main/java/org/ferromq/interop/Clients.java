// What every client of this driver has in common: where the name server is, a unique instance name, quick timers.
package org.ferromq.interop;

import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

final class Clients {
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
    }

    static DefaultMQProducer producer(Options options) throws Options.Wrong {
        DefaultMQProducer producer = new DefaultMQProducer(options.text("group", "driver-producer"));
        configure(producer, options);
        int retries = options.count("retries", 0);
        producer.setRetryTimesWhenSendFailed(retries);
        producer.setRetryTimesWhenSendAsyncFailed(retries);
        producer.setSendMsgTimeout(options.count("timeout-ms", 3000));
        return producer;
    }
}
