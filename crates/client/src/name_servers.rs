//! The known nameservers: one is used until it fails, then the next. Java: `NettyRemotingClient.getAndCreateNameserverChannel`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferromq_protocol::Command;
use ferromq_remoting::Client;

use crate::AdminError;

/// A list of nameservers and the client to reach them with.
pub struct NameServers {
    addrs: Vec<String>,
    client: Client,
    timeout: Duration,
    current: AtomicUsize,
}

impl NameServers {
    /// `list` is `host:port;host:port`; blanks and empty parts are ignored.
    pub fn new(list: &str, client: Client, timeout: Duration) -> NameServers {
        let addrs: Vec<String> =
            list.split(';').map(str::trim).filter(|addr| !addr.is_empty()).map(str::to_owned).collect();
        NameServers { addrs, client, timeout, current: AtomicUsize::new(0) }
    }

    pub fn addrs(&self) -> &[String] {
        &self.addrs
    }

    /// Asks the nameserver in use; when it cannot be reached, each other one in turn. Any answer counts, whatever its code.
    ///
    /// Returns the answer and who gave it.
    pub async fn invoke(&self, request: Command) -> Result<(Command, &str), AdminError> {
        let start = self.current.load(Ordering::Relaxed);
        let mut failure = AdminError::NoNameserver;
        for step in 0..self.addrs.len() {
            let at = (start + step) % self.addrs.len();
            let addr = &self.addrs[at];
            match self.client.invoke(addr, request.clone(), self.timeout).await {
                Ok(reply) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok((reply, addr));
                }
                Err(error) => failure = AdminError::from_invoke(addr, self.timeout, error),
            }
        }
        Err(failure)
    }

    /// Asks one particular nameserver.
    pub async fn invoke_at(&self, addr: &str, request: Command) -> Result<Command, AdminError> {
        self.client
            .invoke(addr, request, self.timeout)
            .await
            .map_err(|error| AdminError::from_invoke(addr, self.timeout, error))
    }
}
