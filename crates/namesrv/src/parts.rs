//! What requests are answered from: built by `nameserver.rs`, handed to `dispatch.rs`, which gives each handler what it uses.

use std::time::Instant;

use ferromq_protocol::header::MinBrokerIdChange;
use ferromq_protocol::{Command, RequestCode};
use ferromq_remoting::Client;
use parking_lot::Mutex;

use crate::kv::KvConfig;
use crate::live_config::LiveConfig;
use crate::routes::{MinBrokerChange, Routes};

/// One owner per piece of state.
pub(crate) struct Parts {
    pub config: LiveConfig,
    pub routes: Mutex<Routes>,
    pub kv: KvConfig,
    pub started: Instant,
    pub notices: Notices,
}

/// Tells brokers that the smallest id of their group changed.
pub(crate) struct Notices {
    outbound: Client,
}

impl Notices {
    pub fn new(outbound: Client) -> Notices {
        Notices { outbound }
    }

    /// One-way and without waiting: a broker that cannot be reached finds out by itself when it asks for its group.
    pub fn send(&self, changes: impl IntoIterator<Item = MinBrokerChange>) {
        for change in changes {
            let header = MinBrokerIdChange {
                min_broker_id: Some(change.min_id),
                broker_name: Some(change.broker_name.into()),
                min_broker_addr: Some(change.min_address.into()),
                offline_broker_addr: change.offline_address.map(Into::into),
                ha_broker_addr: change.ha_address.map(Into::into),
            };
            let request = Command::request(RequestCode::NOTIFY_MIN_BROKER_ID_CHANGE, &header).oneway();
            for address in change.to {
                let (outbound, request) = (self.outbound.clone(), request.clone());
                // Ends by itself within the client's connect timeout.
                tokio::spawn(async move {
                    if let Err(error) = outbound.oneway(&address, &request).await {
                        tracing::warn!(%address, %error, "broker not told of its group's new smallest id");
                    }
                });
            }
        }
    }
}
