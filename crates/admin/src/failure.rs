//! How a failed command reports itself: on stderr, in the words of Java's exceptions, because scripts look for them.

use ferromq_client::AdminError;

/// The FAQ pointer that Java appends to remarks that do not carry one.
const FAQ: &str = "https://rocketmq.apache.org/docs/bestPractice/06FAQ";

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{}", describe(.0))]
    Admin(#[from] AdminError),
    /// A client-side refusal with a response code, as Java's `MQClientException(code, text)`.
    #[error("org.apache.rocketmq.client.exception.MQClientException: CODE: {code}  DESC: {text}{}", faq(text))]
    Client { code: i32, text: String },
    /// A client-side refusal without code.
    #[error("org.apache.rocketmq.client.exception.MQClientException: {}{}", .0, faq(.0))]
    Plain(String),
    #[error("java.lang.NumberFormatException: For input string: \"{0}\"")]
    Number(String),
    #[error("java.lang.RuntimeException: {0}")]
    Runtime(String),
    #[error("java.io.IOException: {0}")]
    Io(#[from] std::io::Error),
}

/// Parses a number as `Integer.parseInt` and its kin do.
pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::Number(text.to_owned()))
}

fn faq(text: &str) -> String {
    if text.contains(FAQ) { String::new() } else { format!("\nFor more information, please visit the url, {FAQ}") }
}

fn describe(error: &AdminError) -> String {
    match error {
        AdminError::Connect { addr, .. } => {
            format!("org.apache.rocketmq.remoting.exception.RemotingConnectException: connect to {addr} failed")
        }
        AdminError::NoNameserver => {
            "org.apache.rocketmq.remoting.exception.RemotingConnectException: connect to null failed".to_owned()
        }
        AdminError::Timeout { addr, timeout } => format!(
            "org.apache.rocketmq.remoting.exception.RemotingTimeoutException: wait response on the channel <{addr}> timeout, {}(ms)",
            timeout.as_millis()
        ),
        AdminError::Send { addr, .. } => format!(
            "org.apache.rocketmq.remoting.exception.RemotingSendRequestException: send request to <{addr}> failed"
        ),
        AdminError::Refused { code, remark, broker: Some(addr) } => {
            format!(
                "org.apache.rocketmq.client.exception.MQBrokerException: CODE: {code}  DESC: {remark} BROKER: {addr}{}",
                faq(remark),
                code = code.0
            )
        }
        AdminError::Refused { code, remark, broker: None } => {
            format!(
                "org.apache.rocketmq.client.exception.MQClientException: CODE: {code}  DESC: {remark}{}",
                faq(remark),
                code = code.0
            )
        }
        AdminError::Malformed { .. } => {
            format!("org.apache.rocketmq.remoting.exception.RemotingCommandException: {error}")
        }
    }
}
