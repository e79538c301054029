//! Administration of a whole broker. Java: `GetConsumeStatsRequestHeader`, `ResetOffsetRequestHeader` and others.

use crate::{ByteString, Header};

/// Progress of every group: GET_BROKER_CONSUME_STATS (317). Java: `GetConsumeStatsInBrokerHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct BrokerConsumeStatsRequest {
    #[header(default)]
    pub is_order: bool,
}

/// One counter: VIEW_BROKER_STATS_DATA (315). Java: `ViewBrokerStatsDataRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct BrokerStatsRequest {
    pub stats_name: ByteString,
    pub stats_key: ByteString,
}

/// With the properties text of GET_BROKER_CONFIG (26). Java: `GetBrokerConfigResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct BrokerConfigReply {
    /// DataVersion as JSON.
    pub version: ByteString,
}

/// Write configuration files from RocksDB: EXPORT_ROCKSDB_CONFIG_TO_JSON (355). Java: `ExportRocksDBConfigToJsonRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ExportConfigRequest {
    /// `;`-separated: `topics`, `subscriptionGroups`, `consumerOffsets`.
    pub config_type: ByteString,
}

/// Replication addresses between brokers: EXCHANGE_BROKER_HA_INFO (906), both directions. Empty asks the master. Java: `ExchangeHAInfoRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct HaInfoRequest {
    pub master_ha_address: Option<ByteString>,
    pub master_flush_offset: Option<i64>,
    pub master_address: Option<ByteString>,
}

/// Tell a slave its master's flush position: RESET_MASTER_FLUSH_OFFSET (908). Java: `ResetMasterFlushOffsetHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ResetFlushOffsetRequest {
    pub master_flush_offset: i64,
}
