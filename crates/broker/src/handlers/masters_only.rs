//! What a slave answers to requests that are its master's. Its log, topics and groups are copies: whatever would change them is refused here,
//! before anything is made for it.

use ferromq_protocol::{Reply, RequestCode, ResponseCode};

/// The answer to a request that a slave does not do; `None` for one that it does. Java 5.3.3 gives SYSTEM_BUSY (2) to sends, which reads as if
/// waiting helped, and takes changes of topics and groups, to lose them with its next look at the master's.
pub(crate) fn answer_of_slave(code: RequestCode) -> Option<Reply> {
    let refuse = |code, remark: &'static str| Some(Reply::error(code, remark));
    match code {
        RequestCode::SEND_MESSAGE
        | RequestCode::SEND_MESSAGE_V2
        | RequestCode::SEND_BATCH_MESSAGE
        | RequestCode::SEND_REPLY_MESSAGE
        | RequestCode::SEND_REPLY_MESSAGE_V2
        | RequestCode::CONSUMER_SEND_MSG_BACK
        | RequestCode::RESUME_CHECK_HALF_MESSAGE => refuse(
            ResponseCode::SERVICE_NOT_AVAILABLE,
            "this broker is a slave and stores no messages but its master's; send to the master",
        ),
        RequestCode::END_TRANSACTION => {
            refuse(ResponseCode::SLAVE_NOT_AVAILABLE, "this broker is a slave: transactions end at the master")
        }
        RequestCode::RECALL_MESSAGE => {
            refuse(ResponseCode::SLAVE_NOT_AVAILABLE, "recall failed, broker service not available")
        }
        // The words of Java's check, which 5.3.3 has and does not call.
        RequestCode::UPDATE_AND_CREATE_TOPIC
        | RequestCode::UPDATE_AND_CREATE_TOPIC_LIST
        | RequestCode::DELETE_TOPIC_IN_BROKER
        | RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP
        | RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST
        | RequestCode::DELETE_SUBSCRIPTIONGROUP
        | RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN => refuse(
            ResponseCode::SYSTEM_ERROR,
            "Can't modify topic or subscription group from slave broker, please execute it from master broker.",
        ),
        RequestCode::INVOKE_BROKER_TO_RESET_OFFSET | RequestCode::CLONE_GROUP_OFFSET => {
            refuse(ResponseCode::SYSTEM_ERROR, "Can not reset offset in slave broker")
        }
        // mqadmin asks all brokers of a cluster, and gives up at one that refuses: what the master cleans goes here too.
        RequestCode::CLEAN_UNUSED_TOPIC | RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE => Some(Reply::ok()),
        _ => None,
    }
}
