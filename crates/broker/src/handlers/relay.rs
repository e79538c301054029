//! Requests that a tool asks the broker and a consumer answers: 307 (running info), 309 (consume this message now).
//!
//! The request goes to the client with its fields as they came; the client's answer goes back as it is. A task of its own waits for it,
//! ten seconds at most, so that the connection of the tool is not held up. Java: `AdminBrokerProcessor.callConsumer`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ferromq_protocol::header::{ConsumeDirectlyRequest, ConsumerRunningInfoRequest};
use ferromq_protocol::message::OffsetMessageId;
use ferromq_protocol::{Command, Fields, NoFields, Reply, RequestCode, ResponseCode};
use ferromq_remoting::InvokeError;
use ferromq_store::{Effort, Store};

use crate::answer::Answer;
use crate::clients::{Clients, ConnectedClient};
use crate::groups::Groups;
use crate::refusal::Refusal;
use crate::topics::Topics;

/// How long a client may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Client version that answers such requests. Java: `MQVersion.Version.V3_1_8_SNAPSHOT`.
const VERSION_3_1_8: i32 = 62;

/// The parts that relaying uses.
pub(crate) struct Relay {
    pub broker_name: String,
    pub clients: Arc<Clients>,
    pub topics: Arc<Topics>,
    pub groups: Arc<Groups>,
    pub store: Arc<Store>,
}

impl Relay {
    /// GET_CONSUMER_RUNNING_INFO.
    pub(crate) fn running_info(
        &self,
        request: &ConsumerRunningInfoRequest,
        fields: &Fields,
    ) -> Result<Answer, Refusal> {
        let forwarded =
            Command { fields: fields.clone(), ..Command::request(RequestCode::GET_CONSUMER_RUNNING_INFO, &NoFields) };
        self.call(forwarded, &request.consumer_group, &request.client_id)
    }

    /// CONSUME_MESSAGE_DIRECTLY: the stored message goes along as the body.
    pub(crate) fn consume_directly(
        &self,
        request: &ConsumeDirectlyRequest,
        fields: &Fields,
    ) -> Result<Answer, Refusal> {
        let mut forwarded =
            Command { fields: fields.clone(), ..Command::request(RequestCode::CONSUME_MESSAGE_DIRECTLY, &NoFields) };
        forwarded = forwarded.with_field("brokerName", &self.broker_name);
        if let Some(topic) = request.topic.as_deref().and_then(|topic| self.topics.find(topic)) {
            forwarded = forwarded.with_field("topicSysFlag", &topic.topic_sys_flag.to_string());
        }
        if let Some(group) = self.groups.find(&request.consumer_group) {
            forwarded = forwarded.with_field("groupSysFlag", &group.group_sys_flag.to_string());
        }
        if let Some(id) = request.msg_id.as_deref().filter(|id| !id.is_empty()) {
            let place: OffsetMessageId = id
                .parse()
                .map_err(|error| Refusal::system_error(format!("message id {id} is no offset id: {error}")))?;
            let Some(message) = self.store.message_at(place.physical_offset, Effort::Full)? else {
                return Err(Refusal::system_error(format!(
                    "can not find message by the offset, {}",
                    place.physical_offset
                )));
            };
            forwarded = forwarded.with_body(message);
        }
        self.call(forwarded, &request.consumer_group, request.client_id.as_deref().unwrap_or_default())
    }

    fn call(&self, request: Command, group: &str, client_id: &str) -> Result<Answer, Refusal> {
        let Some(client) = self.clients.consumers(group).into_iter().find(|client| *client.client_id == *client_id)
        else {
            return Err(Refusal::system_error(format!("The Consumer <{group}> <{client_id}> not online")));
        };
        if client.version < VERSION_3_1_8 {
            return Err(Refusal::system_error(format!(
                "The Consumer <{client_id}> Version <{}> too low to finish, please upgrade it to V3_1_8",
                ferromq_protocol::version_name(client.version)
            )));
        }
        let group = group.to_owned();
        // Ends with the client's answer, its connection or the timeout; a shutdown waits until then.
        Ok(Answer::later(|respond| {
            tokio::spawn(async move {
                let answer = client.connection.invoke(request, TIMEOUT).await;
                respond(relayed(answer, &group, &client));
            });
        }))
    }
}

/// The client's answer, or why there is none, in Java's words.
fn relayed(answer: Result<Command, InvokeError>, group: &str, client: &ConnectedClient) -> Reply {
    let label = ClientLabel { group, client };
    match answer {
        Ok(answer) => {
            let mut reply = Reply::new(answer.response_code()).body(answer.body);
            reply.remark = answer.remark.map(|remark| remark.to_string().into());
            if answer.fields.is_present() { reply.header(answer.fields) } else { reply }
        }
        Err(error @ InvokeError::TimedOut { .. }) => {
            Reply::error(ResponseCode::CONSUME_MSG_TIMEOUT, format!("consumer {label} Timeout: {error}"))
        }
        Err(error) => Reply::error(ResponseCode::SYSTEM_ERROR, format!("invoke consumer {label} Exception: {error}")),
    }
}

struct ClientLabel<'a> {
    group: &'a str,
    client: &'a ConnectedClient,
}

impl fmt::Display for ClientLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}> <{}>", self.group, self.client.client_id)
    }
}
