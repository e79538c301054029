//! What slaves ask their master besides its tables of topics, groups and offsets: 60, 61, 402, 906.
//!
//! The others are where their subject is: 21 (`topics`), 201 (`groups`), 43 and 45 (`stats`). Java: `AdminBrokerProcessor`; who asks is
//! `SlaveSynchronize`.

use std::sync::Arc;

use ferromq_protocol::body::{DataVersion, MessageRequestModeTable, TimerCheckPoint, TimerMetrics};
use ferromq_protocol::header::HaInfoRequest;
use ferromq_protocol::{ByteString, PhysicalOffset, Reply};
use ferromq_remoting::address::host_and_port;
use tracing::info;

use crate::live_config::LiveConfig;
use crate::master_duties::MasterDuties;
use crate::refusal::Refusal;
use crate::standing::{MasterAddress, Standing};

/// What is told of a master.
pub(crate) struct MasterFigures {
    pub config: Arc<LiveConfig>,
    pub standing: Arc<Standing>,
    pub master_duties: Arc<MasterDuties>,
    /// `host:port` as clients know it.
    pub address: String,
    /// `host:port` for slaves.
    pub ha_address: String,
    /// Where the log ended at the start of this broker.
    pub log_end_at_start: PhysicalOffset,
    pub booted_ms: i64,
}

impl MasterFigures {
    /// GET_TIMER_CHECK_POINT. Java's times are whole seconds, of which the last may have been delivered in part. Its slaves look at the
    /// time and the master's queue offset.
    pub(crate) fn timer_check_point(&self) -> Result<Reply, Refusal> {
        if !self.config.current().timer_wheel_enable {
            return Err(Refusal::system_error("The checkpoint is null"));
        }
        let checkpoint = self.master_duties.held()?.timers.checkpoint();
        let entered = checkpoint.entered.as_i64();
        let read_ms = checkpoint.delivered_ms.saturating_add(1).max(0);
        let answer = TimerCheckPoint {
            last_read_time_ms: read_ms - read_ms % 1000,
            last_timer_log_flush_pos: 0,
            last_timer_queue_offset: entered,
            master_timer_queue_offset: entered,
            data_version: self.version(),
        };
        Ok(Reply::ok().body(answer.encode().to_vec()))
    }

    /// GET_TIMER_METRICS: this broker does not count by topic.
    pub(crate) fn timer_metrics(&self) -> Result<Reply, Refusal> {
        if !self.config.current().timer_wheel_enable {
            return Err(Refusal::system_error("The timer message store is null"));
        }
        let metrics = TimerMetrics { data_version: self.version(), ..TimerMetrics::default() };
        Ok(Reply::ok().json_body(&metrics))
    }

    /// Of what never changes while this broker runs, or is of no use to anybody.
    fn version(&self) -> DataVersion {
        let state_version = self.standing.positions().borrow().epoch;
        DataVersion { counter: 0, state_version, timestamp: self.booted_ms }
    }

    /// GET_ALL_MESSAGE_REQUEST_MODE: there is none but pulling.
    pub(crate) fn message_request_modes(&self) -> Reply {
        Reply::ok().json_body(&MessageRequestModeTable::default())
    }

    /// EXCHANGE_BROKER_HA_INFO. Empty, it asks a master where it is; a slave that is told where its master is goes there.
    pub(crate) fn exchange_addresses(&self, request: HaInfoRequest) -> Result<Reply, Refusal> {
        let Some(ha_address) = request.master_ha_address else { return Ok(self.own_addresses()) };
        let position = *self.standing.positions().borrow();
        if position.role.is_slave() {
            // What is asked of one broker says nothing of the log of another.
            let known = || {
                let known = self.standing.master().borrow().clone();
                known.filter(|known| *known.ha_address == *ha_address.to_string()).map(|known| known.address)
            };
            let address = request.master_address.map(|address| address.to_string()).or_else(known);
            let Some(address) = address else {
                return Err(Refusal::invalid_parameter(
                    "masterAddress is missing, and no master with that masterHaAddress is known",
                ));
            };
            let named = MasterAddress { address, ha_address: ha_address.to_string() };
            for address in [&named.address, &named.ha_address] {
                if host_and_port(address).is_none() {
                    return Err(Refusal::invalid_parameter(format!("the master's address {address} is not host:port")));
                }
            }
            let text = format!("{} (HA {})", named.address, named.ha_address);
            if self.standing.name_master(position, named) {
                info!(master = text, "this slave was told where its master is");
            }
        }
        Ok(Reply::ok().empty_header())
    }

    fn own_addresses(&self) -> Reply {
        if self.standing.is_slave() {
            return Reply::ok().empty_header();
        }
        Reply::ok().header(HaInfoRequest {
            master_ha_address: Some(ByteString::from(&*self.ha_address)),
            master_flush_offset: Some(self.log_end_at_start.as_i64()),
            master_address: Some(ByteString::from(&*self.address)),
        })
    }
}
