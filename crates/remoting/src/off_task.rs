//! Work that waits for the disk, on threads that may wait: at once, or beyond the bound not at all.

use ferromq_protocol::{Command, Reply};

use crate::connection::Connection;
use crate::gate::BLOCKING;
use crate::service::Outcome;

/// Runs work that waits for the disk on a thread that may wait, and answers with what comes of it. When all such threads, or the share
/// of the peer's address, are taken the answer is `busy`.
pub fn answer_off_task(
    connection: &Connection,
    request: &Command,
    busy: impl FnOnce() -> Reply,
    work: impl FnOnce() -> Reply + Send + 'static,
) -> Outcome {
    let Some(pass) = BLOCKING.enter(connection.peer_network()) else { return Outcome::Reply(busy()) };
    let (slot, code) = (connection.reply_slot(request), request.code);
    tokio::task::spawn_blocking(move || {
        slot.answer(code, move || {
            // Free again before the answer, which may bring the next request.
            let _pass = pass;
            Outcome::Reply(work())
        });
    });
    Outcome::Deferred
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ferromq_protocol::{NoFields, ResponseCode};
    use parking_lot::{Condvar, Mutex};

    use super::*;
    use crate::client::{Client, ClientConfig};
    use crate::server::{Server, ServerConfig};
    use crate::service::{Requests, Service};

    const PATIENCE: Duration = Duration::from_secs(300);
    const PANIC: i32 = 123;

    /// Whose work takes until it is let go.
    #[derive(Default)]
    struct HeldWork {
        free: Mutex<bool>,
        freed: Condvar,
    }

    struct Front(Arc<HeldWork>);

    impl Service for Front {
        fn serve(&self, requests: &mut Requests<'_>) {
            requests.each(|connection, request| {
                let (held, code) = (Arc::clone(&self.0), request.code);
                let busy = || Reply::error(ResponseCode::SYSTEM_BUSY, "busy");
                answer_off_task(connection, &request, busy, move || {
                    assert_ne!(code, PANIC, "a bad day");
                    let mut free = held.free.lock();
                    held.freed.wait_while(&mut free, |free| !*free);
                    Reply::ok()
                })
            });
        }
    }

    #[tokio::test]
    async fn an_address_has_its_share_again_whatever_becomes_of_its_work() {
        let held = Arc::new(HeldWork::default());
        let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
        let server = Server::bind(config, Arc::new(Front(Arc::clone(&held)))).await.unwrap();
        let client = Client::new(ClientConfig::default(), None);
        let connection = client.connect(&server.local_addr().to_string()).await.unwrap();
        let ask = |code: i32| {
            let connection = connection.clone();
            let request = Command::request(code.into(), &NoFields);
            tokio::spawn(async move { connection.invoke(request, PATIENCE).await.unwrap() })
        };
        // More than may be under way for one address.
        for _ in 0..100 {
            let remark = ask(PANIC).await.unwrap().remark.unwrap();
            assert!(remark.starts_with("internal error in request 123: ") && remark.contains("a bad day"), "{remark}");
        }
        let mut waiting = Vec::new();
        let busy = loop {
            let mut asked = ask(1);
            match tokio::time::timeout(Duration::from_millis(20), &mut asked).await {
                Ok(reply) => break reply.unwrap(),
                Err(_) => waiting.push(asked),
            }
        };
        assert_eq!((busy.response_code(), busy.remark.as_deref()), (ResponseCode::SYSTEM_BUSY, Some("busy")));
        *held.free.lock() = true;
        held.freed.notify_all();
        for asked in waiting {
            assert_eq!(asked.await.unwrap().code, 0);
        }
        assert_eq!(ask(1).await.unwrap().code, 0);
        client.shutdown().await;
        server.shutdown(Duration::ZERO).await;
    }
}
