//! The dispatch table: one line per request code, code to handler.
//!
//! Runs on the connection's own task. A refusal becomes its reply here. The fast port serves the same table without the codes that wait
//! for messages.

use std::sync::Arc;

use ferromq_protocol::{Command, RequestCode, ResponseCode};
use ferromq_remoting::{Connection, Outcome, Requests, Service};
use ferromq_store::{Effort, Round, Store};

use crate::acknowledge::Acknowledgements;
use crate::clients::Clients;
use crate::consumer_offsets::ConsumerOffsets;
use crate::groups::Groups;
use crate::handlers::pull::PullPath;
use crate::handlers::recall::RecallPath;
use crate::handlers::reply::ReplyPath;
use crate::handlers::reset::ResetPath;
use crate::handlers::send::SendPath;
use crate::handlers::send_back::SendBackPath;
use crate::handlers::stats::Figures;
use crate::handlers::transactions::TransactionPath;
use crate::handlers::{clients, config, groups, locks, offsets, query, topics};
use crate::live_config::LiveConfig;
use crate::peer::{Origin, Peer};

use crate::queue_locks::QueueLocks;
use crate::readers::Readers;
use crate::refusal::Refusal;
use crate::relay::Relay;
use crate::runtime_info::RuntimeInfo;
use crate::statistics::Statistics;
use crate::topics::Topics;

/// The parts that handlers are given. Nobody but this table holds them all.
pub(crate) struct Dispatch {
    pub config: Arc<LiveConfig>,
    pub topics: Arc<Topics>,
    pub groups: Arc<Groups>,
    pub offsets: Arc<ConsumerOffsets>,
    pub clients: Arc<Clients>,
    pub locks: Arc<QueueLocks>,
    pub store: Arc<Store>,
    pub statistics: Arc<Statistics>,
    pub acknowledgements: Acknowledgements,
    pub send: Arc<SendPath>,
    pub reply: ReplyPath,
    pub recall: RecallPath,
    pub send_back: SendBackPath,
    pub transactions: TransactionPath,
    pub pull: Arc<PullPath>,
    pub reset: ResetPath,
    pub relay: Relay,
    pub figures: Figures,
    pub runtime: RuntimeInfo,
    pub readers: Arc<Readers>,
}

/// Whether a request always reads what may be old, or much, or copies a whole table, and never is one of many.
fn reads_at_length(code: RequestCode) -> bool {
    matches!(
        code,
        RequestCode::SEARCH_OFFSET_BY_TIMESTAMP
            | RequestCode::GET_EARLIEST_MSG_STORETIME
            | RequestCode::RESUME_CHECK_HALF_MESSAGE
            | RequestCode::QUERY_MESSAGE
            | RequestCode::VIEW_MESSAGE_BY_ID
            | RequestCode::GET_BROKER_RUNTIME_INFO
            | RequestCode::GET_TOPIC_STATS_INFO
            | RequestCode::GET_CONSUME_STATS
            | RequestCode::GET_BROKER_CONSUME_STATS
            | RequestCode::QUERY_CONSUME_TIME_SPAN
            | RequestCode::QUERY_CONSUME_QUEUE
            | RequestCode::INVOKE_BROKER_TO_RESET_OFFSET
            | RequestCode::CONSUME_MESSAGE_DIRECTLY
            | RequestCode::GET_ALL_TOPIC_CONFIG
            | RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG
            | RequestCode::GET_ALL_CONSUMER_OFFSET
            | RequestCode::GET_ALL_PRODUCER_INFO
    )
}

/// Whether a request that is handed over has no other effect than its answer: without somebody to take that, it need not be done.
fn only_answers(code: RequestCode) -> bool {
    match code {
        RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE | RequestCode::QUERY_CONSUMER_OFFSET => true,
        RequestCode::RESUME_CHECK_HALF_MESSAGE
        | RequestCode::INVOKE_BROKER_TO_RESET_OFFSET
        | RequestCode::CONSUME_MESSAGE_DIRECTLY => false,
        code => reads_at_length(code),
    }
}

