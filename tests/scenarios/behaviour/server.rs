//! A nameserver and a broker: ours, or Java's if the environment says `FERROMQ_AGAINST=java`.

use crate::cluster::{self, Cluster};
use crate::driver::{Client, Received, java_mqadmin, pull_all};
use crate::java_server::JavaServer;
use crate::process::{await_condition, run};

/// Servers of a scenario, ended with the value.
pub enum Server {
    Ours(Box<Cluster>),
    Java(JavaServer),
}

impl Server {
    /// Waits until both answer. `lines` are added to the broker.conf.
    pub fn start(lines: &[&str]) -> Server {
        match std::env::var("FERROMQ_AGAINST").as_deref() {
            Err(_) | Ok("ferromq") => Server::Ours(Box::new(Cluster::start(lines))),
            Ok("java") => {
                let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
                Server::Java(JavaServer::start(&lines))
            }
            Ok(other) => panic!("FERROMQ_AGAINST is {other}; there are: ferromq java"),
        }
    }

    pub fn is_java(&self) -> bool {
        matches!(self, Server::Java(_))
    }

    pub fn namesrv(&self) -> String {
        match self {
            Server::Ours(cluster) => cluster.namesrv(),
            Server::Java(java) => java.namesrv.clone(),
        }
    }

    pub fn broker_addr(&self) -> String {
        match self {
            Server::Ours(cluster) => cluster.broker.addr(),
            Server::Java(java) => java.broker_addr(),
        }
    }

    /// SIGKILL to the broker, and a new one on the same directory and port.
    pub fn restart_broker_hard(&mut self) {
        match self {
            Server::Ours(cluster) => cluster.broker.restart_hard(),
            Server::Java(java) => java.restart_broker_hard(),
        }
    }

    /// Whether a line of the broker's log satisfies `wanted`.
    pub fn broker_logged(&self, wanted: impl Fn(&str) -> bool) -> bool {
        match self {
            Server::Ours(cluster) => cluster.broker.process.logged(wanted),
            Server::Java(java) => java.broker_log().lines().any(wanted),
        }
    }

    /// Anonymous memory of our broker; Java's heap says nothing.
    pub fn broker_memory_mb(&self) -> Option<u64> {
        let Server::Ours(cluster) = self else { return None };
        let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.broker.process.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes / 1024)
    }

    /// Runs Java's `mqadmin` and gives what it printed.
    pub fn admin(&self, command: &str, options: &[&str]) -> String {
        let namesrv = self.namesrv();
        let mut arguments = vec![command, "-n", &namesrv];
        arguments.extend_from_slice(options);
        let done = run(&mut java_mqadmin(&arguments));
        assert!(done.status.success(), "{arguments:?}\n{}\n{}", done.stdout, done.stderr);
        done.stdout
    }

    pub fn create_topic(&self, topic: &str, queues: u32) {
        cluster::create_topic(&self.namesrv(), topic, queues);
    }

    pub fn update_topic(&self, topic: &str, read_queues: u32, write_queues: u32) {
        cluster::update_topic(&self.namesrv(), topic, read_queues, write_queues);
    }

    pub fn await_route(&self, topic: &str) {
        cluster::await_route(&self.namesrv(), topic);
    }

    /// Waits for a topic that the broker makes by itself, and pulls it from the start until it holds `count` messages.
    pub fn await_pulled(&self, topic: &str, count: usize) -> Vec<Received> {
        self.await_route(topic);
        await_condition(&format!("{count} messages in {topic}"), || {
            let messages = pull_all(Client::Java533, &self.namesrv(), topic);
            (messages.len() >= count).then_some(messages)
        })
    }
}
