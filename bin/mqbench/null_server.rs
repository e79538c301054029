//! `mqbench null-server`: the broker's own transport with a handler that stores nothing. What it reaches is the ceiling of any
//! broker on the same sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use ferromq_protocol::body::{BrokerData, QueueData, TopicRoute};
use ferromq_protocol::header::{SendReply, SendRequest};
use ferromq_protocol::message::OffsetMessageId;
use ferromq_protocol::{Command, PhysicalOffset, QueueId, QueueOffset, Reply, RequestCode, ResponseCode};
use ferromq_remoting::{Connection, Outcome, Requests, Server, ServerConfig, Service, Workers};

/// How long connections may take to finish when the server is stopped.
const DRAIN_MAX: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub struct Options {
    /// Address to listen on
    #[arg(long, short, default_value = "127.0.0.1:10911", value_name = "ADDR")]
    listen: SocketAddr,
}

pub fn run(options: Options) -> Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    runtime.block_on(async {
        let server = bind(options.listen).await?;
        println!("null-server listens on {} (process {})", server.local_addr(), std::process::id());
        tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
        server.shutdown(DRAIN_MAX).await;
        Ok(())
    })
}

/// Listens from now on.
async fn bind(listen: SocketAddr) -> Result<Server> {
    let service = Arc::new(StoresNothing { next: AtomicU64::new(0) });
    let workers = Some(Workers::start(0).context("cannot start threads")?);
    Ok(Server::bind(ServerConfig { listen, workers, ..ServerConfig::default() }, service).await?)
}

struct StoresNothing {
    /// The queue offset to answer with.
    next: AtomicU64,
}

impl Service for StoresNothing {
    fn serve(&self, requests: &mut Requests<'_>) {
        requests.each(|connection, request| Outcome::Reply(self.answer(connection, &request)));
    }
}

impl StoresNothing {
    fn answer(&self, connection: &Connection, request: &Command) -> Reply {
        match request.request_code() {
            RequestCode::SEND_MESSAGE | RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE => {
                self.send(connection, request)
            }
            RequestCode::GET_ROUTEINFO_BY_TOPIC => route(connection),
            RequestCode::HEART_BEAT | RequestCode::UNREGISTER_CLIENT => Reply::ok(),
            RequestCode::GET_MIN_OFFSET | RequestCode::GET_MAX_OFFSET => Reply::ok().header([("offset", "0")]),
            other => Reply::error(
                ResponseCode::REQUEST_CODE_NOT_SUPPORTED,
                format!(" request type {} not supported", other.0),
            ),
        }
    }

    fn send(&self, connection: &Connection, request: &Command) -> Reply {
        let host = connection.local_addr();
        match request.header::<SendRequest>() {
            Ok(header) => {
                let queue_offset = QueueOffset(self.next.fetch_add(1, Ordering::Relaxed));
                Reply::ok().header(SendReply {
                    msg_id: OffsetMessageId { host, physical_offset: PhysicalOffset(queue_offset.0) }
                        .to_string()
                        .into(),
                    queue_id: QueueId(u32::try_from(header.queue_id).unwrap_or(0)),
                    queue_offset,
                    ..SendReply::default()
                })
            }
            Err(error) => Reply::error(ResponseCode::SYSTEM_ERROR, error.to_string()),
        }
    }
}

/// Every topic lives here, in four queues.
fn route(connection: &Connection) -> Reply {
    let name = "null-server";
    Reply::ok().json_body(&TopicRoute {
        broker_datas: vec![BrokerData {
            cluster: "null-cluster".into(),
            broker_name: name.into(),
            broker_addrs: [(0, connection.local_addr().to_string())].into_iter().collect(),
            ..BrokerData::default()
        }],
        queue_datas: vec![QueueData {
            broker_name: name.into(),
            read_queue_nums: 4,
            write_queue_nums: 4,
            perm: 6,
            ..QueueData::default()
        }],
        ..TopicRoute::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cli, run_command};
    use clap::Parser as _;

    /// Runs the command line against a null server; `{}` stands for its address.
    fn against_null_server(line: &str) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let server = runtime.block_on(bind(([127, 0, 0, 1], 0).into()))?;
        let line = line.replace("{}", &server.local_addr().to_string());
        let outcome = run_command(Cli::try_parse_from(line.split(' '))?);
        runtime.block_on(server.shutdown(DRAIN_MAX));
        outcome
    }

    #[test]
    fn a_count_of_messages_is_sent_over_several_connections() {
        against_null_server("mqbench producer -b {} -t T --count 1001 -c 3 -i 7 -s 10").expect("sent");
    }

    #[test]
    fn the_route_leads_to_the_broker_and_batches_are_sent() {
        against_null_server("mqbench producer -n {} -t T --count 1001 --batch 4 --json").expect("sent");
    }

    #[test]
    fn a_rate_is_kept_and_the_server_process_sampled() {
        let pid = std::process::id();
        against_null_server(&format!("mqbench producer -b {{}} -t T --rate 10000 --count 500 --pid {pid}"))
            .expect("sent");
    }

    #[test]
    fn many_connections_send_and_others_stay_idle() {
        against_null_server(
            "mqbench producer -b {} -t T --count 1000 -c 300 -i 1 -s 16 --rate 20000 --idle-connections 50",
        )
        .expect("sent");
    }

    #[test]
    fn refusals_name_the_broker_and_its_reason() {
        let error = against_null_server("mqbench consumer -b {} -t T --count 1").expect_err("no pulls here");
        assert!(format!("{error:#}").contains("request type 11 not supported"), "{error:#}");
    }

    #[test]
    fn impossible_arguments_are_told_apart() {
        for line in
            ["mqbench producer -b {} -t bad/topic", "mqbench producer -b {} -s 0", "mqbench consumer -b {} --count 0"]
        {
            let error = against_null_server(line).expect_err("refused");
            assert!(error.is::<crate::BadArguments>(), "{line}: {error:#}");
        }
    }
}