impl Dispatch {
    /// With [`Effort::Brief`] nothing has been done yet that would be done once more when the refusal says that it needs time; the codes of [`reads_at_length`] come
    /// with [`Effort::Full`] only.
    fn outcome(
        &self,
        round: &Round<'_>,
        connection: &Connection,
        request: &Command,
        effort: Effort,
    ) -> Result<Outcome, Refusal> {
        let (code, origin) = (request.request_code(), Origin::of(connection, request));
        let slot = || connection.reply_slot(request);
        match code {
            RequestCode::SEND_MESSAGE | RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE => {
                let sent = self.send.send(round, &origin, &request.header()?, &request.body)?;
                Ok(self.acknowledgements.acknowledge(round, sent, slot))
            }
            RequestCode::SEND_REPLY_MESSAGE | RequestCode::SEND_REPLY_MESSAGE_V2 => {
                self.reply.reply(round, &origin, &request.header()?, &request.body, slot)
            }
            RequestCode::RECALL_MESSAGE => {
                let recalled = self.recall.recall(round, &origin, request.header())?;
                Ok(self.acknowledgements.acknowledge(round, recalled, slot))
            }
            RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE => self.pull.pull(connection, request, effort),
            RequestCode::HEART_BEAT => clients::heartbeat(
                &self.clients,
                &self.groups,
                &self.topics,
                &self.config.current(),
                connection,
                request,
            ),
            RequestCode::UNREGISTER_CLIENT => clients::unregister(&self.clients, connection, request),
            RequestCode::CHECK_CLIENT_CONFIG => clients::check_config(&self.config.current(), request),
            RequestCode::GET_CONSUMER_LIST_BY_GROUP => clients::consumer_ids(&self.clients, request),
            RequestCode::GET_CONSUMER_CONNECTION_LIST => clients::consumer_connections(&self.clients, request),
            RequestCode::GET_PRODUCER_CONNECTION_LIST => clients::producer_connections(&self.clients, request),
            RequestCode::GET_ALL_PRODUCER_INFO => clients::producers(&self.clients),
            RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER => clients::subscription(&self.clients, request),
            RequestCode::LOCK_BATCH_MQ => locks::lock(&self.locks, connection, request),
            RequestCode::UNLOCK_BATCH_MQ => locks::unlock(&self.locks, request),
            RequestCode::QUERY_CONSUMER_OFFSET => {
                offsets::query(&self.offsets, &self.topics, &self.store, request, effort)
            }
            RequestCode::UPDATE_CONSUMER_OFFSET => offsets::update(&self.offsets, &self.topics, &self.groups, request),
            RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => offsets::search(&self.store, request),
            RequestCode::GET_MAX_OFFSET => offsets::max(&self.store, request),
            RequestCode::GET_MIN_OFFSET => offsets::min(&self.store, request),
            RequestCode::GET_EARLIEST_MSG_STORETIME => offsets::earliest_store_time(&self.store, request),
            RequestCode::CONSUMER_SEND_MSG_BACK => {
                let given_back = self.send_back.send_back(round, &origin, &request.header()?, effort)?;
                Ok(self.acknowledgements.acknowledge(round, given_back, slot))
            }
            RequestCode::END_TRANSACTION => Ok(match self.transactions.end(round, &request.header()?, effort)? {
                Some(ended) => self.acknowledgements.acknowledge(round, ended, slot),
                None => Outcome::Deferred,
            }),
            RequestCode::RESUME_CHECK_HALF_MESSAGE => {
                self.transactions.resume_check(round, &request.header()?).map(Outcome::Reply)
            }
            RequestCode::QUERY_MESSAGE => query::by_key(&self.config.current(), &self.store, request),
            RequestCode::VIEW_MESSAGE_BY_ID => query::by_offset(&self.store, request),
            RequestCode::UPDATE_AND_CREATE_TOPIC => {
                topics::update(&self.config.current(), &self.topics, connection, request)
            }
            RequestCode::UPDATE_AND_CREATE_TOPIC_LIST => {
                topics::update_list(&self.config.current(), &self.topics, connection, request)
            }
            RequestCode::DELETE_TOPIC_IN_BROKER => topics::delete(self.deletion(), connection, request),
            RequestCode::CLEAN_UNUSED_TOPIC => topics::clean_unused(self.deletion(), connection, request),
            RequestCode::GET_ALL_TOPIC_CONFIG => topics::all(&self.topics),
            RequestCode::GET_TOPIC_CONFIG => topics::one(&self.topics, request),
            RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => topics::system(&self.config.current()),
            RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => groups::update(&self.groups, connection, request),
            RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => {
                groups::update_list(&self.groups, connection, request)
            }
            RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => groups::all(&self.groups),
            RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG => groups::one(&self.groups, request),
            RequestCode::DELETE_SUBSCRIPTIONGROUP => {
                groups::delete(&self.groups, &self.offsets, &self.statistics, connection, request)
            }
            RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN => groups::forbidden(&self.groups, connection, request),
            RequestCode::UPDATE_BROKER_CONFIG => {
                config::update(&self.config, &self.topics, &self.store, connection, request)
            }
            RequestCode::GET_BROKER_CONFIG => config::listing(&self.config),
            RequestCode::GET_BROKER_RUNTIME_INFO => self.runtime.answer(),
            RequestCode::GET_ALL_CONSUMER_OFFSET => self.figures.consumer_offsets(),
            RequestCode::GET_ALL_DELAY_OFFSET => self.figures.delay_offsets(),
            RequestCode::GET_TOPIC_STATS_INFO => self.figures.topic(request),
            RequestCode::GET_CONSUME_STATS => self.figures.group(request),
            RequestCode::GET_BROKER_CONSUME_STATS => self.figures.all_groups(request),
            RequestCode::QUERY_TOPIC_CONSUME_BY_WHO => self.figures.groups_of_topic(request),
            RequestCode::QUERY_TOPICS_BY_CONSUMER => self.figures.topics_of_group(request),
            RequestCode::QUERY_CONSUME_TIME_SPAN => self.figures.time_span(request),
            RequestCode::QUERY_CONSUME_QUEUE => self.figures.queue_entries(request),
            RequestCode::VIEW_BROKER_STATS_DATA => self.figures.counter(request),
            RequestCode::INVOKE_BROKER_TO_RESET_OFFSET => self.reset.reset(connection, request),
            RequestCode::CLONE_GROUP_OFFSET => self.reset.clone(connection, request),
            RequestCode::GET_CONSUMER_RUNNING_INFO => self.relay.running_info(connection, request),
            RequestCode::CONSUME_MESSAGE_DIRECTLY => self.relay.consume_directly(connection, request),
            _ => Err(unsupported(code)),
        }
    }

