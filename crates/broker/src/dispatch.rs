//! The dispatch table: one line per request code, what it touches, and how it gets to its handler.
//!
//! Runs on the connection's own task, or on a reader's thread. A refusal becomes its reply here. The fast port serves the same table without the codes that wait
//! for messages.

use std::sync::Arc;

use ferromq_protocol::{Command, RequestCode, ResponseCode};
use ferromq_remoting::{Connection, Outcome, Requests, Service};
use ferromq_store::{Effort, Round, Store};

use crate::acknowledge::{Acknowledgement, Acknowledgements, Promise};
use crate::call::{Body, Call};
use crate::clients::Clients;
use crate::consumer_offsets::ConsumerOffsets;
use crate::groups::Groups;
use crate::handlers::ha_status::HaStatus;
use crate::handlers::pull::PullPath;
use crate::handlers::recall::RecallPath;
use crate::handlers::relay::Relay;
use crate::handlers::reply::ReplyPath;
use crate::handlers::reset::ResetPath;
use crate::handlers::runtime_info::RuntimeInfo;
use crate::handlers::send::SendPath;
use crate::handlers::send_back::SendBackPath;
use crate::handlers::slaves::MasterFigures;
use crate::handlers::stats::Figures;
use crate::handlers::transactions::TransactionPath;
use crate::handlers::{clients, config, groups, locks, masters_only, offsets, query, retention, topics};
use crate::live_config::LiveConfig;
use crate::peer::Peer;
use crate::queue_locks::QueueLocks;
use crate::readers::Readers;
use crate::refusal::Refusal;
use crate::scrubbing::Scrubbing;
use crate::standing::Standing;
use crate::statistics::Statistics;
use crate::topics::Topics;

/// The parts that handlers are given. Nobody but this table holds them all.
pub(crate) struct Dispatch {
    pub config: Arc<LiveConfig>,
    pub standing: Arc<Standing>,
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
    pub for_slaves: MasterFigures,
    pub ha_status: HaStatus,
    pub readers: Arc<Readers>,
    pub scrubbing: Arc<Scrubbing>,
}

/// What a request is about, for whoever decides whether its sender may ask. Java: `ResourceType` and `Action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touches {
    Topic(Action),
    Group(Action),
    /// A group reads a topic, or moves in it.
    GroupInTopic(Action),
    /// The broker as a whole.
    Broker(Action),
    /// The groups and topics that the request names.
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Publish,
    Consume,
    Get,
    List,
    Update,
    Delete,
}

/// A line of the table.
struct Line {
    touches: Touches,
    handle: Handle,
    /// It may wait for messages: not on the fast port.
    waits: bool,
    /// It has no other effect than its answer: when a reader comes to it and there is nobody any more to take that, it need not be done.
    only_answers: bool,
}

