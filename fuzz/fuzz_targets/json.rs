//! Any bytes as JSON of several shapes: no panic, and what is read survives being written in every form.
#![no_main]

use ferromq_protocol::body::{
    ConsumerOffsetTable, Heartbeat, MessageQueue, RegisterBrokerBody, SubscriptionGroupTable,
    Table, TopicRoute,
};
use ferromq_protocol::json;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = json::from_slice::<T>(bytes) else {
        return;
    };
    for text in [
        json::to_vec(&value),
        json::to_vec_bare_keys(&value),
        json::to_vec_ascii(&value),
        json::to_vec_pretty(&value),
    ] {
        assert_eq!(json::from_slice::<T>(&text).as_ref(), Ok(&value));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check::<Heartbeat>(bytes);
    check::<TopicRoute>(bytes);
    check::<ConsumerOffsetTable>(bytes);
    check::<SubscriptionGroupTable>(bytes);
    check::<Table<MessageQueue, Vec<String>>>(bytes);
    let _ = json::from_slice::<serde_json::Value>(bytes);
    let _ = RegisterBrokerBody::decode(bytes, 479);
});
