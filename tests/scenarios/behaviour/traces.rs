//! Message traces: clients write them as messages, and the ids of the traced messages find them.

use std::collections::BTreeMap;

use super::running::{Running, keys};
use super::server::Server;
use crate::driver::{Client, produce, pull_all, received};
use crate::process::await_condition;

const TRACES: &str = "RMQ_SYS_TRACE_TOPIC";

/// How many traces name each word, be it a message id or a key.
fn traces_by_word(server: &Server) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for trace in pull_all(Client::Java533, &server.namesrv(), TRACES) {
        for word in trace.key.split(',') {
            *count.entry(word.to_owned()).or_default() += 1;
        }
    }
    count
}

fn sent_and_consumed_messages_are_traced(client: Client) {
    let server = Server::start(&["traceTopicEnable=true"]);
    server.await_route(TRACES);
    server.create_topic("Traced", 4);
    let sent = produce(client, &server.namesrv(), "Traced", "sync", "traced", 20, &["--trace"]);
    let sending = await_condition("the traces of sending", || {
        let traces = traces_by_word(&server);
        sent.iter().all(|ack| traces.contains_key(&ack.msg_id) && traces.contains_key(&ack.key)).then_some(traces)
    });
    let mut consumer = Running::push(client, &server, "Traced", "CID_traced", &["--from", "first", "--trace"]);
    consumer.await_keys(&keys("traced", 0..20));
    let seen = received(&consumer.events);
    // While the consumer is there: one that ends may take its last traces with it.
    await_condition("the traces of consuming", || {
        let traces = traces_by_word(&server);
        seen.iter().all(|message| traces[&message.msg_id] > sending[&message.msg_id]).then_some(())
    });
    consumer.end();
}

#[test]
fn messages_are_traced_by_java_4_9_8() {
    sent_and_consumed_messages_are_traced(Client::Java498);
}

#[test]
fn messages_are_traced_by_java_5_3_3() {
    sent_and_consumed_messages_are_traced(Client::Java533);
}

#[test]
fn messages_are_traced_by_go() {
    sent_and_consumed_messages_are_traced(Client::Go);
}
