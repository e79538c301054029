//! The handle for admin requests, and how one request becomes an answer or an error.

use std::time::Duration;

use ferromq_protocol::{Command, EncodeFields, RequestCode, ResponseCode, json};
use ferromq_remoting::{Client, ClientConfig};
use serde::de::DeserializeOwned;

use crate::{AdminError, NameServers};

/// Where to start, and how long to wait.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// `host:port;host:port`.
    pub namesrv: String,
    /// For each request. Java: 5 s.
    pub timeout: Duration,
}

impl AdminConfig {
    pub fn new(namesrv: &str) -> AdminConfig {
        AdminConfig { namesrv: namesrv.to_owned(), timeout: Duration::from_secs(5) }
    }
}

/// Asks nameservers and brokers. Methods are in the file of their subject: `topics`, `groups`, `offsets`, `messages`, `brokers`.
pub struct Admin {
    pub(crate) client: Client,
    pub(crate) name_servers: NameServers,
    timeout: Duration,
}

impl Admin {
    /// Connects to nothing yet; must be used inside a tokio runtime.
    pub fn new(config: AdminConfig) -> Admin {
        let client = Client::new(ClientConfig::default(), None);
        let name_servers = NameServers::new(&config.namesrv, client.clone(), config.timeout);
        Admin { client, name_servers, timeout: config.timeout }
    }

    pub fn nameservers(&self) -> &[String] {
        self.name_servers.addrs()
    }

    /// Closes all connections.
    pub async fn shutdown(&self) {
        self.client.clone().shutdown().await;
    }

    /// Any request to a broker; any answer counts, whatever its code.
    pub async fn invoke_broker(&self, addr: &str, request: Command) -> Result<Command, AdminError> {
        self.client
            .invoke(addr, request, self.timeout)
            .await
            .map_err(|error| AdminError::from_invoke(addr, self.timeout, error))
    }

    /// A request to a broker that must succeed.
    pub(crate) async fn ask(&self, addr: &str, request: Command) -> Result<Command, AdminError> {
        succeeded(self.invoke_broker(addr, request).await?)
    }

    /// A request to a broker whose refusal names the broker. Java: `MQBrokerException`.
    pub(crate) async fn ask_named(&self, addr: &str, request: Command) -> Result<Command, AdminError> {
        self.ask(addr, request).await.map_err(|error| match error {
            AdminError::Refused { code, remark, .. } => {
                AdminError::Refused { code, remark, broker: Some(addr.to_owned()) }
            }
            other => other,
        })
    }

    /// A request to a broker whose answer is JSON.
    pub(crate) async fn ask_json<T: DeserializeOwned>(
        &self,
        addr: &str,
        code: RequestCode,
        header: &dyn EncodeFields,
    ) -> Result<T, AdminError> {
        body(addr, &self.ask_named(addr, Command::request(code, header)).await?)
    }

    /// A request to any nameserver whose answer is JSON.
    pub(crate) async fn ask_nameserver<T: DeserializeOwned>(
        &self,
        code: RequestCode,
        header: &dyn EncodeFields,
    ) -> Result<T, AdminError> {
        let (reply, addr) = self.name_servers.invoke(Command::request(code, header)).await?;
        body(addr, &succeeded(reply)?)
    }
}

pub(crate) fn succeeded(reply: Command) -> Result<Command, AdminError> {
    if reply.response_code() == ResponseCode::SUCCESS { Ok(reply) } else { Err(AdminError::refused(&reply)) }
}

pub(crate) fn body<T: DeserializeOwned>(addr: &str, reply: &Command) -> Result<T, AdminError> {
    json::from_slice(&reply.body).map_err(|error| AdminError::malformed(addr, error))
}
