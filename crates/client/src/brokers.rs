//! Brokers: runtime table, configuration, write permission, removing what is old.

use std::collections::BTreeMap;

use ferromq_protocol::body::{HaRuntimeInfo, KvTable};
use ferromq_protocol::header::{WipeWritePermReply, WipeWritePermRequest};
use ferromq_protocol::{Command, NoFields, RequestCode};

use crate::admin::succeeded;
use crate::{Admin, AdminError};

impl Admin {
    /// GET_BROKER_RUNTIME_INFO (28), sorted by key.
    pub async fn runtime_info(&self, addr: &str) -> Result<BTreeMap<String, String>, AdminError> {
        let table: KvTable = self.ask_json(addr, RequestCode::GET_BROKER_RUNTIME_INFO, &NoFields).await?;
        Ok(table.table.into_iter().collect())
    }

    /// GET_BROKER_HA_STATUS (907).
    pub async fn ha_status(&self, addr: &str) -> Result<HaRuntimeInfo, AdminError> {
        self.ask_json(addr, RequestCode::GET_BROKER_HA_STATUS, &NoFields).await
    }

    /// GET_BROKER_CONFIG (26): `key=value` lines.
    pub async fn broker_config(&self, addr: &str) -> Result<String, AdminError> {
        let reply = self.ask_named(addr, Command::request(RequestCode::GET_BROKER_CONFIG, &NoFields)).await?;
        String::from_utf8(reply.body.to_vec()).map_err(|error| AdminError::malformed(addr, error))
    }

    /// UPDATE_BROKER_CONFIG (25).
    pub async fn update_broker_config(&self, addr: &str, key: &str, value: &str) -> Result<(), AdminError> {
        let request =
            Command::request(RequestCode::UPDATE_BROKER_CONFIG, &NoFields).with_body(format!("{key}={value}\n"));
        self.ask_named(addr, request).await.map(drop)
    }

    /// CLEAN_EXPIRED_CONSUMEQUEUE (306): queues without a message.
    pub async fn clean_expired_queues(&self, addr: &str) -> Result<(), AdminError> {
        self.ask(addr, Command::request(RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE, &NoFields)).await.map(drop)
    }

    /// CLEAN_UNUSED_TOPIC (316): queues of topics that the broker does not know.
    pub async fn clean_unused_topics(&self, addr: &str) -> Result<(), AdminError> {
        self.ask(addr, Command::request(RequestCode::CLEAN_UNUSED_TOPIC, &NoFields)).await.map(drop)
    }

    /// DELETE_EXPIRED_COMMITLOG (329): log files whose time is over.
    pub async fn delete_expired_log(&self, addr: &str) -> Result<(), AdminError> {
        self.ask(addr, Command::request(RequestCode::DELETE_EXPIRED_COMMITLOG, &NoFields)).await.map(drop)
    }

    /// WIPE_WRITE_PERM_OF_BROKER (205) on one nameserver; returns how many topics changed.
    pub async fn wipe_write_perm(&self, nameserver: &str, broker_name: &str) -> Result<i32, AdminError> {
        let header = WipeWritePermRequest { broker_name: broker_name.into() };
        let reply = self
            .name_servers
            .invoke_at(nameserver, Command::request(RequestCode::WIPE_WRITE_PERM_OF_BROKER, &header))
            .await?;
        let reply: WipeWritePermReply = succeeded(reply)?.header().map_err(AdminError::header(nameserver))?;
        Ok(reply.wipe_topic_count)
    }
}
