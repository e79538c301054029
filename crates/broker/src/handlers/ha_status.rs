//! How copies of the log stand to each other: 907. Java: `AdminBrokerProcessor.getBrokerHaStatus`, `DefaultHAService.getRuntimeInfo`.

use std::sync::Arc;

use ferromq_protocol::body::{HaClientRuntimeInfo, HaConnectionRuntimeInfo, HaRuntimeInfo};
use ferromq_protocol::{PhysicalOffset, Reply};
use ferromq_store::Store;

use crate::ha::{FollowerStatus, MasterCopies, SlaveStanding};
use crate::standing::Standing;

/// The parts that the answer is taken from.
pub(crate) struct HaStatus {
    pub standing: Arc<Standing>,
    pub store: Arc<Store>,
    pub copies: Arc<MasterCopies>,
    pub follower: Arc<FollowerStatus>,
}

impl HaStatus {
    /// GET_BROKER_HA_STATUS.
    pub(crate) fn answer(&self) -> Reply {
        let info = if self.standing.is_slave() { self.slave() } else { self.master() };
        Reply::ok().json_body(&info)
    }

    fn master(&self) -> HaRuntimeInfo {
        // First what slaves hold, so that none is ahead of the log.
        let slaves = self.copies.standings();
        let log_end = self.store.watermarks().written;
        let in_sync = slaves.iter().filter(|slave| slave.is_in_sync).count();
        HaRuntimeInfo {
            master: true,
            master_commit_log_max_offset: log_end.as_i64(),
            in_sync_slave_nums: i32::try_from(in_sync).unwrap_or(i32::MAX),
            ha_connection_info: slaves.iter().map(|slave| connection(slave, log_end)).collect(),
            ..HaRuntimeInfo::default()
        }
    }

    fn slave(&self) -> HaRuntimeInfo {
        let master_addr = self.standing.master().borrow().as_ref().map(|master| master.ha_address.clone());
        let max_offset = self.store.watermarks().written.as_i64();
        let client = HaClientRuntimeInfo {
            last_read_timestamp: self.follower.last_read_ms(),
            last_write_timestamp: self.follower.last_report_ms(),
            master_addr,
            max_offset,
            ..HaClientRuntimeInfo::default()
        };
        HaRuntimeInfo { ha_client_runtime_info: client, ..HaRuntimeInfo::default() }
    }
}

fn connection(slave: &SlaveStanding, log_end: PhysicalOffset) -> HaConnectionRuntimeInfo {
    // As Java has it before the first report.
    let offset = |offset: Option<PhysicalOffset>| offset.map_or(-1, PhysicalOffset::as_i64);
    let held = offset(slave.held);
    HaConnectionRuntimeInfo {
        addr: slave.slave.to_string(),
        diff: log_end.as_i64() - held,
        in_sync: slave.is_in_sync,
        slave_ack_offset: held,
        transfer_from_where: offset(slave.sent),
        transferred_byte_in_second: i64::try_from(slave.bytes_per_second).unwrap_or(i64::MAX),
    }
}
