//! Work that waits for the disk, on threads that may wait: at once, or beyond the bound (`BLOCKING`) not at all, with the answer "busy".

use ferromq_protocol::{Command, Reply, ResponseCode};
use ferromq_remoting::{BLOCKING, Connection, Outcome};

use crate::refusal::Refusal;

/// Runs work that waits for the disk on a thread that may wait, and answers when it is done.
pub(crate) fn answer_off_task(
    connection: &Connection,
    command: &Command,
    work: impl FnOnce() -> Result<Reply, Refusal> + Send + 'static,
) -> Outcome {
    let Some(pass) = BLOCKING.enter(connection.peer_network()) else {
        let remark = "[OVERLOAD]system busy, start flow control for a while: too many requests wait for the disk";
        return Outcome::Reply(Refusal::new(ResponseCode::SYSTEM_BUSY, remark).into_reply());
    };
    let (slot, code) = (connection.reply_slot(command), command.code);
    tokio::task::spawn_blocking(move || {
        slot.answer(code, move || {
            // Free again before the answer, which may bring the next request.
            let _pass = pass;
            Outcome::Reply(work().unwrap_or_else(Refusal::into_reply))
        });
    });
    Outcome::Deferred
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ferromq_protocol::NoFields;
    use ferromq_remoting::{Client, ClientConfig, Requests, Server, ServerConfig, Service};

    use super::*;

    struct Panics;

    impl Service for Panics {
        fn serve(&self, requests: &mut Requests<'_>) {
            requests.each(|connection, request| answer_off_task(connection, &request, || panic!("a bad day")));
        }
    }

    #[tokio::test]
    async fn work_that_panics_is_answered_and_takes_no_share() {
        let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
        let server = Server::bind(config, Arc::new(Panics)).await.unwrap();
        let client = Client::new(ClientConfig::default(), None);
        let connection = client.connect(&server.local_addr().to_string()).await.unwrap();
        // More than may be under way for one address.
        for _ in 0..100 {
            let request = Command::request(123.into(), &NoFields);
            let reply = connection.invoke(request, Duration::from_secs(300)).await.unwrap();
            assert_eq!(reply.remark.as_deref(), Some("internal error in request 123: a bad day"));
        }
        client.shutdown().await;
        server.shutdown(Duration::ZERO).await;
    }
}
