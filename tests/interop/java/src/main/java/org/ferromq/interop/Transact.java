// `transact`: sends numbered transactional messages and answers the broker's check-backs.
//
// It stays until standard input closes. With `--count 0` it is only a member of the producer group that can be asked.
package org.ferromq.interop;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageExt;

final class Transact {
    private Transact() {
    }

    static void run(Options options, Lines lines) throws Exception {
        Messages messages = new Messages(options);
        LocalTransactionState outcome = state(options.text("outcome", "commit"));
        LocalTransactionState check = state(options.text("check", "unknown"));
        String immunity = options.text("immunity-s", null);
        long start = options.number("start", 0);
        long end = start + options.number("count", 1);
        long paceMs = options.number("pace-ms", 0);
        CountDownLatch stop = Lines.stdinClosed();

        TransactionMQProducer producer = new TransactionMQProducer(options.required("group"));
        Clients.configureProducer(producer, options);
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object unused) {
                return outcome;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                lines.print("CHECK", Lines.key(message), message.getTransactionId());
                return check;
            }
        });
        producer.start();
        // A broker checks back only with producers that it knows, and READY promises to be one of them.
        MQClientInstance client = producer.getDefaultMQProducerImpl().getmQClientFactory();
        client.updateTopicRouteInfoFromNameServer(options.required("topic"));
        client.sendHeartbeatToAllBrokerWithLock();
        lines.print("READY");

        long acked = 0;
        long failed = 0;
        for (long i = start; i < end && stop.getCount() > 0; i++) {
            Message message = messages.number(i);
            if (immunity != null) {
                MessageAccessor.putProperty(message, "CHECK_IMMUNITY_TIME_IN_SECONDS", immunity);
            }
            try {
                lines.acknowledged(message.getKeys(), producer.sendMessageInTransaction(message, null));
                acked++;
            } catch (Exception failure) {
                lines.print("FAIL", message.getKeys(), Lines.reason(failure));
                failed++;
            }
            if (paceMs > 0 && stop.await(paceMs, TimeUnit.MILLISECONDS)) {
                break;
            }
        }
        stop.await();
        lines.print("DONE", acked, failed);
        producer.shutdown();
    }

    private static LocalTransactionState state(String word) throws Options.Wrong {
        switch (word) {
            case "commit":
                return LocalTransactionState.COMMIT_MESSAGE;
            case "rollback":
                return LocalTransactionState.ROLLBACK_MESSAGE;
            case "unknown":
                return LocalTransactionState.UNKNOW;
            default:
                throw new Options.Wrong("unknown outcome " + word);
        }
    }
}
