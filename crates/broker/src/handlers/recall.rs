//! Taking a message for a given time back before it is due: 370, with the handle that the send's reply gave.
//!
//! The message stays where it is; a marker for the same time says that it is not to be delivered. Java: `RecallMessageProcessor`.

use std::net::SocketAddr;
use std::sync::Arc;

use ferromq_protocol::header::{RecallReply, RecallRequest};
use ferromq_protocol::message::properties::{Properties, names};
use ferromq_protocol::message::{NewMessage, SysFlag};
use ferromq_protocol::topics::is_closed_to_producers;
use ferromq_protocol::{HeaderError, QueueId, Reply, ResponseCode};
use ferromq_store::Round;

use crate::acknowledge::{Acknowledgement, BrokenPromise, Promise};
use crate::clock::now_ms;
use crate::destination::Destination;
use crate::ha::MasterCopies;
use crate::handlers::send::append_refused;
use crate::live_config::LiveConfig;
use crate::peer::Origin;
use crate::recall_handle::RecallHandle;
use crate::refusal::Refusal;
use crate::timers;
use crate::topics::Topics;

/// The parts that a recall uses.
pub(crate) struct RecallPath {
    pub config: Arc<LiveConfig>,
    pub topics: Arc<Topics>,
    pub copies: Arc<MasterCopies>,
    /// In every answer: without it clients write no trace. Of the start, like that in the answers to sends.
    pub region: String,
    /// Stored with every message.
    pub store_host: SocketAddr,
}

impl RecallPath {
    /// RECALL_MESSAGE. Answered when the marker is stored; a message that is delivered in this moment may still come.
    pub(crate) fn recall(
        &self,
        round: &Round<'_>,
        origin: &Origin,
        request: Result<RecallRequest, HeaderError>,
    ) -> Result<Promise<RecallAnswer>, Refusal> {
        let recalled = request.map_err(Refusal::from).and_then(|request| self.take_back(round, origin, &request));
        recalled.map_err(|refusal| refusal.header(self.region()))
    }

    fn region(&self) -> Region {
        [(names::MSG_REGION, self.region.clone())]
    }

    fn take_back(
        &self,
        round: &Round<'_>,
        origin: &Origin,
        request: &RecallRequest,
    ) -> Result<Promise<RecallAnswer>, Refusal> {
        let config = self.config.current();
        if !config.recall_message_enable {
            return Err(Refusal::no_permission("recall failed, operation is forbidden"));
        }
        let refuse = |code, remark: &str| Err(Refusal::new(code, format!("recall failed, {remark}")));
        if now_ms() < config.start_accept_send_request_time_stamp {
            return refuse(ResponseCode::SERVICE_NOT_AVAILABLE, "broker service not available");
        }
        // Nothing waits for a topic that nobody may send to.
        if self.topics.find(&request.topic).is_none() || is_closed_to_producers(&request.topic) {
            let remark = format!("the topic[{}] not exist", request.topic);
            return refuse(ResponseCode::TOPIC_NOT_EXIST, &remark);
        }
        let Some(handle) = RecallHandle::parse(&request.recall_handle) else {
            return Err(Refusal::new(ResponseCode::ILLEGAL_OPERATION, "recall handle is invalid"));
        };
        if *handle.topic != *request.topic {
            return refuse(ResponseCode::ILLEGAL_OPERATION, "topic not match");
        }
        if handle.broker != self.config.broker_name() {
            return refuse(ResponseCode::ILLEGAL_OPERATION, "broker service not available");
        }
        let ahead_ms = handle.due_ms.saturating_sub(now_ms());
        if !(1..=i64::from(config.timer_max_delay_sec) * 1000).contains(&ahead_ms) {
            return refuse(ResponseCode::ILLEGAL_OPERATION, "timestamp invalid");
        }
        let destination = Destination::Timer { due_ms: handle.due_ms };
        let mut properties = Properties::new();
        properties.set(names::UNIQUE_KEY, &handle.unique_key);
        properties.set(names::TIMER_DEL_UNIQKEY, timers::cancel_key(&handle.topic, &handle.unique_key));
        let (topic, queue_id) = destination.divert(&mut properties, &handle.topic, QueueId(0));
        let marker = NewMessage {
            topic,
            queue_id,
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: now_ms(),
            born_host: origin.address,
            store_host: self.store_host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"0",
            properties: properties.as_str(),
        };
        self.copies.admits().map_err(|few| Refusal::system_error(few.to_string()))?;
        let appended = round.append(&marker).map_err(|error| append_refused(&error, config.message_len_max()))?;
        let answer = RecallAnswer { msg_id: handle.unique_key, region: self.region() };
        Ok(Promise { answer, end: Some(appended.end), topic: None })
    }
}

type Region = [(&'static str, String); 1];

/// The answer to a recall.
pub(crate) struct RecallAnswer {
    msg_id: String,
    region: Region,
}

impl Acknowledgement for RecallAnswer {
    fn reply(self, kept: Result<(), BrokenPromise>) -> Reply {
        match kept {
            Ok(()) => Reply::ok().header((RecallReply { msg_id: self.msg_id.into() }, self.region)),
            Err(BrokenPromise::Copies(_)) => {
                Reply::error(ResponseCode::FLUSH_SLAVE_TIMEOUT, "the recall may not be on another broker yet")
                    .header(self.region)
            }
            Err(BrokenPromise::Log(_) | BrokenPromise::Topic(_)) => {
                Reply::error(ResponseCode::FLUSH_DISK_TIMEOUT, "the recall may not be on disk yet").header(self.region)
            }
        }
    }
}
