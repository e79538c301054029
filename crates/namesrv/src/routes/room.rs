//! How much the table may hold. Java has no bounds; what is refused here is named in the log and in the answer, and what is known stays.

use ferromq_protocol::body::TopicQueueMappingInfo;

use super::{ProcessKey, Registration, Routes};

/// Longest name of a cluster or a broker, and longest address, in bytes.
pub const NAME_LEN_MAX: usize = 1024;

/// What fits in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Broker processes, and broker names.
    pub(super) brokers: usize,
    /// Topics, one for each broker that has queues of it, with a share for long names; and mapped queues of static topics.
    pub(super) taken: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { brokers: 10_000, taken: 5_000_000 }
    }
}

/// What a topic takes for each broker that has queues of it.
pub(super) fn weight(topic: &str) -> usize {
    1 + topic.len() / 128
}

pub(super) fn weight_of_mapping(topic: &str, mapping: &TopicQueueMappingInfo) -> usize {
    let names = [mapping.bname.as_deref(), mapping.topic.as_deref(), Some(&*mapping.scope)];
    let names: usize = names.into_iter().flatten().map(str::len).sum();
    weight(topic) + mapping.curr_id_map.len() + names / 128
}

impl Routes {
    /// Whether what is new in a registration fits.
    pub(super) fn has_room(&self, registration: &Registration, key: &ProcessKey) -> bool {
        let is_full = |count: usize| count >= self.bounds.brokers;
        if (is_full(self.processes.len()) && !self.processes.contains_key(key))
            || (is_full(self.groups.len()) && !self.groups.contains_key(&registration.broker_name))
        {
            return false;
        }
        let Some(table) = &registration.topics else { return true };
        let holds =
            |topic: &str| self.topics.get(topic).is_some_and(|held| held.contains_key(&registration.broker_name));
        let topics: usize = table.topics.keys().filter(|topic| !holds(topic)).map(|topic| weight(topic)).sum();
        let mappings: usize = table
            .mappings
            .iter()
            .map(|(topic, mapping)| {
                let held_by = mapping.bname.as_ref().unwrap_or(&registration.broker_name);
                let held = self.mappings.get(topic).and_then(|held| held.get(held_by));
                let before = held.map_or(0, |held| weight_of_mapping(topic, held));
                weight_of_mapping(topic, mapping).saturating_sub(before)
            })
            .sum();
        topics + mappings == 0 || self.taken + topics + mappings <= self.bounds.taken
    }
}