type Handler = fn(&Dispatch, &Call<'_>) -> Result<Outcome, Refusal>;
type BodyHandler = fn(&Dispatch, &Call<'_>, Body<'_>) -> Result<Outcome, Refusal>;

/// Who does a request, and with what. A reader is given none with a body: what waits for the disk takes little memory.
enum Handle {
    /// The connection's task; a reader, when it turns out to need time.
    AtOnce(Handler),
    /// The connection's task, with the body.
    WithBody(BodyHandler),
    /// A reader: it always reads what may be old, or much, or copies a whole table, and never is one of many.
    AtLength(Handler),
}

impl Line {
    fn waits(self) -> Line {
        Line { waits: true, ..self }
    }

    fn only_answers(self) -> Line {
        Line { only_answers: true, ..self }
    }
}

fn line(touches: Touches, handler: Handler) -> Line {
    Line { touches, handle: Handle::AtOnce(handler), waits: false, only_answers: false }
}

fn with_body(touches: Touches, handler: BodyHandler) -> Line {
    Line { touches, handle: Handle::WithBody(handler), waits: false, only_answers: false }
}

fn at_length(touches: Touches, handler: Handler) -> Line {
    Line { touches, handle: Handle::AtLength(handler), waits: false, only_answers: false }
}

/// What a request with this code touches; `None` for one that the broker does not know.
pub fn touches(code: RequestCode) -> Option<Touches> {
    Some(find(code)?.touches)
}

/// The table. What is decoded is decoded here; handlers take values.
fn find(code: RequestCode) -> Option<Line> {
    use Action::{Consume, Delete, Get, List, Publish, Update};
    use Touches::{Broker, Client, Group, GroupInTopic, Topic};
    Some(match code {
        RequestCode::SEND_MESSAGE | RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE => {
            with_body(Topic(Publish), |d, call, body| {
                let sent = d.send.send(call.round, &call.origin, &call.header()?, body.0)?;
                d.acknowledge(call, sent)
            })
        }
        RequestCode::SEND_REPLY_MESSAGE | RequestCode::SEND_REPLY_MESSAGE_V2 => {
            with_body(Topic(Publish), |d, call, body| {
                call.answer(d.reply.reply(call.round, &call.origin, &call.header()?, body.0)?)
            })
        }
        RequestCode::RECALL_MESSAGE => line(Topic(Publish), |d, call| {
            let recalled = d.recall.recall(call.round, &call.origin, call.request.header())?;
            d.acknowledge(call, recalled)
        }),
        RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE => line(GroupInTopic(Consume), |d, call| {
            let slot = || call.connection.held_slot(call.request);
            let code = call.request.request_code();
            let pulled = d.pull.pull(&call.origin, code, &call.header()?, call.effort, slot)?;
            Ok(pulled.map_or(Outcome::Deferred, Outcome::Reply))
        })
        .waits()
        .only_answers(),
        RequestCode::HEART_BEAT => with_body(Client, |d, call, body| {
            let (config, heartbeat) = (d.config.current(), body.json()?);
            let (origin, connection) = (&call.origin, call.connection);
            call.reply(clients::heartbeat(&d.clients, &d.groups, &d.topics, &config, origin, connection, heartbeat)?)
        }),
        RequestCode::UNREGISTER_CLIENT => {
            line(Client, |d, call| call.reply(clients::unregister(&d.clients, call.connection, &call.header()?)?))
        }
        RequestCode::CHECK_CLIENT_CONFIG => {
            with_body(Client, |d, call, body| call.reply(clients::check_config(&d.config.current(), body.json()?)?))
        }
        RequestCode::GET_CONSUMER_LIST_BY_GROUP => {
            line(Group(Consume), |d, call| call.reply(clients::consumer_ids(&d.clients, &call.header()?)?))
        }
        RequestCode::GET_CONSUMER_CONNECTION_LIST => {
            line(Group(Get), |d, call| call.reply(clients::consumer_connections(&d.clients, &call.header()?)?))
        }
        RequestCode::GET_PRODUCER_CONNECTION_LIST => {
            line(Broker(Get), |d, call| call.reply(clients::producer_connections(&d.clients, &call.header()?)?))
        }
        RequestCode::GET_ALL_PRODUCER_INFO => {
            at_length(Broker(Get), |d, call| call.reply(clients::producers(&d.clients))).only_answers()
        }
        RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER => {
            line(Group(Get), |d, call| call.reply(clients::subscription(&d.clients, call.header()?)))
        }
        RequestCode::LOCK_BATCH_MQ => {
            with_body(Client, |d, call, body| call.reply(locks::lock(&d.locks, call.origin.peer, body.json()?)))
        }
        RequestCode::UNLOCK_BATCH_MQ => {
            with_body(Client, |d, call, body| call.reply(locks::unlock(&d.locks, &body.json()?)))
        }
        RequestCode::QUERY_CONSUMER_OFFSET => line(GroupInTopic(Consume), |d, call| {
            call.reply(offsets::query(&d.offsets, &d.topics, &d.store, &call.header()?, call.effort)?)
        })
        .only_answers(),
        RequestCode::UPDATE_CONSUMER_OFFSET => line(GroupInTopic(Consume), |d, call| {
            call.reply(offsets::update(&d.offsets, &d.topics, &d.groups, &call.header()?)?)
        }),
        RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => {
            at_length(Topic(Get), |d, call| call.reply(offsets::search(&d.store, &call.header()?)?)).only_answers()
        }
        RequestCode::GET_MAX_OFFSET => line(Topic(Get), |d, call| call.reply(offsets::max(&d.store, &call.header()?)?)),
        RequestCode::GET_MIN_OFFSET => line(Topic(Get), |d, call| call.reply(offsets::min(&d.store, &call.header()?)?)),
        RequestCode::GET_EARLIEST_MSG_STORETIME => {
            at_length(Topic(Get), |d, call| call.reply(offsets::earliest_store_time(&d.store, &call.header()?)?))
                .only_answers()
        }
        RequestCode::CONSUMER_SEND_MSG_BACK => line(Group(Consume), |d, call| {
            let given_back = d.send_back.send_back(call.round, &call.origin, &call.header()?, call.effort)?;
            d.acknowledge(call, given_back)
        }),
        RequestCode::END_TRANSACTION => {
            line(Topic(Publish), |d, call| match d.transactions.end(call.round, &call.header()?, call.effort)? {
                Some(ended) => d.acknowledge(call, ended),
                None => Ok(Outcome::Deferred),
            })
        }
        RequestCode::RESUME_CHECK_HALF_MESSAGE => {
            at_length(Topic(Update), |d, call| call.reply(d.transactions.resume_check(call.round, &call.header()?)?))
        }
        RequestCode::QUERY_MESSAGE => at_length(Topic(Get), |d, call| {
            let unique = call.request.field(query::UNIQUE_KEY_QUERY);
            let unique = unique.is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
            call.reply(query::by_key(&d.config.current(), &d.store, &call.header()?, unique)?)
        })
        .only_answers(),
        RequestCode::VIEW_MESSAGE_BY_ID => {
            at_length(Broker(Get), |d, call| call.reply(query::by_offset(&d.store, &call.header()?)?)).only_answers()
        }
        RequestCode::UPDATE_AND_CREATE_TOPIC => line(Topic(Update), |d, call| {
            call.answer(topics::update(&d.config.current(), &d.topics, &call.origin, call.header()?)?)
        }),
        RequestCode::UPDATE_AND_CREATE_TOPIC_LIST => with_body(Topic(Update), |d, call, body| {
            call.answer(topics::update_list(&d.config.current(), &d.topics, &call.origin, body.json()?)?)
        }),
        RequestCode::DELETE_TOPIC_IN_BROKER => {
            line(Topic(Delete), |d, call| call.answer(topics::delete(d.deletion(), &call.origin, call.header()?)?))
        }
        RequestCode::CLEAN_UNUSED_TOPIC => {
            line(Broker(Delete), |d, call| call.answer(topics::clean_unused(d.deletion())))
        }
        RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE => {
            line(Broker(Delete), |d, call| call.answer(topics::clean_expired(d.deletion())))
        }
        RequestCode::DELETE_EXPIRED_COMMITLOG => {
            line(Broker(Delete), |d, call| call.reply(retention::delete_expired(&d.store, &call.origin)))
        }
        RequestCode::GET_ALL_TOPIC_CONFIG => {
            at_length(Topic(List), |d, call| call.reply(topics::all(&d.topics))).only_answers()
        }
        RequestCode::GET_TOPIC_CONFIG => {
            line(Topic(Get), |d, call| call.reply(topics::one(&d.topics, &call.header()?)?))
        }
        RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => {
            line(Topic(List), |d, call| call.reply(topics::system(&d.config.current())))
        }
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => with_body(Group(Update), |d, call, body| {
            call.answer(groups::update(&d.groups, &call.origin, body.json()?)?)
        }),
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => with_body(Group(Update), |d, call, body| {
            call.answer(groups::update_list(&d.groups, &call.origin, body.json()?)?)
        }),
        RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => {
            at_length(Group(List), |d, call| call.reply(groups::all(&d.groups))).only_answers()
        }
        RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG => {
            line(Group(Get), |d, call| call.reply(groups::one(&d.groups, &call.header()?)?))
        }
        RequestCode::DELETE_SUBSCRIPTIONGROUP => line(Group(Delete), |d, call| {
            call.answer(groups::delete(&d.groups, &d.offsets, &d.statistics, &call.origin, &call.header()?))
        }),
        RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN => {
            line(GroupInTopic(Update), |d, call| call.answer(groups::forbidden(&d.groups, &call.header()?)?))
        }
        RequestCode::UPDATE_BROKER_CONFIG => with_body(Broker(Update), |d, call, body| {
            call.answer(config::update(&d.config, &d.topics, &d.store, &d.scrubbing, &call.origin, body.text()?)?)
        }),
        RequestCode::GET_BROKER_CONFIG => line(Broker(Get), |d, call| call.reply(config::listing(&d.config))),
        RequestCode::GET_BROKER_RUNTIME_INFO => {
            at_length(Broker(Get), |d, call| call.reply(d.runtime.answer())).only_answers()
        }
        RequestCode::GET_ALL_CONSUMER_OFFSET => {
            at_length(Broker(Get), |d, call| call.reply(d.figures.consumer_offsets()?)).only_answers()
        }
        RequestCode::GET_ALL_DELAY_OFFSET => line(Broker(Get), |d, call| call.reply(d.figures.delay_offsets()?)),
        RequestCode::GET_TIMER_CHECK_POINT => {
            line(Broker(Get), |d, call| call.reply(d.for_slaves.timer_check_point()?))
        }
        RequestCode::GET_TIMER_METRICS => line(Broker(Get), |d, call| call.reply(d.for_slaves.timer_metrics()?)),
        RequestCode::GET_ALL_MESSAGE_REQUEST_MODE => {
            line(Broker(Get), |d, call| call.reply(d.for_slaves.message_request_modes()))
        }
        RequestCode::EXCHANGE_BROKER_HA_INFO => {
            line(Broker(Update), |d, call| call.reply(d.for_slaves.exchange_addresses(call.header()?)?))
        }
        RequestCode::GET_BROKER_HA_STATUS => line(Broker(Get), |d, call| call.reply(d.ha_status.answer())),
        RequestCode::GET_TOPIC_STATS_INFO => {
            at_length(Topic(Get), |d, call| call.reply(d.figures.topic(&call.header()?)?)).only_answers()
        }
        RequestCode::GET_CONSUME_STATS => {
            at_length(Group(Get), |d, call| call.reply(d.figures.group(&call.header()?)?)).only_answers()
        }
        RequestCode::GET_BROKER_CONSUME_STATS => {
            at_length(Broker(Get), |d, call| call.reply(d.figures.all_groups(&call.header()?)?)).only_answers()
        }
        RequestCode::QUERY_TOPIC_CONSUME_BY_WHO => {
            line(Topic(Get), |d, call| call.reply(d.figures.groups_of_topic(&call.header()?)?))
        }
        RequestCode::QUERY_TOPICS_BY_CONSUMER => {
            line(Group(Get), |d, call| call.reply(d.figures.topics_of_group(&call.header()?)?))
        }
        RequestCode::QUERY_CONSUME_TIME_SPAN => {
            at_length(GroupInTopic(Get), |d, call| call.reply(d.figures.time_span(&call.header()?)?)).only_answers()
        }
        RequestCode::QUERY_CONSUME_QUEUE => {
            at_length(Topic(Get), |d, call| call.reply(d.figures.queue_entries(&call.header()?)?)).only_answers()
        }
        RequestCode::VIEW_BROKER_STATS_DATA => {
            line(Broker(Get), |d, call| call.reply(d.figures.counter(&call.header()?)?))
        }
        RequestCode::INVOKE_BROKER_TO_RESET_OFFSET => {
            at_length(GroupInTopic(Update), |d, call| call.answer(d.reset.reset(&call.origin, &call.header()?)?))
        }
        RequestCode::CLONE_GROUP_OFFSET => line(Group(Update), |d, call| call.answer(d.reset.clone(call.header()?)?)),
        RequestCode::GET_CONSUMER_RUNNING_INFO => {
            line(Group(Get), |d, call| call.answer(d.relay.running_info(&call.header()?, &call.request.fields)?))
        }
        RequestCode::CONSUME_MESSAGE_DIRECTLY => at_length(GroupInTopic(Update), |d, call| {
            call.answer(d.relay.consume_directly(&call.header()?, &call.request.fields)?)
        }),
        _ => return None,
    })
}

impl Dispatch {
    fn acknowledge<A: Acknowledgement>(&self, call: &Call<'_>, promise: Promise<A>) -> Result<Outcome, Refusal> {
        Ok(self.acknowledgements.acknowledge(call.round, promise, || call.slot()))
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
    fn serve(self: &Arc<Self>, requests: &mut Requests<'_>, may_wait: bool) {
        let round = self.store.round();
        requests.each(|connection, request| self.handle(&round, connection, request, may_wait));
        round.flush();
        requests.reply();
    }

    /// With [`Effort::Brief`] nothing has been done yet that would be done once more when the refusal says that it needs time; lines that
    /// are at length come with [`Effort::Full`] only. Those with a body never need time.
    fn handle(
        self: &Arc<Self>,
        round: &Round<'_>,
        connection: &Connection,
        mut request: Command,
        may_wait: bool,
    ) -> Outcome {
        let code = request.request_code();
        let Some(line) = find(code).filter(|line| may_wait || !line.waits) else {
            return Outcome::Reply(unsupported(code).into_reply());
        };
        if self.standing.is_slave()
            && let Some(answer) = masters_only::answer_of_slave(code)
        {
            return Outcome::Reply(answer);
        }
        // Only lines with a body get it: no other could rely on it.
        let body = std::mem::take(&mut request.body);
        let handled = match line.handle {
            Handle::AtLength(handler) => return self.hand_over(handler, line.only_answers, connection, request),
            Handle::AtOnce(handler) => {
                let handled = handler(self, &Call::new(round, connection, &request, Effort::Brief));
                if handled.as_ref().is_err_and(|refusal| refusal.needs_time) {
                    return self.hand_over(handler, line.only_answers, connection, request);
                }
                handled
            }
            Handle::WithBody(handler) => {
                let handled = handler(self, &Call::new(round, connection, &request, Effort::Brief), Body(&body));
                debug_assert!(!handled.as_ref().is_err_and(|refusal| refusal.needs_time), "no reader is given a body");
                handled
            }
        };
        handled.unwrap_or_else(|refusal| Outcome::Reply(refusal.into_reply()))
    }

    /// Leaves a request to a thread that may wait for the disk.
    fn hand_over(
        self: &Arc<Self>,
        handler: Handler,
        only_answers: bool,
        connection: &Connection,
        mut request: Command,
    ) -> Outcome {
        request.remark = None;
        request.fields = request.fields.into_owned();
        let len = request.fields.encoded_len();
        let (parts, from, slot) = (Arc::clone(self), connection.clone(), connection.reply_slot(&request));
        self.readers.submit(Peer::of(connection), len, move |room| {
            if slot.is_closed() && only_answers {
                return;
            }
            let round = parts.store.round();
            slot.answer(request.code, || {
                let outcome = match room {
                    Ok(()) => handler(&parts, &Call::new(&round, &from, &request, Effort::Full)),
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

/// One of the two ports. On the fast ("VIP") one nothing waits for messages.
pub(crate) struct Port {
    pub dispatch: Arc<Dispatch>,
    pub may_wait: bool,
}

impl Service for Port {
    fn serve(&self, requests: &mut Requests<'_>) {
        self.dispatch.serve(requests, self.may_wait);
    }

    fn closed(&self, connection: &Connection) {
        self.dispatch.closed(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever adds a line says here once more what it touches; access control goes by it.
    #[test]
    fn every_code_says_what_it_touches() {
        let table = |touched: &dyn Fn(Touches) -> bool| {
            let codes = (0..10_000).filter(|code| touches(RequestCode(*code)).is_some_and(touched));
            codes.collect::<Vec<_>>()
        };
        assert_eq!(table(&|t| t == Touches::Topic(Action::Publish)), [10, 37, 310, 320, 324, 325, 370]);
        assert_eq!(table(&|t| t == Touches::Topic(Action::Get)), [12, 29, 30, 31, 32, 202, 300, 321, 351]);
        assert_eq!(table(&|t| t == Touches::Topic(Action::List)), [21, 305]);
        assert_eq!(table(&|t| matches!(t, Touches::Topic(Action::Update | Action::Delete))), [17, 18, 215, 323]);
        assert_eq!(table(&|t| t == Touches::Group(Action::Consume)), [36, 38]);
        assert_eq!(table(&|t| t == Touches::Group(Action::Get)), [203, 208, 307, 343, 345, 352]);
        assert_eq!(
            table(&|t| matches!(t, Touches::Group(Action::List | Action::Update | Action::Delete))),
            [200, 201, 207, 225, 314]
        );
        assert_eq!(table(&|t| t == Touches::GroupInTopic(Action::Consume)), [11, 14, 15, 361]);
        assert_eq!(table(&|t| matches!(t, Touches::GroupInTopic(Action::Get | Action::Update))), [222, 303, 309, 353]);
        assert_eq!(table(&|t| t == Touches::Client), [34, 35, 41, 42, 46]);
        assert_eq!(
            table(&|t| matches!(t, Touches::Broker(_))),
            [25, 26, 28, 33, 43, 45, 60, 61, 204, 306, 315, 316, 317, 328, 329, 402, 906, 907]
        );
        assert_eq!(table(&|_| true).len(), 66);
    }
}