    fn deletion(&self) -> topics::Deletion {
        topics::Deletion {
            config: Arc::clone(&self.config),
            topics: Arc::clone(&self.topics),
            offsets: Arc::clone(&self.offsets),
            statistics: Arc::clone(&self.statistics),
            store: Arc::clone(&self.store),
        }
    }

    /// One round of a connection: what its requests append is flushed once before their replies, and made visible once after them.
    fn serve(
        self: &Arc<Self>,
        requests: &mut Requests<'_>,
        handle: impl Fn(&Arc<Self>, &Round<'_>, &Connection, Command) -> Outcome,
    ) {
        let round = self.store.round();
        requests.each(|connection, request| handle(self, &round, connection, request));
        round.flush();
        requests.reply();
    }

    fn handle(self: &Arc<Self>, round: &Round<'_>, connection: &Connection, request: Command) -> Outcome {
        if reads_at_length(request.request_code()) {
            return self.hand_over(connection, request);
        }
        match self.outcome(round, connection, &request, Effort::Brief) {
            Ok(outcome) => outcome,
            Err(refusal) if refusal.needs_time => self.hand_over(connection, request),
            Err(refusal) => Outcome::Reply(refusal.into_reply()),
        }
    }

    /// Leaves a request to a thread that may wait for the disk.
    fn hand_over(self: &Arc<Self>, connection: &Connection, mut request: Command) -> Outcome {
        // None of these requests uses a body.
        request.body = Default::default();
        request.remark = None;
        request.fields = request.fields.into_owned();
        let len = request.fields.encoded_len();
        let (parts, from, slot) = (Arc::clone(self), connection.clone(), connection.reply_slot(&request));
        self.readers.submit(Peer::of(connection), len, move |room| {
            if slot.is_closed() && only_answers(request.request_code()) {
                return;
            }
            let round = parts.store.round();
            slot.answer(request.code, || {
                let outcome = match room {
                    Ok(()) => parts.outcome(&round, &from, &request, Effort::Full),
                    Err(busy) => Err(busy.into()),
                };
                outcome.unwrap_or_else(|refusal| Outcome::Reply(refusal.into_reply()))
            });
        });
        Outcome::Deferred
    }

    fn closed(&self, connection: &Connection) {
        self.clients.closed(connection);
        self.pull.closed(connection);
    }
}

fn unsupported(code: RequestCode) -> Refusal {
    // The leading blank is Java's.
    Refusal::new(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, format!(" request type {code} not supported"))
}

/// The main port.
pub(crate) struct MainPort(pub Arc<Dispatch>);

impl Service for MainPort {
    fn serve(&self, requests: &mut Requests<'_>) {
        self.0.serve(requests, Dispatch::handle);
    }

    fn closed(&self, connection: &Connection) {
        self.0.closed(connection);
    }
}

/// The fast ("VIP") port, where nothing waits for messages.
pub(crate) struct FastPort(pub Arc<Dispatch>);

impl Service for FastPort {
    fn serve(&self, requests: &mut Requests<'_>) {
        self.0.serve(requests, |dispatch, round, connection, request| match request.request_code() {
            code @ (RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE) => {
                Outcome::Reply(unsupported(code).into_reply())
            }
            _ => dispatch.handle(round, connection, request),
        });
    }

    fn closed(&self, connection: &Connection) {
        self.0.closed(connection);
    }
}
