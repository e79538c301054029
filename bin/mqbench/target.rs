//! Whom to load: brokers and queues, from a nameserver's route or as told.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use ferromq_protocol::body::TopicRoute;
use ferromq_protocol::{Command, RequestCode, ResponseCode, TopicName, json};
use ferromq_remoting::{Client, ClientConfig};

use crate::refuse;

/// Patience with a control request. The load itself has its own.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The template topic whose brokers can create others.
const TEMPLATE_TOPIC: &str = "TBW102";

/// How the broker is found.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct Place {
    /// Nameserver addresses, a;b: load all master brokers of the topic
    #[arg(long, short = 'n', value_name = "ADDR")]
    pub namesrv: Option<String>,
    /// Load this broker, without a nameserver
    #[arg(long, short = 'b', value_name = "ADDR")]
    pub broker: Option<String>,
}

/// One broker under load and the queues of the topic there.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub addr: String,
    pub write_queues: u32,
    pub read_queues: u32,
}

/// The control connections of a run, closed with it.
pub struct Control {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Control {
    pub fn new() -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
        Ok(Self { runtime, client: Client::new(ClientConfig::default(), None) })
    }

    /// One request and its reply, whatever its code.
    pub fn ask(&self, addr: &str, request: Command) -> Result<Command> {
        Ok(self.runtime.block_on(self.client.invoke(addr, request, TIMEOUT))?)
    }

    /// The brokers to load. `queues` holds where no route tells how many there are.
    pub fn targets(&self, place: &Place, topic: &str, queues: u32) -> Result<Vec<Target>> {
        if let Some(addr) = &place.broker {
            return Ok(vec![Target { addr: addr.clone(), write_queues: queues, read_queues: queues }]);
        }
        let namesrv = place.namesrv.as_deref().unwrap_or_default();
        let targets = match self.route(namesrv, topic)? {
            Some(route) => targets_of(&route),
            // The first send will create the topic wherever the template topic lives.
            None => match self.route(namesrv, TEMPLATE_TOPIC)? {
                Some(route) => {
                    let mut targets = targets_of(&route);
                    for target in &mut targets {
                        target.write_queues = target.write_queues.min(queues);
                        target.read_queues = target.read_queues.min(queues);
                    }
                    targets
                }
                None => bail!(
                    "topic {topic} does not exist, and no broker creates topics by itself ({TEMPLATE_TOPIC} has no route)"
                ),
            },
        };
        ensure!(!targets.is_empty(), "no master broker serves topic {topic}");
        Ok(targets)
    }

    fn route(&self, namesrv: &str, topic: &str) -> Result<Option<TopicRoute>> {
        let mut problem = None;
        for addr in namesrv.split(';').map(str::trim).filter(|addr| !addr.is_empty()) {
            let request = Command::request(RequestCode::GET_ROUTEINFO_BY_TOPIC, &[("topic", topic)]);
            match self.ask(addr, request) {
                Ok(reply) if reply.response_code() == ResponseCode::SUCCESS => {
                    let route =
                        json::from_slice(&reply.body).with_context(|| format!("unreadable route from {addr}"))?;
                    return Ok(Some(route));
                }
                Ok(reply) if reply.response_code() == ResponseCode::TOPIC_NOT_EXIST => return Ok(None),
                Ok(reply) => bail!("nameserver {addr} answers {}", failure_text(&reply)),
                Err(error) => problem = Some(error),
            }
        }
        match problem {
            Some(error) => Err(error),
            None => refuse("no nameserver address given"),
        }
    }
}

fn targets_of(route: &TopicRoute) -> Vec<Target> {
    let masters: BTreeMap<&str, &str> =
        route.broker_datas.iter().filter_map(|broker| Some((&*broker.broker_name, broker.master()?))).collect();
    route
        .queue_datas
        .iter()
        .filter_map(|queues| {
            Some(Target {
                addr: (*masters.get(&*queues.broker_name)?).to_owned(),
                write_queues: u32::try_from(queues.write_queue_nums).ok()?,
                read_queues: u32::try_from(queues.read_queue_nums).ok()?,
            })
        })
        .collect()
}

/// Code and remark of an answer that is not success, for people.
pub fn failure_text(reply: &Command) -> String {
    format!("code {:?}: {}", reply.response_code(), reply.remark.as_deref().unwrap_or("no remark"))
}

/// A topic or group name that may go into frames as it is.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    match TopicName::from(name).validate() {
        Ok(()) => Ok(()),
        Err(error) => refuse(format!("{what} `{name}`: {error}")),
    }
}
