//! The table of commands, and what every command gets.

use std::future::Future;
use std::pin::Pin;

use ferromq_client::Admin;
use ferromq_protocol::body::ClusterInfo;

use crate::failure::Failure;
use ferromq_config::command_line::{GivenOptions, OptionSpec};

mod broker_status;
mod cleaning;
mod cluster_list;
mod consume_message;
mod consumer_connection;
mod consumer_progress;
mod delete_topic;
mod get_broker_config;
mod ha_status;
mod message_block;
mod query_msg_by_id;
mod query_msg_by_key;
mod query_msg_by_offset;
mod reset_offset_by_time;
mod send_message;
mod topic_list;
mod topic_route;
mod topic_status;
mod update_broker_config;
mod update_sub_group;
mod update_topic;
mod wipe_write_perm;

/// All commands, in the order of Java's help list. A new command is a file and a line here.
pub const COMMANDS: &[Command] = &[
    update_topic::COMMAND,
    delete_topic::COMMAND,
    update_sub_group::COMMAND,
    update_broker_config::COMMAND,
    topic_route::COMMAND,
    topic_status::COMMAND,
    broker_status::COMMAND,
    query_msg_by_id::COMMAND,
    query_msg_by_key::COMMAND,
    query_msg_by_offset::COMMAND,
    consumer_connection::COMMAND,
    consumer_progress::COMMAND,
    cluster_list::COMMAND,
    topic_list::COMMAND,
    wipe_write_perm::COMMAND,
    reset_offset_by_time::COMMAND,
    cleaning::CLEAN_EXPIRED_CQ,
    cleaning::DELETE_EXPIRED_COMMIT_LOG,
    cleaning::CLEAN_UNUSED_TOPIC,
    get_broker_config::COMMAND,
    send_message::COMMAND,
    consume_message::COMMAND,
    ha_status::COMMAND,
];

type CommandFuture<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// One command of the tool.
pub struct Command {
    pub name: &'static str,
    pub description: &'static str,
    /// Without the common ones, in Java's order of declaration.
    pub options: &'static [OptionSpec],
    /// The first stderr line of a failure; `None` prints the bare cause.
    pub failure: Option<&'static str>,
    pub run: for<'a> fn(&'a mut Context) -> CommandFuture<'a>,
}

/// What a command works with.
pub struct Context {
    pub admin: Admin,
    pub given: GivenOptions,
    usage: String,
    output: String,
}

impl Context {
    pub fn new(admin: Admin, given: GivenOptions, usage: String) -> Context {
        Context { admin, given, usage, output: String::new() }
    }

    /// Adds a line to the output.
    pub fn line(&mut self, text: impl AsRef<str>) {
        self.output.push_str(text.as_ref());
        self.output.push('\n');
    }

    /// Adds text without a line end.
    pub fn text(&mut self, text: impl AsRef<str>) {
        self.output.push_str(text.as_ref());
    }

    /// Prints the command's usage, for missing targets that the parser does not enforce.
    pub fn usage(&mut self) {
        self.output.push_str(&self.usage);
    }

    pub fn take_output(&mut self) -> String {
        std::mem::take(&mut self.output)
    }

    /// Prints what has been gathered so far: for commands that repeat.
    pub fn flush(&mut self) {
        let text = self.take_output();
        crate::print(&text);
    }

    /// A value the parser has made sure of.
    pub fn required(&self, option: &OptionSpec) -> String {
        self.given.value(option).expect("the parser has made sure of it").to_owned()
    }

    /// The masters of a cluster, sorted by broker name; an unknown cluster prints Java's remark and gives none. Java: `CommandUtil.fetchMasterAddrByClusterName`.
    pub async fn masters(&mut self, cluster: &str) -> Result<Vec<String>, Failure> {
        let info = self.admin.cluster_info().await?;
        match broker_names(&info, cluster) {
            Some(names) => Ok(names
                .iter()
                .filter_map(|name| info.broker_addr_table.get(name)?.broker_addrs.get(&0).cloned())
                .collect()),
            None => {
                self.text(UNKNOWN_CLUSTER);
                Ok(Vec::new())
            }
        }
    }

    /// Masters and slaves of a cluster, broker by broker.
    pub async fn replicas(&mut self, cluster: &str) -> Result<Vec<String>, Failure> {
        let info = self.admin.cluster_info().await?;
        Ok(replicas_of(&info, cluster).unwrap_or_else(|| {
            self.text(UNKNOWN_CLUSTER);
            Vec::new()
        }))
    }
}

const UNKNOWN_CLUSTER: &str =
    "[error] Make sure the specified clusterName exists or the name server connected to is correct.";

/// Masters and slaves of a cluster, broker by broker.
fn replicas_of(info: &ClusterInfo, cluster: &str) -> Option<Vec<String>> {
    let names = broker_names(info, cluster)?;
    let brokers = names.iter().filter_map(|name| info.broker_addr_table.get(name.as_str()));
    Some(brokers.flat_map(|broker| broker.broker_addrs.values().cloned()).collect())
}

/// The broker names of a cluster, sorted.
pub fn broker_names(info: &ClusterInfo, cluster: &str) -> Option<Vec<String>> {
    let mut names: Vec<String> = info.cluster_addr_table.get(cluster)?.iter().map(ToString::to_string).collect();
    names.sort();
    Some(names)
}
